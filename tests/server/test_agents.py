"""Agents as people write them: the ``openai``, ``anthropic`` and official clients drive a tool loop to its end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import layerscale
import openai
import pytest

from layerscale_server.state import ServerState
from tests.server.conftest import FakeServer, MakeServer
from tests.support import tool_templates as templates
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.scripted_model import ScriptedModel

RunLive = Callable[[ServerState], str]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"path": {"type": "string"}, "line": {"type": "integer", "minimum": 1}},
    "required": ["path", "line"],
}
OPENAI_TOOLS: list[Any] = [
    {"type": "function", "function": {"name": "read", "description": "Reads a line.", "parameters": SCHEMA}}
]
ANTHROPIC_TOOLS: list[Any] = [{"name": "read", "description": "Reads a line.", "input_schema": SCHEMA}]
FILE = {1: "import os", 2: "print(os.name)"}

TURNS = [
    'First line.\n<tool_call>\n{"name": "read", "arguments": {"path": "a.py", "line": 1}}\n</tool_call>',
    '<tool_call>\n{"name": "read", "arguments": {"path": "a.py", "line": 2}}\n</tool_call>',
    "It prints os.name.",
]


def run_tool(name: str, arguments: dict[str, Any]) -> str:
    assert (name, arguments["path"]) == ("read", "a.py")
    return FILE[arguments["line"]]


class Agent:
    """A server whose model says the next of ``TURNS`` at every request."""

    def __init__(self, server: FakeServer, tokenizer: ByteTokenizer, address: str) -> None:
        self.server = server
        self.address = address
        self._model = ScriptedModel(server.executor, tokenizer, server.is_quiet)

    def turns(self) -> Iterator[None]:
        """Before each yield the model knows what to say."""
        for text in TURNS:
            self._model.say(text)
            yield


@pytest.fixture
def agent(make_server: MakeServer, run_live: RunLive) -> Agent:
    tokenizer = ByteTokenizer("<tool_call>", "</tool_call>")
    server = make_server(template=templates.HERMES, tokenizer=tokenizer, context_len=4096, num_sessions=1)
    return Agent(server, tokenizer, run_live(server.state))


@pytest.mark.parametrize("is_streamed", [False, True])
def test_openai_sdk(agent: Agent, is_streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "What does a.py print?"}]
    asked: dict[str, Any] = {"model": "any", "messages": messages, "tools": OPENAI_TOOLS, "max_tokens": 500}
    answers: list[str | None] = []
    with openai.OpenAI(base_url=agent.address + "/v1", api_key="any", max_retries=0) as client:
        for _ in agent.turns():
            if is_streamed:
                with client.chat.completions.stream(**asked) as stream:
                    [choice] = stream.get_final_completion().choices
            else:
                [choice] = client.chat.completions.create(**asked).choices
            answers.append(choice.message.content or None)
            messages.append(choice.message.to_dict())
            for call in choice.message.tool_calls or []:
                assert choice.finish_reason == "tool_calls"
                result = run_tool(call.function.name, json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    assert choice.finish_reason == "stop"
    assert answers == ["First line.", None, "It prints os.name."]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_anthropic_sdk(agent: Agent, is_streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "What does a.py print?"}]
    asked: dict[str, Any] = {"model": "any", "messages": messages, "tools": ANTHROPIC_TOOLS, "max_tokens": 500}
    texts: list[str] = []
    with anthropic.Anthropic(base_url=agent.address, api_key="any", max_retries=0) as client:
        counted = client.messages.count_tokens(model="any", messages=messages, tools=ANTHROPIC_TOOLS).input_tokens
        for _ in agent.turns():
            if is_streamed:
                with client.messages.stream(**asked) as stream:
                    message = stream.get_final_message()
            else:
                message = client.messages.create(**asked)
            texts += [block.text for block in message.content if block.type == "text"]
            messages.append({"role": "assistant", "content": [block.to_dict() for block in message.content]})
            results = [
                {"type": "tool_result", "tool_use_id": block.id, "content": run_tool(block.name, block.input)}
                for block in message.content
                if block.type == "tool_use"
            ]
            assert message.stop_reason == ("tool_use" if results else "end_turn")
            assert message.usage.input_tokens >= counted
            messages.append({"role": "user", "content": results})
    assert texts == ["First line.", "It prints os.name."]


@pytest.mark.parametrize("is_streamed", [False, True])
def test_official_client_in_a_session(agent: Agent, is_streamed: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": "What does a.py print?"}]
    flagged: list[str] = []
    with layerscale.LayerScale(agent.address) as client:
        session_id = client.sessions.create(type="event").session_id
        for _ in agent.turns():
            asked: dict[str, Any] = {"messages": messages, "tools": OPENAI_TOOLS, "max_tokens": 500}
            if is_streamed:
                *frames, result = client.sessions.query_stream(session_id, **asked)
                flagged += [frame.token for frame in frames if frame.tool_call]
            else:
                result = client.sessions.query(session_id, **asked)
            calls = [call.model_dump() for call in result.tool_calls or []]
            messages.append({"role": "assistant", "content": result.text, "tool_calls": calls})
            for call in result.tool_calls or []:
                assert result.finish_reason == "tool_calls"
                content = run_tool(call.function.name, json.loads(call.function.arguments))
                messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    assert (result.text, result.finish_reason) == ("It prints os.name.", "stop")
    assert flagged == ['{"name": "read", "parameters": '] * 2 * is_streamed


def test_official_client_chat(agent: Agent) -> None:
    turns = agent.turns()
    with layerscale.LayerScale(agent.address) as client:
        next(turns)
        asked: dict[str, Any] = {"messages": [{"role": "user", "content": "?"}], "tools": OPENAI_TOOLS}
        message = client.chat.create(**asked, max_tokens=500).choices[0].message
        assert message.tool_calls is not None
        assert message.tool_calls[0].model_dump()["function"]["arguments"] == '{"path": "a.py", "line": 1}'
