"""What a chat template knows of tools, found by having it write a conversation with a call in it."""

from __future__ import annotations

import contextlib
import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from layerscale_core.dialogue.call_syntax import JSON, PROBE_NAME, SYNTAXES, CallSyntax
from layerscale_core.dialogue.tools import Tool
from layerscale_core.errors import InvalidRequestError

TemplateMessage = Mapping[str, Any]

_TOOL = Tool(PROBE_NAME, {"type": "object", "properties": {"probe_key": {"type": "string"}}}, "A probe.")
_SYSTEM: TemplateMessage = {"role": "system", "content": "Be brief."}
_QUESTION: TemplateMessage = {"role": "user", "content": "What is it?"}
_CALL: TemplateMessage = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {
            "id": "probe0001",  # nine letters and digits, as some templates insist
            "type": "function",
            "function": {"name": PROBE_NAME, "arguments": {"probe_key": "probe value"}},
        }
    ],
}


_NUM_ATTEMPTS = 3


class Template(Protocol):
    """What is needed of a chat template."""

    @property
    def source(self) -> str:
        """Its Jinja source."""
        ...

    @property
    def variables(self) -> frozenset[str]:
        """Names that it reads and does not define."""
        ...

    def render(
        self,
        messages: Sequence[TemplateMessage],
        /,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        **kwargs: Any,
    ) -> str:
        """The conversation as text.

        Raises:
            InvalidRequestError: it refuses the conversation.
        """
        ...


class Definitions(enum.Enum):
    """Who tells the model of its tools."""

    TEMPLATE = "the template, from its variable tools"
    SYSTEM_MESSAGE = "the template, from the system message's tools"
    INSTRUCTIONS = "we do, in the system message's text"


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How tools and calls are written for one template.

    Attributes:
        writes_calls: whether the template writes earlier calls; otherwise they become text before it sees them.
    """

    syntax: CallSyntax
    definitions: Definitions
    writes_calls: bool


UNTAUGHT = ToolFormat(JSON, Definitions.INSTRUCTIONS, writes_calls=False)
"""For a template that knows nothing of tools, or writes calls in a way that is not in the table."""


def recognise_tools(template: Template) -> ToolFormat:
    """The format that a template was made for."""
    definitions, defined = _find_definitions(template)
    written = _attempt(template, [_QUESTION, _CALL])
    for syntax in SYNTAXES:
        if definitions is not Definitions.INSTRUCTIONS and syntax.mark.search(written + defined):
            return ToolFormat(syntax, definitions, writes_calls=PROBE_NAME in written)
    return UNTAUGHT


def tools_text(tools: Sequence[Tool]) -> str:
    """Definitions as the variable of a system message."""
    return json.dumps([tool.function for tool in tools], ensure_ascii=False)


def _find_definitions(template: Template) -> tuple[Definitions, str]:
    """Who writes definitions, and a prompt that has one."""
    text = _attempt(template, [_QUESTION], tools=[{"type": "function", "function": _TOOL.function}])
    if PROBE_NAME in text:
        return Definitions.TEMPLATE, text
    text = _attempt(template, [{**_SYSTEM, "tools": tools_text([_TOOL])}, _QUESTION])
    if PROBE_NAME in text:
        return Definitions.SYSTEM_MESSAGE, text
    return Definitions.INSTRUCTIONS, ""


def _attempt(template: Template, messages: Sequence[TemplateMessage], **variables: Any) -> str:
    """What it writes; "" if it refuses, as often as it is asked: a machine under load could be to blame for once."""
    for _ in range(_NUM_ATTEMPTS):
        with contextlib.suppress(InvalidRequestError):
            return template.render(messages, add_generation_prompt=False, **variables)
    return ""
