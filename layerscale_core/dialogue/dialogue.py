"""One model's way to converse: prompts with tools in them, and what is needed to read the answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from layerscale_core.constraints import Grammar, GrammarKind
from layerscale_core.dialogue.call_syntax import CallSyntax
from layerscale_core.dialogue.conversation import (
    with_calls_as_text,
    with_results_as_text,
    with_short_ids,
    with_system_text,
    with_system_tools,
)
from layerscale_core.dialogue.grammar import after_reasoning, answer_grammar, matching
from layerscale_core.dialogue.parser import AnswerParser
from layerscale_core.dialogue.reasoning import (
    Reasoning,
    ReasoningMarkers,
    reasoning_after,
    recognise_reasoning,
)
from layerscale_core.dialogue.recognition import (
    Definitions,
    Template,
    TemplateMessage,
    recognise_tools,
    tools_text,
)
from layerscale_core.dialogue.tools import Tool, ToolOffer
from layerscale_core.specs.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class AnswerPlan:
    """How the answer to one prompt is constrained and read.

    Attributes:
        syntax: of calls; None: there are none.
        control_ids: the ids of those markers that are control tokens.
        grammar: None: any text.
        call_starts: what calls begin with where all else must match a schema; empty: where it need not.
    """

    syntax: CallSyntax | None
    markers: ReasoningMarkers | None
    reasoning: Reasoning
    control_ids: Mapping[str, int]
    grammar: Grammar | None
    call_starts: tuple[str, ...] = ()

    @property
    def shown_token_ids(self) -> frozenset[int]:
        """Control tokens that mark the parts of an answer, so that the parser must see their text."""
        return frozenset(self.control_ids.values())

    def make_parser(self) -> AnswerParser:
        """A parser of one answer."""
        return AnswerParser(self.syntax, self.markers, self.reasoning, self.call_starts)

    def constrained(self, grammar: Grammar) -> Grammar:
        """The grammar of an answer that must match another one once it has reasoned.

        Rules of the client's own stay as they are, which leaves no place for reasoning.

        Raises:
            GrammarError: a schema has what is not supported, or the prompt ends within the reasoning that has no place.
        """
        is_rules = grammar.kind is GrammarKind.LARK
        if self.reasoning is Reasoning.NONE or (is_rules and self.reasoning is Reasoning.POSSIBLE):
            return grammar
        return after_reasoning(matching(grammar), self.control_ids, self.markers, self.reasoning)


class Dialogue:
    """A chat template and a tokenizer, and what was recognised in them. Immutable; safe from any thread.

    Attributes:
        tool_format: how tools are written.
        markers: of reasoning; None: the model is not known to reason.
    """

    def __init__(self, template: Template, tokenizer: Tokenizer) -> None:
        self._template = template
        self.tool_format = recognise_tools(template)
        self.markers = recognise_reasoning(template.source)
        syntax_markers = self.tool_format.syntax.markers
        self._call_ids = _control_ids(tokenizer, syntax_markers)
        reasoning_markers = () if self.markers is None else (self.markers.begin, self.markers.end)
        self._reasoning_ids = _control_ids(tokenizer, reasoning_markers)

    @property
    def variables(self) -> frozenset[str]:
        """The variables that the template reads."""
        return self._template.variables

    def render(
        self,
        messages: Sequence[TemplateMessage],
        tools: Sequence[Tool] = (),
        *,
        add_generation_prompt: bool = True,
        variables: Mapping[str, Any] | None = None,
    ) -> str:
        """A conversation as the model's own template writes it, with the tools it is told of.

        Args:
            variables: of the template; those that it does not read have no effect.

        Raises:
            InvalidRequestError: the template refuses the conversation.
        """
        read = {name: value for name, value in (variables or {}).items() if name in self._template.variables}
        messages = with_short_ids(messages)
        for_template: list[dict[str, Any]] | None = None
        match self.tool_format.definitions:
            case Definitions.TEMPLATE if tools:
                for_template = [{"type": "function", "function": tool.function} for tool in tools]
            case Definitions.SYSTEM_MESSAGE if tools:
                messages = with_system_tools(messages, tools_text(tools))
            case Definitions.INSTRUCTIONS:
                messages = with_results_as_text(messages)
                if tools:
                    messages = with_system_text(messages, self.tool_format.syntax.instructions(tools))
        if not self.tool_format.writes_calls:
            messages = with_calls_as_text(messages, self.tool_format.syntax)
        return self._template.render(messages, tools=for_template, add_generation_prompt=add_generation_prompt, **read)

    def plan_answer(self, prompt: str, offer: ToolOffer | None, schema: Any = None) -> AnswerPlan:
        """How the answer to a rendered prompt is constrained and read.

        Args:
            schema: what an answer must match as JSON if it may have calls and has none; None: it is any text.

        Raises:
            GrammarError: a tool's schema has what is not supported.
        """
        reasoning = reasoning_after(prompt, self.markers)
        control_ids = {**({} if offer is None else self._call_ids), **self._reasoning_ids}
        if offer is None:
            return AnswerPlan(None, self.markers, reasoning, control_ids, None)
        syntax = self.tool_format.syntax
        grammar = answer_grammar(syntax, offer, control_ids, self.markers, reasoning, schema=schema)
        names = () if schema is None or offer.must_call else [tool.name for tool in offer.callable_tools]
        call_starts = tuple(syntax.begin + syntax.opening_of(name) for name in names)
        return AnswerPlan(syntax, self.markers, reasoning, control_ids, grammar, call_starts)


def _control_ids(tokenizer: Tokenizer, markers: Sequence[str]) -> dict[str, int]:
    """Those markers that are control tokens, which generated text does not show of itself."""
    found: dict[str, int] = {}
    for marker in markers:
        for token_id in tokenizer.encode(marker, add_special=False, parse_special=True):
            if tokenizer.token_text(token_id) == marker and not tokenizer.token_bytes(token_id):
                found[marker] = token_id
    return found
