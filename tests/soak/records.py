"""Every line of the traffic log, also of files that were rotated or deleted meanwhile.

A file that is to be deleted is held open, so that its last lines can be read afterwards.
"""

import json
from pathlib import Path
from typing import IO

from soak.gateway import Gateway


class Records:
    """What has been written to the log so far."""

    def __init__(self, gateway: Gateway) -> None:
        self.folder = gateway.disk / "traffic"
        self._deleted: list[IO[bytes]] = []
        self._rotated: list[Path] = []

    def files(self) -> list[Path]:
        return sorted(self.folder.glob("*.jsonl"))

    def delete(self, file: Path) -> None:
        """Deletes a file; keeps it open to read it."""
        self._deleted.append(file.open("rb"))
        file.unlink()

    def rotate(self, file: Path) -> None:
        """Moves a file out of the folder."""
        self._rotated.append(self.folder.parent / f"rotated-{len(self._rotated)}")
        file.rename(self._rotated[-1])

    def delete_folder(self) -> None:
        """Takes the folder away at once, then deletes it."""
        aside = self.folder.with_name("aside")
        self.folder.rename(aside)
        for file in aside.glob("*.jsonl"):
            self.delete(file)
        aside.rmdir()

    def read(self) -> tuple[dict[str, dict], int]:
        """The records by id, and the number of other lines. Fails on a line that is not whole, and on a record that
        comes twice, unless one of them is in a deleted file: what was written there in that moment is written again."""
        deleted: dict[str, dict] = {}
        kept: dict[str, dict] = {}
        others: set[bytes] = set()
        for file in self._deleted:
            file.seek(0)
        for records, text in [
            *((deleted, file.read()) for file in self._deleted),
            *((kept, file.read_bytes()) for file in [*self._rotated, *self.files()]),
        ]:
            assert not text or text.endswith(b"\n"), text[-200:]
            for line in text.splitlines():
                parsed = json.loads(line)
                if "kind" in parsed:
                    others.add(line)
                else:
                    assert parsed["request_id"] not in records, parsed["request_id"]
                    records[parsed["request_id"]] = parsed
        return deleted | kept, len(others)
