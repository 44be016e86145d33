"""The body of ``POST /v1/chat/completions``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import FailFast, Field, model_validator
from typing_extensions import TypeAliasType

from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.schemas.base import RequestModel, at_most, unsupported, up_to
from layerscale_server.http.schemas.content import TextContent, text_of
from layerscale_server.http.schemas.tools import template_call
from layerscale_server.http.schemas.turn import TurnFields


class FunctionCall(RequestModel):
    """What a tool call calls; ``arguments`` is JSON text."""

    name: str
    arguments: str


class ToolCall(RequestModel):
    """An earlier call of a tool, by the assistant."""

    id: str = ""
    type: Literal["function"] = "function"
    function: FunctionCall


class Message(RequestModel):
    """One message of the conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: TextContent = Field(default_factory=list)
    name: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] = Field(default_factory=list)
    tool_call_id: str | None = None

    @model_validator(mode="after")
    def _check_role(self) -> Message:
        has_content = "content" in self.model_fields_set
        if not has_content and self.role != "assistant":
            raise ValueError("needs content, as all but the assistant's")
        if self.role == "tool" and self.tool_call_id is None:
            raise ValueError("needs the tool_call_id of the call that it answers")
        return self

    def for_template(self) -> dict[str, Any]:
        """The message as chat templates expect it: text in one piece, arguments as an object."""
        rendered: dict[str, Any] = {
            "role": "system" if self.role == "developer" else self.role,
            "content": text_of(self.content),
        }
        if self.name is not None:
            rendered["name"] = self.name
        if self.reasoning_content is not None:
            rendered["reasoning_content"] = self.reasoning_content
        if self.tool_calls:
            rendered["tool_calls"] = [
                template_call(call.id, call.function.name, call.function.arguments) for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            rendered["tool_call_id"] = self.tool_call_id
        return rendered


class ContinueField(RequestModel):
    """Whether the answer goes on in the middle of the last message."""

    continue_final_message: bool = Field(False, description="the last message, the assistant's, is gone on with")


Messages = TypeAliasType(
    "Messages", Annotated[list[Message], FailFast(), Field(min_length=1), at_most("messages", "messages")]
)


class ChatRequest(TurnFields, ContinueField):
    """OpenAI's chat completion request. ``model`` and fields not named here are ignored."""

    messages: Messages
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31 - 1, description="wins over max_tokens")
    logprobs: bool = False
    top_logprobs: Annotated[int, up_to("top_logprobs")] | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None
    audio: Annotated[Any, unsupported()] = None
    web_search_options: Annotated[Any, unsupported()] = None
    session_id: str | None = None

    @model_validator(mode="after")
    def _check_logprobs(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise InvalidRequestError("top_logprobs needs logprobs to be true", param="top_logprobs")
        return self

    @property
    def answer_tokens(self) -> int:
        """Most tokens of the answer."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def num_logprobs(self) -> int | None:
        """Alternatives wanted per token; None = no log-probabilities."""
        return (self.top_logprobs or 0) if self.logprobs else None
