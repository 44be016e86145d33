"""What an answer must look like, on every route that generates: honoured, or refused by name."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from layerscale_core.constraints import Constraint, ConstraintCompiler, Grammar
from layerscale_server.state import ServerState
from tests.server.conftest import FakeServer, MakeServer

POINT = {
    "type": "object",
    "properties": {"x": {"type": "integer", "minimum": 0, "maximum": 99}, "kind": {"enum": ["a", "b"]}},
    "required": ["x", "kind"],
    "additionalProperties": False,
}
IS_POINT = re.compile(r'\{"x": \d{1,2}, "kind": "[ab]"\}').fullmatch
MESSAGES = [{"role": "user", "content": "hi"}]
CHAT = {"messages": MESSAGES, "temperature": 0, "max_tokens": 60}


def schema_format(schema: Any) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}


def content(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    choice = response.json()["choices"][0]
    assert choice["finish_reason"] == "stop"
    text: str = choice["message"]["content"] if "message" in choice else choice["text"]
    return text


WAYS: list[tuple[dict[str, Any], Callable[[str], object]]] = [
    ({"response_format": schema_format(POINT)}, IS_POINT),
    ({"response_format": {"type": "json_schema", "schema": POINT}}, IS_POINT),
    ({"response_format": {"type": "json_object", "schema": POINT}}, IS_POINT),
    ({"guided_json": POINT}, IS_POINT),
    ({"guided_json": json.dumps(POINT)}, IS_POINT),
    ({"guided_regex": "[a-f]{3}-[0-9]{2}"}, re.compile("[a-f]{3}-[0-9]{2}").fullmatch),
    ({"guided_choice": ["left", "right"]}, re.compile("left|right").fullmatch),
    ({"guided_grammar": 'start: "<" NUMBER ">"\nNUMBER: /[0-9]{2}/'}, re.compile(r"<\d\d>").fullmatch),
    ({"structured_outputs": {"json": POINT}}, IS_POINT),
    ({"structured_outputs": {"regex": "x{3}"}}, re.compile("xxx").fullmatch),
    ({"structured_outputs": {"choice": ["left", "right"]}}, re.compile("left|right").fullmatch),
    ({"structured_outputs": {"grammar": 'start: "ok"'}}, re.compile("ok").fullmatch),
]


@pytest.mark.parametrize(("fields", "fits"), WAYS)
def test_every_way_to_ask_on_chat_and_completions(
    server: FakeServer, fields: dict[str, Any], fits: Callable[[str], object]
) -> None:
    whole = content(server.post("/v1/chat/completions", CHAT | fields))
    assert fits(whole), whole
    chunks = server.chunks("/v1/chat/completions", CHAT | fields)
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == whole
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    raw = {"prompt": ["hi", "yo"], "temperature": 0, "max_tokens": 60}
    assert fits(content(server.post("/v1/completions", raw | fields)))


@pytest.mark.parametrize(
    "field", [{"response_format": {"type": "json_object"}}, {"structured_outputs": {"json_object": True}}]
)
def test_any_json_object(server: FakeServer, field: dict[str, Any]) -> None:
    bias = {"logit_bias": {str(ord("}")): 100}}
    assert isinstance(json.loads(content(server.post("/v1/chat/completions", CHAT | field | bias))), dict)


@pytest.mark.parametrize(
    "fields", [{"response_format": {"type": "text"}}, {"structured_outputs": {}}, {"guided_json": None}, {}]
)
def test_nothing_asked_changes_nothing(server: FakeServer, fields: dict[str, Any]) -> None:
    response = server.post("/v1/chat/completions", CHAT | fields)
    assert response.json()["choices"][0]["finish_reason"] == "length"


def test_logprobs_come_for_forced_tokens_too(server: FakeServer) -> None:
    body = CHAT | {"guided_json": POINT, "logprobs": True, "top_logprobs": 1}
    choice = server.post("/v1/chat/completions", body).json()["choices"][0]
    assert "".join(entry["token"] for entry in choice["logprobs"]["content"]) == choice["message"]["content"]
    assert choice["message"]["content"] == content(server.post("/v1/chat/completions", CHAT | {"guided_json": POINT}))


def test_a_session_answers_in_form_and_goes_on(make_server: MakeServer) -> None:
    server = make_server(num_sessions=1)
    session_id = server.post("/v1/sessions/init", {"type": "ohlcv", "prompt": "abc"}).json()["session_id"]
    path = f"/v1/sessions/{session_id}/generate"
    first = server.post(path, {"prompt": "?", "guided_json": POINT, "fast_answer": True}).json()
    assert IS_POINT(first["text"])
    assert (first["finish_reason"], "speculative" in first) == ("stop", False)
    again = server.post(path, {"prompt": "!", "structured_outputs": {"choice": ["left", "right"]}}).json()
    assert again["text"] in ("left", "right")
    turn = CHAT | {"session_id": session_id, "response_format": schema_format(POINT)}
    assert IS_POINT(content(server.post("/v1/chat/completions", turn)))


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"response_format": schema_format({"not": {}})}, "response_format"),
        ({"response_format": schema_format({"type": "array", "uniqueItems": True})}, "response_format"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format"),
        ({"response_format": {"type": "json_object", "json_schema": {"schema": {}}}}, "response_format"),
        ({"response_format": {"type": "text", "schema": {}}}, "response_format"),
        ({"response_format": schema_format({}) | {"schema": {}}}, "response_format"),
        ({"guided_json": "{"}, "guided_json"),
        ({"guided_json": {"$ref": "#"}}, "guided_json"),
        ({"guided_regex": "(a"}, "guided_regex"),
        ({"guided_regex": "(?=a)b"}, "guided_regex"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_grammar": "start: nothing"}, "guided_grammar"),
        ({"structured_outputs": {"json": {"if": {}}}}, "structured_outputs"),
        ({"guided_regex": "a", "guided_choice": ["a"]}, "guided_choice"),
        ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "response_format"),
        ({"structured_outputs": {"regex": "a", "choice": ["a"]}}, "structured_outputs"),
    ],
)
def test_what_cannot_be_had_is_refused_with_its_field(server: FakeServer, fields: dict[str, Any], param: str) -> None:
    for path, body in (("/v1/chat/completions", CHAT), ("/v1/completions", {"prompt": "hi"})):
        response = server.post(path, body | fields)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["param"] == param


def rooms(depth: int) -> dict[str, Any]:
    doubling = {f"d{n}": {"properties": {key: {"$ref": f"#/$defs/d{n + 1}"} for key in "ab"}} for n in range(depth)}
    return {"$ref": "#/$defs/d0", "$defs": doubling | {f"d{depth}": {"const": 1}}}


HOSTILE: dict[str, dict[str, Any]] = {
    "references that double": {"guided_json": rooms(40)},
    "references without end": {
        "guided_json": {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}
    },
    "a value that holds itself": {
        "guided_json": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}
    },
    "products of alternatives": {
        "guided_json": {"allOf": [{"anyOf": [{"properties": {f"{n}{c}": {}}} for c in "ab"]} for n in range(24)]}
    },
    "too many values": {"guided_json": {"enum": list(range(2001))}},
    "too many bytes": {"guided_json": {"const": "x" * 70_000}},
    "too deep": {"guided_regex": "(" * 30_000 + "a" + ")" * 30_000},
    "items without end": {"guided_json": {"type": "array", "items": {"const": 1}, "minItems": 10**9}},
    "a length without end": {"guided_json": {"type": "array", "items": {"pattern": "^a{999}$"}, "minItems": 999}},
    "a large divisor": {"guided_json": {"type": "integer", "multipleOf": 1000003}},
    "counts of counts": {"guided_regex": "((a{1000}){1000}){1000}"},
    "counts of rules": {"guided_grammar": "start: A{1000}\nA: B{1000}\nB: C{1000}\nC: /x{9}/"},
    "a rule without an end": {"guided_grammar": 'start: "a" start'},
    "two rules without an end": {"guided_grammar": 'start: ("a" | other)? other\nother: "b" start | start "c"'},
    "a schema without an end within rules": {"guided_grammar": 'start: %json {"$ref": "#"}'},
    "options that let keywords pass": {"guided_grammar": 'start: %json {"x-guidance": {"lenient": true}, "not": {}}'},
}


@pytest.mark.parametrize("fields", HOSTILE.values(), ids=HOSTILE)
def test_hostile_grammars_are_refused_while_a_neighbour_streams(server: FakeServer, fields: dict[str, Any]) -> None:
    async def both(client: httpx.AsyncClient) -> tuple[httpx.Response, httpx.Response]:
        neighbour = client.post("/v1/chat/completions", json=CHAT | {"stream": True})
        return await asyncio.gather(client.post("/v1/chat/completions", json=CHAT | fields), neighbour)

    refused, stream = server.run(both)
    assert refused.status_code == 400, refused.text
    assert refused.json()["error"]["code"] == "invalid_grammar"
    assert stream.text.endswith("data: [DONE]\n\n")


class SlowCompiler(ConstraintCompiler):
    """Takes until it is told to go on."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.num_begun = 0

    def prepare(self) -> None:
        """Nothing."""

    def find(self, grammar: Grammar) -> Constraint | None:
        return None

    def compile(self, grammar: Grammar) -> Constraint:
        self.num_begun += 1
        assert self.may_go_on.wait(30)
        raise AssertionError("nobody waits for this")


def test_a_compilation_past_its_time_is_refused_and_holds_up_nobody(make_server: MakeServer) -> None:
    server = make_server(grammar_compile_s=0.05)
    compiler = SlowCompiler()
    assert server.state.model is not None
    server.state.model.constraints._compiler = compiler
    try:
        refused = server.post("/v1/chat/completions", CHAT | {"guided_regex": "a"})
        assert refused.status_code == 400
        assert "50 ms" in refused.json()["error"]["message"]
        assert compiler.num_begun == 1
        assert server.post("/v1/chat/completions", CHAT).status_code == 200
    finally:
        compiler.may_go_on.set()


class Step(BaseModel):
    explanation: str
    level: int


class Answer(BaseModel):
    kind: str
    steps: list[Step]


def test_the_openai_sdk_parses_into_a_class(server: FakeServer, run_live: Callable[[ServerState], str]) -> None:
    bias = {str(ord(character)): 60 for character in '"]}'}
    with openai.OpenAI(base_url=run_live(server.state) + "/v1", api_key="any", max_retries=0) as client:
        completion = client.chat.completions.parse(
            model="any",
            messages=[{"role": "user", "content": "hi"}],
            response_format=Answer,
            max_tokens=200,
            temperature=0,
            logit_bias=bias,  # type: ignore[arg-type]  # any number
        )
    assert isinstance(completion.choices[0].message.parsed, Answer)


@pytest.mark.parametrize("field", ["output_config", "output_format"])
def test_anthropics_messages_match_their_schema(server: FakeServer, field: str) -> None:
    wanted: dict[str, Any] = {"type": "json_schema", "schema": POINT}
    body = {**CHAT, field: {"format": wanted} if field == "output_config" else wanted}
    answer = server.post("/v1/messages", body).json()
    assert answer["stop_reason"] == "end_turn"
    assert IS_POINT(answer["content"][0]["text"])
    begun = [*MESSAGES, {"role": "assistant", "content": '{"x":'}]
    refused = server.post("/v1/messages", body | {"messages": begun})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith(field)
