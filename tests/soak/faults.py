"""The faults of the soak, each of a few seconds. None may need root or touch another process."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

from soak.exchange import request
from soak.gateway import Gateway
from soak.load import CHATS, Load, chat
from soak.records import Records
from soak.upstream import Mood, Upstream

FLOOD = 300
CROWD = 60


class Faults:
    """Everything that can go wrong here, in turn."""

    def __init__(self, gateway: Gateway, upstream: Upstream, load: Load, records: Records) -> None:
        self._gateway, self._upstream, self._load, self._records = gateway, upstream, load, records
        faults = [
            self.engine_is_killed,
            self.engine_is_stopped,
            self.upstream_resets,
            self.upstream_resets_midway,
            self.upstream_is_silent,
            self.upstream_fails,
            self.log_is_deleted,
            self.log_folder_is_deleted,
            self.log_is_rotated,
            self.log_is_in_the_way,
            self.clock_steps,
            self.reloads,
            self.flood,
            self.never_readers,
            self.half_requests,
            self.all_leave,
        ]
        if gateway.has_disk:
            faults.append(self.disk_is_full)
        else:
            print("SKIPPED: a full disk, since this machine allows no mount in a namespace")
        self.all: list[Callable[[], Awaitable[None]]] = faults

    async def engine_is_killed(self) -> None:
        self._gateway.send_to_engine(signal.SIGKILL)

    async def engine_is_stopped(self) -> None:
        self._gateway.send_to_engine(signal.SIGSTOP)

    async def upstream_resets(self) -> None:
        await self._in_mood(Mood.RESETS)

    async def upstream_resets_midway(self) -> None:
        await self._in_mood(Mood.RESETS_MIDWAY)

    async def upstream_is_silent(self) -> None:
        await self._in_mood(Mood.SILENT)

    async def upstream_fails(self) -> None:
        await self._in_mood(Mood.FAILS)

    async def log_is_deleted(self) -> None:
        for file in self._records.files():
            self._records.delete(file)

    async def log_folder_is_deleted(self) -> None:
        self._records.delete_folder()

    async def log_is_rotated(self) -> None:
        for file in self._records.files():
            self._records.rotate(file)
        self._gateway.send(signal.SIGHUP)

    async def log_is_in_the_way(self) -> None:
        """A file where the folder should be; nothing if the gateway has made the folder again before."""
        self._records.delete_folder()
        with suppress(IsADirectoryError):
            self._records.folder.write_text("in the way")
            await asyncio.sleep(2)
            self._records.folder.unlink()

    async def disk_is_full(self) -> None:
        filler = self._gateway.disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 20)) == 1 << 20:
                pass
            while file.write(bytes(512)):
                pass
        await asyncio.sleep(3)
        filler.unlink()

    async def clock_steps(self) -> None:
        """Forth over a month's end, back, and right again."""
        for days in (40, -40, 0):
            self._gateway.clock.step_to(days * 24 * 60 * 60)
            await asyncio.sleep(1)

    async def reloads(self) -> None:
        for _ in range(20):
            self._gateway.send(signal.SIGHUP)
            await asyncio.sleep(0.05)

    async def flood(self) -> None:
        await asyncio.gather(*(self._load.send(chat("near")) for _ in range(FLOOD)))

    async def never_readers(self) -> None:
        body = chat("near", "long", stream=True)
        await self._crowd(request(CHATS, body), seconds=3)

    async def half_requests(self) -> None:
        whole = request(CHATS, chat("near"))
        await self._crowd(whole[:40], seconds=1)
        await self._crowd(whole[:-10], seconds=1)

    async def all_leave(self) -> None:
        body = chat("near", "long", stream=True)
        await asyncio.gather(*(self._load.send(body, leave_after=1) for _ in range(CROWD)))

    async def _in_mood(self, mood: Mood) -> None:
        self._upstream.mood = mood
        await asyncio.sleep(3)
        self._upstream.mood = Mood.ANSWERS

    async def _crowd(self, data: bytes, seconds: float) -> None:
        """Connections that send this, read nothing, and are closed after a while."""
        writers = []
        for _ in range(CROWD):
            with suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self._gateway.port, limit=1024)
                writer.write(data)
                writers.append(writer)
        await asyncio.sleep(seconds)
        for writer in writers:
            writer.transport.abort()
