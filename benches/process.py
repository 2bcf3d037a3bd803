"""A server of a benchmark: the process that was started, those below it, and what they use. Linux only."""

import contextlib
import os
import pathlib
import subprocess
import time


class Process:
    """A started command, which writes to `log`."""

    def __init__(self, name, command, log, environment=None):
        self.name, self.log = name, pathlib.Path(log)
        with self.log.open("wb") as output:
            environment = {**os.environ, **(environment or {})}
            self.process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)

    def wait_until(self, is_ready, seconds):
        """Until `is_ready` returns true; an error of the connection means not yet."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self.fail(f"ended with status {self.process.returncode} before it was ready")
            with contextlib.suppress(OSError):
                if is_ready():
                    return
            time.sleep(0.1)
        self.fail(f"was not ready within {seconds} s")

    def fail(self, what):
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"{self.name} {what}. The end of its log:\n{tail}")

    def processes(self):
        found, new = [], [self.process.pid]
        while new:
            found += new
            # A child belongs to the thread that started it.
            below = [child for pid in new for child in pathlib.Path(f"/proc/{pid}/task").glob("*/children")]
            new = [int(pid) for children in below for pid in read(children).split()]
        return found

    def cpu_s(self):
        stats = (stat for pid in self.processes() for stat in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"))
        return sum(int((read(stat).split() or [0])[0]) for stat in stats) / 1e9

    def rss_mib(self):
        lines = (line for pid in self.processes() for line in read(pathlib.Path(f"/proc/{pid}/status")).splitlines())
        return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024

    def stop(self):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        self.process.kill()
        self.process.wait()


def read(path):
    """A file of /proc; empty if its process or thread has ended."""
    with contextlib.suppress(OSError):
        return path.read_text()
    return ""
