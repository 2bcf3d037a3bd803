"""Records of a request after its answer: the final receipt, the metrics and the traffic log."""

import json

import openai
import pytest

from rig.gateway import CLIENT_KEY, CLOUD, LOCAL, UPSTREAM_KEY, Gateway
from rig.receipts import check_receipt, receipt_of
from rig.waiting import eventually


def ask(client: openai.OpenAI, model: str, prompt: str = "What is two plus two?") -> openai.types.chat.ChatCompletion:
    return client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": prompt}], max_tokens=16
    )


def test_local_energy_settles_after_the_answer(gateway: Gateway, client: openai.OpenAI) -> None:
    provisional = receipt_of(ask(client, LOCAL))
    assert not provisional["energy"]["final"]
    final = gateway.final_receipt(provisional["request_id"])
    check_receipt(final)
    assert final["energy"]["joules"] > 0
    for field in ("request_id", "policy", "route", "model", "reason"):
        assert final[field] == provisional[field]


def test_cloud_energy_is_assumed_and_banded(gateway: Gateway, client: openai.OpenAI) -> None:
    receipt = receipt_of(ask(client, CLOUD))
    energy = gateway.final_receipt(receipt["request_id"])["energy"]
    assert (energy["quality"], energy["source"]) == ("assumed", "cloud_table")
    assert 0 < energy["low"] < energy["joules"] < energy["high"]


def test_an_unknown_request_is_not_found(gateway: Gateway) -> None:
    answer = gateway.get("/v1/requests/no-such-request")
    assert answer.status == 404
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize(("model", "route"), [(LOCAL, "local"), (CLOUD, "cloud")])
def test_metrics_count_a_request(gateway: Gateway, client: openai.OpenAI, model: str, route: str) -> None:
    before = gateway.metrics()
    answer = ask(client, model)
    gateway.final_receipt(receipt_of(answer)["request_id"])

    def grew(name: str, **labels: str) -> float:
        after = gateway.metrics()
        return after.value(name, model=model, route=route, **labels) - before.value(
            name, model=model, route=route, **labels
        )

    def counted() -> None:
        assert grew("wattgate_requests_total", outcome="answered") == 1
        assert grew("wattgate_attempts_total", outcome="answered") == 1
        assert grew("wattgate_request_duration_seconds_count") == 1
        assert grew("wattgate_tokens_total", kind="completion") == answer.usage.completion_tokens
        assert grew("wattgate_request_energy_joules_total", purpose="answer") > 0

    eventually(counted)


def test_metrics_price_a_cloud_request(gateway: Gateway, client: openai.OpenAI) -> None:
    before = gateway.metrics().value("wattgate_cost_dollars_total", model=CLOUD)
    usage = ask(client, CLOUD).usage
    price = usage.prompt_tokens * 0.15e-6 + usage.completion_tokens * 0.60e-6

    def priced() -> None:
        spent = gateway.metrics().value("wattgate_cost_dollars_total", model=CLOUD) - before
        assert spent == pytest.approx(price, rel=1e-6)

    eventually(priced)


def test_each_request_is_one_line_of_the_traffic_log(gateway: Gateway, client: openai.OpenAI) -> None:
    request_id = receipt_of(ask(client, LOCAL))["request_id"]

    def logged() -> None:
        lines = [line for line in gateway.traffic().splitlines() if request_id in line]
        assert len(lines) == 1
        assert json.loads(lines[0])

    eventually(logged, seconds=30)


def test_no_key_and_no_prompt_is_logged(gateway: Gateway, client: openai.OpenAI) -> None:
    secret = "xylophone-marmalade-forty-two"
    for model in (LOCAL, CLOUD):
        receipt = receipt_of(ask(client, model, f"Repeat after me: {secret}"))
        eventually(lambda: _assert_logged(gateway, receipt["request_id"]), seconds=30)
    written = gateway.log() + gateway.traffic() + gateway.metrics().text
    for private in (secret, CLIENT_KEY, UPSTREAM_KEY):
        assert private not in written


def _assert_logged(gateway: Gateway, request_id: str) -> None:
    assert request_id in gateway.traffic()
