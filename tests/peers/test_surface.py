"""The surface around the answers: paths, preflights, errors of length, and slots that clients leave."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from rig.gateway import CONTEXT_TOKENS, LOCAL, Gateway
from rig.upstream import MockUpstream
from rig.waiting import eventually
from rig.wire import Ask, chat

ORIGIN = "https://chat.example.com"


@pytest.mark.parametrize("path", ["/v1/models", "/models", "/v1/models/", "//v1/models", "/health", "/healthz"])
def test_paths_work_as_clients_write_them(gateway: Gateway, path: str) -> None:
    assert gateway.get(path).status == 200


@pytest.mark.parametrize("path", ["/chat/completions", "/v1/chat/completions/", "//v1/chat/completions"])
def test_conversations_work_at_paths_as_clients_write_them(gateway: Gateway, path: str) -> None:
    answer = gateway.post(path, chat(max_tokens=2))
    assert answer.status == 200, answer.text


def test_raw_completions_and_their_errors_work_without_v1(gateway: Gateway) -> None:
    assert gateway.post("/completions", {"model": LOCAL, "prompt": "Hi", "max_tokens": 1}).status == 200
    error = gateway.post("/embeddings", {"model": LOCAL, "input": "Hi"})
    assert (error.status, error.headers["content-type"].split(";")[0]) == (400, "application/json")


def test_every_reply_has_the_id_that_clients_read(gateway: Gateway) -> None:
    for answer in (gateway.get("/v1/models"), gateway.post("/v1/chat/completions", {}), gateway.get("/nowhere")):
        assert answer.headers["x-request-id"]
    own = gateway.request("GET", "/v1/models", headers={"x-request-id": "my-id-1"})
    assert own.headers["x-request-id"] == "my-id-1"


@pytest.fixture(scope="module")
def open_gateway(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    home = tmp_path_factory.mktemp("origins")
    with Gateway(home, upstream.base_url, server_config=f'cors_origins = ["{ORIGIN}"]') as gateway:
        yield gateway


def preflight(gateway: Gateway, origin: str, path: str = "/v1/chat/completions") -> dict[str, str]:
    asked = {
        "origin": origin,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    return gateway.request("OPTIONS", path, headers=asked).headers


def test_a_page_of_a_listed_origin_may_ask(open_gateway: Gateway) -> None:
    allowed = preflight(open_gateway, ORIGIN)
    assert allowed["access-control-allow-origin"] == ORIGIN
    assert "POST" in allowed["access-control-allow-methods"]
    headers = allowed["access-control-allow-headers"].lower()
    assert headers == "*" or ("authorization" in headers and "content-type" in headers)
    answer = open_gateway.post("/v1/chat/completions", chat(max_tokens=2), origin=ORIGIN)
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, ORIGIN)
    refused = open_gateway.post("/v1/chat/completions", {}, origin=ORIGIN)
    assert (refused.status, refused.headers["access-control-allow-origin"]) == (400, ORIGIN)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", f"{ORIGIN}.evil.example"])
def test_a_page_of_another_origin_may_not(open_gateway: Gateway, gateway: Gateway, origin: str) -> None:
    for asked in (open_gateway, gateway):
        assert "access-control-allow-origin" not in preflight(asked, origin)
        assert asked.post("/v1/chat/completions", chat(max_tokens=1), origin=origin).status == 403


@pytest.mark.parametrize(("path", "field"), [("/v1/chat/completions", "messages"), ("/v1/completions", "prompt")])
@pytest.mark.parametrize("stream", [False, True])
def test_too_long_a_prompt_is_told_in_numbers(refused: Ask, path: str, field: str, stream: bool) -> None:
    text = "word " * (CONTEXT_TOKENS + 100)
    given = {"messages": [{"role": "user", "content": text}]} if field == "messages" else {"prompt": text}
    error = refused({"model": LOCAL, "stream": stream} | given, path=path)
    assert (error["code"], error["param"]) == ("context_length_exceeded", field)
    assert error["n_ctx"] == CONTEXT_TOKENS
    assert error["n_prompt_tokens"] > CONTEXT_TOKENS
    # What LiteLLM and LangChain look for.
    assert "maximum context length is" in error["message"].lower()
    assert str(CONTEXT_TOKENS) in error["message"]


def test_a_prompt_that_fits_by_its_tokens_is_answered(ask: Ask) -> None:
    answer = ask({"model": LOCAL, "prompt": " " * 40_000, "max_tokens": 1}, path="/v1/completions")
    assert answer["usage"]["prompt_tokens"] < CONTEXT_TOKENS


def in_flight(gateway: Gateway) -> int:
    return gateway.get(f"/v1/models/{LOCAL}").json()["in_flight"]


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot(gateway: Gateway, stream: bool) -> None:
    body = chat("Tell a very long story.", max_tokens=1500, stream=stream, ignore_eos=True)
    with ThreadPoolExecutor(1) as threads:
        threads.submit(leave, gateway, body).result()

    def free() -> None:
        assert in_flight(gateway) == 0

    eventually(free)
    assert gateway.post("/v1/chat/completions", chat(max_tokens=1)).status == 200


def leave(gateway: Gateway, body: dict[str, object]) -> None:
    """Sends a request and closes the connection once it is being answered."""
    payload = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {gateway.address}\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", gateway.port)) as connection:
        connection.sendall(head.encode() + f"content-length: {len(payload)}\r\n\r\n".encode() + payload)

        def running() -> None:
            assert in_flight(gateway) > 0

        eventually(running)


def test_more_requests_than_slots_are_all_answered(gateway: Gateway) -> None:
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: gateway.post("/v1/chat/completions", chat(max_tokens=4)), range(8)))
    assert [answer.status for answer in answers] == [200] * 8
    assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
