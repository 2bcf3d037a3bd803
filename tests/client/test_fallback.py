"""Upstreams that fail or are unreachable. Each test has its own gateway, so that no breaker state is shared."""

import socket
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from rig.gateway import CLOUD, LOCAL, UPSTREAM_KEY, UPSTREAM_KEY_VARIABLE, Gateway, candidate
from rig.receipts import receipt_of
from rig.upstream import CUT, FAILING_STATUS, GARBAGE, MockUpstream


@pytest.fixture
def fresh(upstream: MockUpstream, tmp_path: Path) -> Iterator[Gateway]:
    with Gateway(tmp_path, upstream.base_url) as gateway:
        yield gateway


def messages(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{prompt} Say hello."}]


def assert_local_answers(gateway: Gateway, prompt: str, streams: bool) -> None:
    """The best model is in the cloud and fails; the local one answers, and the receipt has both attempts."""
    with gateway.openai() as client:
        answer = client.chat.completions.create(
            model="auto/best", messages=messages(prompt), max_tokens=8, stream=streams
        )
        receipt = receipt_of(list(answer)[-1] if streams else answer)
    assert (receipt["model"], receipt["route"]) == (LOCAL, "local")
    first, last = receipt["attempts"]
    assert first["model"] == CLOUD and first["outcome"] != "answered"
    assert last["model"] == LOCAL and last["outcome"] == "answered"


@pytest.mark.parametrize("marker", [*FAILING_STATUS, GARBAGE])
@pytest.mark.parametrize("streams", [False, True])
def test_the_local_model_answers_when_the_cloud_fails(fresh: Gateway, marker: str, streams: bool) -> None:
    assert_local_answers(fresh, marker, streams)


@pytest.mark.parametrize("marker", [*FAILING_STATUS, GARBAGE])
def test_a_failing_upstream_requested_by_name_is_a_gateway_error(fresh: Gateway, marker: str) -> None:
    with fresh.openai() as client, pytest.raises(openai.APIStatusError) as failure:
        client.chat.completions.create(model=CLOUD, messages=messages(marker))
    # The client's own key is valid, so 401 would be wrong; an upstream's rate limit may be passed on.
    assert failure.value.status_code >= 500 or failure.value.status_code == 429
    assert failure.value.body["message"]
    assert UPSTREAM_KEY not in failure.value.response.text


def test_the_local_model_answers_when_the_cloud_is_unreachable(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        # Bound but not listening: the port refuses connections and no other process can take it.
        with Gateway(tmp_path, f"http://127.0.0.1:{closed.getsockname()[1]}/v1") as gateway:
            assert_local_answers(gateway, "Hello.", streams=False)


def test_a_stream_cut_by_the_upstream_ends_with_an_error(fresh: Gateway) -> None:
    received = []
    with fresh.openai() as client, pytest.raises(openai.APIError) as failure:
        for chunk in client.chat.completions.create(model=CLOUD, messages=messages(CUT), stream=True):
            received.append(chunk)
    assert received, "the first chunks should have come through"
    assert failure.value.message
    assert fresh.get("/healthz").status == 200


def test_without_its_key_the_cloud_model_is_excluded_with_a_log_line(upstream: MockUpstream, tmp_path: Path) -> None:
    with Gateway(tmp_path, upstream.base_url, upstream_key=None) as gateway:
        assert UPSTREAM_KEY_VARIABLE in gateway.log()
        with gateway.openai() as client:
            answer = client.chat.completions.create(
                model="auto/best", messages=messages("Hello."), max_tokens=8
            )
    receipt = receipt_of(answer)
    assert receipt["model"] == LOCAL
    assert candidate(receipt, CLOUD)["excluded"] == "no_api_key"
