"""What a request must satisfy before the engine takes it."""

from __future__ import annotations

import math

from layerscale_core.engine.limits import EngineLimits
from layerscale_core.engine.request import Request
from layerscale_core.engine.sampling_params import SamplingParams
from layerscale_core.errors import ContextLengthError, InvalidRequestError
from layerscale_core.specs.scheduler import Priority


def check_request(request: Request, limits: EngineLimits, vocab_size: int) -> None:
    """Check a request against the model and the limits. Any thread.

    Raises:
        ContextLengthError: the prompt leaves no room in the context window.
        InvalidRequestError: names the field and its rule.
    """
    params, prompt_len = request.sampling, len(request.prompt_ids)
    _require(prompt_len > 0, "prompt", "must not be empty")
    room = limits.max_context_len if params.max_tokens == 0 else limits.max_context_len - 1
    if prompt_len > room:
        raise ContextLengthError(prompt_len, limits.max_context_len)
    in_vocabulary = min(request.prompt_ids) >= 0 and max(request.prompt_ids) < vocab_size
    _require(in_vocabulary, "prompt", "holds a token id outside the vocabulary")
    is_background = request.priority is not Priority.INTERACTIVE
    check_sampling(params, limits, vocab_size, may_want_nothing=is_background)


def check_sampling(
    params: SamplingParams, limits: EngineLimits, vocab_size: int, *, may_want_nothing: bool = False
) -> None:
    """Check sampling parameters. Any thread.

    Args:
        may_want_nothing: it is enough to compute the prompt.

    Raises:
        InvalidRequestError: names the field and its rule.
    """
    if params.prompt_logprobs is None and not may_want_nothing:
        _require(params.max_tokens >= 1, "max_tokens", "must be at least 1")
    else:
        _require(params.max_tokens >= 0, "max_tokens", "must not be negative")
    _require(0 <= params.min_tokens <= params.max_tokens, "min_tokens", "must be between 0 and max_tokens")
    _require(0 <= params.temperature < math.inf, "temperature", "must be a number from 0 on")
    _require(0 < params.top_p <= 1, "top_p", "must be above 0 and at most 1")
    _require(params.top_k >= 0, "top_k", "must not be negative")
    _require(0 <= params.min_p <= 1, "min_p", "must be between 0 and 1")
    _require(abs(params.presence_penalty) <= 2, "presence_penalty", "must be between -2 and 2")
    _require(abs(params.frequency_penalty) <= 2, "frequency_penalty", "must be between -2 and 2")
    _require(0.1 <= params.repetition_penalty <= 10, "repetition_penalty", "must be between 0.1 and 10")
    for token_id, bias in params.logit_bias.items():
        _require(0 <= token_id < vocab_size, "logit_bias", "names a token id outside the vocabulary")
        _require(abs(bias) <= 100, "logit_bias", "must be between -100 and 100")
    _require(all(params.stop), "stop", "must not hold an empty text")
    in_vocabulary = all(0 <= token_id < vocab_size for token_id in params.stop_token_ids)
    _require(in_vocabulary, "stop_token_ids", "names a token id outside the vocabulary")
    for name, num_logprobs in (("logprobs", params.logprobs), ("prompt_logprobs", params.prompt_logprobs)):
        within = num_logprobs is None or 0 <= num_logprobs <= limits.max_logprobs
        _require(within, name, f"must be between 0 and {limits.max_logprobs}")


def _require(condition: bool, param: str, rule: str) -> None:
    if not condition:
        raise InvalidRequestError(f"{param} {rule}", param=param)
