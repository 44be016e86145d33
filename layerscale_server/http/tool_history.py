"""Whether a chat template writes the earlier tool calls and results of a conversation, or leaves them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from layerscale_core.errors import InvalidRequestError

TemplateMessage = Mapping[str, Any]
Render = Callable[[Sequence[TemplateMessage]], str]


def check_tools_are_written(render: Render, messages: Sequence[TemplateMessage], text: str) -> None:
    """A template that leaves something out writes the same when that is different.

    Args:
        text: what ``render`` makes of ``messages``.

    Raises:
        InvalidRequestError: the template ignores calls or results, so that the model would not know of them.
    """
    for what, change in (("tool calls", _with_other_calls), ("tool results", _with_other_result)):
        changed = [change(message) for message in messages]
        if changed != list(messages) and render(changed) == text:
            raise InvalidRequestError(
                f"messages: the chat template of this model cannot write {what}, which these have", param="messages"
            )


def _with_other_calls(message: TemplateMessage) -> TemplateMessage:
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "name": f"other_{call['function']['name']}"}}
        for call in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def _with_other_result(message: TemplateMessage) -> TemplateMessage:
    return {**message, "content": f"other {message['content']}"} if message["role"] == "tool" else message
