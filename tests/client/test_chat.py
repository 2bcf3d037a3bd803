"""Whole answers from the local model, as the official client sees them."""

from typing import Any

import openai
import pytest

from rig.gateway import CLOUD, LOCAL, Gateway
from rig.receipts import receipt_of


def ask(client: openai.OpenAI, prompt: str, model: str = LOCAL, **more: Any) -> Any:
    messages = [{"role": "user", "content": prompt}]
    return client.chat.completions.create(model=model, messages=messages, **more)


def test_auto_answers_with_model_and_reason(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model="auto", messages=[{"role": "user", "content": "What is the capital of France?"}], max_tokens=16
    )
    answer = raw.parse()
    receipt = receipt_of(answer)

    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert {candidate["model"] for candidate in receipt["candidates"]} == {LOCAL, CLOUD}
    assert receipt["policy"] == "default"
    for name in ("request_id", "model", "route", "policy"):
        assert raw.headers[f"x-wattgate-{name.replace('_', '-')}"] == receipt[name]
    assert raw.headers["x-wattgate-reason"]


@pytest.mark.parametrize(("policy", "model", "route"), [("cheap", LOCAL, "local"), ("best", CLOUD, "cloud")])
def test_a_policy_is_chosen_by_name(client: openai.OpenAI, policy: str, model: str, route: str) -> None:
    receipt = receipt_of(ask(client, "Say hello.", model=f"auto/{policy}", max_tokens=8))
    assert (receipt["policy"], receipt["model"], receipt["route"]) == (policy, model, route)


@pytest.mark.parametrize(("model", "route"), [(LOCAL, "local"), (CLOUD, "cloud")])
def test_a_model_is_reached_by_its_own_name(client: openai.OpenAI, model: str, route: str) -> None:
    receipt = receipt_of(ask(client, "Say hello.", model=model, max_tokens=8))
    assert (receipt["model"], receipt["route"]) == (model, route)
    for candidate in receipt["candidates"]:
        assert candidate["excluded"] == (None if candidate["model"] == model else "not_named")


def test_a_local_answer_names_its_model_and_counts_its_tokens(client: openai.OpenAI) -> None:
    # With a system prompt even this small model answers correctly.
    question = "What is the capital of France? Answer in one sentence."
    answer = ask(client, question, max_tokens=24, temperature=0)
    assert answer.model == LOCAL
    assert "Paris" in answer.choices[0].message.content
    usage = answer.usage
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= 24
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


@pytest.mark.parametrize("limit", ["max_tokens", "max_completion_tokens"])
def test_the_output_limit_ends_an_answer(client: openai.OpenAI, limit: str) -> None:
    answer = ask(client, "Write a long story about a lighthouse.", **{limit: 5})
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("stop", ["e", ["#", "e"]])
def test_a_stop_string_ends_an_answer_and_is_not_shown(client: openai.OpenAI, stop: str | list[str]) -> None:
    answer = ask(client, "Write a long story about a lighthouse.", stop=stop, max_tokens=64, temperature=0)
    assert answer.choices[0].finish_reason == "stop"
    assert "e" not in answer.choices[0].message.content
    assert answer.usage.completion_tokens < 64


def test_a_seed_repeats_an_answer(client: openai.OpenAI) -> None:
    def tell(seed: int) -> str:
        answer = ask(client, "Invent a name for a ship.", seed=seed, temperature=1.5, max_tokens=16)
        return answer.choices[0].message.content

    # The first answer also fills the prompt cache, so that the two compared ones are computed alike.
    tell(7)
    assert tell(7) == tell(7)
    assert len({tell(seed) for seed in range(4)}) > 1


def test_greedy_answers_do_not_depend_on_the_seed(client: openai.OpenAI) -> None:
    def tell(seed: int) -> str:
        answer = ask(client, "Name three colours.", seed=seed, temperature=0, max_tokens=16)
        return answer.choices[0].message.content

    tell(1)
    assert tell(1) == tell(2)


def test_the_system_turn_and_earlier_turns_reach_the_model(client: openai.OpenAI) -> None:
    def prompt_tokens(*messages: tuple[str, str]) -> int:
        answer = client.chat.completions.create(
            model=LOCAL,
            messages=[{"role": role, "content": content} for role, content in messages],
            max_tokens=4,
        )
        return answer.usage.prompt_tokens

    system, question = ("system", "You are a pirate and answer in one word."), ("user", "Where is the gold?")
    alone = prompt_tokens(system)
    one_turn = prompt_tokens(system, question)
    three_turns = prompt_tokens(system, question, ("assistant", "Buried."), ("user", "On which island?"))
    assert alone < one_turn < three_turns


def test_content_may_come_in_parts(client: openai.OpenAI) -> None:
    def prompt_tokens(content: Any) -> int:
        answer = client.chat.completions.create(
            model=LOCAL, messages=[{"role": "user", "content": content}], max_tokens=1
        )
        return answer.usage.prompt_tokens

    assert prompt_tokens([{"type": "text", "text": "Say hello."}]) == prompt_tokens("Say hello.")


def test_models_are_listed(client: openai.OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}
    assert {LOCAL, CLOUD} <= listed.keys()
    assert all(model.object == "model" for model in listed.values())


def test_probes_answer(gateway: Gateway) -> None:
    assert gateway.get("/healthz").status == 200
    assert gateway.get("/readyz").status == 200
