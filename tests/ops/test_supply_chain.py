"""The bill of materials of the shipped binary: valid, complete, and the same at each run."""

import json
import subprocess
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from rig.build import REPOSITORY


def bill(target: Path, *flags: str) -> str:
    subprocess.run([sys.executable, REPOSITORY / "scripts/sbom", target, *flags], check=True, cwd=REPOSITORY)
    return target.read_text()


def crates(*flags: str) -> set[str]:
    """What cargo compiles, but for Wattgate itself."""
    command = ["cargo", "tree", "--locked", "-e", "normal,build", "--prefix", "none", "--format", "{p}", *flags]
    lines = subprocess.run(command, check=True, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return {"@".join(line.split()[:2]).replace("@v", "@") for line in lines if line and not line.startswith("wattgate ")}


def test_the_bill_of_materials_is_valid_complete_and_reproducible(tmp_path: Path) -> None:
    text = bill(tmp_path / "one.json")
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert text == bill(tmp_path / "two.json")
    parsed = json.loads(text)
    components = {component["bom-ref"]: component for component in parsed["components"]}
    assert components.keys() == crates()
    for component in components.values():
        assert component["purl"].startswith("pkg:cargo/"), component
        assert component["licenses"], component
        assert component["hashes"], component
    needs = {needed["ref"]: needed.get("dependsOn", []) for needed in parsed["dependencies"]}
    assert "llama-cpp-sys-2" in {ref.split("@")[0] for ref in needs[parsed["metadata"]["component"]["bom-ref"]]}


def test_features_choose_what_the_bill_of_materials_lists(tmp_path: Path) -> None:
    without = json.loads(bill(tmp_path / "lean.json", "--no-default-features"))
    names = {component["name"] for component in without["components"]}
    assert not any(name.startswith("llama") for name in names)
    assert {component["bom-ref"] for component in without["components"]} == crates("--no-default-features")
