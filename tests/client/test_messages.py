"""`/v1/messages` with Anthropic's client: every object and event parsed by its own types."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, RawMessageStreamEvent
from pydantic import TypeAdapter

from rig.gateway import CLIENT_KEY, CLOUD, LOCAL, Gateway

EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)
WEATHER = {
    "name": "get_weather",
    "description": "Current weather of a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
QUESTION = {"role": "user", "content": "What is the weather in Paris?"}


@pytest.fixture
def claude(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    url = f"http://{gateway.address}"
    with anthropic.Anthropic(base_url=url, api_key=CLIENT_KEY, max_retries=0, timeout=120) as client:
        yield client


def ask(claude: anthropic.Anthropic, *messages: Any, **more: Any) -> Message:
    options = {"model": LOCAL, "extra_body": {"temperature": 0}, "max_tokens": 64} | more
    message = claude.messages.create(messages=list(messages), **options)
    return Message.model_validate(message.model_dump())


def test_an_answer_with_its_receipt(claude: anthropic.Anthropic, gateway: Gateway) -> None:
    message = claude.messages.create(
        model=LOCAL, max_tokens=24, system="Be brief.", messages=[{"role": "user", "content": "Who wrote Hamlet?"}]
    )
    assert message.content[0].text
    assert message.usage.input_tokens + message.usage.cache_read_input_tokens > 5
    assert message._request_id
    assert gateway.final_receipt(message.id)["energy"]["joules"] > 0


@pytest.mark.parametrize("model", [LOCAL, CLOUD])
def test_every_event_has_its_type(claude: anthropic.Anthropic, model: str) -> None:
    hello = [{"role": "user", "content": "Hello"}]
    stream = claude.messages.create(model=model, max_tokens=24, messages=hello, stream=True)
    events = [EVENT.validate_python(event.model_dump()) for event in stream]
    assert (events[0].type, events[-1].type) == ("message_start", "message_stop")
    with claude.messages.stream(model=model, max_tokens=24, messages=hello) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.content[0].text == text != ""
    assert final.usage.output_tokens > 1
    assert final.stop_reason in ("end_turn", "max_tokens")


@pytest.mark.parametrize("streams", [False, True])
def test_a_call_its_result_and_a_final_answer(claude: anthropic.Anthropic, streams: bool) -> None:
    options: dict[str, Any] = {"tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather"}}
    if streams:
        with claude.messages.stream(model=LOCAL, max_tokens=64, messages=[QUESTION], **options) as stream:
            called = stream.get_final_message()
    else:
        called = ask(claude, QUESTION, **options)
    assert called.stop_reason == "tool_use"
    [call] = called.content
    assert (call.type, call.name) == ("tool_use", "get_weather")
    assert isinstance(call.input["city"], str)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "17 degrees and sunny"}
    history = [QUESTION, {"role": "assistant", "content": called.content}, {"role": "user", "content": [result]}]
    answered = ask(claude, *history, tools=[WEATHER], tool_choice={"type": "none"})
    assert answered.content[0].text


def test_models_and_tokens_are_told(claude: anthropic.Anthropic) -> None:
    assert {LOCAL, CLOUD, "auto"} <= {model.id for model in claude.models.list()}
    assert claude.models.retrieve(LOCAL).id == LOCAL
    assert claude.messages.count_tokens(model=LOCAL, messages=[QUESTION], tools=[WEATHER]).input_tokens > 10


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"model": "no-such-model"}, anthropic.NotFoundError, "no-such-model"),
        ({"tools": [{"type": "web_search_20250305", "name": "w"}]}, anthropic.BadRequestError, "tools[0].type"),
        ({"messages": []}, anthropic.BadRequestError, "messages"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "max_tokens"),
        (
            {"messages": [{"role": "user", "content": "word " * 9000}]},
            anthropic.BadRequestError,
            "prompt is too long",
        ),
    ],
    ids=lambda value: str(value)[:40],
)
def test_failures_have_the_right_class(
    claude: anthropic.Anthropic, wrong: dict[str, Any], error: type[anthropic.APIStatusError], message: str
) -> None:
    request = {"model": LOCAL, "max_tokens": 8, "messages": [QUESTION]} | wrong
    with pytest.raises(error) as refused:
        claude.messages.create(**request)
    assert message in refused.value.message
    assert refused.value.body["type"] == "error"
