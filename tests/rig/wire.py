"""Bodies of requests and answers as they are on the wire, without a client library between."""

import json
from collections.abc import Callable
from typing import Any

from rig.gateway import LOCAL, Answer

Ask = Callable[..., Any]


def chat(prompt: str = "Say hello.", **more: Any) -> dict[str, Any]:
    """The body of a short greedy conversation with the local model."""
    body = {"model": LOCAL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 12, "temperature": 0}
    return body | more


def chunks_of(answer: Answer) -> list[dict[str, Any]]:
    """The objects of a stream that ended as it should."""
    assert answer.status == 200, answer.text
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert data[-1] == "[DONE]", answer.text
    return [json.loads(line) for line in data[:-1]]
