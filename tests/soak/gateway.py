"""`wattgate serve` of the release binary with two fake local models and a cloud model, its log on a disk of its own.

It must not send chats: that is the load's.
"""

import os
import re
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from rig.build import program
from rig.metrics import Metrics
from rig.waiting import eventually

from soak.exchange import exchange

SLOTS = 4
WORDS = 20

SCRIPT = """
load_ms = 50
step_ms = 15
[default]
text = "{words}"
[[answers]]
when = "long"
text = "{many}"
"""

CONFIG = """
[server]
idle_timeout_ms = 5000
body_timeout_ms = 5000
write_timeout_ms = 4000
[traffic]
dir = "disk/traffic"
prompts = "full"
[models.near]
ability = -2.5
[models.near.llama]
source = "file:near.fake.toml"
slots = {slots}
queue = 16
hang_timeout_ms = 2000
first_token_timeout_ms = 10000
[models.spare]
ability = -2.0
[models.spare.llama]
source = "file:spare.fake.toml"
slots = {slots}
queue = 16
load = "on_demand"
hang_timeout_ms = 2000
[models.far]
ability = 2.0
[models.far.openai]
base_url = "{upstream}"
model = "m"
energy_class = "small"
dollars_per_million_input_tokens = 1.0
dollars_per_million_output_tokens = 2.0
first_byte_timeout_ms = 2000
idle_timeout_ms = 2000
connect_timeout_ms = 1000
answer_timeout_ms = 8000
"""


class Gateway:
    """One process; `with`. Where the machine allows no mount, the disk is a folder and never full."""

    def __init__(self, home: Path, upstream: str) -> None:
        self.home = home
        self._log = home / "gateway.log"
        (home / "disk").mkdir()
        (home / "config.toml").write_text(CONFIG.format(slots=SLOTS, upstream=upstream))
        script = SCRIPT.format(words="word " * WORDS, many="word " * 800)
        for model in ("near", "spare"):
            (home / f"{model}.fake.toml").write_text(script)
        mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
        self.has_disk = subprocess.run(mount, stderr=subprocess.DEVNULL, check=False).returncode == 0

    def __enter__(self) -> "Gateway":
        serve = f"exec {program('wattgate')} serve --listen 127.0.0.1:0"
        command = ["sh", "-c", serve]
        if self.has_disk:
            command = ["unshare", "-rm", "sh", "-c", f"mount -t tmpfs -o size=512m,mode=700 none disk && {serve}"]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, cwd=self.home, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.port = eventually(self._announced_port, seconds=30)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def stop(self) -> int:
        """Ends it by SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def _announced_port(self) -> int:
        assert self.process.poll() is None, self.log()
        announced = re.search(r"listening on http://127\.0\.0\.1:(\d+)", self.log())
        assert announced, self.log()
        return int(announced[1])

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    @property
    def disk(self) -> Path:
        """The disk as the gateway sees it."""
        root = Path(f"/proc/{self.process.pid}/root")
        return (root / self.home.relative_to("/") if self.has_disk else self.home) / "disk"

    def engines(self) -> list[int]:
        """Processes of its engines."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(pid) for task in tasks for pid in task.read_text().split()]

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    async def metrics(self) -> Metrics:
        reply = await exchange(self.port, "/metrics")
        assert reply.status == 200, reply
        return Metrics(reply.body.decode(), reply.headers["content-type"])

    def send(self, which: signal.Signals) -> None:
        self.process.send_signal(which)

    def send_to_engine(self, which: signal.Signals) -> None:
        """Signals one engine, if there is one just now."""
        for pid in self.engines()[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, which)
