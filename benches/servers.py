"""Starts the servers of the engine's benchmarks with the same flags, and asks them."""

import dataclasses
import http.client
import json
import pathlib
import re
import socket
import time

from process import Process

SLOTS = 16
CONTEXT = 2560
BATCH = 512
READY_WITHIN_S = 180
ANSWER_WITHIN_S = 900
SETTLED_WITHIN_S = 10


@dataclasses.dataclass
class Answer:
    """A streamed answer that was read to its end."""

    tokens: int = 0
    # When it was asked for, and when each piece of its text came, on the monotonic clock.
    asked: float = 0.0
    times: list[float] = dataclasses.field(default_factory=list)
    text: str = ""
    # Wattgate's name of the request.
    request_id: str | None = None

    def first_ms(self):
        return (self.times[0] - self.asked) * 1e3

    def tokens_per_s(self):
        """From the first piece of text on."""
        return (self.tokens - 1) / (self.times[-1] - self.times[0])


class Server(Process):
    """One server with an OpenAI API on loopback, and the processes below it."""

    def __init__(self, name, command, port, ready_path, steps, folder):
        """`steps` is the metric that counts the engine's steps."""
        super().__init__(name, command, pathlib.Path(folder) / f"{port}.log")
        self.port, self.steps_metric = port, steps
        try:
            self.wait_until(lambda: self.status(ready_path) == 200, READY_WITHIN_S)
        except BaseException:
            self.stop()
            raise

    def status(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        connection.request("GET", path)
        try:
            return connection.getresponse().status
        except http.client.HTTPException as error:
            raise OSError from error

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
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=ANSWER_WITHIN_S)
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        if response.status != 200:
            self.fail(f"answered HTTP {response.status}: {response.read().decode()}")
        return response

    def answer(self, messages, max_tokens, watched=True):
        """An answer with the time of each piece; without them it is read at its end, which costs the machine less."""
        answer = Answer(asked=time.monotonic())
        response = self.ask(messages, max_tokens)
        for line in response if watched else response.read().splitlines():
            if not line.startswith(b"data: {"):
                continue
            chunk = json.loads(line[6:])
            answer.tokens = (chunk.get("usage") or {}).get("completion_tokens", answer.tokens)
            answer.request_id = chunk.get("wattgate", {}).get("request_id", answer.request_id)
            if chunk.get("choices") and (text := chunk["choices"][0]["delta"].get("content")):
                answer.times.append(time.monotonic())
                answer.text += text
        if answer.tokens != max_tokens:
            self.fail(f"was asked for {max_tokens} tokens and reports {answer.tokens}")
        if watched and not answer.times:
            self.fail("answered without text")
        return answer

    def joules(self, answers):
        """Final joules of answers together; `None` from a server that gives no receipts, or if they are unknown."""
        figures = [self.final_joules(answer.request_id) for answer in answers if answer.request_id]
        return sum(figures) if figures and None not in figures else None

    def final_joules(self, request_id):
        deadline = time.monotonic() + SETTLED_WITHIN_S
        while time.monotonic() < deadline:
            record = json.loads(self.get(f"/v1/requests/{request_id}"))
            energy = record.get("wattgate", record)["energy"]
            if energy["final"]:
                return energy.get("joules")
            time.sleep(0.05)
        return None

    def steps(self):
        """Steps of the engine so far."""
        found = re.search(rf"^{self.steps_metric}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", self.get("/metrics"), re.MULTILINE)
        return int(float(found[1])) if found else 0


def user(text):
    return [{"role": "user", "content": text}]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wattgate(binary, model, threads, folder, name="wattgate", options="", kernels="auto"):
    """`options` are further lines of the model's settings; `kernels` may name a CPU variant of llama.cpp after a colon."""
    port = free_port()
    kernels, _, variant = kernels.partition(":")
    variant = f'cpu_variant = "{variant}"\n' if variant else ""
    config = pathlib.Path(folder) / f"{port}.toml"
    config.write_text(
        f'[server]\nlisten = "127.0.0.1:{port}"\n[traffic]\ndir = "{folder}/{port}-traffic"\n'
        f'[engines]\nkernels = "{kernels}"\nmemory_budget_mib = 1048576\n{variant}'
        f'[models.bench]\nability = 0.0\n[models.bench.llama]\nsource = "file:{model}"\n'
        f"slots = {SLOTS}\ncontext_tokens = {CONTEXT}\nbatch_tokens = {BATCH}\nthreads = {threads}\nhost_cache_mib = 0\n"
        f"first_token_timeout_ms = {ANSWER_WITHIN_S * 1000}\n{options}"
    )
    command = [binary, "serve", "--config", str(config)]
    return Server(name, command, port, "/readyz", "wattgate_engine_busy_slots_count", folder)


def llama_server(binary, model, threads, folder):
    port = free_port()
    command = [
        *(binary, "-m", model, "--host", "127.0.0.1", "--port", str(port), "-t", str(threads), "-tb", str(threads)),
        *("-c", str(CONTEXT * SLOTS), "-np", str(SLOTS), "-ub", str(BATCH), "--no-kv-unified", "--cache-ram", "0", "--metrics"),
    ]
    return Server("llama-server", command, port, "/health", "llamacpp:n_decode_total", folder)
