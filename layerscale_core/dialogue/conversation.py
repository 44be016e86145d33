"""Conversations rewritten for templates that know less of tools than they would have to."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from layerscale_core.dialogue.call_syntax import CallSyntax, WrittenCall
from layerscale_core.dialogue.recognition import TemplateMessage

Messages = list[TemplateMessage]

_STRICTEST_ID = re.compile(r"[A-Za-z0-9]{9}")


def with_short_ids(messages: Iterable[TemplateMessage]) -> Messages:
    """Ids of calls as the strictest templates want them: nine letters and digits."""
    return [_with_short_ids(message) for message in messages]


def with_system_text(messages: Sequence[TemplateMessage], text: str) -> Messages:
    """The text at the end of the system message."""
    first, rest = _split_system(messages)
    return [{**first, "content": "\n\n".join(filter(None, [first["content"], text]))}, *rest]


def with_system_tools(messages: Sequence[TemplateMessage], tools: str) -> Messages:
    """The definitions as a variable of the system message."""
    first, rest = _split_system(messages)
    return [{**first, "tools": tools}, *rest]


def with_calls_as_text(messages: Iterable[TemplateMessage], syntax: CallSyntax) -> Messages:
    """Calls in the text of the message that made them."""
    return [_call_as_text(message, syntax) for message in messages]


def with_results_as_text(messages: Sequence[TemplateMessage]) -> Messages:
    """Results of calls as what the user says, in one turn with what the user says around them."""
    names = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls", ())}
    turns: Messages = []
    after_result = False
    for message in messages:
        is_result = message["role"] == "tool"
        said = _result_as_text(message, names) if is_result else message
        if turns and turns[-1]["role"] == said["role"] == "user" and (is_result or after_result):
            turns[-1] = {**turns[-1], "content": f"{turns[-1]['content']}\n\n{said['content']}"}
        else:
            turns.append(said)
        after_result = is_result
    return turns


def _split_system(messages: Sequence[TemplateMessage]) -> tuple[TemplateMessage, Sequence[TemplateMessage]]:
    if messages and messages[0]["role"] == "system":
        return messages[0], messages[1:]
    return {"role": "system", "content": ""}, messages


def _with_short_ids(message: TemplateMessage) -> TemplateMessage:
    changed: dict[str, Any] = {}
    if "tool_call_id" in message:
        changed["tool_call_id"] = _short_id(message["tool_call_id"])
    if message.get("tool_calls"):
        changed["tool_calls"] = [{**call, "id": _short_id(call["id"])} for call in message["tool_calls"]]
    return {**message, **changed}


def _short_id(call_id: str) -> str:
    return call_id if _STRICTEST_ID.fullmatch(call_id) else hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _call_as_text(message: TemplateMessage, syntax: CallSyntax) -> TemplateMessage:
    if not message.get("tool_calls"):
        return message
    functions = [call["function"] for call in message["tool_calls"]]
    calls = syntax.write(WrittenCall(function["name"], function["arguments"]) for function in functions)
    others = {name: value for name, value in message.items() if name != "tool_calls"}
    return {**others, "content": "\n".join(filter(None, [message["content"], calls]))}


def _result_as_text(message: TemplateMessage, names: dict[str, str]) -> TemplateMessage:
    name = message.get("name") or names.get(message["tool_call_id"], "the function")
    return {"role": "user", "content": f"Result of {name}:\n{message['content']}"}
