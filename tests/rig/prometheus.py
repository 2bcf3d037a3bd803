"""Runs the real Prometheus of this machine with the shipped scrape configuration, aimed at one gateway."""

import json
import math
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from rig.build import REPOSITORY
from rig.waiting import eventually

CONFIG = REPOSITORY / "deploy/prometheus/prometheus.yml"


class Prometheus:
    """A context manager; scrapes every second instead of the shipped interval, and keeps all in `home`."""

    def __init__(self, home: Path, target: str) -> None:
        self._home = home
        self._config = home / "prometheus.yml"
        self._config.write_text(_replaced(_replaced(CONFIG.read_text(), "wattgate:8080", target), "5s", "1s"))
        self._address = f"127.0.0.1:{_free_port()}"

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
        """The `data` of an API answer."""
        url = f"http://{self._address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def values(self, expression: str) -> list[float]:
        """Value of each series that an instant query returns, without those that are not a number."""
        series = self.get("query", query=expression)["result"]
        values = [float(one["value"][1]) for one in series]
        return [value for value in values if not math.isnan(value)]

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


def _replaced(text: str, old: str, new: str) -> str:
    assert text.count(f"{old}\n") + text.count(f'"{old}"') == 1, f"{CONFIG} should say {old} once"
    return text.replace(f'"{old}"', f'"{new}"').replace(f"{old}\n", f"{new}\n")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
