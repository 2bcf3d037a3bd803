"""A real Prometheus scrapes a gateway with answers, failures and an engine restart; every panel then has data."""

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest

from rig.dashboard import Query, queries
from rig.gateway import CLOUD, LOCAL, Gateway
from rig.prometheus import CONFIG, Prometheus, program
from rig.receipts import receipt_of
from rig.upstream import MockUpstream
from rig.waiting import eventually


@pytest.fixture(scope="module")
def busy(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway of these tests alone: they kill its engine."""
    with Gateway(tmp_path_factory.mktemp("busy"), upstream.base_url) as gateway:
        traffic(gateway)
        kill_engine(gateway)
        unload(gateway)
        yield gateway


@pytest.fixture(scope="module")
def prometheus(busy: Gateway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Has scraped before and after traffic, so that every rate has data."""
    with Prometheus.scraping(tmp_path_factory.mktemp("prometheus"), busy.address) as prometheus:
        prometheus.wait_for_scrapes(2)
        traffic(busy)
        prometheus.wait_for_scrapes(3)
        yield prometheus


def traffic(gateway: Gateway) -> None:
    """Requests of every kind: both routes, streamed and whole, one that falls back and one that is refused."""
    with gateway.openai() as client:

        def ask(model: str, prompt: str = "Say hello.", stream: bool = False) -> dict:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": prompt}], max_tokens=12, stream=stream
            )
            return receipt_of(list(answer)[-1] if stream else answer)

        receipts = [ask(model, stream=stream) for model in (LOCAL, CLOUD, "auto") for stream in (False, True)]
        receipts.append(ask("auto/best", "play 500 Say hello."))
        with pytest.raises(openai.NotFoundError):
            ask("no-such-model")
    for receipt in receipts:
        gateway.final_receipt(receipt["request_id"])
        for verdict in ("good", "bad", "good"):
            answer = gateway.post("/v1/feedback", {"request_id": receipt["request_id"], "verdict": verdict})
            assert answer.status == 200, answer.text
    # Enough decisions for the drift metric.
    for _ in range(110):
        question = {"model": "auto", "messages": [{"role": "user", "content": "Say hello."}]}
        assert gateway.post("/v1/route", question).status == 200


def kill_engine(gateway: Gateway) -> None:
    """Kills the engine process of the local model and waits until it has restarted."""
    (engine,) = gateway.process.children()
    os.kill(engine, signal.SIGKILL)

    def restarted() -> None:
        assert gateway.metrics().value("wattgate_engine_restarts_total", model=LOCAL) >= 1
        assert gateway.metrics().value("wattgate_model_ready", model=LOCAL) == 1

    eventually(restarted, seconds=60)


def unload(gateway: Gateway) -> None:
    """Unloads the local model; the next request loads it again."""
    answer = gateway.post(f"/admin/models/{LOCAL}/unload", {})
    assert answer.status == 200, answer.text
    assert answer.json()["state"] == "unloaded"


@pytest.mark.parametrize("query", queries(), ids=str)
def test_every_panel_has_data(prometheus: Prometheus, query: Query) -> None:
    assert prometheus.values(query.expression), f"no data for: {query.expression}"


def test_every_metric_of_the_dashboard_is_exported(busy: Gateway) -> None:
    named = set().union(*(query.metrics() for query in queries()))
    assert named <= busy.metrics().names()


def test_the_dashboards_variables_have_values(prometheus: Prometheus) -> None:
    for label, values in {"model": {LOCAL, CLOUD}, "route": {"local", "cloud"}}.items():
        assert set(prometheus.get(f"label/{label}/values", **{"match[]": "wattgate_model_ready"})) == values


def test_energy_is_conserved_in_prometheus(prometheus: Prometheus) -> None:
    errors = prometheus.values("max_over_time(wattgate_energy_conservation_error_joules[5m])")
    assert errors and set(errors) == {0.0}


def test_promtool_accepts_the_scrape_configuration() -> None:
    promtool("check", "config", str(CONFIG))


def test_promtool_finds_nothing_wrong_with_the_metrics(busy: Gateway) -> None:
    promtool("check", "metrics", text=busy.metrics().classic_text())


def promtool(*arguments: str, text: str = "") -> None:
    result = subprocess.run([program("promtool"), *arguments], input=text, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
