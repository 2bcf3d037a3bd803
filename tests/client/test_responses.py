"""`/v1/responses` with the official client: every object and event parsed by its own types."""

import json
from typing import Any

import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel, ConfigDict, TypeAdapter

from rig.gateway import CLOUD, LOCAL, Gateway

EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Current weather of a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "strict": False,
}
FORCED = {"type": "function", "name": "get_weather"}


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    age: int


def ask(client: openai.OpenAI, question: Any, **more: Any) -> Response:
    options = {"temperature": 0, "max_output_tokens": 32} | more
    response = client.responses.create(model=LOCAL, input=question, **options)
    return Response.model_validate(response.model_dump())


def test_an_answer_with_its_receipt(client: openai.OpenAI, gateway: Gateway) -> None:
    response = client.responses.create(model=LOCAL, input="Who wrote Hamlet?", temperature=0, max_output_tokens=24)
    assert "Shakespeare" in response.output_text
    assert response.usage.input_tokens > 5
    receipt = response.model_extra["wattgate"]
    assert receipt["model"] == LOCAL
    assert gateway.final_receipt(response.id)["energy"]["joules"] > 0


@pytest.mark.parametrize("model", [LOCAL, CLOUD])
def test_every_event_has_its_type(client: openai.OpenAI, model: str) -> None:
    stream = client.responses.create(model=model, input="Who wrote Hamlet?", max_output_tokens=24, stream=True)
    events = [EVENT.validate_python(event.to_dict(), strict=False) for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    final = events[-1].response
    assert final.status in ("completed", "incomplete")
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == final.output_text != ""


def test_the_stream_helper_assembles_the_answer(client: openai.OpenAI) -> None:
    with client.responses.stream(model=LOCAL, input="Who wrote Hamlet?", temperature=0) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        assert "".join(deltas) == stream.get_final_response().output_text


@pytest.mark.parametrize("streams", [False, True])
def test_a_call_its_result_and_a_final_answer(client: openai.OpenAI, streams: bool) -> None:
    question = "What is the weather in Paris?"
    options: dict[str, Any] = {"tools": [WEATHER], "tool_choice": FORCED}
    if streams:
        with client.responses.stream(model=LOCAL, input=question, temperature=0, **options) as stream:
            called = stream.get_final_response()
    else:
        called = ask(client, question, max_output_tokens=64, **options)
    [call] = called.output
    assert (call.type, call.name) == ("function_call", "get_weather")
    assert "Paris" in json.loads(call.arguments)["city"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "17 degrees and sunny"}
    answered = ask(client, [result], previous_response_id=called.id, tools=[WEATHER], tool_choice="none")
    assert answered.output_text


def test_an_answer_matches_a_pydantic_schema(client: openai.OpenAI) -> None:
    parsed = client.responses.parse(
        model=LOCAL, input="Bob is 42 years old.", text_format=Person, temperature=0, max_output_tokens=64
    )
    assert isinstance(parsed.output_parsed, Person)


def test_a_kept_answer_is_fetched_listed_and_deleted(client: openai.OpenAI) -> None:
    response = ask(client, "Hello")
    assert client.responses.retrieve(response.id).output_text == response.output_text
    items = client.responses.input_items.list(response.id).data
    assert [item.content[0].text for item in items] == ["Hello"]
    assert client.responses.input_tokens.count(model=LOCAL, input="Hello").input_tokens > 0
    client.responses.delete(response.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(response.id)


@pytest.mark.parametrize(
    ("wrong", "error", "param"),
    [
        ({"model": "no-such-model"}, openai.NotFoundError, "model"),
        ({"previous_response_id": "resp_none"}, openai.BadRequestError, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, openai.BadRequestError, "tools[0].type"),
        ({"background": True}, openai.BadRequestError, "background"),
        ({"max_output_tokens": 0}, openai.BadRequestError, "max_output_tokens"),
        ({"input": "word " * 9000}, openai.BadRequestError, "input"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_failures_have_the_right_class(
    client: openai.OpenAI, wrong: dict[str, Any], error: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(error) as refused:
        client.responses.create(**({"model": LOCAL, "input": "Hello"} | wrong))
    assert refused.value.param == param
