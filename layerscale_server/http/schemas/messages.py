"""The bodies of ``POST /v1/messages`` and ``POST /v1/messages/count_tokens``, Anthropic's API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Discriminator, FailFast, Field, Tag, field_validator, model_validator

from layerscale_server.http.schemas.base import RequestModel, at_most
from layerscale_server.http.schemas.content import TextContent, TextPart, as_parts
from layerscale_server.http.schemas.sampling import SamplingFields
from layerscale_server.http.schemas.turn import TOOLS_NOT_YET, NoTools, StopTexts, WarmUpField


class ToolUseBlock(RequestModel):
    """An earlier call of a tool, by the assistant."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(RequestModel):
    """What a call gave."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: TextContent = Field(default_factory=list)
    is_error: bool = False


class ThinkingBlock(RequestModel):
    """Earlier thinking, which is no part of the conversation any more."""

    type: Literal["thinking", "redacted_thinking"]


_TAGS = {
    "text": "text block",
    "tool_use": "tool_use block",
    "tool_result": "tool_result block",
    "thinking": "thinking block",
    "redacted_thinking": "thinking block",
}


def _tag_of(block: Any) -> str | None:
    kind = block.get("type") if isinstance(block, dict) else None
    return _TAGS.get(kind) if isinstance(kind, str) else None


Block = Annotated[
    Annotated[TextPart, Tag("text block")]
    | Annotated[ToolUseBlock, Tag("tool_use block")]
    | Annotated[ToolResultBlock, Tag("tool_result block")]
    | Annotated[ThinkingBlock, Tag("thinking block")],
    Discriminator(
        _tag_of,
        custom_error_type="block_type",
        custom_error_message=f"should be a block of one of the types {', '.join(_TAGS)}",
    ),
]


class InputMessage(RequestModel):
    """One message of the conversation."""

    role: Literal["user", "assistant"]
    content: Annotated[list[Block], FailFast(), BeforeValidator(as_parts, json_schema_input_type=str | list[Block])]

    @model_validator(mode="after")
    def _check_blocks(self) -> InputMessage:
        foreign = ToolResultBlock if self.role == "assistant" else ToolUseBlock
        if any(isinstance(block, foreign) for block in self.content):
            raise ValueError("content: tool_use is the assistant's, and tool_result the user's")
        return self


class ClearThinking(RequestModel):
    """The one edit of a context that changes nothing here: thinking is dropped in any case."""

    type: Literal["clear_thinking_20251015"]


class ContextManagement(RequestModel):
    """Anthropic's ``context_management``."""

    edits: list[ClearThinking] = Field(default_factory=list)


class CountTokensRequest(RequestModel):
    """A conversation, and what would change its answer. ``model`` and fields not named here are ignored."""

    messages: Annotated[list[InputMessage], FailFast(), Field(min_length=1), at_most("messages", "messages")]
    system: TextContent = Field(default_factory=list)
    tools: NoTools = Field(default_factory=list)
    tool_choice: Any = None
    output_config: dict[str, Any] = Field(default_factory=dict)
    output_format: Any = None
    mcp_servers: Any = None
    container: Any = None
    compaction: Any = None
    context_management: ContextManagement = ContextManagement()

    @field_validator("tool_choice")
    @classmethod
    def _refuse_tool_choice(cls, value: Any) -> Any:
        if not isinstance(value, dict) or value.get("type") not in ("auto", "none"):
            raise ValueError(TOOLS_NOT_YET)
        return value

    @field_validator("output_config")
    @classmethod
    def _refuse_format(cls, value: dict[str, Any]) -> dict[str, Any]:
        if value.get("format") is not None:
            raise ValueError("format is not supported by this version")
        return value

    @field_validator("output_format", "mcp_servers", "container", "compaction")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        if value != []:
            raise ValueError("not supported by this version")
        return value


class MessagesRequest(SamplingFields, WarmUpField, CountTokensRequest):
    """Anthropic's request for a message, with the sampling parameters that all routes have."""

    max_tokens: int = Field(ge=1, le=2**31 - 1)
    stop_sequences: StopTexts = Field(default_factory=list)
    session_id: str | None = None
