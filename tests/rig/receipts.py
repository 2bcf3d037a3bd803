"""Checks that hold for every receipt."""

from typing import Any

QUALITIES = {"measured", "calibrated", "estimated", "assumed"}


def receipt_of(answer: Any) -> dict[str, Any]:
    """The checked receipt of a completion of the `openai` client."""
    receipt = (answer.model_extra or {})["wattgate"]
    check_receipt(receipt)
    return receipt


def check_receipt(receipt: dict[str, Any]) -> None:
    """Checks that every field is present and consistent with the others."""
    assert receipt["request_id"] and receipt["policy"] and receipt["reason"]
    assert receipt["route"] in {"local", "cloud"}
    by_model = {candidate["model"]: candidate for candidate in receipt["candidates"]}
    chosen = by_model[receipt["model"]]
    assert (chosen["route"] if "route" in chosen else receipt["route"]) == receipt["route"]
    for candidate in by_model.values():
        assert 0 <= candidate["p"] <= 1
        assert {"joules", "dollars", "ttft_ms", "excluded"} <= candidate.keys()
    last = receipt["attempts"][-1]
    assert (last["model"], last["outcome"]) == (receipt["model"], "answered")
    check_energy(receipt["energy"])


def check_energy(energy: dict[str, Any]) -> None:
    """Checks that a figure is inside its band and has a quality and a source; unknown is null, not zero."""
    assert energy["quality"] in QUALITIES
    assert energy["source"]
    assert isinstance(energy["final"], bool)
    if energy["joules"] is not None:
        assert 0 <= energy["low"] <= energy["joules"] <= energy["high"]
