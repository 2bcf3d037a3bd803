"""Requests to an upstream: forwarded fields and withheld secrets."""

import openai
import pytest

from rig.gateway import CLIENT_KEY, CLOUD, UPSTREAM_KEY, UPSTREAM_MODEL, Gateway
from rig.receipts import receipt_of
from rig.upstream import FINGERPRINT, MockUpstream, reply_to

LOCAL_ONLY = {"x-wattgate-local-only": "true"}


def messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


@pytest.mark.parametrize("streams", [False, True])
def test_the_upstream_gets_its_own_key_and_never_the_clients(
    client: openai.OpenAI, upstream: MockUpstream, streams: bool
) -> None:
    answer = client.chat.completions.create(
        model=CLOUD,
        messages=messages("Hello"),
        stream=streams,
        extra_headers={"x-api-key": CLIENT_KEY, "cookie": f"session={CLIENT_KEY}"},
    )
    if streams:
        list(answer)
    received = upstream.received[-1]
    assert received.headers["authorization"] == f"Bearer {UPSTREAM_KEY}"
    assert CLIENT_KEY not in str(received)


def test_unknown_fields_pass_in_both_directions(client: openai.OpenAI, upstream: MockUpstream) -> None:
    unknown = {"reasoning_effort": "low", "a_field_of_tomorrow": {"nested": [1, None, "ü"]}}
    answer = client.chat.completions.create(
        model=CLOUD, messages=messages("Hello"), temperature=0.25, extra_body=unknown
    )
    sent = upstream.received[-1].body
    assert unknown.items() <= sent.items()
    assert (sent["model"], sent["temperature"]) == (UPSTREAM_MODEL, 0.25)
    assert sent["messages"] == messages("Hello")
    assert answer.choices[0].message.content == reply_to("Hello")
    assert answer.system_fingerprint == FINGERPRINT


def test_local_only_wins_over_the_policy(client: openai.OpenAI, upstream: MockUpstream) -> None:
    calls = len(upstream.received)
    answer = client.chat.completions.create(
        model="auto/best", messages=messages("Hello"), max_tokens=8, extra_headers=LOCAL_ONLY
    )
    receipt = receipt_of(answer)
    assert receipt["route"] == "local"
    assert {c["model"]: c["excluded"] for c in receipt["candidates"]}[CLOUD] == "local_only"
    assert len(upstream.received) == calls


def test_local_only_fails_closed(client: openai.OpenAI, upstream: MockUpstream) -> None:
    calls = len(upstream.received)
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(
            model=CLOUD, messages=messages("Hello"), max_tokens=8, extra_headers=LOCAL_ONLY
        )
    assert refused.value.status_code >= 400
    assert len(upstream.received) == calls


def test_route_decides_without_any_request(gateway: Gateway, upstream: MockUpstream) -> None:
    calls, before = len(upstream.received), gateway.metrics()
    answer = gateway.post("/v1/route", {"model": "auto/best", "messages": messages("Hello")})
    assert answer.status == 200
    decision = answer.json()
    decision = decision.get("wattgate", decision)
    assert (decision["policy"], decision["model"], decision["route"]) == ("best", CLOUD, "cloud")
    assert decision["reason"]
    for candidate in decision["candidates"]:
        assert 0 <= candidate["p"] <= 1
        assert {"joules", "dollars", "ttft_ms", "excluded"} <= candidate.keys()
    assert len(upstream.received) == calls
    assert gateway.metrics().value("wattgate_attempts_total") == before.value("wattgate_attempts_total")
