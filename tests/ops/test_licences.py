"""Nothing copyleft is linked: every crate of the binary has a licence that deny.toml allows."""

import json
import re
import subprocess
import tomllib
from typing import Any

from rig.gateway import REPOSITORY


def test_every_linked_crate_has_an_allowed_licence() -> None:
    rules = tomllib.loads((REPOSITORY / "deny.toml").read_text())
    for target in rules["graph"]["targets"]:
        for package in linked_packages(target):
            exceptions = [one["allow"] for one in rules["licenses"].get("exceptions", []) if one["crate"] == package["name"]]
            allowed = set(rules["licenses"]["allow"]).union(*exceptions)
            licence = package["license"] or "none-stated"
            assert permits(licence, allowed), f"{package['name']} {package['version']}: {licence}"


def linked_packages(target: str) -> list[dict[str, Any]]:
    """Packages reached over normal dependencies: what builds or tests Wattgate is not shipped with it."""
    command = ["cargo", "metadata", "--format-version=1", "--locked", f"--filter-platform={target}"]
    output = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True).stdout
    metadata = json.loads(output)
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    reached, open_ids = set(), [metadata["resolve"]["root"]]
    while open_ids:
        one = open_ids.pop()
        if one in reached:
            continue
        reached.add(one)
        for dependency in nodes[one]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                open_ids.append(dependency["pkg"])
    return [package for package in metadata["packages"] if package["id"] in reached]


def permits(expression: str, allowed: set[str]) -> bool:
    """Whether an SPDX expression can be met with `allowed` licences; the old `A/B` means `A OR B`."""
    words = re.findall(r"[()]|[^\s()]+(?: WITH [^\s()]+)?", expression.replace("/", " OR "))
    spoken = {"(": "(", ")": ")", "AND": "and", "OR": "or"}
    # Only brackets, and, or, True and False are left, so this evaluates nothing but logic.
    return eval(" ".join(spoken.get(word, str(word in allowed)) for word in words))  # noqa: S307


def test_the_rule_itself() -> None:
    allowed = {"MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"}
    assert permits("MIT/GPL-3.0", allowed)
    assert permits("(GPL-2.0 OR Apache-2.0 WITH LLVM-exception) AND MIT", allowed)
    assert not permits("MIT AND GPL-3.0", allowed)
    assert not permits("MPL-2.0", allowed)
    assert not permits("none-stated", allowed)
