"""The tools that a model may call, and whether it must."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tool:
    """A function of the client's.

    Attributes:
        parameters: JSON schema of its arguments, which are an object.
    """

    name: str
    parameters: Mapping[str, Any]
    description: str = ""

    @property
    def function(self) -> dict[str, Any]:
        """The definition as models are shown it."""
        described = {"description": self.description} if self.description else {}
        return {"name": self.name, **described, "parameters": self.parameters}

    @property
    def arguments_schema(self) -> dict[str, Any]:
        """What the arguments of a call must satisfy: an object, with no other members than those that are named."""
        is_closed = {"additionalProperties": False} if _names_its_members(self.parameters) else {}
        return {"type": "object", **is_closed, **self.parameters}


def _names_its_members(schema: Mapping[str, Any]) -> bool:
    """Whether a schema says in one place which members there are."""
    elsewhere = {"$ref", "allOf", "anyOf", "oneOf", "patternProperties"}
    return elsewhere.isdisjoint(schema)


@dataclass(frozen=True, slots=True)
class ToolOffer:
    """What a request offers.

    Attributes:
        tools: what the model is told of; at least one, no name twice.
        is_required: the answer is at least one call.
        only: the one tool that it must call, exactly once; None = any.
        is_parallel: it may call several times in one answer, where its format has a way to write that.
    """

    tools: tuple[Tool, ...]
    is_required: bool = False
    only: str | None = None
    is_parallel: bool = True

    @property
    def callable_tools(self) -> tuple[Tool, ...]:
        """The tools that may be called."""
        return tuple(tool for tool in self.tools if self.only in (None, tool.name))

    @property
    def must_call(self) -> bool:
        """Whether an answer without a call is ruled out."""
        return self.is_required or self.only is not None

    @property
    def may_repeat(self) -> bool:
        """Whether one answer may have several calls."""
        return self.is_parallel and self.only is None
