"""Streamed answers: order, end, and client disconnects."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from rig.gateway import CLOUD, LOCAL, Gateway
from rig.receipts import check_receipt
from rig.upstream import prompt_tokens, reply_to, words
from rig.waiting import eventually

PROMPT = "Tell me about the sea."


def stream(client: openai.OpenAI, model: str, prompt: str = PROMPT, **more: Any) -> list[Any]:
    messages = [{"role": "user", "content": prompt}]
    with client.chat.completions.create(model=model, messages=messages, stream=True, **more) as chunks:
        return list(chunks)


def text(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def finish_reasons(chunks: list[Any]) -> list[str]:
    reasons = (choice.finish_reason for chunk in chunks for choice in chunk.choices)
    return [reason for reason in reasons if reason]


@pytest.mark.parametrize("model", ["auto", LOCAL, CLOUD])
def test_the_receipt_comes_once_with_the_last_chunk(client: openai.OpenAI, model: str) -> None:
    chunks = stream(client, model, max_tokens=12)
    assert text(chunks)
    assert len(finish_reasons(chunks)) == 1
    with_receipt = [chunk for chunk in chunks if "wattgate" in (chunk.model_extra or {})]
    assert with_receipt == [chunks[-1]]
    check_receipt(chunks[-1].model_extra["wattgate"])


def test_a_local_stream_is_one_completion_in_pieces(client: openai.OpenAI) -> None:
    chunks = stream(client, LOCAL, max_tokens=12)
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("chat.completion.chunk", LOCAL)}
    assert len({(chunk.id, chunk.created) for chunk in chunks}) == 1
    assert chunks[0].choices[0].delta.role == "assistant"
    assert sum(bool(text([chunk])) for chunk in chunks) > 1
    assert finish_reasons(chunks) == ["length"]


def test_a_cloud_stream_keeps_its_chunks(client: openai.OpenAI) -> None:
    chunks = stream(client, CLOUD)
    assert [piece for piece in (text([chunk]) for chunk in chunks) if piece] == words(PROMPT)
    assert text(chunks) == reply_to(PROMPT)


@pytest.mark.parametrize("model", [LOCAL, CLOUD])
def test_usage_comes_once_when_requested(client: openai.OpenAI, model: str) -> None:
    chunks = stream(client, model, max_tokens=12, stream_options={"include_usage": True})
    (usage,) = [chunk.usage for chunk in chunks if chunk.usage]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    if model == CLOUD:
        assert usage.prompt_tokens == prompt_tokens(PROMPT)
    else:
        assert usage.completion_tokens == 12


@pytest.mark.parametrize("model", [LOCAL, CLOUD])
def test_usage_is_absent_unless_requested(client: openai.OpenAI, model: str) -> None:
    assert not any(chunk.usage for chunk in stream(client, model, max_tokens=12))


def test_headers_name_the_choice_before_the_first_token(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    create = client.chat.completions.with_streaming_response.create
    with create(model="auto/best", messages=messages, stream=True) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-wattgate-model"] == CLOUD
        assert response.headers["x-wattgate-route"] == "cloud"
        assert response.headers["x-wattgate-policy"] == "best"


def test_the_wire_ends_with_the_energy_comment_and_done(gateway: Gateway) -> None:
    body = {"model": LOCAL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4, "stream": True}
    lines = [line for line in gateway.post("/v1/chat/completions", body).text.splitlines() if line]
    assert lines[-1] == "data: [DONE]"
    assert lines[-2].startswith(": energy {")
    assert all(line.startswith("data: {") for line in lines[:-2] if not line.startswith(":"))


def test_a_client_disconnect_frees_the_model(gateway: Gateway, client: openai.OpenAI) -> None:
    def cancelled() -> float:
        return gateway.metrics().value(
            "wattgate_requests_total", model=LOCAL, route="local", outcome="cancelled"
        )

    before = cancelled()
    messages = [{"role": "user", "content": "Count from one to one thousand."}]
    chunks = client.chat.completions.create(
        model=LOCAL, messages=messages, stream=True, max_tokens=1500, temperature=1
    )
    assert next(iter(chunks))
    chunks.close()

    def gone() -> None:
        assert cancelled() == before + 1
        assert gateway.metrics().value("wattgate_requests_in_flight", model=LOCAL) == 0

    eventually(gone)


def test_eight_streams_share_the_model_and_energy_is_conserved(gateway: Gateway, client: openai.OpenAI) -> None:
    prompts = [f"Write a sentence about the number {number}." for number in range(8)]
    with ThreadPoolExecutor(len(prompts)) as readers:
        answers = list(readers.map(lambda prompt: stream(client, LOCAL, prompt, max_tokens=24), prompts))

    receipts = [chunks[-1].model_extra["wattgate"] for chunks in answers]
    assert all(text(chunks) for chunks in answers)
    assert len({receipt["request_id"] for receipt in receipts}) == len(prompts)
    for receipt in receipts:
        final = gateway.final_receipt(receipt["request_id"])
        assert final["energy"]["joules"] > 0
    errors = [
        sample
        for family in gateway.metrics().families
        for sample in family.samples
        if sample.name == "wattgate_energy_conservation_error_joules"
    ]
    assert errors, "no device reports whether its books balance"
    assert all(sample.value == 0 for sample in errors), errors
