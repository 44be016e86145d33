"""What an answer must look like, as the client said it: not yet checked, nothing compiled."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


class GrammarKind(enum.Enum):
    """How a grammar's text is read."""

    JSON_SCHEMA = "json_schema"
    REGEX = "regex"
    CHOICE = "choice"
    LARK = "lark"


@dataclass(frozen=True, slots=True)
class Grammar:
    """A description of texts. Equal ones have equal bytes, and are compiled once.

    Attributes:
        text: a schema or a list of texts as compact JSON, or the pattern, or the rules, as they were given.
    """

    kind: GrammarKind
    text: str

    @classmethod
    def json_object(cls) -> Grammar:
        """Any JSON object."""
        return cls.json_schema({"type": "object"})

    @classmethod
    def json_schema(cls, schema: Mapping[str, Any] | bool) -> Grammar:
        """JSON that a schema (draft 2020-12) describes; properties come in the order of ``properties``."""
        return cls(GrammarKind.JSON_SCHEMA, compact(schema))

    @classmethod
    def regex(cls, pattern: str) -> Grammar:
        """Texts that a regular expression matches as a whole; its syntax is that of Rust's ``regex`` crate."""
        return cls(GrammarKind.REGEX, pattern)

    @classmethod
    def choice(cls, texts: Sequence[str]) -> Grammar:
        """One of the texts."""
        return cls(GrammarKind.CHOICE, compact(list(texts)))

    @classmethod
    def lark(cls, text: str) -> Grammar:
        """A context-free grammar in llguidance's dialect of Lark.

        It may hold schemas (``embedded_schema``) and name special tokens of the model by their text, ``<|im_end|>``.
        """
        return cls(GrammarKind.LARK, text)

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the text."""
        return len(self.text.encode())


def compact(value: object) -> str:
    """A value as JSON in one line; objects keep the order of their keys, which decides that of the answer's."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
