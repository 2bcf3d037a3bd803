"""Runs the real Prometheus of this machine with the shipped scrape configuration, aimed at one gateway."""

import json
import math
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from rig.build import REPOSITORY
from rig.metrics import Metrics
from rig.waiting import eventually

CONFIG = REPOSITORY / "deploy/prometheus/prometheus.yml"


class Prometheus:
    """A context manager that keeps all its files in `home`."""

    def __init__(self, home: Path, config: str, now: float | None = None) -> None:
        self._home = home
        self._config = home / "prometheus.yml"
        self._config.write_text(config)
        self._now = {} if now is None else {"time": str(now)}
        self._address = f"127.0.0.1:{_free_port()}"

    @classmethod
    def scraping(cls, home: Path, target: str) -> "Prometheus":
        """With the shipped configuration, but every second."""
        return cls(home, _replaced(_replaced(CONFIG.read_text(), "wattgate:8080", target), "5s", "1s"))

    @classmethod
    def holding(cls, home: Path, before: Metrics, after: Metrics) -> "Prometheus":
        """Scrapes nothing; `before` was read a day and `after` an instant before each query.

        `increase` extrapolates by the times of the samples. Here they are the same for every series, whatever the speed
        of the machine.
        """
        now = int(time.time()) - 60
        begin = now - 24 * 60 * 60 + 1
        lines = [line for metrics, at in ((before, begin), (before, now - 60), (after, now)) for line in metrics.samples(at)]
        history = home / "history.txt"
        history.write_text("\n".join(sorted(lines, key=_series)) + "\n# EOF\n")
        subprocess.run(
            [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", history, home / "tsdb"],
            check=True,
            capture_output=True,
        )
        return cls(home, "scrape_configs: []\n", now)

    def __enter__(self) -> "Prometheus":
        command = [
            program("prometheus"),
            f"--config.file={self._config}",
            f"--storage.tsdb.path={self._home / 'tsdb'}",
            f"--web.listen-address={self._address}",
        ]
        with (self._home / "prometheus.log").open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()

    def get(self, path: str, **parameters: str) -> Any:
        """The `data` field of an API answer."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, expression: str) -> list[Any]:
        """Series that an instant query returns."""
        return self.get("query", query=expression, **self._now)["result"]

    def values(self, expression: str) -> list[float]:
        """Value of each series that an instant query returns, without those that are not a number."""
        values = [float(one["value"][1]) for one in self.query(expression)]
        return [value for value in values if not math.isnan(value)]

    def wait_until_ready(self) -> None:
        """Until it answers queries."""

        def ready() -> None:
            try:
                self.query("vector(1)")
            except OSError as error:
                raise AssertionError(f"not ready; see {self._home}/prometheus.log") from error

        eventually(ready, seconds=60)

    def wait_for_scrapes(self, count: int) -> None:
        """Until `count` more scrapes have succeeded."""
        until = self._scrapes() + count

        def scraped() -> None:
            assert self._scrapes() >= until, f"too few scrapes; see {self._home}/prometheus.log"

        eventually(scraped, seconds=60)

    def _scrapes(self) -> float:
        try:
            return sum(self.values('sum_over_time(up{job="wattgate"}[1h])'))
        except OSError:
            # Not listening yet.
            return 0


def program(name: str) -> str:
    """Path of a program that `scripts/setup test` provides."""
    path = shutil.which(name)
    assert path, f"{name} is missing: `make test` provides it"
    return path


def _series(line: str) -> str:
    """A sample without its value and time: backfilling requires the samples of a series together, in order of time."""
    return line.rsplit(" ", 2)[0]


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(f"{old}\n") + text.count(f'"{old}"') == 1, f"{CONFIG} should say {old} once"
    return text.replace(f'"{old}"', f'"{new}"').replace(f"{old}\n", f"{new}\n")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
