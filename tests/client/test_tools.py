"""Tools on the local model, as the official client uses them: in the fallback format, as its template has none."""

import json
from collections.abc import Callable
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

from rig.gateway import CLOUD, LOCAL

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}
FORCED = {"type": "function", "function": {"name": "get_weather"}}


def ask(client: openai.OpenAI, *messages: Any, **more: Any) -> Any:
    options = {"tools": [WEATHER], "temperature": 0, "max_tokens": 64} | more
    return client.chat.completions.create(model=LOCAL, messages=[QUESTION, *messages], **options)


def ask_streaming(client: openai.OpenAI, *messages: Any, **more: Any) -> Any:
    options = {"tools": [WEATHER], "temperature": 0, "max_tokens": 64} | more
    with client.chat.completions.stream(model=LOCAL, messages=[QUESTION, *messages], **options) as stream:
        return stream.get_final_completion()


@pytest.mark.parametrize("asked", [ask, ask_streaming])
def test_a_call_its_result_and_a_final_answer(client: openai.OpenAI, asked: Callable[..., Any]) -> None:
    called = asked(client, tool_choice=FORCED).choices[0]
    assert called.finish_reason == "tool_calls"
    assert called.message.content is None
    [call] = called.message.tool_calls
    assert (call.type, call.function.name) == ("function", "get_weather")
    assert "Paris" in json.loads(call.function.arguments)["city"]

    result = {"role": "tool", "tool_call_id": call.id, "content": "17 degrees and sunny"}
    answered = asked(client, called.message, result, tool_choice="none").choices[0]
    assert answered.message.content
    assert not answered.message.tool_calls
    assert answered.finish_reason != "tool_calls"


def test_a_model_calls_voluntarily_after_earlier_calls(client: openai.OpenAI) -> None:
    messages: list[Any] = []
    for place, city in enumerate(["Rome", "Oslo", "Cairo"]):
        function = {"name": "get_weather", "arguments": json.dumps({"city": city})}
        messages.append({"role": "user", "content": f"What is the weather in {city}?"})
        calls = [{"id": f"call_{place}", "type": "function", "function": function}]
        messages.append({"role": "assistant", "tool_calls": calls})
    options = {"tools": [WEATHER], "temperature": 0, "max_tokens": 64}
    answer = client.chat.completions.create(model=LOCAL, messages=[*messages, QUESTION], **options).choices[0]
    assert answer.finish_reason == "tool_calls"
    arguments = json.loads(answer.message.tool_calls[0].function.arguments)
    assert isinstance(arguments["city"], str)


def test_a_streamed_call_is_assembled_by_the_client(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=LOCAL, messages=[QUESTION], tools=[WEATHER], tool_choice="required", temperature=0, max_tokens=64
    ) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert kinds.count("tool_calls.function.arguments.delta") > 1
    assert kinds.count("tool_calls.function.arguments.done") == 1
    assert "content.delta" not in kinds
    [call] = final.choices[0].message.tool_calls
    assert "Paris" in json.loads(call.function.arguments)["city"]
    assert final.choices[0].finish_reason == "tool_calls"


def test_one_of_several_tools_is_called_if_required(client: openai.OpenAI) -> None:
    names = ["get_weather", "get_time"]
    tools = [{**WEATHER, "function": {**WEATHER["function"], "name": name}} for name in names]
    answer = ask(client, tools=tools, tool_choice="required", parallel_tool_calls=False).choices[0]
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls
    assert call.function.name in names


def test_local_answers_count_reasoning_tokens_separately(client: openai.OpenAI) -> None:
    usage = ask(client, tool_choice="none", max_tokens=4).usage
    assert usage.completion_tokens_details.reasoning_tokens == 0


# What a local model cannot serve; an upstream that is named judges the rest for itself.
@pytest.mark.parametrize(
    ("model", "wrong", "param"),
    [
        (LOCAL, {"tools": [{"type": "function"}]}, "tools[0].function"),
        (LOCAL, {"tools": [{"type": "function", "function": {"name": "not a name"}}]}, "tools[0].function.name"),
        (LOCAL, {"tool_choice": "required"}, "tool_choice"),
        (LOCAL, {"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice"),
        (CLOUD, {"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice"),
        (CLOUD, {"tools": [{"type": "function", "function": {}}]}, "tools[0].function.name"),
    ],
    ids=str,
)
def test_malformed_tools_are_refused(client: openai.OpenAI, model: str, wrong: dict[str, Any], param: str) -> None:
    body = {"model": model, "messages": [QUESTION]} | wrong
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/chat/completions", body=body, cast_to=object)
    assert refused.value.param == param


class Weather(BaseModel):
    """Current weather of a city"""

    city: str
    unit: Literal["celsius", "kelvin"]


class Stop(BaseModel):
    name: str
    nights: int = Field(ge=1, le=9)


class Trip(BaseModel):
    """Plans a trip"""

    title: str
    stops: list[Stop] = Field(min_length=1, max_length=2)


class Verdict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    mood: Literal["good", "bad"]


HELPERS = [openai.pydantic_function_tool(Weather), openai.pydantic_function_tool(Trip)]


def test_the_clients_parser_gives_typed_arguments(client: openai.OpenAI) -> None:
    for name, kind in [("Weather", Weather), ("Trip", Trip)]:
        choice = {"type": "function", "function": {"name": name}}
        answer = client.chat.completions.parse(
            model=LOCAL, messages=[QUESTION], tools=HELPERS, tool_choice=choice, temperature=1, seed=3, max_tokens=200
        ).choices[0]
        [call] = answer.message.tool_calls
        assert (answer.finish_reason, call.function.name) == ("tool_calls", name)
        assert isinstance(call.function.parsed_arguments, kind)


def test_the_clients_stream_gives_typed_arguments_and_answers(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model=LOCAL, messages=[QUESTION], tools=HELPERS, tool_choice="required", parallel_tool_calls=False,
        temperature=1, seed=5, max_tokens=200,
    ) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        calls = stream.get_final_completion().choices[0].message.tool_calls
    assert done and len(done) == len(calls)
    assert all(isinstance(event.parsed_arguments, (Weather, Trip)) for event in done)
    assert all(isinstance(call.function.parsed_arguments, (Weather, Trip)) for call in calls)
    with client.chat.completions.stream(
        model=LOCAL, messages=[QUESTION], response_format=Verdict, temperature=1, seed=5, max_tokens=64
    ) as stream:
        told = "".join(event.delta for event in stream if event.type == "content.delta")
        parsed = stream.get_final_completion().choices[0].message.parsed
    assert parsed == Verdict.model_validate_json(told)


def test_an_agent_loop_ends_with_an_answer(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "system", "content": "You plan trips."}, QUESTION]
    cached = []
    for _ in range(3):
        answer = client.chat.completions.parse(
            model=LOCAL, messages=messages, tools=HELPERS, tool_choice="required", parallel_tool_calls=False,
            temperature=0, max_tokens=200,
        )
        cached.append(answer.usage.prompt_tokens_details.cached_tokens / answer.usage.prompt_tokens)
        called = answer.choices[0].message
        messages.append(called)
        for call in called.tool_calls:
            # Long, with many lines and non-ASCII text, like real results.
            result = f"{call.function.parsed_arguments!r}: 17 °C\n" + "☀️ sonnig, 東京\n" * 20
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answered = client.chat.completions.create(
        model=LOCAL, messages=messages, tools=HELPERS, tool_choice="none", temperature=0, max_tokens=24
    )
    assert answered.choices[0].message.content
    # A later turn prefills only its new tokens.
    assert min(cached[1:]) > 0.3


def test_a_truncated_call_is_complete_json_or_marked(client: openai.OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "Trip"}}
    for limit in (2, 8, 24, 60):
        answer = client.chat.completions.create(
            model=LOCAL, messages=[QUESTION], tools=HELPERS, tool_choice=choice, temperature=1.5, seed=1, max_tokens=limit
        ).choices[0]
        assert answer.finish_reason in ("length", "tool_calls")
        arguments = "".join(call.function.arguments for call in answer.message.tool_calls or [])
        if answer.finish_reason == "tool_calls" or limit >= 60:
            Trip.model_validate_json(arguments)


def test_arguments_in_any_script_arrive_unchanged(client: openai.OpenAI) -> None:
    words = ["Zürich", "東京 🗼", "line\nbreak", 'say "hi" \\']
    parameters = {
        "type": "object",
        "properties": {f"größe {at}": {"const": word} for at, word in enumerate(words)},
        "required": [f"größe {at}" for at in range(len(words))],
        "additionalProperties": False,
    }
    tool = {"type": "function", "function": {"name": "say", "parameters": parameters, "strict": True}}
    for asked in (ask, ask_streaming):
        [call] = asked(client, tools=[tool], tool_choice="required", max_tokens=200).choices[0].message.tool_calls
        assert list(json.loads(call.function.arguments).values()) == words


def test_many_tools_of_ten_arguments_fit_one_request(client: openai.OpenAI) -> None:
    kinds = [{"type": "string"}, {"type": "integer"}, {"enum": ["a", "b"]}, {"type": "boolean"}, {"type": ["string", "null"]}]
    properties = {f"field_{at}": kinds[at % 5] for at in range(10)}
    parameters = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    tools = [{"type": "function", "function": {"name": f"tool_{at}", "parameters": parameters}} for at in range(6)]
    choice = {"type": "function", "function": {"name": "tool_5"}}
    [call] = ask(client, tools=tools, tool_choice=choice, max_tokens=300).choices[0].message.tool_calls
    assert set(json.loads(call.function.arguments)) == set(properties)
