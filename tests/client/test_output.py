"""Sampling fields, choices, log-probabilities and structured output, as the official client sees them."""

import json
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter

from rig.gateway import LOCAL


class Step(BaseModel):
    model_config = ConfigDict(extra="forbid")
    explanation: str
    done: bool


class Plan(BaseModel):
    model_config = ConfigDict(extra="forbid")
    title: str
    mood: Literal["calm", "wild"]
    steps: list[Step]
    rating: int | None


def ask(client: openai.OpenAI, prompt: str, **more: Any) -> Any:
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model=LOCAL, messages=messages, **more)


def json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": schema}}


@pytest.mark.parametrize("streams", [False, True])
def test_concurrent_answers_match_a_pydantic_schema(client: openai.OpenAI, streams: bool) -> None:
    def plan(seed: int) -> str:
        answer = ask(
            client,
            "Plan a picnic.",
            response_format=json_schema(Plan.model_json_schema()),
            stream=streams,
            max_tokens=96,
            temperature=1.3,
            seed=seed,
        )
        if not streams:
            return answer.choices[0].message.content
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)

    with ThreadPoolExecutor(5) as readers:
        plain = readers.submit(ask, client, "Say hello.", max_tokens=24)
        texts = list(readers.map(plan, range(4)))
        assert plain.result().choices[0].message.content
    for text in texts:
        Plan.model_validate_json(text)


def test_the_clients_parser_accepts_a_complete_answer(client: openai.OpenAI) -> None:
    class Colour(BaseModel):
        model_config = ConfigDict(extra="forbid")
        name: Literal["red", "green", "blue"]

    answer = client.chat.completions.parse(
        model=LOCAL,
        messages=[{"role": "user", "content": "Which colour is grass?"}],
        response_format=Colour,
        max_tokens=64,
        temperature=0,
    )
    assert isinstance(answer.choices[0].message.parsed, Colour)


def test_json_mode_is_an_object(client: openai.OpenAI) -> None:
    answer = ask(client, "Tell me about Rome.", response_format={"type": "json_object"}, max_tokens=64, seed=1)
    assert isinstance(json.loads(answer.choices[0].message.content), dict)


def test_a_type_adapters_schema_works_too(client: openai.OpenAI) -> None:
    numbers = TypeAdapter(list[int])
    answer = ask(client, "Count.", response_format=json_schema(numbers.json_schema()), max_tokens=32, seed=2)
    numbers.validate_json(answer.choices[0].message.content)


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "https://example.com/x"}], ids=str)
def test_an_unsupported_schema_is_refused(client: openai.OpenAI, schema: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "Hello", response_format=json_schema(schema))
    assert refused.value.param == "response_format"


def test_logprobs_have_openai_format(client: openai.OpenAI) -> None:
    answer = ask(client, "What is the capital of France?", logprobs=True, top_logprobs=5, temperature=0, max_tokens=12)
    choice = answer.choices[0]
    for token in choice.logprobs.content:
        assert len(token.top_logprobs) == 5
        assert token.top_logprobs[0].token == token.token
        assert sum(math.exp(one.logprob) for one in token.top_logprobs) <= 1.0001
    spelled = b"".join(bytes(token.bytes) for token in choice.logprobs.content)
    assert spelled.decode() == choice.message.content


def test_choices_come_with_their_indices(client: openai.OpenAI) -> None:
    answer = ask(client, "Name a bird.", n=3, max_tokens=8, temperature=1.2, seed=4)
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in answer.choices}) > 1
    chunks = list(ask(client, "Name a bird.", n=3, max_tokens=8, stream=True))
    ended = {choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason}
    assert ended == {0, 1, 2}


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 0), ("top_logprobs", 21), ("presence_penalty", 2.5), ("logit_bias", {"9999999": 1}), ("min_p", 2)],
)
def test_a_field_out_of_range_is_named(client: openai.OpenAI, field: str, value: Any) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        ask(client, "Hello", max_tokens=4, extra_body={field: value})
    assert refused.value.param == field


def test_penalties_and_bias_change_an_answer(client: openai.OpenAI) -> None:
    def tell(**more: Any) -> str:
        return ask(client, "Write sea sea sea.", max_tokens=24, temperature=0, **more).choices[0].message.content

    plain = tell()
    assert tell(frequency_penalty=2) != plain
    assert tell(extra_body={"repetition_penalty": 1.8}) != plain
    assert tell(extra_body={"top_k": 1, "temperature": 2}) == plain
    assert len(set(tell(logit_bias={"1000": 100}).split())) == 1
