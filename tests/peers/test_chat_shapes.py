"""Whole and streamed conversations: the members that clients read, and where they stand."""

import json
import math
from typing import Any

import pytest

from rig.wire import Ask, chat


def joined(chunks: list[dict[str, Any]], index: int = 0) -> str:
    deltas = [c["delta"] for chunk in chunks for c in chunk["choices"] if c["index"] == index]
    return "".join(delta.get("content") or "" for delta in deltas)


def test_a_stream_says_the_same_as_the_whole_answer(ask: Ask) -> None:
    whole, chunks = ask(chat()), ask(chat(stream=True))
    assert joined(chunks) == whole["choices"][0]["message"]["content"]
    finishes = [c["finish_reason"] for chunk in chunks for c in chunk["choices"]]
    assert [reason for reason in finishes if reason] == [whole["choices"][0]["finish_reason"]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert whole["object"] == "chat.completion"


def test_the_role_comes_once_and_first(ask: Ask) -> None:
    chunks = ask(chat(stream=True))
    roles = [c["delta"].get("role") for chunk in chunks for c in chunk["choices"]]
    assert roles[0] == "assistant"
    assert not any(roles[1:])


def test_all_chunks_are_of_one_completion(ask: Ask) -> None:
    chunks = ask(chat(stream=True))
    for member in ("id", "created", "model"):
        assert len({chunk[member] for chunk in chunks}) == 1


def test_answers_of_one_model_have_one_fingerprint(ask: Ask) -> None:
    whole, chunks = ask(chat()), ask(chat("Other words.", stream=True))
    assert whole["system_fingerprint"]
    assert {chunk.get("system_fingerprint") for chunk in chunks} == {whole["system_fingerprint"]}


def test_usage_comes_last_and_is_null_before(ask: Ask) -> None:
    chunks = ask(chat(stream=True, stream_options={"include_usage": True}))
    assert [chunk for chunk in chunks[:-1] if chunk.get("usage", "absent") is not None] == []
    assert chunks[-1]["choices"] == []
    # How many tokens were in the cache depends on what came before.
    for count in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert chunks[-1]["usage"][count] == ask(chat())["usage"][count]


@pytest.mark.parametrize("stream", [False, True])
def test_every_token_has_its_logprob(ask: Ask, stream: bool) -> None:
    answer = ask(chat(stream=stream, logprobs=True, top_logprobs=3))
    choices = [c for chunk in answer for c in chunk["choices"]] if stream else answer["choices"]
    tokens = [token for c in choices for token in ((c.get("logprobs") or {}).get("content") or [])]
    text = joined(answer) if stream else answer["choices"][0]["message"]["content"]
    assert b"".join(bytes(token["bytes"]) for token in tokens).decode() == text
    for token in tokens:
        assert len(token["top_logprobs"]) == 3
        # A greedy answer takes the most probable token.
        assert math.isclose(token["top_logprobs"][0]["logprob"], token["logprob"], abs_tol=1e-4)


def test_streamed_choices_keep_their_text_and_logprobs_apart(ask: Ask) -> None:
    body = chat("Name a colour.", n=3, logprobs=True, temperature=1, seed=4)
    whole, chunks = ask(body), ask(body | {"stream": True})
    for choice in whole["choices"]:
        index = choice["index"]
        streamed = [c for chunk in chunks for c in chunk["choices"] if c["index"] == index]
        contents = [(c.get("logprobs") or {}).get("content") or [] for c in streamed]
        text = "".join(token["token"] for tokens in contents for token in tokens)
        assert text == joined(chunks, index)
        assert sum(map(len, contents)) == len(choice["logprobs"]["content"])


def test_choices_share_the_prompt_and_add_up_in_usage(ask: Ask) -> None:
    one, three = ask(chat(max_tokens=4)), ask(chat(max_tokens=4, n=3))
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
    assert three["usage"]["prompt_tokens"] == one["usage"]["prompt_tokens"]
    assert three["usage"]["completion_tokens"] == 3 * one["usage"]["completion_tokens"]


def weather(strict: bool) -> dict[str, Any]:
    # At temperature 1 an unbounded string may go on to the limit of tokens.
    city = {"type": "string", "maxLength": 40}
    schema = {"type": "object", "properties": {"city": city}, "required": ["city"]}
    return {"type": "function", "function": {"name": "weather", "parameters": schema, "strict": strict}}


@pytest.mark.parametrize("choice", ["required", "any", {"type": "function", "function": {"name": "weather"}}], ids=str)
def test_a_required_call_has_exactly_the_arguments_of_its_schema(ask: Ask, choice: Any) -> None:
    body = chat("What is the weather in Paris?", tools=[weather(False)], tool_choice=choice, max_tokens=256)
    for seed in range(4):
        answer = ask(body | {"temperature": 1, "seed": seed})["choices"][0]
        call = answer["message"]["tool_calls"][0]
        assert answer["finish_reason"] == "tool_calls"
        assert call["type"] == "function" and call["id"] and call["function"]["name"] == "weather"
        assert json.loads(call["function"]["arguments"]).keys() == {"city"}


def test_a_streamed_call_is_the_whole_one_in_pieces(ask: Ask) -> None:
    body = chat("What is the weather in Paris?", tools=[weather(True)], tool_choice="required", max_tokens=64)
    call = ask(body)["choices"][0]["message"]["tool_calls"][0]
    chunks = ask(body | {"stream": True})
    deltas = [d for chunk in chunks for c in chunk["choices"] for d in c["delta"].get("tool_calls") or []]
    assert {delta["index"] for delta in deltas} == {0}
    assert deltas[0]["id"] and deltas[0]["function"]["name"] == "weather"
    assert not any(delta.get("id") for delta in deltas[1:])
    assert "".join(d["function"].get("arguments") or "" for d in deltas) == call["function"]["arguments"]


def test_a_functions_result_may_follow_its_call(ask: Ask) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Paris"}'}}
    messages = [
        {"role": "user", "content": "What is the weather in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Sunny, 21 degrees."},
    ]
    answer = ask(chat(tools=[weather(False)]) | {"messages": messages})
    assert answer["choices"][0]["finish_reason"] in {"stop", "length", "tool_calls"}
