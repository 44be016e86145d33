"""The body of ``POST /v1/completions``."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, FailFast, Field, model_validator

from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.schemas.base import TokenIds, at_most, text_or_list, unsupported, up_to
from layerscale_server.http.schemas.sampling import DEFAULT_MAX_TOKENS, OnlyOne
from layerscale_server.http.schemas.structured_output import StructuredFields


def _as_list(prompt: Any) -> Any:
    """A list of token ids as the one prompt that it is."""
    return [prompt] if isinstance(prompt, list) and prompt and isinstance(prompt[0], int) else prompt


class CompletionRequest(StructuredFields):
    """OpenAI's completion request. ``model``, ``stop`` and fields not named here are ignored."""

    prompt: Annotated[
        list[str | TokenIds],
        FailFast(),
        Field(min_length=1),
        at_most("prompts", "prompts"),
        text_or_list(lambda text: [text], str | list[str] | list[int] | list[list[int]]),
        BeforeValidator(_as_list),
    ]
    max_tokens: int = Field(DEFAULT_MAX_TOKENS, ge=0, le=2**31 - 1, description="0 only to score an echoed prompt")
    logprobs: Annotated[int, up_to("top_logprobs")] | None = None
    echo: bool = False
    best_of: OnlyOne = 1
    suffix: Annotated[str, unsupported("write what follows into the prompt", unless="")] = ""

    @model_validator(mode="after")
    def _check_scoring(self) -> CompletionRequest:
        if self.max_tokens == 0 and not (self.echo and self.logprobs is not None):
            raise InvalidRequestError(
                "max_tokens must be at least 1, or 0 together with echo and logprobs", param="max_tokens"
            )
        return self
