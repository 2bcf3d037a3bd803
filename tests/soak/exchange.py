"""One HTTP/1.1 exchange on a connection of its own, cheap enough to be sent by the hundred.

It must not judge an answer.
"""

import asyncio
import json
from dataclasses import dataclass, field


# Longer than any time limit of the gateway.
PATIENCE_SECONDS = 60.0
STUCK = -1


@dataclass
class Reply:
    """What came back; `status` is 0 if no head did, and `STUCK` if the reply did not end."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def request_id(self) -> str | None:
        return self.headers.get("x-wattgate-request-id")

    def json(self) -> dict:
        return json.loads(self.body)


def request(path: str, body: dict | None = None) -> bytes:
    """The bytes of a request whose reply ends with the connection."""
    data = b"" if body is None else json.dumps(body).encode()
    head = (
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
    )
    return head.encode() + data


async def exchange(port: int, path: str, body: dict | None = None, leave_after: int | None = None) -> Reply:
    """Sends a request; reads the reply to its end, or leaves after so many bytes of it."""
    reply = Reply()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await converse(reply, port, request(path, body), leave_after)
    except TimeoutError:
        print(f"stuck after {reply}: {body}")
        reply.status = STUCK
    return reply


async def converse(reply: Reply, port: int, sent: bytes, leave_after: int | None) -> None:
    """Fills the reply as far as it comes."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return
    try:
        writer.write(sent)
        await writer.drain()
        status, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").rstrip().split("\r\n")
        reply.status = int(status.split(" ", 2)[1])
        reply.headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines if ": " in line)}
        reply.body = await reader.read(leave_after) if leave_after else await reader.read()
        if reply.headers.get("transfer-encoding") == "chunked" and not leave_after:
            reply.body = unchunked(reply.body)
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def unchunked(body: bytes) -> bytes:
    """The content of a chunked body, as far as it came."""
    content = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        content, body = content + rest[:length], rest[length + 2 :]
    return content
