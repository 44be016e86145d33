"""The body of ``POST /v1/responses``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import FailFast, Field, Tag, model_validator

from layerscale_core.constraints import Grammar
from layerscale_core.dialogue import Tool, ToolOffer
from layerscale_server.http.schemas.base import RequestModel, at_most, by_type, text_or_list, unsupported
from layerscale_server.http.schemas.content import as_parts
from layerscale_server.http.schemas.sampling import SamplingFields
from layerscale_server.http.schemas.structured_output import JsonSchema, format_grammar
from layerscale_server.http.schemas.tools import (
    FunctionDefinition,
    FunctionName,
    NamedTool,
    ToolChoice,
    offer_of,
)

DEFAULT_OUTPUT_TOKENS = 1024


class InputText(RequestModel):
    """A piece of what was said."""

    type: Literal["input_text", "output_text", "text"]
    text: str


InputTexts = Annotated[list[InputText], FailFast(), text_or_list(as_parts, str | list[InputText])]


def text_of(parts: list[InputText]) -> str:
    """The pieces, one directly after the other."""
    return "".join(part.text for part in parts)


class MessageItem(RequestModel):
    """Something that was said."""

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: InputTexts


class CallItem(RequestModel):
    """An earlier call of a tool, by the model; ``arguments`` is JSON text."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class CallOutputItem(RequestModel):
    """What a call gave."""

    type: Literal["function_call_output"]
    call_id: str
    output: InputTexts


class ReasoningText(RequestModel):
    """A piece of reasoning."""

    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(RequestModel):
    """Earlier reasoning."""

    type: Literal["reasoning"]
    content: list[ReasoningText] = Field(default_factory=list)


_TAGS = {
    "message": "message item",
    "function_call": "function_call item",
    "function_call_output": "function_call_output item",
    "reasoning": "reasoning item",
}


InputItem = Annotated[
    Annotated[MessageItem, Tag("message item")]
    | Annotated[CallItem, Tag("function_call item")]
    | Annotated[CallOutputItem, Tag("function_call_output item")]
    | Annotated[ReasoningItem, Tag("reasoning item")],
    by_type("an item", _TAGS, default="message"),
]


def _as_items(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


class ResponseTool(FunctionDefinition):
    """A tool, which is a function."""

    type: Literal["function"]


class ResponseNamedTool(FunctionName):
    """The one tool that is to be called."""

    type: Literal["function"]


class TextFormat(RequestModel):
    """How the text is to be. A schema is always kept to the letter, ``strict`` or not."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: str = ""
    json_schema: JsonSchema | None = Field(default=None, alias="schema")
    strict: bool = False

    @model_validator(mode="after")
    def _check_schema(self) -> TextFormat:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("schema belongs to the type json_schema, and that needs it")
        return self

    def grammar(self) -> Grammar | None:
        """What it asks for; None: plain text."""
        return format_grammar(self.type, self.json_schema)


class TextOptions(RequestModel):
    """OpenAI's ``text``."""

    format: TextFormat = TextFormat()


class ReasoningOptions(RequestModel):
    """OpenAI's ``reasoning``."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None


class CacheOptions(RequestModel):
    """OpenAI's ``prompt_cache_options``, of which the one that asks for a warm-up counts."""

    prewarm: bool = False


class ResponsesRequest(SamplingFields):
    """OpenAI's request for a response. ``model`` and fields not named here are ignored."""

    input: Annotated[
        list[InputItem],
        FailFast(),
        text_or_list(_as_items, str | list[InputItem]),
        Field(min_length=1),
        at_most("messages", "items"),
    ]
    instructions: str | None = None
    max_output_tokens: int = Field(DEFAULT_OUTPUT_TOKENS, ge=1, le=2**31 - 1)
    previous_response_id: str | None = None
    store: bool = True
    tools: Annotated[list[ResponseTool], FailFast(), at_most("tools", "tools")] = Field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | ResponseNamedTool = "auto"
    parallel_tool_calls: bool = True
    text: TextOptions = TextOptions()
    reasoning: ReasoningOptions = ReasoningOptions()
    truncation: Literal["disabled"] = "disabled"
    background: Annotated[bool, unsupported("stream the response, or wait for it", unless=False)] = False
    metadata: dict[str, str] = Field(default_factory=dict)
    prompt_cache_options: CacheOptions = CacheOptions()
    conversation: Annotated[Any, unsupported("use previous_response_id")] = None
    prompt: Annotated[Any, unsupported("send its text as instructions and input")] = None
    max_tool_calls: Annotated[Any, unsupported("there are no built-in tools")] = None
    session_id: str | None = None

    @model_validator(mode="after")
    def _check_offer(self) -> ResponsesRequest:
        self.offer()
        return self

    def offer(self) -> ToolOffer | None:
        """What the model may call; None: nothing."""
        tools = [Tool(tool.name, tool.parameters, tool.description) for tool in self.tools]
        return offer_of(tools, self._chosen(), is_parallel=self.parallel_tool_calls)

    def _chosen(self) -> ToolChoice:
        """The choice in chat's words."""
        if isinstance(self.tool_choice, ResponseNamedTool):
            return NamedTool(type="function", function=FunctionName(name=self.tool_choice.name))
        return self.tool_choice

    def grammar(self) -> tuple[str, Grammar] | None:
        """What the answer must match, and the field that says so."""
        grammar = self.text.format.grammar()
        return None if grammar is None else ("text", grammar)

    def template_variables(self) -> dict[str, Any]:
        """What the template is told besides the conversation."""
        effort = self.reasoning.effort
        return {} if effort is None else {"reasoning_effort": effort, "enable_thinking": effort != "none"}
