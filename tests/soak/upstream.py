"""An upstream that answers chats, and on order resets its connections, stays silent, or fails.

It must not know the gateway.
"""

import asyncio
import json
import socket
import struct
from enum import Enum

WORDS = 12


class Mood(Enum):
    ANSWERS = "answers"
    RESETS = "resets"
    RESETS_MIDWAY = "resets midway"
    SILENT = "silent"
    FAILS = "fails"


class Upstream:
    """A running upstream; `async with`."""

    mood = Mood.ANSWERS

    async def __aenter__(self) -> "Upstream":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.base_url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answers one request; returns whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.startswith("content-length:"))
        body = json.loads(await reader.readexactly(length))
        match self.mood:
            case Mood.RESETS:
                return reset(writer)
            case Mood.SILENT:
                await reader.read(1)
                return False
            case Mood.FAILS:
                writer.write(whole({"error": {"message": "out of order"}}, "503 Service Unavailable"))
            case _ if body.get("stream"):
                return await self._stream(writer) and "connection: close" not in head
            case Mood.RESETS_MIDWAY:
                writer.write(whole(answer())[:-20])
                await writer.drain()
                return reset(writer)
            case _:
                await asyncio.sleep(0.05)
                writer.write(whole(answer()))
        await writer.drain()
        return "connection: close" not in head

    async def _stream(self, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        for at in range(WORDS):
            if at == WORDS // 2 and self.mood is Mood.RESETS_MIDWAY:
                return reset(writer)
            last = at + 1 == WORDS
            choice = {"index": 0, "delta": {"content": f"word{at} "}, "finish_reason": "stop" if last else None}
            writer.write(chunk({"choices": [choice], **({"usage": usage()} if last else {})}))
            await writer.drain()
            await asyncio.sleep(0.02)
        writer.write(sized(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()
        return True


def usage() -> dict:
    return {"prompt_tokens": 8, "completion_tokens": WORDS, "total_tokens": 8 + WORDS}


def answer() -> dict:
    message = {"role": "assistant", "content": " ".join(f"word{at}" for at in range(WORDS))}
    choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, "usage": usage()}


def whole(body: dict, status: str = "200 OK") -> bytes:
    data = json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data


def chunk(body: dict) -> bytes:
    stamp = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return sized(f"data: {json.dumps({**stamp, **body})}\n\n".encode())


def sized(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def reset(writer: asyncio.StreamWriter) -> bool:
    """Closes with a TCP reset."""
    linger = struct.pack("ii", 1, 0)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
    return False
