"""The request fields that conversations and questions to a session share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from layerscale_server.http.schemas.base import at_most, limits_of
from layerscale_server.http.schemas.sampling import DEFAULT_MAX_TOKENS, SamplingFields


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


class TurnFields(SamplingFields):
    """How long the answer may be, what ends it, and the tools that are not there yet."""

    max_tokens: int = Field(DEFAULT_MAX_TOKENS, ge=1, le=2**31 - 1)
    stop: Annotated[list[str], BeforeValidator(_as_list, json_schema_input_type=str), at_most("stops", "texts")] = (
        Field(default_factory=list)
    )
    tools: list[Any] = Field(default_factory=list)
    functions: list[Any] = Field(default_factory=list)
    tool_choice: Any = None

    @field_validator("stop")
    @classmethod
    def _check_stop_bytes(cls, value: list[str], info: ValidationInfo) -> list[str]:
        most = limits_of(info).stop_bytes
        if not all(0 < len(text.encode()) <= most for text in value):
            raise ValueError(f"should hold texts of 1 to {most} bytes")
        return value

    @field_validator("tools", "functions")
    @classmethod
    def _refuse_tools(cls, value: list[Any]) -> list[Any]:
        if value:
            raise ValueError("tool calls are not supported by this version")
        return value

    @field_validator("tool_choice")
    @classmethod
    def _refuse_tool_choice(cls, value: Any) -> Any:
        if value not in (None, "none", "auto"):
            raise ValueError("tool calls are not supported by this version")
        return value
