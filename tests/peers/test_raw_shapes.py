"""Raw completions and embeddings: echo, several prompts, stops, limits, seeds, and the forms of vectors."""

import base64
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from rig.build import REPOSITORY
from rig.gateway import LOCAL, Gateway
from rig.upstream import MockUpstream
from rig.wire import Ask, chunks_of

MODEL = REPOSITORY / "models/test/all-MiniLM-L6-v2.F32.gguf"


def raw(prompt: Any = "Once upon a time", **more: Any) -> dict[str, Any]:
    return {"model": LOCAL, "prompt": prompt, "max_tokens": 8, "temperature": 0} | more


@pytest.fixture
def complete(ask: Ask) -> Ask:
    return lambda body: ask(body, path="/v1/completions")


def texts(answer: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in sorted(answer["choices"], key=lambda choice: choice["index"])]


def test_a_stream_adds_up_to_the_whole_text(complete: Ask) -> None:
    whole = complete(raw())
    chunks = complete(raw(stream=True))
    assert whole["object"] == "text_completion"
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert "".join(c["text"] for chunk in chunks for c in chunk["choices"]) == texts(whole)[0]


def test_an_echo_begins_with_the_prompt(complete: Ask) -> None:
    plain, echoed = complete(raw()), complete(raw(echo=True))
    assert texts(echoed) == ["Once upon a time" + texts(plain)[0]]
    assert echoed["usage"] == plain["usage"]


def test_no_tokens_are_an_answer_too(complete: Ask) -> None:
    assert texts(complete(raw(max_tokens=0, echo=True))) == ["Once upon a time"]
    answer = complete(raw(max_tokens=0))
    assert (texts(answer), answer["usage"]["completion_tokens"]) == ([""], 0)
    assert answer["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("prompt", ["", [""]], ids=repr)
def test_an_empty_prompt_begins_a_document(complete: Ask, prompt: Any) -> None:
    assert complete(raw(prompt))["usage"]["completion_tokens"] > 0


def test_prompts_of_one_request_are_answered_in_their_order(complete: Ask) -> None:
    prompts = ["Once upon a time", "The capital of France is"]
    assert texts(complete(raw(prompts))) == [texts(complete(raw(prompt)))[0] for prompt in prompts]


def test_choices_of_a_prompt_have_seeds_of_their_own(complete: Ask) -> None:
    both = texts(complete(raw(n=2, temperature=1.5, seed=3)))
    assert both[0] != both[1]
    assert texts(complete(raw(temperature=1.5, seed=3)))[0] == both[0]


def test_a_seed_repeats_a_sampled_text(complete: Ask) -> None:
    # The first one fills the prompt cache, so that the others are computed alike.
    tellings = [texts(complete(raw(temperature=1.5, seed=11)))[0] for _ in range(3)]
    assert tellings[1] == tellings[2]


@pytest.mark.parametrize("stops", [[" a"], ["zzz", " a", "\n\n\n"], ["q1", "q2", "q3", "q4", "q5", " a"]], ids=len)
def test_the_first_of_the_stops_ends_a_text(complete: Ask, stops: list[str]) -> None:
    answer = complete(raw(max_tokens=60, stop=stops))
    assert " a" not in texts(answer)[0]
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_logprobs_of_a_raw_text_stand_at_their_places(complete: Ask) -> None:
    choice = complete(raw(logprobs=2))["choices"][0]
    logprobs = choice["logprobs"]
    assert "".join(logprobs["tokens"]) == choice["text"]
    starts = [sum(map(len, logprobs["tokens"][:at])) for at in range(len(logprobs["tokens"]))]
    assert [offset - logprobs["text_offset"][0] for offset in logprobs["text_offset"]] == starts
    assert all(len(top) >= 2 for top in logprobs["top_logprobs"])


@pytest.fixture(scope="module")
def embedder(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    config = f'[models.minilm.llama]\nsource = "file:{MODEL}"\nembedding = true\n'
    with Gateway(tmp_path_factory.mktemp("embedder"), upstream.base_url, more_config=config) as gateway:
        gateway.wait_until_ready("minilm")
        yield gateway


def vectors(gateway: Gateway, given: Any, **more: Any) -> dict[str, Any]:
    answer = gateway.post("/v1/embeddings", {"model": "minilm", "input": given} | more)
    assert answer.status == 200, answer.text
    return answer.json()


def test_one_text_and_a_list_of_it_have_one_vector(embedder: Gateway) -> None:
    one, listed = vectors(embedder, "hello"), vectors(embedder, ["hello"])
    assert one["object"] == "list"
    assert one["data"][0]["object"] == "embedding"
    assert one["data"] == listed["data"]
    assert one["usage"]["prompt_tokens"] == one["usage"]["total_tokens"] > 0


def test_vectors_come_in_the_order_of_their_texts(embedder: Gateway) -> None:
    given = ["rivers", "bread", "rivers"]
    data = vectors(embedder, given)["data"]
    assert [item["index"] for item in data] == [0, 1, 2]
    assert data[0]["embedding"] != data[1]["embedding"]
    assert data[0]["embedding"] == pytest.approx(data[2]["embedding"], abs=1e-4)


def test_base64_holds_the_floats(embedder: Gateway) -> None:
    floats = vectors(embedder, "hello", encoding_format="float")["data"][0]["embedding"]
    packed = base64.b64decode(vectors(embedder, "hello", encoding_format="base64")["data"][0]["embedding"])
    assert list(struct.unpack(f"<{len(floats)}f", packed)) == pytest.approx(floats, abs=1e-6)


def test_a_stream_of_several_choices_ends_each_of_them(gateway: Gateway) -> None:
    chunks = chunks_of(gateway.post("/v1/completions", raw(n=3, temperature=1, stream=True)))
    ended = [c["index"] for chunk in chunks for c in chunk["choices"] if c["finish_reason"]]
    assert sorted(ended) == [0, 1, 2]
