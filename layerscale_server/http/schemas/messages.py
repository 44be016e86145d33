"""The bodies of ``POST /v1/messages`` and ``POST /v1/messages/count_tokens``, Anthropic's API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import FailFast, Field, Tag, model_validator

from layerscale_core.constraints import Grammar
from layerscale_core.dialogue import Tool, ToolOffer
from layerscale_server.http.schemas.base import RequestModel, at_most, by_type, text_or_list, unsupported
from layerscale_server.http.schemas.content import TextContent, TextPart, as_parts
from layerscale_server.http.schemas.sampling import SamplingFields
from layerscale_server.http.schemas.structured_output import JsonSchema
from layerscale_server.http.schemas.tools import ArgumentsSchema, FunctionName, NamedTool, ToolName, offer_of
from layerscale_server.http.schemas.turn import StopTexts, WarmUpField


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


Block = Annotated[
    Annotated[TextPart, Tag("text block")]
    | Annotated[ToolUseBlock, Tag("tool_use block")]
    | Annotated[ToolResultBlock, Tag("tool_result block")]
    | Annotated[ThinkingBlock, Tag("thinking block")],
    by_type("a block", _TAGS),
]


class InputMessage(RequestModel):
    """One message of the conversation."""

    role: Literal["user", "assistant"]
    content: Annotated[list[Block], FailFast(), text_or_list(as_parts, str | list[Block])]

    @model_validator(mode="after")
    def _check_blocks(self) -> InputMessage:
        foreign = ToolResultBlock if self.role == "assistant" else ToolUseBlock
        if any(isinstance(block, foreign) for block in self.content):
            raise ValueError("tool_use is the assistant's, and tool_result the user's")
        return self


class ToolDefinition(RequestModel):
    """A tool of the client's; those that Anthropic's servers run are refused."""

    type: Literal["custom"] = "custom"
    name: ToolName
    description: str = ""
    input_schema: ArgumentsSchema

    @property
    def tool(self) -> Tool:
        """The tool itself."""
        return Tool(self.name, self.input_schema, self.description)


class ToolChoice(RequestModel):
    """Whether tools are to be called; ``name`` is of the one that ``type`` ``tool`` means."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False

    @model_validator(mode="after")
    def _check_name(self) -> ToolChoice:
        if (self.type == "tool") != (self.name is not None):
            raise ValueError("name belongs to the type tool, and that needs it")
        return self

    @property
    def as_openai(self) -> Literal["auto", "required", "none"] | NamedTool:
        """The same in OpenAI's words."""
        if self.type == "tool":
            return NamedTool(type="function", function=FunctionName(name=self.name or ""))
        return "required" if self.type == "any" else self.type


class Thinking(RequestModel):
    """Anthropic's ``thinking``; a budget has no effect."""

    type: Literal["enabled", "disabled", "adaptive"]


class ClearThinking(RequestModel):
    """The one edit of a context that changes nothing here: thinking is dropped in any case."""

    type: Literal["clear_thinking_20251015"]


class ContextManagement(RequestModel):
    """Anthropic's ``context_management``."""

    edits: list[ClearThinking] = Field(default_factory=list)


class OutputFormat(RequestModel):
    """What the text of the answer must match."""

    type: Literal["json_schema"]
    json_schema: JsonSchema = Field(alias="schema")


class OutputConfig(RequestModel):
    """Anthropic's ``output_config``, of which the format counts."""

    format: OutputFormat | None = None


class CountTokensRequest(RequestModel):
    """A conversation, and what would change its answer. ``model`` and fields not named here are ignored."""

    messages: Annotated[list[InputMessage], FailFast(), Field(min_length=1), at_most("messages", "messages")]
    system: TextContent = Field(default_factory=list)
    tools: Annotated[list[ToolDefinition], FailFast(), at_most("tools", "tools")] = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig = OutputConfig()
    output_format: OutputFormat | None = Field(None, description="the older name of output_config.format")
    mcp_servers: Annotated[Any, unsupported(unless=[])] = None
    container: Annotated[Any, unsupported()] = None
    compaction: Annotated[Any, unsupported(unless=[])] = None
    context_management: ContextManagement = ContextManagement()

    @model_validator(mode="after")
    def _check_offer(self) -> CountTokensRequest:
        self.offer()
        return self

    def offer(self) -> ToolOffer | None:
        """What the model may call; None: nothing."""
        choice = self.tool_choice or ToolChoice(type="auto")
        is_parallel = not choice.disable_parallel_tool_use
        return offer_of([each.tool for each in self.tools], choice.as_openai, is_parallel=is_parallel)

    @property
    def wants_thinking(self) -> bool:
        """Whether the answer may have thinking in it, and shows it."""
        return self.thinking is not None and self.thinking.type != "disabled"

    def template_variables(self) -> dict[str, Any]:
        """What the template is told besides the conversation."""
        return {"enable_thinking": self.wants_thinking}

    def grammar(self) -> tuple[str, Grammar] | None:
        """What the answer must match, and the field that says so."""
        for field, wanted in (("output_config", self.output_config.format), ("output_format", self.output_format)):
            if wanted is not None:
                return field, Grammar.json_schema(wanted.json_schema)
        return None


class MessagesRequest(SamplingFields, WarmUpField, CountTokensRequest):
    """Anthropic's request for a message, with the sampling parameters that all routes have."""

    max_tokens: int = Field(ge=1, le=2**31 - 1)
    stop_sequences: StopTexts = Field(default_factory=list)
    session_id: str | None = None
