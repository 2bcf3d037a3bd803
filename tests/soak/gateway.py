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
from rig.clock import SteppedClock
from rig.metrics import Metrics
from rig.process import ServeProcess

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
# Full long before memory is judged.
[sessions]
remember = 1000
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
        self.clock = SteppedClock(home)
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
        environment = {**os.environ, **self.clock.environment}
        self.process = ServeProcess(command, self._log, cwd=self.home, environment=environment)
        self.port = self.process.port
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop(seconds=0)

    def stop(self) -> int:
        """Ends it by SIGTERM; returns the exit code."""
        return self.process.stop(seconds=60)

    def log(self) -> str:
        return self.process.log()

    @property
    def disk(self) -> Path:
        """The disk as the gateway sees it."""
        root = Path(f"/proc/{self.process.pid}/root")
        return (root / self.home.relative_to("/") if self.has_disk else self.home) / "disk"

    def rss_kib(self) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1])

    async def metrics(self) -> Metrics:
        reply = await exchange(self.port, "/metrics")
        assert reply.status == 200, reply
        return Metrics(reply.body.decode(), reply.headers["content-type"])

    def send(self, which: signal.Signals) -> None:
        self.process.send(which)

    def send_to_engine(self, which: signal.Signals) -> None:
        """Signals one engine, if there is one just now."""
        for pid in self.process.children()[:1]:
            with suppress(ProcessLookupError):
                os.kill(pid, which)
