"""Fixtures of the peer tests, which ask for what clients of other local servers rely on.

Every case is written for Wattgate; what is expected follows OpenAI's API where it says something.
"""

from typing import Any

import pytest

from rig.gateway import Gateway
from rig.wire import Ask, chunks_of


@pytest.fixture
def ask(gateway: Gateway) -> Ask:
    """Posts a body; returns the object of the answer, or its chunks if it is streamed."""

    def ask(body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
        answer = gateway.post(path, body)
        assert answer.status == 200, answer.text
        return chunks_of(answer) if body.get("stream") else answer.json()

    return ask


@pytest.fixture
def refused(gateway: Gateway) -> Ask:
    """Posts a body that must be refused; returns the error object."""

    def refused(body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
        answer = gateway.post(path, body)
        assert answer.status == 400, answer.text
        error = answer.json()["error"]
        assert error["type"] == "invalid_request_error"
        return error

    return refused
