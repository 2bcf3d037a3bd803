"""Finds what cargo built."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def program(name: str) -> Path:
    """A program in the release folder: `wattgate` from `make build`, examples from `cargo test`."""
    path = REPOSITORY / os.environ.get("CARGO_TARGET_DIR", "target") / "release" / name
    assert path.exists(), f"{path} is missing: run `cargo build --release --bins --examples`, or `make test` for everything"
    return path
