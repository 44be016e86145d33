"""Every field of every body: in range, at its bounds, one past them, of another type."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.conftest import FakeServer

ROUTES = {
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    "/v1/completions": {"prompt": "hi", "max_tokens": 1},
    "/v1/messages": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "hi"}]},
    "/tokenize": {"prompt": "hi"},
    "/detokenize": {"tokens": [104, 105]},
}

SAY_A = {"role": "user", "content": "a"}

GENERATING = ("/v1/chat/completions", "/v1/completions", "/v1/messages")

WRONG_NUMBERS = ["1", True, [1], {}]
WRONG_INTEGERS = [*WRONG_NUMBERS, 1.0]

SAMPLING_FIELDS: dict[str, tuple[list[Any], list[Any]]] = {
    "temperature": ([0, 0.0, 1, 2, 2.0], [-0.001, 2.001, *WRONG_NUMBERS]),
    "top_p": ([0.001, 0.5, 1], [0, -0.1, 1.001, *WRONG_NUMBERS]),
    "top_k": ([-1, 0, 1, 2**31 - 1], [-2, 2**31, *WRONG_INTEGERS]),
    "min_p": ([0, 0.5, 1], [-0.001, 1.001, *WRONG_NUMBERS]),
    "presence_penalty": ([-2, 0, 2], [-2.001, 2.001, *WRONG_NUMBERS]),
    "frequency_penalty": ([-2, 0, 2], [-2.001, 2.001, *WRONG_NUMBERS]),
    "repetition_penalty": ([0.1, 1, 10], [0.099, 10.001, 0, *WRONG_NUMBERS]),
    "logit_bias": (
        [{}, {"0": -100, "257": 100}, {"65": 0.5}],
        [{"258": 1}, {"65": 100.1}, {"65": -100.1}, {"x": 1}, {"-1": 1}, {"1.5": 1}, {"65": "1"}, [], "65"],
    ),
    "seed": ([0, -1, 2**64 - 1, -(2**63)], [2**64, -(2**63) - 1, *WRONG_INTEGERS]),
    "stop_token_ids": ([[], [0], [257], list(range(256))], [[258], [-1], list(range(257)), ["1"], [True], 5]),
    "ignore_eos": ([True, False], ["true", 1, []]),
    "min_tokens": ([0, 1], [-1, 2, 2**31, *WRONG_INTEGERS[:1], 1.0, [1]]),
    "max_tokens": ([1, 2, 2**31 - 1], [-1, 2**31, "1", True, 1.0, [1]]),
    "stream": ([False], ["false", 0, {}]),
    "stream_options": ([{}, {"include_usage": True}, {"include_usage": None}], [{"include_usage": 1}, [], "x"]),
    "n": ([1], [0, 2, -1, *WRONG_INTEGERS]),
}

STRUCTURED_FIELDS: dict[str, tuple[list[Any], list[Any]]] = {
    "response_format": (
        [{}, {"type": "text"}, {"type": "json_object"}, {"type": "json_schema", "json_schema": {"schema": True}}],
        ["text", [], {"type": "xml"}, {"type": "json_schema"}, {"type": "json_schema", "json_schema": {"schema": 1}}],
    ),
    "guided_json": ([{}, True, {"type": "integer"}, '{"type": "null"}'], [1, [], "{", {"type": 1}, {"not": {}}]),
    "guided_regex": (["", "a+", "é"], ["(", "a{2}{20001}", 1, []]),
    "guided_choice": ([[""], ["a", "b"], ["a"] * 2000], [[], "a", [1], ["a"] * 2001]),
    "guided_grammar": (['start: "a"'], ["", "start: b", 'start: "a" start', 1, []]),
    "structured_outputs": (
        [{}, {"regex": None}, {"json": {"enum": [1]}}, {"regex": "a"}, {"choice": ["a"]}, {"grammar": 'start: "a"'}],
        [[], "a", {"regex": "("}, {"json": 1}, {"choice": []}, {"json_object": 1}, {"regex": "a", "choice": ["a"]}],
    ),
}

ARRAYS: list[dict[str, Any]] = [{}]
for _ in range(5):
    ARRAYS.append({"type": "array", "items": ARRAYS[-1]} if len(ARRAYS) > 1 else {"type": "integer"})
"""Schemas by their levels of nesting."""

OWN_FIELDS: dict[str, dict[str, tuple[list[Any], list[Any]]]] = {
    "/v1/chat/completions": {
        "max_tokens": ([], [0]),
        "max_completion_tokens": ([1, 2**31 - 1], [0, -1, 2**31, "1", True, 1.0]),
        "stop": (
            ["x", [], ["a"] * 16, "y" * 256, "é" * 128],
            ["", [""], ["a"] * 17, "y" * 257, "é" * 129, [1], 1, {"a": 1}],
        ),
        "logprobs": ([True, False], [1, "true", []]),
        "top_logprobs": ([], [21, -1, True, 1.0, 0]),  # without logprobs not even 0
        "tools": ([[]], [[{}], {}, "x"]),
        "tool_choice": (
            ["none", "auto"],
            ["any", "required", 1, {}, {"type": "function"}, {"type": "function", "function": {"name": "f"}}],
        ),
        "parallel_tool_calls": ([True, False], [1, "true", []]),
        "reasoning_effort": (["none", "minimal", "low", "medium", "high", "xhigh"], ["most", 1, {}]),
        "chat_template_kwargs": ([{}, {"enable_thinking": False}, {"any": [1]}], [[], "x", {"tools": []}]),
        "modalities": ([["text"], []], [["audio"], "text", [1]]),
        "verbosity": (["medium"], ["low", "high", 1]),
        "continue_final_message": ([False], [True, 1, "true", []]),  # the user's message cannot be gone on with
        **STRUCTURED_FIELDS,
        "messages": (
            [
                [{"role": "system", "content": "s"}, {"role": "user", "content": []}],
                [{"role": "assistant"}, {"role": "user", "content": "u", "name": "n"}],
                [{"role": "user", "content": ""}],
            ],
            [
                [],
                {},
                "hi",
                [1],
                [{"role": "user"}],
                [{"role": "user", "content": None}],
                [{"role": "robot", "content": "x"}],
                [{"content": "x"}],
                [{"role": "user", "content": 5}],
                [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
                [{"role": "user", "content": [{"type": "text"}]}],
                [{"role": "user", "content": ["x"]}],
                [{"role": "user", "content": "x", "name": 5}],
                [{"role": "tool", "content": "x"}],
                [{"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}],
                [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}],
                [{"role": "assistant", "tool_calls": "x"}],
            ],
        ),
    },
    "/v1/completions": {
        "max_tokens": ([], [0]),
        "prompt": (
            ["a", ["a"], ["a", "b"], [1, 2], [[1], [2, 3]], ["a", [1]], ["x"] * 4],
            [[], [[]], [258], [-1], [1.0], [True], [1, "a"], [["a"]], {}, 5, [None], [[1], 2]],
        ),
        "logprobs": ([0, 1, 20], [21, -1, True, "1", 1.0]),
        **STRUCTURED_FIELDS,
        "echo": ([True, False], ["true", 1]),
        "best_of": ([1], [0, 2, "1"]),
        "suffix": ([""], ["x", 1]),
        "stop": ([1, {"any": "thing"}, ["a"] * 100], []),  # ignored on this route
    },
    "/v1/messages": {
        "max_tokens": ([], [0]),
        "stop_sequences": (
            [[], ["a"] * 16, ["y" * 256], ["é" * 128]],
            ["x", [""], ["a"] * 17, ["y" * 257], ["é" * 129], [1], 1, {}],
        ),
    },
    "/v1/messages/count_tokens": {
        "messages": (
            [
                [{"role": "user", "content": []}, {"role": "assistant", "content": []}],
                [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
            ],
            [
                [],
                {},
                "hi",
                [1],
                [{"role": "user"}],
                [{"role": "user", "content": None}],
                [{"role": "tool", "content": "x"}],
                [{"content": "x"}],
                [{"role": "user", "content": 5}],
                [{"role": "user", "content": ["x"]}],
                [{"role": "user", "content": [{"type": "text"}]}],
                [{"role": "user", "content": [{"type": "tool_result", "content": "x"}]}],
                [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "x", "is_error": 1}]}],
                [{"role": "assistant", "content": [{"type": "tool_use", "id": "x", "name": "f"}]}],
                [{"role": "assistant", "content": [{"type": "tool_use", "id": 1, "name": "f", "input": {}}]}],
            ],
        ),
        "system": (["", "s", [], [{"type": "text", "text": "s"}]], [1, {}, ["s"], [{"type": "image"}]]),
        "tools": ([[]], [[{}], {}, "x"]),
        "tool_choice": ([{"type": "auto"}, {"type": "none"}], [{}, {"type": "any"}, {"type": {}}, "auto", 1]),
        "output_config": ([{}, {"effort": "low"}, {"format": None}], [{"format": {}}, {"format": 0}, "x"]),
        "mcp_servers": ([[]], [[{}], {}, "", 0]),
        "container": ([], ["", "x", {}, False]),
        "context_management": ([{}, {"edits": []}], [[], {"edits": {}}, {"edits": [{}]}, {"edits": [{"type": "x"}]}]),
    },
    "/tokenize": {
        "prompt": (["", "a"], [1, ["a"], {}]),
        "add_special_tokens": ([True, False], ["true", 1]),
        "add_generation_prompt": ([True, False], ["true", 1]),
        "return_token_strs": ([True, False], ["true", 1]),
    },
    "/detokenize": {"tokens": ([[], [0], [257]], [[258], [-1], [1.0], ["1"], [True], "x", {}, 5])},
}

EVERY_FIELD = [(route, name, *values) for route in GENERATING for name, values in SAMPLING_FIELDS.items()] + [
    (route, name, *values) for route, fields in OWN_FIELDS.items() for name, values in fields.items()
]


@pytest.mark.parametrize(
    ("route", "name", "good", "bad"), EVERY_FIELD, ids=[f"{row[0]}-{row[1]}" for row in EVERY_FIELD]
)
def test_takes_what_is_in_range_and_refuses_the_rest(
    server: FakeServer, route: str, name: str, good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        response = server.post(route, ROUTES[route] | {name: value})
        assert response.status_code == 200, (value, response.text)
    for value in bad:
        response = server.post(route, ROUTES[route] | {name: value})
        assert response.status_code == 400, (value, response.text)
        error = response.json()["error"]
        assert error["type"] == "invalid_request_error"
        assert name in error["message"], (value, error)
        assert error.get("param", name) == name, (value, error)  # Anthropic's errors have none


@pytest.mark.parametrize(("route", "name"), [(route, next(iter(body))) for route, body in ROUTES.items()])
def test_missing_field_is_named(server: FakeServer, route: str, name: str) -> None:
    error = server.post(route, {}).json()["error"]
    assert name in error["message"]
    assert error.get("param", name) == name


def test_top_logprobs_up_to_the_limit(server: FakeServer) -> None:
    body = ROUTES["/v1/chat/completions"] | {"logprobs": True}
    for number, status in ((0, 200), (20, 200), (21, 400), (-1, 400)):
        assert server.post("/v1/chat/completions", body | {"top_logprobs": number}).status_code == status


def test_tokenize_takes_exactly_one_of_prompt_and_messages(server: FakeServer) -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert server.post("/tokenize", {"messages": messages}).status_code == 200
    assert server.post("/tokenize", {"prompt": "a", "messages": messages}).status_code == 400
    assert server.post("/tokenize", {"messages": []}).status_code == 400


def test_at_most_ten_details_and_no_echo_of_the_input(server: FakeServer) -> None:
    secret = "correct-horse-battery"
    names = list(SAMPLING_FIELDS)
    body = dict.fromkeys(names, secret) | {"messages": [{"role": secret, "content": [{secret: secret}]}]}
    error = server.post("/v1/chat/completions", body).json()["error"]
    assert secret not in str(error)
    assert len(error["message"].split("; ")) == 10
    mapping = server.post("/v1/completions", {"prompt": "a", "logit_bias": {secret: secret}}).json()["error"]
    assert secret not in str(mapping)
    assert mapping["param"] == "logit_bias"


def test_a_million_wrong_items_are_one_complaint(server: FakeServer) -> None:
    response = server.post("/v1/completions", {"prompt": [[1], ["x"] * 300_000]})
    assert response.status_code == 400
    assert len(response.text) < 1000


@pytest.mark.parametrize(
    ("limit", "at_limit", "past_it"),
    [
        ("messages", {"messages": [SAY_A] * 3}, {"messages": [SAY_A] * 4}),
        ("stops", {"stop": ["a"] * 3}, {"stop": ["a"] * 4}),
        ("stop_bytes", {"stop": "abc"}, {"stop": "abcd"}),
        ("stop_token_ids", {"stop_token_ids": [1, 2, 3]}, {"stop_token_ids": [1, 2, 3, 4]}),
        ("top_logprobs", {"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 4}),
    ],
)  # fmt: skip
def test_limits_are_configurable(make_server: Any, limit: str, at_limit: Any, past_it: Any) -> None:
    server = make_server(**{limit: 3})
    body = ROUTES["/v1/chat/completions"]
    assert server.post("/v1/chat/completions", body | at_limit).status_code == 200
    assert server.post("/v1/chat/completions", body | past_it).status_code == 400


def test_number_of_prompts_is_limited(make_server: Any) -> None:
    server = make_server(prompts=3)
    for number, status in ((3, 200), (4, 400)):
        assert server.post("/v1/completions", {"prompt": ["a"] * number, "max_tokens": 1}).status_code == status


@pytest.mark.parametrize(
    ("limit", "value", "at_limit", "past_it"),
    [
        ("grammar_bytes", 64, {"guided_regex": "a" * 64}, {"guided_regex": "a" * 65}),
        ("grammar_depth", 4, {"guided_json": ARRAYS[4]}, {"guided_json": ARRAYS[5]}),
        ("grammar_rules", 8, {"guided_choice": ["a"] * 8}, {"guided_choice": ["a"] * 9}),
    ],
)
def test_limits_of_grammars_are_configurable(
    make_server: Any, limit: str, value: int, at_limit: Any, past_it: Any
) -> None:
    server = make_server(**{limit: value})
    body = ROUTES["/v1/chat/completions"]
    assert server.post("/v1/chat/completions", body | at_limit).status_code == 200
    assert server.post("/v1/chat/completions", body | past_it).status_code == 400
