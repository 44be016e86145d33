"""How large a schema, a regular expression or a grammar may be."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GrammarLimits:
    """What one grammar may ask for; together with the limits of llguidance they bound the time of a compilation.

    Attributes:
        max_bytes: UTF-8 bytes of its text.
        max_depth: levels of nesting in a schema.
        max_rules: sub-schemas, properties and listed values of a schema; alternatives of a choice; rules of a grammar.
        max_expanded: characters that it can force, with repetition multiplied out (``expansion``).
        max_divisor: digits of ``multipleOf``, read as one whole number.
    """

    max_bytes: int = 64 << 10
    max_depth: int = 64
    max_rules: int = 2000
    max_expanded: int = 20_000
    max_divisor: int = 10_000
