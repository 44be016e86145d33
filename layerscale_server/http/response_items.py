"""The items of OpenAI's responses: conversations as templates expect them, and answers as their clients do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from layerscale_core.dialogue import AnsweredCall, SortedAnswer
from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.replies import CallIds
from layerscale_server.http.schemas.responses import (
    CallItem,
    CallOutputItem,
    InputItem,
    MessageItem,
    ReasoningItem,
    text_of,
)
from layerscale_server.http.schemas.tools import template_call

TemplateMessage = dict[str, Any]
Item = dict[str, Any]


def template_messages(before: Sequence[TemplateMessage], items: Iterable[InputItem]) -> list[TemplateMessage]:
    """A conversation and what follows it; what the assistant reasons, says and calls in a row is one message.

    Raises:
        InvalidRequestError: a result belongs to no call before it.
    """
    messages = list(before)
    names = {call["id"]: call["function"]["name"] for message in messages for call in message.get("tool_calls", ())}
    for item in items:
        match item:
            case MessageItem(role="assistant"):
                _extend_assistant(messages, content=text_of(item.content))
            case MessageItem():
                role = "system" if item.role == "developer" else item.role
                messages.append({"role": role, "content": text_of(item.content)})
            case ReasoningItem():
                _extend_assistant(messages, reasoning="".join(part.text for part in item.content))
            case CallItem():
                names[item.call_id] = item.name
                _extend_assistant(messages, calls=[template_call(item.call_id, item.name, item.arguments)])
            case CallOutputItem():
                messages.append(_result(item, names))
    return messages


def assistant_message(answer: SortedAnswer, call_ids: CallIds) -> TemplateMessage:
    """An answer as a message of the conversation."""
    messages: list[TemplateMessage] = []
    calls = [template_call(call_ids[index], call.name, call.arguments) for index, call in enumerate(answer.calls)]
    _extend_assistant(messages, content=answer.text, reasoning=answer.reasoning, calls=calls)
    return messages[0]


def output_items(answer: SortedAnswer, ids: CallIds, call_ids: CallIds, *, is_cut: bool) -> list[Item]:
    """An answer as items; the last of one that was cut off is incomplete."""
    items: list[Item] = []
    if answer.reasoning:
        items.append(reasoning_item(ids[len(items)], answer.reasoning))
    if answer.text or not (answer.reasoning or answer.calls):
        items.append(message_item(ids[len(items)], answer.text))
    for index, call in enumerate(answer.calls):
        items.append(call_item(ids[len(items)], call_ids[index], call))
    if is_cut:
        items[-1]["status"] = "incomplete"
    return items


def message_item(item_id: str, text: str | None, status: str = "completed") -> Item:
    """What is said; None: nothing yet."""
    content = [] if text is None else [text_part(text)]
    return {"id": item_id, "type": "message", "status": status, "role": "assistant", "content": content}


def reasoning_item(item_id: str, text: str | None, status: str = "completed") -> Item:
    """What is reasoned; None: nothing yet."""
    content = [] if text is None else [reasoning_part(text)]
    return {"id": item_id, "type": "reasoning", "status": status, "summary": [], "content": content}


def call_item(item_id: str, call_id: str, call: AnsweredCall, status: str = "completed") -> Item:
    """A call of a tool."""
    named = {"call_id": call_id, "name": call.name, "arguments": call.arguments}
    return {"id": item_id, "type": "function_call", "status": status, **named}


def text_part(text: str) -> dict[str, Any]:
    """The one piece of a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def reasoning_part(text: str) -> dict[str, Any]:
    """The one piece of reasoning."""
    return {"type": "reasoning_text", "text": text}


def _extend_assistant(
    messages: list[TemplateMessage], content: str = "", reasoning: str = "", calls: Sequence[Any] = ()
) -> None:
    """Go on with the assistant's message, or begin one."""
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    last = messages[-1] = dict(messages[-1])  # the one before belongs to whoever stored it
    last["content"] += content
    if reasoning:
        last["reasoning_content"] = last.get("reasoning_content", "") + reasoning
    if calls:
        last["tool_calls"] = [*last.get("tool_calls", ()), *calls]


def _result(item: CallOutputItem, names: dict[str, str]) -> TemplateMessage:
    name = names.get(item.call_id)
    if name is None:
        raise InvalidRequestError("input: a function_call_output belongs to no function_call before it", param="input")
    return {"role": "tool", "name": name, "tool_call_id": item.call_id, "content": text_of(item.output)}
