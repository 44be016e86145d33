"""The request fields that conversations and questions to a session share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator

from layerscale_server.http.schemas.base import at_most, limits_of
from layerscale_server.http.schemas.sampling import DEFAULT_MAX_TOKENS
from layerscale_server.http.schemas.structured_output import StructuredFields

TOOLS_NOT_YET = "tool calls are not supported by this version"


def _check_stop_bytes(stops: list[str], info: ValidationInfo) -> list[str]:
    most = limits_of(info).stop_bytes
    if not all(0 < len(text.encode()) <= most for text in stops):
        raise ValueError(f"should hold texts of 1 to {most} bytes")
    return stops


def _refuse_tools(tools: list[Any]) -> list[Any]:
    if tools:
        raise ValueError(TOOLS_NOT_YET)
    return tools


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


StopTexts = Annotated[list[str], at_most("stops", "texts"), AfterValidator(_check_stop_bytes)]
"""Texts that end an answer."""

NoTools = Annotated[list[Any], AfterValidator(_refuse_tools)]
"""Tools that the model may call, which are not there yet."""


class TurnFields(StructuredFields):
    """How long the answer may be, what ends it, and the tools that are not there yet."""

    max_tokens: int = Field(DEFAULT_MAX_TOKENS, ge=1, le=2**31 - 1)
    stop: Annotated[StopTexts, BeforeValidator(_as_list, json_schema_input_type=str)] = Field(default_factory=list)
    tools: NoTools = Field(default_factory=list)
    functions: NoTools = Field(default_factory=list)
    tool_choice: Any = None

    @field_validator("tool_choice")
    @classmethod
    def _refuse_tool_choice(cls, value: Any) -> Any:
        if value not in (None, "none", "auto"):
            raise ValueError(TOOLS_NOT_YET)
        return value
