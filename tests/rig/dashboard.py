"""Reads the shipped Grafana dashboard as Grafana would: its panels, and their queries with the variables filled in."""

import json
import re
from dataclasses import dataclass
from typing import Any

from rig.build import REPOSITORY

PATH = REPOSITORY / "deploy/grafana/dashboards/wattgate.json"

# Values that Grafana substitutes for the variables when "All" is selected and five minutes are shown.
VARIABLES = {"$__rate_interval": "5m", "$__range": "5m", "$model": ".*", "$route": ".*"}


@dataclass(frozen=True)
class Query:
    panel: str
    ref: str
    expression: str

    def __str__(self) -> str:
        return f"{self.panel} {self.ref}"

    def metrics(self) -> set[str]:
        return set(re.findall(r"\bwattgate_\w+", self.expression))


def dashboard() -> dict[str, Any]:
    return json.loads(PATH.read_text())


def panels() -> list[dict[str, Any]]:
    """Those that show data: rows are only headings."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> list[Query]:
    return [
        Query(panel["title"], target["refId"], _filled(target["expr"])) for panel in panels() for target in panel["targets"]
    ]


def _filled(expression: str) -> str:
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"a variable is left in {expression}"
    return expression
