"""Mixed traffic: clients that arrive at random, at a share of what the gateway was measured to answer.

It must not cause a fault, but for clients that leave.
"""

import asyncio
import random
import time
from collections import Counter

from soak.exchange import Reply, exchange
from soak.gateway import SLOTS, Gateway

SHARE = 0.8
CHATS = "/v1/chat/completions"

# Which model, and how the client behaves, with weights.
MODELS = [("near", 6), ("far", 3), ("auto", 2), ("spare", 1)]
WAYS = [("whole", 6), ("stream", 6), ("leaves", 2), ("two choices", 1), ("judges", 2), ("nonsense", 1)]

# What a gateway under faults may say; anything else, 500 above all, is a fault of its own.
EXPECTED = {0, 200, 400, 429, 502, 503, 504}


def chat(model: str, prompt: str = "Tell me a word.", **more: object) -> dict:
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}


def pick(choice: random.Random, weighted: list[tuple[str, int]]) -> str:
    return choice.choices([name for name, _ in weighted], [weight for _, weight in weighted])[0]


class Load:
    """The clients, and what they saw."""

    def __init__(self, gateway: Gateway, seed: int = 1) -> None:
        self._gateway = gateway
        self._choice = random.Random(seed)
        self._clients: set[asyncio.Task[None]] = set()
        self.statuses: Counter[int] = Counter()
        self.accepted: set[str] = set()
        """Ids of requests with an answer that began."""
        self.verdicts = 0

    async def capacity(self, seconds: float) -> float:
        """Chats per second that one local model answers with all its slots busy."""
        ends, answered = time.monotonic() + seconds, 0

        async def client() -> None:
            nonlocal answered
            while time.monotonic() < ends:
                answered += (await self.send(chat("near"))).status == 200

        await asyncio.gather(*(client() for _ in range(SLOTS)))
        return answered / seconds

    async def run(self, rate: float, seconds: float) -> None:
        """Sends so many requests per second, whatever becomes of earlier ones."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            client = asyncio.create_task(self._visit())
            self._clients.add(client)
            client.add_done_callback(self._clients.discard)
            await asyncio.sleep(self._choice.expovariate(rate))
        await asyncio.gather(*self._clients)

    async def send(self, body: dict, path: str = CHATS, leave_after: int | None = None) -> Reply:
        reply = await exchange(self._gateway.port, path, body, leave_after)
        self.statuses[reply.status] += 1
        if reply.status == 200 and path == CHATS:
            self.accepted.add(reply.request_id)
        return reply

    async def _visit(self) -> None:
        model, way = pick(self._choice, MODELS), pick(self._choice, WAYS)
        match way:
            case "whole":
                await self.send(chat(model))
            case "stream":
                await self.send(chat(model, stream=True))
            case "leaves":
                await self.send(chat(model, "long", stream=True), leave_after=200)
            case "two choices":
                await self.send(chat(model, n=2))
            case "nonsense":
                await self.send(chat(model, temperature=99))
            case "judges":
                reply = await self.send(chat(model))
                if reply.status == 200:
                    verdict = {"request_id": reply.request_id, "score": self._choice.random()}
                    judged = await self.send(verdict, "/v1/feedback")
                    self.verdicts += judged.status in (200, 204)
