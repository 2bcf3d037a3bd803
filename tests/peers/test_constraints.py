"""Forms that other servers' clients ask for: kept by construction, or refused by the name of the field; never ignored."""

import json
import re
from typing import Any

import jsonschema
import pytest

from rig.wire import Ask, chat

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "maximum": 150}},
    "required": ["name", "age"],
}


def named(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}


def content(ask: Ask, **more: Any) -> str:
    choice = ask(chat("Describe Ann, who is 30.", max_tokens=96, **more))["choices"][0]
    assert choice["finish_reason"] == "stop"
    return choice["message"]["content"]


FORMS = {
    "response_format": {"response_format": named(PERSON)},
    "json_object with a schema": {"response_format": {"type": "json_object", "schema": PERSON}},
    "json_schema": {"json_schema": PERSON},
    "guided_json": {"guided_json": PERSON},
    "structured_outputs": {"structured_outputs": {"json": PERSON}},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("seed", range(2))
def test_a_schema_is_kept_under_each_of_its_names(ask: Ask, form: dict[str, Any], seed: int) -> None:
    answer = json.loads(content(ask, **(form | {"temperature": 1, "seed": seed})))
    jsonschema.validate(answer, PERSON)
    # A schema that lists its members means these members.
    assert answer.keys() <= {"name", "age"}


def test_a_json_object_is_one(ask: Ask) -> None:
    choice = ask(chat("Reply in JSON.", response_format={"type": "json_object"}, max_tokens=200))["choices"][0]
    text = choice["message"]["content"]
    assert text.lstrip().startswith("{")
    if choice["finish_reason"] == "stop":
        assert isinstance(json.loads(text), dict)


def test_a_choice_of_texts_is_one_of_them(ask: Ask) -> None:
    assert content(ask, guided_choice=["yes", "no"]) in {"yes", "no"}
    assert content(ask, structured_outputs={"choice": ["red", "green"]}) in {"red", "green"}


def test_a_pattern_is_matched_as_a_whole(ask: Ask) -> None:
    assert re.fullmatch(r"[0-9]{3}-[a-f]{2}", content(ask, guided_regex="[0-9]{3}-[a-f]{2}"))
    assert re.fullmatch(r"a{5}", content(ask, structured_outputs={"regex": "a{5,5}"}))


@pytest.mark.parametrize("field", ["grammar", "guided_grammar"])
def test_a_grammar_is_refused_by_name(refused: Ask, field: str) -> None:
    error = refused(chat(**{field: 'root ::= "a"'}))
    assert field in error["message"]
    assert error["param"] == field


@pytest.mark.parametrize(
    "form",
    [
        {"type": "json_object", "schema": 123},
        {"type": "json_object", "schema": "text"},
        {"type": "json_schema", "json_schema": {"name": "n", "schema": 123}},
        {"type": "json_schema", "json_schema": 123},
        {"type": 7},
        7,
    ],
    ids=json.dumps,
)
def test_what_is_no_schema_is_refused_by_name(refused: Ask, form: Any) -> None:
    error = refused(chat(response_format=form))
    assert error["param"].startswith("response_format"), error
    assert "response_format" in error["message"] or "schema" in error["message"]


def test_a_raw_completion_keeps_a_schema_too(ask: Ask) -> None:
    body = {"model": "smollm2-135m", "prompt": "Ann, 30:", "max_tokens": 96, "temperature": 0}
    answer = ask(body | {"response_format": named(PERSON)}, path="/v1/completions")
    jsonschema.validate(json.loads(answer["choices"][0]["text"]), PERSON)


def test_a_begun_answer_is_continued_if_asked_for(ask: Ask) -> None:
    messages = [
        {"role": "user", "content": "Count from one to five."},
        {"role": "assistant", "content": "one, two, thr"},
    ]
    body = chat(continue_final_message=True, add_generation_prompt=False) | {"messages": messages}
    continued = ask(body)
    begun = ask(chat() | {"messages": messages})
    assert continued["usage"]["prompt_tokens"] < begun["usage"]["prompt_tokens"]
    assert continued["choices"][0]["message"]["role"] == "assistant"
