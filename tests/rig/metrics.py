"""Reads a `/metrics` page."""

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text


class Metrics:
    """One scrape. Parsing it is itself a test: the OpenMetrics parser is strict."""

    def __init__(self, text: str, content_type: str) -> None:
        self.text = text
        self.is_openmetrics = content_type.startswith("application/openmetrics-text")
        parse = parse_openmetrics if self.is_openmetrics else parse_text
        self.families: list[Metric] = list(parse(text))

    def names(self) -> set[str]:
        """Every name a query may use: families, and samples with their suffixes."""
        families = {family.name for family in self.families}
        return families | {sample.name for family in self.families for sample in family.samples}

    def value(self, name: str, **labels: str) -> float:
        """Sum over the samples called `name` that carry `labels`; 0 when there is none, as for a new counter."""
        return sum(
            sample.value
            for family in self.families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def samples(self, unix_seconds: int) -> list[str]:
        """Every sample as a line of a history that Prometheus can be filled with."""
        lines = [line.split(" # ")[0] for line in self.text.splitlines() if line and not line.startswith("#")]
        return [f"{line} {unix_seconds}" for line in lines]

    def classic_text(self) -> str:
        """The page in Prometheus' older text format, in which a counter's family carries its suffix too."""
        if not self.is_openmetrics:
            return self.text
        renamed = {}
        for family in self.families:
            if family.type == "counter":
                renamed[family.name] = (f"{family.name}_total", "counter")
            elif family.type == "info":
                renamed[family.name] = (f"{family.name}_info", "gauge")
            elif family.type == "unknown":
                renamed[family.name] = (family.name, "untyped")
        lines = []
        for line in self.text.splitlines():
            word = line.split(" ", 3)
            if word[:2] in (["#", "UNIT"], ["#", "EOF"]):
                continue
            if word[:2] in (["#", "HELP"], ["#", "TYPE"]) and word[2] in renamed:
                name, kind = renamed[word[2]]
                line = " ".join(["#", word[1], name, word[3] if word[1] == "HELP" else kind])
            lines.append(line)
        return "\n".join(lines) + "\n"
