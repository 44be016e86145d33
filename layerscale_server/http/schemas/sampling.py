"""The request fields that say how tokens are picked, for chat and completions alike."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from layerscale_core.engine.sampling_params import SamplingParams
from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.schemas.base import RequestModel, TokenIds, at_most, unsupported

DEFAULT_MAX_TOKENS = 256
DEFAULT_TEMPERATURE = 0.7

_SEED_BITS = 64


OnlyOne = Annotated[int, unsupported("send a request for each answer", unless=1)]
"""How many answers are wanted."""


class StreamOptions(RequestModel):
    """OpenAI's ``stream_options``."""

    include_usage: bool = False


class SamplingFields(RequestModel):
    """OpenAI's parameters, and those that other servers have made common.

    Bounds that depend on the model or on the limits are checked where the request enters the engine.
    """

    temperature: float = Field(DEFAULT_TEMPERATURE, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=-1, le=2**31 - 1, description="0 or -1: all tokens")
    min_p: float = Field(0.0, ge=0, le=1)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    repetition_penalty: float = Field(1.0, ge=0.1, le=10)
    logit_bias: dict[str, float] = Field(
        default_factory=dict, description="token id, as a text, to what is added to its logit"
    )
    seed: int | None = Field(None, ge=-(2**63), le=2**64 - 1)
    stop_token_ids: Annotated[TokenIds, at_most("stop_token_ids", "token ids")] = Field(default_factory=list)
    ignore_eos: bool = False
    min_tokens: int = Field(0, ge=0, le=2**31 - 1)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()
    n: OnlyOne = 1

    @field_validator("logit_bias")
    @classmethod
    def _check_keys(cls, value: dict[str, float]) -> dict[str, float]:
        if not all(key.isascii() and key.isdigit() and len(key) < 10 for key in value):
            raise ValueError("should map token ids, written as decimal numbers, to numbers")
        return value

    def sampling_params(self, max_tokens: int, **further: Any) -> SamplingParams:
        """The engine's parameters; ``further`` are those that a route words in its own way."""
        if self.min_tokens > max_tokens:
            raise InvalidRequestError("min_tokens must not be above max_tokens", param="min_tokens")
        return SamplingParams(
            max_tokens=max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=max(0, self.top_k),
            min_p=self.min_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            repetition_penalty=self.repetition_penalty,
            logit_bias={int(token_id): bias for token_id, bias in self.logit_bias.items()},
            seed=None if self.seed is None else self.seed % 2**_SEED_BITS,
            stop_token_ids=frozenset(self.stop_token_ids),
            ignore_eos=self.ignore_eos,
            min_tokens=self.min_tokens,
            **further,
        )
