"""The body of ``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, FailFast, Field, model_validator

from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.schemas.base import TokenIds, at_most, up_to
from layerscale_server.http.schemas.sampling import DEFAULT_MAX_TOKENS
from layerscale_server.http.schemas.structured_output import StructuredFields


def _as_list(prompt: Any) -> Any:
    """A prompt, or several, as several; one prompt is a text or a list of token ids."""
    if isinstance(prompt, str) or (isinstance(prompt, list) and prompt and isinstance(prompt[0], int)):
        return [prompt]
    return prompt


class CompletionRequest(StructuredFields):
    """OpenAI's completion request. ``model``, ``stop`` and fields not named here are ignored."""

    prompt: Annotated[
        list[str | TokenIds],
        FailFast(),
        Field(min_length=1),
        at_most("prompts", "prompts"),
        BeforeValidator(_as_list, json_schema_input_type=str | list[str] | list[int] | list[list[int]]),
    ]
    max_tokens: int = Field(DEFAULT_MAX_TOKENS, ge=0, le=2**31 - 1, description="0 only to score an echoed prompt")
    logprobs: Annotated[int, up_to("top_logprobs")] | None = None
    echo: bool = False
    best_of: int = Field(1, ge=1, le=1, description="only 1")
    suffix: str = Field("", max_length=0, description="not supported")

    @model_validator(mode="after")
    def _check_scoring(self) -> CompletionRequest:
        if self.max_tokens == 0 and not (self.echo and self.logprobs is not None):
            raise InvalidRequestError(
                "max_tokens must be at least 1, or 0 together with echo and logprobs", param="max_tokens"
            )
        return self
