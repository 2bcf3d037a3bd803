"""What is measured of a server, and how: each function returns figures by their names in the tables."""

import contextlib
import signal
import statistics
import sys
import threading
import time

from servers import user

STREAMS = (1, 8, 16)
WORD = "water "

ALONE = "tokens/s after the first, 1 stream"
COLD = "first token, 1,000 tokens cold, ms"
SECOND_TURN = "first token, second turn, ms"
ANSWER_CPU = "CPU s of an answer to 1,000 tokens"
ANSWER_JOULES = "joules of an answer to 1,000 tokens"
GAP = "longest gap / median gap beside a prefill"
BEHIND_MS = "first token of 20 tokens behind 4 × 2,000, ms"
BEHIND_STEPS = "steps until then"
LAST_LONG_MS = "first token of the last of the four, ms"
BESIDE_ALONE = "first token of 2,000 tokens beside short answers / alone"
MEMORY = "resident memory, MiB"


def speed(streams):
    return f"tokens/s, {streams} stream{'s' if streams > 1 else ''}"


def work(streams):
    return f"CPU ms per token, {streams} stream{'s' if streams > 1 else ''}"


def joules(streams):
    return f"millijoules per token, {streams} stream{'s' if streams > 1 else ''}"


class Task(threading.Thread):
    """A question in the background; the thread that needs its answer waits for it, and fails with it."""

    def __init__(self, ask):
        super().__init__(daemon=True)
        self.ask, self.result, self.error = ask, None, None
        self.start()

    def run(self):
        try:
            self.result = self.ask()
        except BaseException as error:  # noqa: BLE001 - raised again in `answer`
            self.error = error

    def answer(self):
        self.join()
        if self.error is not None:
            raise self.error
        return self.result


def throughput(server, streams, max_tokens, salt):
    """Tokens of all streams per second from the first start to the last end, with CPU time and joules per token."""

    def ask(number):
        return server.answer(user(f"Tell me story {salt}.{number}."), max_tokens, watched=streams == 1)

    started, cpu_s = time.monotonic(), server.cpu_s()
    tasks = [Task(lambda number=number: ask(number)) for number in range(streams)]
    answers = [task.answer() for task in tasks]
    elapsed_s = time.monotonic() - started
    tokens = sum(answer.tokens for answer in answers)
    figures = {
        speed(streams): tokens / elapsed_s,
        work(streams): (server.cpu_s() - cpu_s) * 1e3 / tokens,
    }
    if (energy := server.joules(answers)) is not None:
        figures[joules(streams)] = energy * 1e3 / tokens
    if streams == 1:
        figures[ALONE] = answers[0].tokens_per_s()
    return figures


def turns(server, max_tokens, salt):
    """A conversation of about 1,000 tokens: cold, with all that its answer costs, and again with one turn more."""
    history = [*user(f"Story {salt}. " + WORD * 980), {"role": "assistant", "content": "Yes."}, *user("Go on.")]
    cpu_s = server.cpu_s()
    cold = server.answer(history, max_tokens)
    figures = {COLD: cold.first_ms(), ANSWER_CPU: server.cpu_s() - cpu_s}
    if (energy := server.joules([cold])) is not None:
        figures[ANSWER_JOULES] = energy
    # The conversation goes on from what both servers have in their caches.
    again = server.answer([*history, {"role": "assistant", "content": "So."}, *user("And?")], 4)
    return figures | {SECOND_TURN: again.first_ms()}


def gap(server, salt):
    """Longest gap between pieces of a stream over its median gap; meanwhile a prompt of about 2,000 tokens is read."""
    reader = Task(lambda: server.answer(user(f"Story {salt}."), 128))
    time.sleep(0.2)
    server.answer(long_prompt(f"{salt} gap"), 1, watched=False)
    times = reader.answer().times
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    return {GAP: max(gaps) / statistics.median(gaps)}


def mixed(server, salt):
    """A short prompt behind four long ones, and a long one beside clients that keep asking for short answers."""
    before = time.monotonic()
    tasks = [Task(lambda number=number: server.answer(long_prompt(f"{salt} {number}"), 4)) for number in range(4)]
    time.sleep(0.5)
    steps = server.steps()
    ask_short = Task(lambda: steps_to_first(server, short_prompt(f"{salt} behind")))
    short, steps_at_first = ask_short.answer()
    last = max(task.answer().times[0] for task in tasks)
    alone = server.answer(long_prompt(f"{salt} alone"), 4).first_ms()
    ended = threading.Event()

    def keep_asking(client):
        count = 0
        while not ended.is_set():
            server.answer(short_prompt(f"{salt} {client} {count}"), 16, watched=False)
            count += 1

    clients = [Task(lambda client=client: keep_asking(client)) for client in range(4)]
    time.sleep(0.5)
    try:
        beside = server.answer(long_prompt(f"{salt} beside"), 4).first_ms()
    finally:
        ended.set()
    for client in clients:
        client.answer()
    return {
        BEHIND_MS: short,
        BEHIND_STEPS: steps_at_first - steps,
        LAST_LONG_MS: (last - before) * 1e3,
        BESIDE_ALONE: beside / alone,
    }


def steps_to_first(server, messages):
    """Milliseconds to the first token, and the engine's steps so far when it came."""
    asked = time.monotonic()
    for line in (response := server.ask(messages, 4)):
        if line.startswith(b"data: {") and b'"content":"' in line.replace(b'"content":""', b""):
            first_ms = (time.monotonic() - asked) * 1e3
            steps = server.steps()
            response.read()
            return first_ms, steps
    server.fail("answered without text")


def long_prompt(salt):
    return user(f"{salt} " + WORD * 2000)


def short_prompt(salt):
    return user(f"{salt}: name a colour of the sea.")


def tasks(wanted, max_tokens):
    """The functions that take the figures of `wanted`: "speed", "turns", "gap" and "mixed"."""
    every = {
        "speed": [lambda server, salt, n=n: throughput(server, n, max_tokens, f"{salt}-{n}") for n in STREAMS],
        "turns": [lambda server, salt: turns(server, max_tokens, salt)],
        "gap": [gap],
        "mixed": [mixed],
    }
    return [task for name in wanted for task in every[name]]


def measure(servers, rounds, wanted, max_tokens):
    """Every wanted figure of every server, one value for each round."""
    figures = {server.name: {} for server in servers}
    # An end from outside still reports the rounds that are complete.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with contextlib.suppress(KeyboardInterrupt):
        for turn in range(rounds):
            taken = {server.name: {} for server in servers}
            for task in tasks(wanted, max_tokens):
                for server in servers if turn % 2 == 0 else reversed(servers):
                    values = task(server, f"{turn}")
                    taken[server.name].update(values)
                    told = "; ".join(f"{figure}: {value:.2f}" for figure, value in values.items())
                    print(f"{turn + 1}/{rounds} {server.name:14} {told}", file=sys.stderr, flush=True)
            for name, values in taken.items():
                for figure, value in values.items():
                    figures[name].setdefault(figure, []).append(value)
    if not all(figures.values()):
        raise SystemExit("stopped before the first round was complete: nothing to report")
    for server in servers:
        figures[server.name][MEMORY] = [server.rss_mib()]
    return figures
