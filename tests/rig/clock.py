"""A wall clock that a test sets for one process, by a preloaded library: the machine's own needs root."""

import os
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock_step.c")


class SteppedClock:
    """The clock of every process that is started with `environment`; steps reach it at once."""

    def __init__(self, home: Path) -> None:
        """Compiles the library into `home`."""
        self._library = home / "clock_step.so"
        self._file = home / "clock"
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", self._library, SOURCE, "-ldl"]
        subprocess.run(command, check=True)
        self.step_to(0)

    def step_to(self, seconds: int) -> None:
        """Sets it this far from the machine's."""
        # In place: the process has the file mapped.
        descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, struct.pack("=q", seconds), 0)
        finally:
            os.close(descriptor)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_PRELOAD": str(self._library), "WATTGATE_TEST_CLOCK": str(self._file)}
