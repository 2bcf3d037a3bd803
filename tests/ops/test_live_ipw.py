"""The documented PromQL on a real Prometheus equals the figures computed from the gateway's own records."""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest

from rig.build import REPOSITORY
from rig.gateway import CLOUD, LOCAL, Gateway, candidate
from rig.prometheus import Prometheus
from rig.receipts import receipt_of
from rig.upstream import MockUpstream

Labels = tuple[str, str, str, str]

# Requested model or policy, the verdict, and a second verdict that replaces it.
QUESTIONS = [
    (LOCAL, 1.0, None),
    (LOCAL, 0.25, None),
    (LOCAL, 1.0, 0.5),
    (CLOUD, 1.0, None),
    (CLOUD, 0.0, None),
    ("auto/best", 0.75, None),
    ("auto/cheap", 1.0, None),
]


@pytest.fixture(scope="module")
def measured(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Prometheus, list[dict]]]:
    """A gateway and a Prometheus that knows its metrics before and after some questions, with the records of these."""
    with Gateway(tmp_path_factory.mktemp("live"), upstream.base_url) as gateway:
        # An increase needs a sample before it, so the first questions are not in it.
        ask_and_judge(gateway)
        before = gateway.metrics()
        records = ask_and_judge(gateway)
        with Prometheus.holding(tmp_path_factory.mktemp("prometheus"), before, gateway.metrics()) as prometheus:
            prometheus.wait_until_ready()
            yield gateway, prometheus, records


def ask_and_judge(gateway: Gateway) -> list[dict]:
    """Sends all questions and returns the records, each with its last score."""
    records = []
    with gateway.openai() as client:
        for model, *verdicts in QUESTIONS:
            answer = client.chat.completions.create(
                model=model, messages=[{"role": "user", "content": "Name a colour."}], max_tokens=8
            )
            request_id = receipt_of(answer)["request_id"]
            gateway.final_receipt(request_id)
            for score in verdicts:
                if score is not None:
                    said = gateway.post("/v1/feedback", {"request_id": request_id, "score": score, "source": "exact_match"})
                    assert said.status == 200, said.text
            record = gateway.get(f"/v1/requests/{request_id}").json()
            records.append(record | {"score": [score for score in verdicts if score is not None][-1]})
    return records


def labels_of(record: dict[str, Any]) -> Labels:
    return record["model"], record["policy"], record["route"], record["energy"]["quality"]


def by_hand(records: list[dict], cost: Any) -> dict[Labels, float]:
    """Sum of scores divided by sum of costs: the ratio of the means."""
    scores: defaultdict[Labels, float] = defaultdict(float)
    costs: defaultdict[Labels, float] = defaultdict(float)
    for record in records:
        scores[labels_of(record)] += record["score"]
        costs[labels_of(record)] += cost(record)
    return {labels: scores[labels] / costs[labels] for labels in scores}


def joules(record: dict[str, Any]) -> float:
    return record["energy"]["joules"]


def watts(record: dict[str, Any]) -> float:
    return joules(record) / (record["timings"]["total_ms"] / 1e3)


@pytest.mark.parametrize(("place", "cost"), [(0, joules), (1, watts)], ids=["per joule", "per watt"])
def test_the_documented_query_equals_the_sum_of_the_records(measured: Any, place: int, cost: Any) -> None:
    _, prometheus, records = measured
    query = re.findall(r"```promql\n(.*?)```", (REPOSITORY / "docs" / "routing.md").read_text(), re.DOTALL)[place]
    found = {
        tuple(series["metric"][name] for name in ("model", "policy", "route", "quality")): float(series["value"][1])
        for series in prometheus.query(query)
    }
    expected = by_hand(records, cost)
    assert len(expected) >= 4, "models, policies and routes are told apart"
    assert found == pytest.approx(expected, rel=1e-6)


def test_the_error_of_predicted_energy_is_counted_for_each_answer(measured: Any) -> None:
    gateway, prometheus, records = measured
    ratios = [
        record["attempts"][-1]["joules"] / candidate(record, LOCAL)["joules"] for record in records if record["model"] == LOCAL
    ]
    increase = "increase(wattgate_energy_prediction_ratio_{}[1d])"
    (mean,) = prometheus.values(f"{increase.format('sum')} / {increase.format('count')}")
    assert mean == pytest.approx(sum(ratios) / len(ratios), rel=1e-6)
    assert gateway.metrics().value("wattgate_energy_prediction_ratio_count", model=LOCAL) == 2 * len(ratios)
