"""From grammars to constraints: checked, compiled within limits, and kept."""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from layerscale_core.constraints.expansion import lark_size, regex_size, schema_size
from layerscale_core.constraints.grammar import Grammar, GrammarKind, compact
from layerscale_core.constraints.json_schema import LAYOUT, check_expanded, prepared
from layerscale_core.constraints.lark_rules import rule_bodies, without_schemas
from layerscale_core.constraints.limits import GrammarLimits
from layerscale_core.constraints.matcher import Constraint
from layerscale_core.constraints.termination import lark_can_end
from layerscale_core.constraints.token_table import make_token_table
from layerscale_core.errors import GrammarError
from layerscale_core.specs.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_MAX_KEPT = 64
"""Compiled grammars that are kept, the last used ones."""

_MAX_STEP_ITEMS = 10_000
"""Earley items of one step, about 2,000 to the millisecond; ordinary schemas need some hundreds."""


class ConstraintCompiler:
    """Compiles grammars for one model. Safe from any thread.

    Args:
        tokenizer: the model's.
        limits: what one grammar may ask for.
        max_kept: compiled grammars that are kept.
    """

    def __init__(self, tokenizer: Tokenizer, limits: GrammarLimits | None = None, *, max_kept: int = _MAX_KEPT) -> None:
        self._tokenizer = tokenizer
        self._limits = limits or GrammarLimits()
        self._max_kept = max_kept
        self._preparing = threading.Lock()
        self._table: LLTokenizer | None = None
        self._keeping = threading.Lock()
        self._kept: OrderedDict[Grammar, Constraint] = OrderedDict()

    def prepare(self) -> bool:
        """Index the vocabulary, unless that is done; returns whether it was done now.

        The first compilation does it otherwise. It holds the interpreter's lock, up to a second for the largest
        vocabularies.
        """
        is_new = self._table is None
        self._prepared_table()
        return is_new

    def find(self, grammar: Grammar) -> Constraint | None:
        """The constraint, if the grammar was compiled and is kept; at once."""
        with self._keeping:
            if grammar in self._kept:
                self._kept.move_to_end(grammar)
            return self._kept.get(grammar)

    def compile(self, grammar: Grammar) -> Constraint:
        """Compile a grammar. Takes its time, mostly without the interpreter's lock.

        Raises:
            GrammarError: it is wrong, not supported, beyond the limits, or nothing satisfies it.
        """
        if (kept := self.find(grammar)) is not None:
            return kept
        rules = self._rules(grammar)
        table = self._prepared_table()
        start = _make_matcher(table, rules)
        constraint = Constraint(grammar, start, table)
        with self._keeping:
            self._kept[grammar] = constraint
            while len(self._kept) > self._max_kept:
                self._kept.popitem(last=False)
        return constraint

    def _prepared_table(self) -> LLTokenizer:
        with self._preparing:
            if self._table is None:
                self._table = make_token_table(self._tokenizer)
            return self._table

    def _rules(self, grammar: Grammar) -> str:
        """The grammar as llguidance reads it."""
        from llguidance import LLMatcher  # noqa: PLC0415 (heavy, and needed by those alone who constrain an answer)

        if grammar.num_bytes > self._limits.max_bytes:
            raise GrammarError(f"what the answer must match is longer than {self._limits.max_bytes} bytes")
        match grammar.kind:
            case GrammarKind.JSON_SCHEMA:
                schema = prepared(json.loads(grammar.text), self._limits)
                return LLMatcher.grammar_from_json_schema(compact(schema))
            case GrammarKind.REGEX:
                check_expanded(regex_size(grammar.text), self._limits)
                return LLMatcher.grammar_from_regex(grammar.text)
            case GrammarKind.CHOICE:
                texts = json.loads(grammar.text)
                self._check_rules(len(texts))
                return "start: CHOICE\nCHOICE: " + " | ".join(json.dumps(text, ensure_ascii=False) for text in texts)
            case GrammarKind.LARK:
                self._check_lark(grammar.text)
                return grammar.text

    def _check_lark(self, text: str) -> None:
        bodies = rule_bodies(without_schemas(text, self._size_of_embedded))
        self._check_rules(len(bodies))
        check_expanded(lark_size(bodies), self._limits)
        if not lark_can_end(bodies):
            raise GrammarError("the grammar has a rule that cannot be left again")

    def _size_of_embedded(self, schema: Any) -> int:
        if isinstance(schema, dict) and schema.get("x-guidance") == LAYOUT:
            schema = {keyword: value for keyword, value in schema.items() if keyword != "x-guidance"}
        return schema_size(prepared(schema, self._limits))

    def _check_rules(self, num_rules: int) -> None:
        if not 0 < num_rules <= self._limits.max_rules:
            raise GrammarError(f"what the answer must match should have 1 to {self._limits.max_rules} rules")


def _make_matcher(table: LLTokenizer, rules: str) -> LLMatcher:
    """Compile, and see that there is a way to begin.

    Raises:
        GrammarError: there is none, or the grammar is wrong.
    """
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415 (as above)

    # Verbose errors would quote the answer. A step of the parser may hold up the engine for milliseconds, not longer.
    limits = LLParserLimits(verbose_errors=False, step_max_items=_MAX_STEP_ITEMS)
    start = LLMatcher(table, rules, log_level=0, limits=limits)
    if start.is_error():
        raise GrammarError(f"what the answer must match cannot be compiled: {_first_line(start.get_error())}")
    trial = start.deep_copy()
    has_token = any(trial.compute_bitmask())
    if trial.is_error() or not has_token:
        raise GrammarError("nothing satisfies what the answer must match, or it is too complex")
    return start


def _first_line(complaint: str) -> str:
    """What is wrong, without what it quotes of the grammar."""
    return re.sub(r"""(["'`/]).*?(\1|$)""", "...", complaint.splitlines()[0])[:200]
