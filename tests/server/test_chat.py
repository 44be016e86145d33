"""``POST /v1/chat/completions``: shapes, meanings, refusals."""

from __future__ import annotations

import time

import pytest

from tests.server.conftest import MODEL_ID, FakeServer, MakeServer, chat_prompt, greedy_text, hermes_call

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 5}


def test_answers_in_openai_shape(server: FakeServer) -> None:
    response = server.post(CHAT, HI)
    prompt = chat_prompt(("user", "hi"))
    body = response.json()
    assert response.status_code == 200
    assert body.pop("id").startswith("chatcmpl-")
    assert abs(body.pop("created") - time.time()) < 60
    assert body == {
        "object": "chat.completion",
        "model": MODEL_ID,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": greedy_text(prompt, 5)},
                "logprobs": None,
                "finish_reason": "length",
            }
        ],
        "usage": {
            "prompt_tokens": len(prompt),
            "completion_tokens": 5,
            "total_tokens": len(prompt) + 5,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


def test_a_prompt_asked_again_comes_from_the_cache_and_usage_says_so(server: FakeServer) -> None:
    first = server.post(CHAT, HI).json()
    again = server.post(CHAT, HI).json()
    chunks = server.chunks(CHAT, HI | {"stream_options": {"include_usage": True}})
    assert again["choices"] == first["choices"]
    cached = [usage["prompt_tokens_details"]["cached_tokens"] for usage in (first["usage"], again["usage"])]
    assert cached == [0, 16]  # one page of the prompt's 19 tokens
    assert chunks[-1]["usage"] == again["usage"]


def test_streams_role_text_reason_and_usage_in_order(server: FakeServer) -> None:
    chunks = server.chunks(CHAT, HI | {"stream_options": {"include_usage": True}})
    prompt = chat_prompt(("user", "hi"))
    heads = {(chunk["id"], chunk["object"], chunk["model"]) for chunk in chunks}
    assert len(heads) == 1
    assert heads.pop()[1:] == ("chat.completion.chunk", MODEL_ID)
    assert all(isinstance(chunk["created"], int) for chunk in chunks)
    assert chunks[0]["choices"] == [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]
    text = [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:-2]]
    assert "".join(text) == greedy_text(prompt, 5)
    assert all(text)
    assert chunks[-2]["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] == len(prompt) + 5
    assert not any("usage" in chunk for chunk in chunks[:-1])


def test_streams_no_usage_unless_asked(server: FakeServer) -> None:
    chunks = server.chunks(CHAT, HI)
    assert all(chunk["choices"] for chunk in chunks)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_stop_text_ends_the_answer_and_is_left_out(server: FakeServer) -> None:
    whole = greedy_text(chat_prompt(("user", "hi")), 20)
    stop = whole[3:5]
    expected = whole[: whole.index(stop)]
    for given in (stop, [stop], ["\x00 never", stop]):
        choice = server.post(CHAT, HI | {"max_tokens": 20, "stop": given}).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (expected, "stop")
    chunks = server.chunks(CHAT, HI | {"max_tokens": 20, "stop": stop})
    assert "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks) == expected
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_end_of_sequence_stops_unless_ignored(make_server: MakeServer) -> None:
    server = make_server(alphabet=(257, 65))
    stopped = server.post(CHAT, HI | {"max_tokens": 50}).json()
    assert stopped["choices"][0]["finish_reason"] == "stop"
    ignoring = server.post(CHAT, HI | {"max_tokens": 50, "ignore_eos": True}).json()
    assert ignoring["choices"][0]["finish_reason"] == "length"
    assert ignoring["usage"]["completion_tokens"] == 50


def test_answer_ends_with_length_where_the_context_ends(server: FakeServer) -> None:
    body = server.post(CHAT, HI | {"max_tokens": 10_000}).json()
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["total_tokens"] == 256


def test_default_is_256_tokens(make_server: MakeServer) -> None:
    server = make_server(context_len=1024)
    body = server.post(CHAT, {"messages": HI["messages"]}).json()
    assert body["usage"]["completion_tokens"] == 256


def test_max_completion_tokens_wins_over_max_tokens(server: FakeServer) -> None:
    body = server.post(CHAT, HI | {"max_completion_tokens": 3}).json()
    assert body["usage"]["completion_tokens"] == 3


def test_seed_repeats_a_sampled_answer(server: FakeServer) -> None:
    asked = HI | {"temperature": 1.5, "seed": -7, "max_tokens": 20}
    answers = {server.post(CHAT, asked).json()["choices"][0]["message"]["content"] for _ in range(3)}
    assert len(answers) == 1
    assert answers != {greedy_text(chat_prompt(("user", "hi")), 20)}


def test_parts_are_joined_and_developer_becomes_system(server: FakeServer) -> None:
    parts = [{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}]
    messages = [{"role": "developer", "content": parts}, {"role": "user", "content": "hi"}]
    body = server.post(CHAT, HI | {"messages": messages}).json()
    expected = chat_prompt(("system", "be brief"), ("user", "hi"))
    assert body["choices"][0]["message"]["content"] == greedy_text(expected, 5)


def test_takes_a_conversation_with_tool_calls_in_it(server: FakeServer) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    messages = [
        {"role": "user", "content": "hi", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "2", "tool_call_id": "call_1"},
    ]
    body = server.post(CHAT, HI | {"messages": messages}).json()
    expected = chat_prompt(("user", "hi"), ("assistant", hermes_call("f", {"x": 1})), ("tool", "2"))
    assert body["choices"][0]["message"]["content"] == greedy_text(expected, 5)


def test_null_means_absent(server: FakeServer) -> None:
    nulls = dict.fromkeys(["stop", "stream", "seed", "tools", "logprobs", "stream_options", "response_format", "n"])
    assert server.post(CHAT, HI | nulls).status_code == 200


def test_unknown_fields_and_any_model_are_fine(server: FakeServer) -> None:
    extra = {"model": {"any": "value"}, "user": "u", "store": True, "parallel_tool_calls": False, "made_up": [1]}
    assert server.post(CHAT, HI | extra).status_code == 200


def test_template_refusal_is_the_clients_error(server: FakeServer) -> None:
    response = server.post(CHAT, HI | {"messages": [{"role": "user", "content": "refuse me"}]})
    assert response.status_code == 400
    assert response.json()["error"]["message"] == "the chat template refuses this conversation"


def test_model_without_template_points_to_completions(make_server: MakeServer) -> None:
    response = make_server(has_template=False).post(CHAT, HI)
    assert response.status_code == 400
    assert "/v1/completions" in response.json()["error"]["message"]


def test_session_is_not_found(server: FakeServer) -> None:
    response = server.post(CHAT, HI | {"session_id": "sess_000000000000"})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "session_not_found"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tools", [{"type": "custom", "custom": {"name": "f"}}]),
        ("tools", [{"type": "function", "function": {"name": "two words"}}]),
        ("tools", [{"type": "function", "function": {"name": "f", "parameters": {"type": "array"}}}]),
        ("tools", [{"type": "function", "function": {"name": "f"}}] * 2),
        ("function_call", {"name": "f"}),
        ("audio", {"voice": "v"}),
        ("modalities", ["text", "audio"]),
        ("verbosity", "low"),
        ("web_search_options", {}),
        ("chat_template_kwargs", {"messages": []}),
        ("functions", [{"name": "f"}]),
        ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "f"}}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "n", "schema": {"not": {}}}}),
        ("n", 2),
    ],
)
def test_refuses_what_it_cannot_do_and_names_it(server: FakeServer, field: str, value: object) -> None:
    response = server.post(CHAT, HI | {field: value})
    assert response.status_code == 400
    assert response.json()["error"]["type"] == "invalid_request_error"
    assert response.json()["error"]["param"] == field


@pytest.mark.parametrize(
    ("field", "value"), [("tools", []), ("tool_choice", "none"), ("response_format", {"type": "text"}), ("n", 1)]
)
def test_takes_what_changes_nothing(server: FakeServer, field: str, value: object) -> None:
    assert server.post(CHAT, HI | {field: value}).status_code == 200


def test_prompt_at_the_context_fits_and_one_more_does_not(server: FakeServer) -> None:
    room = 255 - len(chat_prompt(("user", "")))
    fits = server.post(CHAT, HI | {"messages": [{"role": "user", "content": "x" * room}]})
    assert fits.status_code == 200
    assert fits.json()["usage"]["completion_tokens"] == 1
    refused = server.post(CHAT, HI | {"messages": [{"role": "user", "content": "x" * (room + 1)}]})
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["message"].startswith("prompt is too long:")


def test_goes_on_in_the_middle_of_the_last_message_if_asked(server: FakeServer) -> None:
    messages = [*HI["messages"], {"role": "assistant", "content": "He"}]
    body = server.post(CHAT, HI | {"messages": messages, "continue_final_message": True}).json()
    prompt = [*chat_prompt(("user", "hi")), *b"He"]
    assert body["choices"][0]["message"]["content"] == greedy_text(prompt, 5)
    assert body["usage"]["prompt_tokens"] == len(prompt)
    plain = server.post(CHAT, HI | {"messages": messages}).json()
    assert plain["usage"]["prompt_tokens"] == len(chat_prompt(("user", "hi"), ("assistant", "He")))


def test_only_the_assistants_text_can_be_gone_on_with(server: FakeServer) -> None:
    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    for last in ({"role": "user", "content": "hi"}, {"role": "assistant", "tool_calls": [call]}):
        response = server.post(CHAT, HI | {"messages": [*HI["messages"], last], "continue_final_message": True})
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "continue_final_message"
