"""A cloud on this machine: as much of an OpenAI-compatible server as shows what a gateway sends and survives.

It answers over real HTTP on loopback and remembers every request. A marker in the last message, such as
`[upstream 500]`, makes it fail that way. It must know nothing of Wattgate.
"""

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ANSWER = "The stand-in answers from afar."
PROMPT_TOKENS = 11
FINGERPRINT = "fp_stand_in"

FAILING_STATUS = {
    "[upstream 401]": (401, "Incorrect API key provided.", "invalid_api_key"),
    "[upstream 429]": (429, "Rate limit reached.", "rate_limit_exceeded"),
    "[upstream 500]": (500, "The server had an error.", None),
}
GARBAGE = "[upstream garbage]"
CUT = "[upstream cut]"


@dataclass
class Received:
    """One request as it came over the wire; header names in lower case."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass
class Cloud:
    """The running stand-in; a context manager."""

    received: list[Received] = field(default_factory=list)

    def __enter__(self) -> "Cloud":
        received = self.received

        class Handler(_Handler):
            log = received

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    log: list[Received]

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        body = json.loads(raw)
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.log.append(Received(self.path, headers, body))
        if self.path != "/v1/chat/completions":
            self._error(404, f"Unknown path {self.path}", None)
            return
        prompt = json.dumps(body["messages"][-1]["content"])
        for marker, (status, message, code) in FAILING_STATUS.items():
            if marker in prompt:
                self._error(status, message, code)
                return
        if GARBAGE in prompt:
            self._send(200, "text/html", b"<html>captive portal</html>")
        elif body.get("stream"):
            self._stream(body, cut=CUT in prompt)
        else:
            self._json(200, _completion(body))

    def _stream(self, body: dict[str, Any], cut: bool) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for sent, chunk in enumerate(_chunks(body)):
            if cut and sent == 3:
                # Gone without the closing chunk: the reader sees a broken connection.
                self.close_connection = True
                return
            self._chunk(f"data: {json.dumps(chunk)}\n\n")
        self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.flush()

    def _error(self, status: int, message: str, code: str | None) -> None:
        self._json(status, {"error": {"message": message, "type": "upstream_error", "param": None, "code": code}})

    def _json(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, "application/json", json.dumps(body).encode())

    def _send(self, status: int, content_type: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Quiet: what was asked is in `received`."""


def words() -> list[str]:
    """The answer in the pieces it is streamed in; together they are `ANSWER`."""
    first, *rest = ANSWER.split(" ")
    return [first, *(f" {word}" for word in rest)]


def _usage() -> dict[str, int]:
    completion = len(words())
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion,
        "total_tokens": PROMPT_TOKENS + completion,
    }


def _frame(body: dict[str, Any], kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": "chatcmpl-stand-in",
        "object": kind,
        "created": 1_700_000_000,
        "model": body["model"],
        "system_fingerprint": FINGERPRINT,
        "choices": choices,
    }


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    message = {"role": "assistant", "content": ANSWER, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _frame(body, "chat.completion", [choice]) | {"usage": _usage()}


def _chunks(body: dict[str, Any]) -> list[dict[str, Any]]:
    def chunk(delta: dict[str, str], finish: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return _frame(body, "chat.completion.chunk", [choice])

    chunks = [chunk({"role": "assistant", "content": ""})]
    chunks += [chunk({"content": word}) for word in words()]
    chunks.append(chunk({}, "stop"))
    if (body.get("stream_options") or {}).get("include_usage"):
        chunks.append(_frame(body, "chat.completion.chunk", []) | {"usage": _usage()})
    return chunks
