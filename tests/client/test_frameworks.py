"""Agent frameworks in their default mode, pointed at the gateway and nothing else."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import agents
import openai
import pytest
from pydantic import BaseModel, ConfigDict
from pydantic_ai import Agent
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIResponsesModel
from pydantic_ai.output import NativeOutput
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider
from pydantic_ai.settings import ModelSettings

from rig.gateway import CLIENT_KEY, LOCAL, Gateway


class Person(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str
    age: int


def run(work: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        return await asyncio.wait_for(work, timeout=120)

    return asyncio.run(bounded())


class TestOpenAIAgents:
    """Its default is the Responses API."""

    @pytest.fixture(autouse=True)
    def default_client(self, gateway: Gateway) -> None:
        client = openai.AsyncOpenAI(base_url=f"http://{gateway.address}/v1", api_key=CLIENT_KEY, max_retries=0)
        agents.set_default_openai_client(client, use_for_tracing=False)
        agents.set_tracing_disabled(True)

    def agent(self, **more: Any) -> agents.Agent[Any]:
        # A cut answer is an error to it, and a small model goes on for long.
        more.setdefault("model_settings", agents.ModelSettings(temperature=0, max_tokens=400))
        return agents.Agent(name="helper", instructions="Be brief.", model=LOCAL, **more)

    def test_text(self) -> None:
        assert run(agents.Runner.run(self.agent(), "Say hello.")).final_output

    def test_stream(self) -> None:
        async def collect() -> tuple[str, str]:
            result = agents.Runner.run_streamed(self.agent(), "Say hello.")
            events = [event async for event in result.stream_events()]
            raw = [event.data for event in events if event.type == "raw_response_event"]
            deltas = [event.delta for event in raw if event.type == "response.output_text.delta"]
            return "".join(deltas), result.final_output

        text, final = run(collect())
        assert text == final != ""

    def test_a_call_its_result_and_a_final_answer(self) -> None:
        asked: list[str] = []

        @agents.function_tool
        def get_weather(city: str) -> str:
            """Current weather of a city."""
            asked.append(city)
            return "17 degrees and sunny"

        settings = agents.ModelSettings(temperature=0, max_tokens=64, tool_choice="required")
        agent = self.agent(tools=[get_weather], model_settings=settings)
        result = run(agents.Runner.run(agent, "What is the weather in Paris?", max_turns=6))
        assert asked
        assert result.final_output

    def test_structured_output(self) -> None:
        agent = self.agent(output_type=Person)
        assert isinstance(run(agents.Runner.run(agent, "Bob is 42 years old.")).final_output, Person)

    def test_an_unknown_model_is_not_found(self) -> None:
        agent = agents.Agent(name="helper", model="no-such-model")
        with pytest.raises(openai.NotFoundError):
            run(agents.Runner.run(agent, "Hello"))


def responses_model(gateway: Gateway) -> OpenAIResponsesModel:
    """What `openai:NAME` means."""
    provider = OpenAIProvider(base_url=f"http://{gateway.address}/v1", api_key=CLIENT_KEY)
    return OpenAIResponsesModel(LOCAL, provider=provider)


def messages_model(gateway: Gateway) -> AnthropicModel:
    """What `anthropic:NAME` means."""
    provider = AnthropicProvider(base_url=f"http://{gateway.address}", api_key=CLIENT_KEY)
    return AnthropicModel(LOCAL, provider=provider)


@pytest.mark.parametrize("model", [responses_model, messages_model])
class TestPydanticAI:
    settings = ModelSettings(temperature=0, max_tokens=64)

    def test_text_and_stream(self, gateway: Gateway, model: Any) -> None:
        async def both() -> tuple[str, str]:
            agent = Agent(model(gateway), instructions="Be brief.", model_settings=self.settings)
            answer = await agent.run("Who wrote Hamlet?")
            async with agent.run_stream("Who wrote Hamlet?") as streamed:
                return answer.output, await streamed.get_output()

        whole, streamed = run(both())
        assert whole and streamed

    def test_a_call_is_the_output(self, gateway: Gateway, model: Any) -> None:
        async def person() -> Person:
            agent = Agent(model(gateway), output_type=Person, model_settings=self.settings, retries=3)
            return (await agent.run("Bob is 42 years old.")).output

        assert isinstance(run(person()), Person)


def test_a_schema_is_the_output_of_pydantic_ai(gateway: Gateway) -> None:
    # Over Messages it offers a schema to Anthropic's own model names only.
    async def person() -> Person:
        settings = ModelSettings(temperature=0, max_tokens=64)
        agent = Agent(responses_model(gateway), output_type=NativeOutput(Person), model_settings=settings, retries=3)
        return (await agent.run("Bob is 42 years old.")).output

    assert isinstance(run(person()), Person)
