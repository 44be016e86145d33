"""Settings as rows of data: a dataclass field is a row, from which parser, validation and documentation are made."""

from __future__ import annotations

import math
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """One setting.

    Attributes:
        name: the attribute's name.
        kind: ``int``, ``float`` or ``str``.
        default: what holds when nothing is said; None = chosen at start.
        help: one sentence for people.
        metavar: the placeholder of the value.
        minimum, maximum: inclusive bounds of a number; None = none.
        besides: one value outside the bounds that has a meaning of its own.
        choices: all allowed values of a text; empty = any but the empty one, which an unset variable of a shell leaves.
    """

    name: str
    kind: type
    default: Any
    help: str
    metavar: str
    minimum: float | None
    maximum: float | None
    besides: float | None
    choices: tuple[str, ...]

    @property
    def flag(self) -> str:
        """The command line's spelling, e.g. ``--log-format``."""
        return "--" + self.name.replace("_", "-")

    @property
    def allowed(self) -> str:
        """The allowed values in words, for messages and documentation; empty = any."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.minimum is None:
            return ""
        span = f"{self.minimum} or more" if self.maximum is None else f"{self.minimum} to {self.maximum}"
        return span if self.besides is None else f"{span}, or {self.besides}"

    def parse(self, text: str) -> Any:
        """The value a text means.

        Raises:
            ValueError: not of the row's kind or outside what is allowed; the message follows the setting's name.
        """
        if not text and self.kind is str and not self.choices:
            raise ValueError("must not be empty")
        try:
            value = self.kind(text)
        except ValueError:
            kind = "a whole number" if self.kind is int else "a number"
            raise ValueError(f"must be {kind}, not {text!r}") from None
        if not self._allows(value):
            raise ValueError(f"must be {self.allowed}, not {text}")
        return value

    def _allows(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        if self.kind is str or value == self.besides:
            return True
        return (
            math.isfinite(value)
            and (self.minimum is None or value >= self.minimum)
            and (self.maximum is None or value <= self.maximum)
        )


def row(
    default: Any,
    *,
    kind: type,
    help: str,  # noqa: A002 (the word every option parser uses)
    metavar: str = "N",
    minimum: float | None = None,
    maximum: float | None = None,
    besides: float | None = None,
    choices: tuple[str, ...] = (),
) -> Any:
    """Declare a dataclass field that is a setting; the arguments are those of ``Row``."""
    described = {
        "kind": kind,
        "help": help,
        "metavar": metavar,
        "minimum": minimum,
        "maximum": maximum,
        "besides": besides,
        "choices": choices,
    }
    return field(default=default, metadata=described)


def switch(default: str, *, help: str) -> Any:  # noqa: A002
    """Declare a setting that is ``on`` or ``off``."""
    return row(default, kind=str, metavar="MODE", choices=("on", "off"), help=help)


def rows_of(settings: type) -> tuple[Row, ...]:
    """The rows of a dataclass, in order of declaration; fields not made by ``row`` are left out."""
    return tuple(_row_of(each) for each in fields(settings) if each.metadata)


def _row_of(each: Field[Any]) -> Row:
    assert each.default is not MISSING
    return Row(name=each.name, default=each.default, **each.metadata)


def markdown_table(rows: tuple[Row, ...], *, spelling: str = "flag") -> str:
    """The rows as a Markdown table for the documentation.

    Args:
        spelling: the attribute of a row that is its name there, ``flag`` or ``name``.
    """
    lines = ["| setting | default | allowed | meaning |", "|---|---|---|---|"]
    for each in rows:
        default = "" if each.default is None else f"`{each.default}`"
        lines.append(f"| `{getattr(each, spelling)}` | {default} | {each.allowed} | {each.help} |")
    return "\n".join(lines)
