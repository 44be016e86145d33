"""Anthropic's conversations as chat templates expect them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.conversations import Conversation
from layerscale_server.http.schemas.content import TextPart, text_of
from layerscale_server.http.schemas.messages import (
    CountTokensRequest,
    InputMessage,
    ToolResultBlock,
    ToolUseBlock,
)
from layerscale_server.http.schemas.tools import template_call

TemplateMessage = dict[str, Any]


def conversation_of(body: CountTokensRequest) -> Conversation:
    """A request's conversation; one that ends with the assistant is to be continued in the middle of its message.

    Raises:
        InvalidRequestError: its tool calls and results do not fit together.
    """
    messages = _joined([*_system(body), *_template_messages(body.messages)])
    answer_start = ""
    if messages[-1]["role"] == "assistant":
        if "tool_calls" in messages[-1]:
            raise _misfit("the conversation ends with a tool_use that has no tool_result")
        answer_start = messages.pop()["content"]
    return Conversation(messages, body.offer(), answer_start, body.template_variables())


def _system(body: CountTokensRequest) -> Iterator[TemplateMessage]:
    if text := text_of(body.system):
        yield {"role": "system", "content": text}


def _template_messages(messages: Iterable[InputMessage]) -> Iterator[TemplateMessage]:
    tool_names: dict[str, str] = {}
    for message in messages:
        if message.role == "user":
            yield from _user(message, tool_names)
        else:
            calls = [block for block in message.content if isinstance(block, ToolUseBlock)]
            tool_names |= {call.id: call.name for call in calls}
            yield _assistant(message, calls)


def _assistant(message: InputMessage, calls: list[ToolUseBlock]) -> TemplateMessage:
    rendered: TemplateMessage = {"role": "assistant", "content": text_of(message.content)}
    if calls:
        rendered["tool_calls"] = [template_call(call.id, call.name, call.input) for call in calls]
    return rendered


def _user(message: InputMessage, tool_names: dict[str, str]) -> Iterator[TemplateMessage]:
    """Results of tools as messages of their own; text before, between and after them stays where it is."""
    said = [block for block in message.content if isinstance(block, TextPart | ToolResultBlock)]
    for is_text, blocks in groupby(said, lambda block: isinstance(block, TextPart)):
        if is_text:
            yield {"role": "user", "content": text_of(blocks)}
        else:
            yield from (_result(block, tool_names) for block in blocks if isinstance(block, ToolResultBlock))
    if not said:
        yield {"role": "user", "content": ""}


def _result(result: ToolResultBlock, tool_names: dict[str, str]) -> TemplateMessage:
    name = tool_names.get(result.tool_use_id)
    if name is None:
        raise _misfit("a tool_result's tool_use_id is the id of no tool_use before it")
    text = text_of(result.content)
    content = f"Error: {text}" if result.is_error else text  # templates have no other place for that
    return {"role": "tool", "name": name, "tool_call_id": result.tool_use_id, "content": content}


def _joined(messages: Iterable[TemplateMessage]) -> list[TemplateMessage]:
    """Messages of one role in a row as the one turn that they are, a blank line between them."""
    turns: list[TemplateMessage] = []
    for message in messages:
        if turns and turns[-1]["role"] == message["role"] != "tool":
            turns[-1] = _both(turns[-1], message)
        else:
            turns.append(message)
    return turns


def _both(first: TemplateMessage, second: TemplateMessage) -> TemplateMessage:
    both = {**first, "content": "\n\n".join(filter(None, [first["content"], second["content"]]))}
    calls = [*first.get("tool_calls", ()), *second.get("tool_calls", ())]
    return both | {"tool_calls": calls} if calls else both


def _misfit(reason: str) -> InvalidRequestError:
    return InvalidRequestError(f"messages: {reason}", param="messages")
