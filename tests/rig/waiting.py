"""Waits for a condition without a fixed delay."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], seconds: float = 20.0) -> T:
    """Repeats `check` until it raises no AssertionError, for at most `seconds`; returns what it returned."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
