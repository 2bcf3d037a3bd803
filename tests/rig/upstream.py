"""Starts the mock upstream of the Rust tests (`tests/it/rig/mock_upstream.rs`) and reads what it received.

A prompt that begins with `play` and one of the words below makes it fail that way.
"""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

from rig.build import program

FINGERPRINT = "fp_mock"

FAILING_STATUS = ["play 401", "play 429", "play 500"]
GARBAGE = "play html"
CUT = "play cut-mid"


@dataclass
class Received:
    """One request as it came over the wire; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class MockUpstream:
    """The running mock; a context manager."""

    def __enter__(self) -> "MockUpstream":
        self._process = subprocess.Popen(
            [program("examples/mock_upstream")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.base_url = self._line()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stdin.close()
        self._process.wait(timeout=20)
        self._process.stdout.close()

    @property
    def received(self) -> list[Received]:
        """Every request so far, in order of arrival."""
        self._process.stdin.write("\n")
        return [Received(**request) for request in json.loads(self._line())]

    def _line(self) -> str:
        line = self._process.stdout.readline().strip()
        assert line, "the mock upstream has ended"
        return line


def reply_to(prompt: str) -> str:
    """The text of a correct answer."""
    return f"Grüße ☁ you said: {prompt}"


def words(prompt: str) -> list[str]:
    """The same in the pieces it is streamed in."""
    *words, last = reply_to(prompt).split(" ")
    return [f"{word} " for word in words] + [last]


def prompt_tokens(prompt: str) -> int:
    """What the mock counts for the last message."""
    return len(prompt.split())
