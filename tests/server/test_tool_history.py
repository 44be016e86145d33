"""Conversations with tool calls in them, for templates that can write them and for templates that cannot."""

from __future__ import annotations

from typing import Any

import pytest

from layerscale_core.chat_template import ChatTemplate
from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.tool_history import check_tools_are_written

CONTENT_ALONE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
CALLS_TOO = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}{% endfor %}"
)
NO_RESULTS = (
    "{% for m in messages %}{% if m.role != 'tool' %}<{{ m.role }}>{{ m.content }}"
    "{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}{% endif %}{% endfor %}"
)

QUESTION = {"role": "user", "content": "hi"}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": {}}}],
}
RESULT = {"role": "tool", "tool_call_id": "1", "content": ""}


def check(source: str, messages: list[dict[str, Any]]) -> None:
    template = ChatTemplate(source, bos="", eos="")
    check_tools_are_written(template.render, messages, template.render(messages))


@pytest.mark.parametrize(
    ("source", "messages"),
    [
        (CONTENT_ALONE, [QUESTION]),
        (CONTENT_ALONE, [QUESTION, RESULT]),
        (CONTENT_ALONE, [QUESTION, CALL | {"tool_calls": []}]),
        (CALLS_TOO, [QUESTION, CALL, RESULT]),
        (NO_RESULTS, [QUESTION, CALL]),
    ],
)
def test_what_is_written_passes(source: str, messages: list[dict[str, Any]]) -> None:
    check(source, messages)


@pytest.mark.parametrize(
    ("source", "messages", "what"),
    [
        (CONTENT_ALONE, [QUESTION, CALL, RESULT], "tool calls"),
        (NO_RESULTS, [QUESTION, CALL, RESULT], "tool results"),
    ],
)
def test_what_would_be_left_out_is_refused(source: str, messages: list[dict[str, Any]], what: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"cannot write {what}") as caught:
        check(source, messages)
    assert caught.value.param == "messages"
