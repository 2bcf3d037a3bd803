"""Tools on the local model, as the official client uses them: it is told of them by the fallback, its template knowing none."""

import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

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
def test_a_call_its_result_and_an_answer_in_words(client: openai.OpenAI, asked: Callable[..., Any]) -> None:
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


def test_a_model_used_to_calling_calls_by_itself(client: openai.OpenAI) -> None:
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


def test_a_streamed_call_is_put_together_by_the_client(client: openai.OpenAI) -> None:
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


def test_one_of_several_tools_is_chosen_where_one_is_required(client: openai.OpenAI) -> None:
    names = ["get_weather", "get_time"]
    tools = [{**WEATHER, "function": {**WEATHER["function"], "name": name}} for name in names]
    answer = ask(client, tools=tools, tool_choice="required", parallel_tool_calls=False).choices[0]
    assert answer.finish_reason == "tool_calls"
    [call] = answer.message.tool_calls
    assert call.function.name in names


def test_local_answers_tell_reasoning_tokens_apart(client: openai.OpenAI) -> None:
    usage = ask(client, tool_choice="none", max_tokens=4).usage
    assert usage.completion_tokens_details.reasoning_tokens == 0


@pytest.mark.parametrize("model", [LOCAL, CLOUD])
@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "not a name"}}]}, "tools[0].function.name"),
        ({"tools": [WEATHER], "tool_choice": "maybe"}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
    ids=str,
)
def test_malformed_tools_are_refused(client: openai.OpenAI, model: str, wrong: dict[str, Any], param: str) -> None:
    body = {"model": model, "messages": [QUESTION]} | wrong
    with pytest.raises(openai.BadRequestError) as refused:
        client.post("/chat/completions", body=body, cast_to=object)
    assert refused.value.param == param
