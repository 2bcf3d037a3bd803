"""One `wattgate serve` as a process: started, its port read from its output, stopped.

It must not know what is asked of it.
"""

import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from rig.waiting import eventually


class ServeProcess:
    """A running process, which writes to `log`."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
        seconds: float = 30,
    ) -> None:
        """Returns once it says where it listens, within `seconds`."""
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=output, stdin=subprocess.DEVNULL, cwd=cwd, env=environment
            )
        try:
            self.port = eventually(self._announced_port, seconds=seconds)
        except BaseException as error:
            error.add_note(f"The gateway's log:\n{self.log()}")
            self.stop()
            raise

    def _announced_port(self) -> int:
        if self._process.poll() is not None:
            raise RuntimeError(f"the gateway ended with {self._process.returncode} before it listened")
        announced = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log())
        assert announced, "the gateway has not said where it listens"
        return int(announced[1])

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self) -> str:
        """Its output."""
        return self._log.read_text(errors="replace")

    def send(self, which: signal.Signals) -> None:
        self._process.send_signal(which)

    def stop(self, seconds: float = 20) -> int:
        """Ends it by SIGTERM, or by SIGKILL if that takes too long; returns the exit code."""
        if self._process.poll() is None:
            self.send(signal.SIGTERM)
        try:
            return self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def children(self) -> list[int]:
        """Processes that it started."""
        # A child belongs to the thread that started it.
        tasks = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]


def plain_environment() -> dict[str, str]:
    """Without what the developer's own could change: no real key, no proxy."""
    return {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
