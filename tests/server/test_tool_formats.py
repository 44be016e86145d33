"""Every format of calls through every route: parsed, streamed and ended exactly, stateless and in a session."""

from __future__ import annotations

import json
from typing import Any

import pytest

from layerscale_core.dialogue import WrittenCall
from layerscale_core.dialogue.call_syntax import JSON, SYNTAXES, CallSyntax
from tests.server.conftest import FakeServer, MakeServer
from tests.support import tool_templates as templates
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.scripted_model import ScriptedModel

CHAT, MESSAGES = "/v1/chat/completions", "/v1/messages"
QUESTION = [{"role": "user", "content": "Rain?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city"],
}
NAMES = ("get_weather", "get_news")
OPENAI_TOOLS = [{"type": "function", "function": {"name": name, "parameters": SCHEMA}} for name in NAMES]
ANTHROPIC_TOOLS = [{"name": name, "input_schema": SCHEMA} for name in NAMES]
CALLS = [WrittenCall("get_weather", {"city": 'Os"lo } <', "days": 2}), WrittenCall("get_news", {"city": "Rome"})]
LONG = 1024

FORMATS = [
    *((syntax, templates.SYNTAX_NAMES[syntax.name], has_tokens) for syntax in SYNTAXES for has_tokens in (False, True)),
    (JSON, templates.UNAWARE, False),
]
by_format = pytest.mark.parametrize(
    ("syntax", "template", "has_tokens"),
    FORMATS,
    ids=[
        f"{syntax.name}{'-tokens' * has_tokens}{'-untaught' * (template == templates.UNAWARE)}"
        for syntax, template, has_tokens in FORMATS
    ],
)


class Spoken:
    """A server whose model says what it is told to."""

    def __init__(self, make_server: MakeServer, syntax: CallSyntax, template: str, has_tokens: bool) -> None:
        self.tokenizer = tokenizer = ByteTokenizer(*(syntax.markers if has_tokens else ()))
        self.server: FakeServer = make_server(
            template=template, tokenizer=tokenizer, context_len=LONG * 4, num_sessions=1
        )
        self.model = ScriptedModel(self.server.executor, tokenizer, self.server.is_quiet)
        opened = self.server.post("/v1/sessions/init", {"type": "event"})
        self.session_id = opened.json()["session_id"]

    def post(self, path: str, body: dict[str, Any], answer: str) -> dict[str, Any]:
        self.model.say(answer)
        response = self.server.post(path, {"max_tokens": LONG, "temperature": 0} | body)
        assert response.status_code == 200, response.text
        result: dict[str, Any] = response.json()
        return result

    def stream(self, path: str, body: dict[str, Any], answer: str) -> list[dict[str, Any]]:
        self.model.say(answer)
        response = self.server.post(path, {"max_tokens": LONG, "temperature": 0, "stream": True} | body)
        assert response.status_code == 200, response.text
        lines = [line for line in response.text.split("\n") if line.startswith("data: {")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]


@pytest.fixture
def spoken(make_server: MakeServer, syntax: CallSyntax, template: str, has_tokens: bool) -> Spoken:
    return Spoken(make_server, syntax, template, has_tokens)


def answer_of(syntax: CallSyntax) -> tuple[str, list[WrittenCall]]:
    """As much as a format can say in one answer: text and two calls, or one call."""
    calls = CALLS[:1] if syntax.separator is None else CALLS
    return ("" if syntax.is_anchored else "Let me see.\n") + syntax.write(calls), calls


def text_before(syntax: CallSyntax) -> str | None:
    return None if syntax.is_anchored else "Let me see."


def chat_message(chunks: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """A message and its finish reason, put together from its chunks as clients do."""
    message: dict[str, Any] = {"content": ""}
    calls: list[dict[str, Any]] = []
    for chunk in chunks:
        delta = chunk["choices"][0]["delta"]
        message["content"] += delta.get("content", "")
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(calls)
                assert call["function"]["arguments"] == ""
                calls.append({"id": call["id"], "type": call["type"], "function": dict(call["function"])})
            else:
                assert set(call) == {"index", "function"}
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    if calls:
        message = {"content": message["content"] or None, "tool_calls": calls}
    return message, chunks[-1]["choices"][0]["finish_reason"]


def without_ids(calls: list[dict[str, Any]]) -> list[tuple[str, str]]:
    assert len({call["id"] for call in calls}) == len(calls)
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


def expected_calls(calls: list[WrittenCall]) -> list[tuple[str, str]]:
    return [(call.name, json.dumps(call.arguments)) for call in calls]


@by_format
def test_chat(spoken: Spoken, syntax: CallSyntax) -> None:
    answer, calls = answer_of(syntax)
    asked = {"messages": QUESTION, "tools": OPENAI_TOOLS}
    for place in ({}, {"session_id": spoken.session_id}):
        [choice] = spoken.post(CHAT, asked | place, answer)["choices"]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] == text_before(syntax)
        assert without_ids(choice["message"]["tool_calls"]) == expected_calls(calls)
        assert all(call["id"].startswith("call_") for call in choice["message"]["tool_calls"])
        message, reason = chat_message(spoken.stream(CHAT, asked | place, answer))
        assert (message["content"], reason) == (text_before(syntax), "tool_calls")
        assert without_ids(message["tool_calls"]) == expected_calls(calls)


@by_format
def test_messages(spoken: Spoken, syntax: CallSyntax) -> None:
    answer, calls = answer_of(syntax)
    asked = {"messages": QUESTION, "tools": ANTHROPIC_TOOLS}
    text = [{"type": "text", "text": text_before(syntax)}] if text_before(syntax) else []
    for place in ({}, {"session_id": spoken.session_id}):
        whole = spoken.post(MESSAGES, asked | place, answer)
        ids = [block.pop("id") for block in whole["content"] if block["type"] == "tool_use"]
        uses = [{"type": "tool_use", "name": call.name, "input": call.arguments} for call in calls]
        assert (whole["content"], whole["stop_reason"]) == ([*text, *uses], "tool_use")
        assert len(set(ids)) == len(calls)
        assert all(each.startswith("toolu_") for each in ids)
        events = spoken.stream(MESSAGES, asked | place, answer)
        begun = [event["content_block"] for event in events if event["type"] == "content_block_start"]
        assert [block["type"] for block in begun] == [block["type"] for block in whole["content"]]
        assert all(block["input"] == {} for block in begun if block["type"] == "tool_use")
        parts: dict[int, str] = {}
        for event in events:
            if event["type"] == "content_block_delta":
                [part] = (value for name, value in event["delta"].items() if name != "type")
                parts[event["index"]] = parts.get(event["index"], "") + part
        stopped = [event["index"] for event in events if event["type"] == "content_block_stop"]
        assert stopped == list(parts) == list(range(len(begun)))
        assert [json.loads(parts[index]) for index in stopped[len(text) :]] == [call.arguments for call in calls]
        assert parts[0] == text_before(syntax) or not text
        assert events[-2]["delta"]["stop_reason"] == "tool_use"


@by_format
def test_generate(spoken: Spoken, syntax: CallSyntax) -> None:
    answer, calls = answer_of(syntax)
    path = f"/v1/sessions/{spoken.session_id}/generate"
    asked = {"messages": QUESTION, "tools": OPENAI_TOOLS}
    whole = spoken.post(path, asked, answer)
    assert (whole["text"], whole["finish_reason"]) == (text_before(syntax) or "", "tool_calls")
    assert without_ids(whole["tool_calls"]) == expected_calls(calls)
    *frames, last = spoken.stream(path, asked, answer)
    assert (last["text"], last["finish_reason"], last["done"]) == (whole["text"], "tool_calls", True)
    assert without_ids(last["tool_calls"]) == expected_calls(calls)
    openings = [frame["token"] for frame in frames if frame.get("tool_call")]
    assert openings == [f'{{"name": "{call.name}", "parameters": ' for call in calls]
    spelled = "".join(frame["token"] for frame in frames)
    assert spelled == whole["text"] + "".join(JSON.write([call]) for call in calls)
    positions = [frame["pos"] for frame in frames]
    assert positions == sorted(positions)


@by_format
def test_a_call_that_max_tokens_cuts_off(spoken: Spoken, syntax: CallSyntax) -> None:
    answer = syntax.write(CALLS[:1])
    whole_arguments = json.dumps(CALLS[0].arguments)
    begin = answer.index(whole_arguments)
    for end in (begin + 9, begin + len(whole_arguments) - 1):
        num_tokens = len(spoken.tokenizer.encode(answer[:end], add_special=False, parse_special=True))
        limited = {"max_tokens": num_tokens, "tools": OPENAI_TOOLS, "messages": QUESTION}
        [choice] = spoken.post(CHAT, limited, answer)["choices"]
        assert choice["finish_reason"] == "length"
        [(name, arguments)] = without_ids(choice["message"]["tool_calls"])
        assert (name, choice["message"]["content"]) == ("get_weather", None)
        assert arguments == answer[begin:end]
        message, reason = chat_message(spoken.stream(CHAT, limited, answer))
        assert reason == "length"
        assert without_ids(message["tool_calls"]) == [(name, arguments)]
        whole = spoken.post(MESSAGES, limited | {"tools": ANTHROPIC_TOOLS}, answer)
        assert whole["stop_reason"] == "max_tokens"
        [block] = whole["content"]
        assert block["input"].items() <= dict(CALLS[0].arguments).items()  # type: ignore[arg-type]  # an object


@by_format
def test_no_call_at_all(spoken: Spoken, syntax: CallSyntax) -> None:
    asked = {"messages": QUESTION, "tools": OPENAI_TOOLS}
    text = "No { rain <tool_"
    [choice] = spoken.post(CHAT, asked, text)["choices"]
    assert (choice["message"], choice["finish_reason"]) == ({"role": "assistant", "content": text}, "stop")
    message, reason = chat_message(spoken.stream(CHAT, asked, text))
    assert (message, reason) == ({"content": text}, "stop")


@by_format
def test_what_is_called_is_among_the_tools_and_fits_its_schema(spoken: Spoken, syntax: CallSyntax) -> None:
    """The model wants to call what is not there with arguments that do not fit, and says nothing when it must call."""
    wrong = syntax.write([WrittenCall("get_wether", {"town": 1})])
    for choice in ("auto", "required", {"type": "function", "function": {"name": "get_news"}}):
        asked = {"messages": QUESTION, "tools": OPENAI_TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
        [given] = spoken.post(CHAT, asked | {"max_tokens": 300}, wrong if choice == "auto" else "Hm.")["choices"]
        [(name, arguments)] = without_ids(given["message"]["tool_calls"])
        assert name in (("get_news",) if isinstance(choice, dict) else NAMES)
        assert given["message"]["content"] is None
        if given["finish_reason"] != "length":
            assert set(json.loads(arguments)) <= {"city", "days"}


@by_format
def test_an_agents_turn_in_a_session_computes_only_what_is_new(spoken: Spoken, syntax: CallSyntax) -> None:
    """A call, its result, another call: each turn's prompt begins with what the session holds."""
    path = f"/v1/sessions/{spoken.session_id}/generate"
    messages: list[dict[str, Any]] = list(QUESTION)
    num_held = num_forced = 0
    for round_ in range(3):
        answer = syntax.write(CALLS[:1]) if round_ < 2 else "It rains."
        result = spoken.post(path, {"messages": messages, "tools": OPENAI_TOOLS}, answer)
        if num_held:
            assert result["usage"]["prompt_tokens_details"]["cached_tokens"] >= num_held - 1
            assert result["n_prefilled"] <= result["usage"]["prompt_tokens"] - num_held + num_forced
        num_held = result["total_tokens"]
        num_forced = len('"}' + syntax.close + syntax.end)  # at the end of the call, where none is ever computed
        calls = result.get("tool_calls", [])
        messages.append({"role": "assistant", "content": result["text"] or None, "tool_calls": calls})
        messages += [{"role": "tool", "tool_call_id": call["id"], "content": "rain"} for call in calls]
    assert (result["text"], result["finish_reason"]) == ("It rains.", "stop")
