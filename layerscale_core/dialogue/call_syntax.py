"""How models write calls of tools: a table of formats, each a row of the texts around name and arguments."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from layerscale_core.dialogue.tools import Tool

PROBE_NAME = "probe_tool"
"""The name that the rows' ``mark`` expects in a rendered call."""


@dataclass(frozen=True, slots=True)
class WrittenCall:
    """A call as a conversation holds it; arguments that are no object are text that could not be read."""

    name: str
    arguments: Mapping[str, Any] | str


@dataclass(frozen=True, slots=True)
class CallSyntax:
    """One format: ``begin (open NAME middle ARGUMENTS close) separator (…) end``, ARGUMENTS being a JSON object.

    Attributes:
        name: for logs and documentation.
        mark: found in what a template of this format makes of a definition and a call of ``PROBE_NAME``.
        trigger: the text that a call begins with, and no other answer.
        is_anchored: only an answer that begins with ``trigger`` is a call; else text may precede it.
        separator: between calls; None: an answer has one call at most.
        prelude: what may stand before ``begin``, where the vocabulary has a control token of that text.
        markers: the parts that are control tokens in many vocabularies, and plain text in others.
    """

    name: str
    mark: re.Pattern[str]
    trigger: str
    begin: str
    open: str
    middle: str
    close: str
    separator: str | None
    end: str
    is_anchored: bool = False
    prelude: str = ""
    markers: tuple[str, ...] = ()

    @property
    def opening(self) -> str:
        """All before the first name."""
        return self.begin + self.open

    def opening_of(self, name: str) -> str:
        """A call up to its arguments, without what stands before the first of several."""
        return f"{self.open}{name}{self.middle}"

    def write(self, calls: Iterable[WrittenCall]) -> str:
        """Calls as the model would have written them."""
        written = [f"{self.opening_of(call.name)}{_json(call.arguments)}{self.close}" for call in calls]
        return self.begin + ("\n" if self.separator is None else self.separator).join(written) + self.end

    def instructions(self, tools: Iterable[Tool]) -> str:
        """What to tell a model whose template cannot."""
        definitions = "\n".join(json.dumps(tool.function, ensure_ascii=False) for tool in tools)
        example = f"{self.begin}{self.opening_of('NAME')}ARGUMENTS{self.close}{self.end}"
        return (
            f"You can call these functions:\n{definitions}\n\n"
            f"To call one, answer with nothing but {example}\n"
            "where NAME is the function's name and ARGUMENTS a JSON object that fits its parameters."
        )


def _json(arguments: Mapping[str, Any] | str) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


JSON = CallSyntax(
    name="json",
    mark=re.compile(rf'\{{"name": ?"{PROBE_NAME}", ?"parameters": ?'),
    trigger='{"name": "',
    begin="",
    open='{"name": "',
    middle='", "parameters": ',
    close="}",
    separator=None,
    end="",
    is_anchored=True,
    prelude="<|python_tag|>",
    markers=("<|python_tag|>",),
)
"""Llama 3's, and what a model is taught in its prompt when its template knows nothing of tools."""

SYNTAXES = (
    CallSyntax(
        name="hermes",
        mark=re.compile(rf'<tool_call>\s*\{{"name": ?"{PROBE_NAME}", ?"arguments": ?'),
        trigger="<tool_call>",
        begin="",
        open='<tool_call>\n{"name": "',
        middle='", "arguments": ',
        close="}\n</tool_call>",
        separator="\n",
        end="",
        markers=("<tool_call>", "</tool_call>"),
    ),
    CallSyntax(
        name="mistral",
        mark=re.compile(rf'\[TOOL_CALLS\]\s*\[\{{"name": ?"{PROBE_NAME}", ?"arguments": ?'),
        trigger="[TOOL_CALLS]",
        begin="[TOOL_CALLS][",
        open='{"name": "',
        middle='", "arguments": ',
        close="}",
        separator=", ",
        end="]",
        markers=("[TOOL_CALLS]",),
    ),
    CallSyntax(
        name="mistral-args",
        mark=re.compile(rf"\[TOOL_CALLS\]\s*{PROBE_NAME}\s*\[ARGS\]"),
        trigger="[TOOL_CALLS]",
        begin="",
        open="[TOOL_CALLS]",
        middle="[ARGS]",
        close="",
        separator="",
        end="",
        markers=("[TOOL_CALLS]", "[ARGS]"),
    ),
    CallSyntax(
        name="phi",
        mark=re.compile(r"<\|tool\|>.*<\|/tool\|>", re.DOTALL),
        trigger="<|tool_call|>",
        begin="<|tool_call|>[",
        open='{"name": "',
        middle='", "arguments": ',
        close="}",
        separator=", ",
        end="]<|/tool_call|>",
        markers=("<|tool_call|>", "<|/tool_call|>"),
    ),
    JSON,
)
"""Every format that is recognised in a template, the more particular first."""
