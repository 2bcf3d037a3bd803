"""Mixed traffic at most of what the gateway can answer, and fault after fault: nothing is lost, stuck or leaked.

`make soak-faults` runs it for an hour, a fault a minute; `make test` for little more than a minute, all faults once.
"""

import asyncio
import os
import time
from contextlib import suppress
from pathlib import Path

from soak.exchange import STUCK, exchange
from soak.faults import Faults
from soak.gateway import SLOTS, Gateway
from soak.load import EXPECTED, SHARE, Load, chat
from soak.memory import GROWTH_KIB_MAX, SLOPE_KIB_PER_MINUTE_MAX, STORE_FULL_REQUESTS, slope_kib_per_minute
from soak.records import Records
from soak.upstream import Upstream

SECONDS = float(os.environ.get("WATTGATE_SOAK_SECONDS", "80"))
# What all faults take at least, one after the other.
ALL_FAULTS_SECONDS = 80.0
# Longest time for all that was begun to end, once clients have left: the longest deadline of a record is 30 s.
SETTLE_SECONDS = 60.0
PAUSE_SECONDS_MAX = 60.0
WATCH_SECONDS = 2.0
LATE_SECONDS_MAX = 10.0


async def until(check, seconds: float) -> None:
    """Repeats an asynchronous check until it raises no AssertionError."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return await check()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.2)


async def nothing_is_held(gateway: Gateway) -> None:
    metrics = await gateway.metrics()
    for name in ["wattgate_requests_in_flight", "wattgate_unsettled_requests", "wattgate_engine_queue_depth"]:
        assert metrics.value(name) == 0, name


async def every_place_is_free(gateway: Gateway) -> None:
    """All slots of all models answer at once."""
    chats = [chat(model) for model in ("near", "spare", "far") for _ in range(SLOTS)]
    replies = await asyncio.gather(*(exchange(gateway.port, "/v1/chat/completions", body) for body in chats))
    assert [reply.status for reply in replies] == [200] * len(chats), [reply.status for reply in replies]


async def keep_books(gateway: Gateway, load: Load, records: Records) -> None:
    """Every record is written or counted as dropped, and every request that a client saw accepted has one."""
    metrics = await gateway.metrics()
    outcomes = {
        outcome: metrics.value("wattgate_traffic_records_total", outcome=outcome) for outcome in ("written", "dropped")
    }
    logged, annotations = records.read()
    requests = metrics.value("wattgate_requests_total")
    signals = metrics.value("wattgate_weak_signals_total")
    assert outcomes["written"] == len(logged) + annotations, (outcomes, len(logged), annotations)
    assert requests + load.verdicts + signals == sum(outcomes.values()), (requests, load.verdicts, signals, outcomes)
    missing = load.accepted - logged.keys()
    assert len(missing) <= outcomes["dropped"], f"{len(missing)} accepted requests have no record: {list(missing)[:5]}"
    conservation = metrics.value("wattgate_energy_conservation_error_joules")
    assert conservation == 0, f"{conservation} J went astray"


async def soak(home: Path) -> None:
    async with Upstream() as upstream:
        with Gateway(home, upstream.base_url) as gateway:
            try:
                await storm(gateway, upstream)
            except BaseException as error:
                error.add_note(f"The end of the gateway's log:\n{gateway.log()[-4000:]}")
                raise
            code = gateway.stop()
            assert code == 0, gateway.log()[-4000:]


async def storm(gateway: Gateway, upstream: Upstream) -> None:
    load, records = Load(gateway), Records(gateway)
    await until(lambda: ready(gateway), 30)
    capacity = await load.capacity(3)
    # `near` gets half of the requests, and one of its own chats counts as one.
    rate = capacity * SHARE / 0.5
    faults = Faults(gateway, upstream, load, records).all
    # The last one takes several seconds, too.
    pause = min(SECONDS / (len(faults) + 2), PAUSE_SECONDS_MAX)
    memory: list[tuple[float, int]] = []
    settled: list[tuple[float, int]] = []
    happened = 0
    stood_still = False
    print(f"{capacity:.1f} chats/s at most; {rate:.1f} requests/s; a fault every {pause:.0f} s for {SECONDS:.0f} s")

    async def misfortune() -> None:
        nonlocal happened
        due = time.monotonic()
        while True:
            due += pause
            await asyncio.sleep(due - time.monotonic())
            fault = faults[happened % len(faults)]
            began = time.monotonic()
            await fault()
            happened += 1
            print(f"{time.strftime('%H:%M:%S')} {fault.__name__} ({time.monotonic() - began:.1f} s), {gateway.rss_kib()} KiB")

    async def watch() -> None:
        nonlocal stood_still
        while True:
            memory.append((time.monotonic(), gateway.rss_kib()))
            if load.statuses[200] > STORE_FULL_REQUESTS:
                settled.append(memory[-1])
            await asyncio.sleep(WATCH_SECONDS)
            late = time.monotonic() - memory[-1][0] - WATCH_SECONDS
            if late > LATE_SECONDS_MAX:
                stood_still = True
                print(f"the clients stood still for {late:.0f} s: this process was stopped, or starved")

    watching, failing = asyncio.create_task(watch()), asyncio.create_task(misfortune())
    running = asyncio.create_task(load.run(rate, SECONDS))
    done, _ = await asyncio.wait([watching, failing, running], return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()
    for task in (watching, failing):
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    await until(lambda: nothing_is_held(gateway), SETTLE_SECONDS)
    await until(lambda: keep_books(gateway, load, records), SETTLE_SECONDS)
    slope = slope_kib_per_minute(settled)
    growth = memory[-1][1] - memory[0][1]
    logged, annotations = records.read()
    dropped = (await gateway.metrics()).value("wattgate_traffic_records_total", outcome="dropped")
    print(f"answers by status (0: cut off): {dict(sorted(load.statuses.items()))}")
    print(f"{len(logged)} records and {annotations} other lines logged, {dropped:.0f} dropped; {len(load.accepted)} accepted")
    print(f"memory {memory[0][1]} to {memory[-1][1]} KiB, slope {slope} KiB/min (None: too short to say)")
    assert happened >= len(faults) or SECONDS < ALL_FAULTS_SECONDS, f"only {happened} of {len(faults)} faults"
    # Replies to clients that stood still are cut off, or time out as soon as they go on.
    expected = EXPECTED | {STUCK} if stood_still else EXPECTED
    assert load.statuses.keys() <= expected, load.statuses
    assert growth < GROWTH_KIB_MAX, memory[:: max(1, len(memory) // 20)]
    assert slope is None or slope < SLOPE_KIB_PER_MINUTE_MAX, memory[:: max(1, len(memory) // 20)]
    await until(lambda: every_place_is_free(gateway), 30)


async def ready(gateway: Gateway) -> None:
    assert (await exchange(gateway.port, "/v1/chat/completions", chat("near"))).status == 200


def test_nothing_is_lost_stuck_or_leaked_under_faults(tmp_path: Path) -> None:
    asyncio.run(soak(tmp_path))
