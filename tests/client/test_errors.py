"""Bad input: one clear error in OpenAI's format, without effect on other requests."""

from typing import Any

import openai
import pytest

from rig.gateway import CONTEXT_TOKENS, LOCAL, Answer, Gateway

HELLO = [{"role": "user", "content": "Hello"}]
JSON = {"content-type": "application/json"}


def assert_openai_error(answer: Answer, status: int) -> dict[str, Any]:
    assert answer.status == status, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()["error"]
    assert error["message"] and error["type"]
    assert {"param", "code"} <= error.keys()
    return error


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="no-such-model", messages=HELLO)
    assert refused.value.code == "model_not_found"
    assert "no-such-model" in refused.value.message


def test_an_unknown_policy_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        client.chat.completions.create(model="auto/no-such-policy", messages=HELLO)
    assert "no-such-policy" in refused.value.message


def test_no_messages_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="auto", messages=[])
    assert refused.value.param == "messages"


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": "hot"},
        {"max_tokens": -2},
        {"messages": "Hello"},
        {"messages": [{"role": "wizard", "content": "Hello"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"stream": "yes"},
    ],
    ids=str,
)
def test_wrong_types_are_refused(client: openai.OpenAI, wrong: dict[str, Any]) -> None:
    body = {"model": LOCAL, "messages": HELLO} | wrong
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/chat/completions", body=body, cast_to=object)
    assert refused.value.type == "invalid_request_error"


@pytest.mark.parametrize("factor", [2, 12], ids=["over the context", "far over the context"])
def test_a_prompt_longer_than_the_context_is_refused(client: openai.OpenAI, factor: int) -> None:
    prompt = "word " * (CONTEXT_TOKENS * factor)
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=LOCAL, messages=[{"role": "user", "content": prompt}])
    assert refused.value.code == "context_length_exceeded"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b'{"model": "auto"}'], ids=repr)
def test_a_malformed_body_is_refused(gateway: Gateway, body: bytes) -> None:
    answer = gateway.request("POST", "/v1/chat/completions", body, JSON)
    error = assert_openai_error(answer, 400)
    assert error["type"] == "invalid_request_error"


def test_a_wrong_method_is_refused(gateway: Gateway) -> None:
    assert_openai_error(gateway.get("/v1/chat/completions"), 405)


def test_an_unknown_path_is_not_found(gateway: Gateway) -> None:
    assert_openai_error(gateway.get("/v1/nowhere"), 404)


def test_after_bad_input_the_next_request_is_answered(gateway: Gateway, client: openai.OpenAI) -> None:
    gateway.request("POST", "/v1/chat/completions", b"{", JSON)
    answer = client.chat.completions.create(model=LOCAL, messages=HELLO, max_tokens=4)
    assert answer.choices[0].message.content
