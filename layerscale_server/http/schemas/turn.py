"""The request fields that conversations and questions to a session share."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from layerscale_core.dialogue import ToolOffer
from layerscale_server.http.schemas.base import RequestModel, at_most, limits_of, text_or_list, unsupported
from layerscale_server.http.schemas.sampling import DEFAULT_MAX_TOKENS
from layerscale_server.http.schemas.structured_output import StructuredFields
from layerscale_server.http.schemas.tools import ToolChoice, ToolDefinitions, offer_of

_OURS = frozenset({"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"})
"""Variables of a template that no request may set."""


def _check_stop_bytes(stops: list[str], info: ValidationInfo) -> list[str]:
    most = limits_of(info).stop_bytes
    if not all(0 < len(text.encode()) <= most for text in stops):
        raise ValueError(f"should hold texts of 1 to {most} bytes")
    return stops


def _refuse_others(variables: dict[str, Any]) -> dict[str, Any]:
    if not _OURS.isdisjoint(variables):
        raise ValueError("should set none of the variables that the request's other fields set")
    return variables


StopTexts = Annotated[list[str], at_most("stops", "texts"), AfterValidator(_check_stop_bytes)]
"""Texts that end an answer."""


class WarmUpField(RequestModel):
    """Whether a conversation is expected rather than asked."""

    warm_up: bool = Field(False, description="compute the prompt ahead, in the background, and answer nothing")


class ToolFields(RequestModel):
    """What the model may call, and what its template is told."""

    tools: ToolDefinitions = Field(default_factory=list)
    tool_choice: ToolChoice = "auto"
    parallel_tool_calls: bool = True
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    chat_template_kwargs: Annotated[dict[str, Any], AfterValidator(_refuse_others)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_offer(self) -> Self:
        self.offer()
        return self

    def offer(self) -> ToolOffer | None:
        """What the model may call; None: nothing."""
        tools = [definition.tool for definition in self.tools]
        return offer_of(tools, self.tool_choice, is_parallel=self.parallel_tool_calls)

    def template_variables(self) -> dict[str, Any]:
        """What the template is told besides the conversation."""
        if self.reasoning_effort is None:
            return self.chat_template_kwargs
        switch = {"reasoning_effort": self.reasoning_effort, "enable_thinking": self.reasoning_effort != "none"}
        return switch | self.chat_template_kwargs


class TurnFields(StructuredFields, WarmUpField, ToolFields):
    """How long the answer may be, and what ends it."""

    max_tokens: int = Field(DEFAULT_MAX_TOKENS, ge=1, le=2**31 - 1)
    stop: Annotated[StopTexts, text_or_list(lambda stop: [stop], str)] = Field(default_factory=list)
    functions: Annotated[list[Any], unsupported("use tools", unless=[])] = Field(default_factory=list)
    function_call: Literal["none", "auto"] | None = None
