"""How a request wants its tokens picked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """One frozen object per request; validated where requests enter.

    Attributes:
        max_tokens: most tokens generated; 0 only together with ``prompt_logprobs`` (scoring).
        temperature: 0 = greedy.
        top_p: nucleus (arXiv:1904.09751), in (0, 1].
        top_k: most likely tokens kept; 0 = all.
        min_p: keep tokens at least this fraction as likely as the likeliest (arXiv:2407.01082); 0 = off.
        presence_penalty, frequency_penalty: subtracted from the logits of generated tokens, OpenAI's definition.
        repetition_penalty: divides positive and multiplies negative logits of prompt and generated tokens
            (arXiv:1909.05858); 1 = off.
        logit_bias: token id to what is added to its logit.
        seed: of the request's own random stream; None = unpredictable.
        stop: texts that end generation; never part of the output.
        shown_token_ids: control tokens whose text is part of the output, where it tells its parts from one another.
        stop_token_ids: further ids that end generation.
        ignore_eos: do not stop at the model's own stop tokens.
        min_tokens: stop tokens are not sampled before this many tokens.
        logprobs: how many most likely tokens to report per generated token; None = none, 0 = the chosen one only.
        prompt_logprobs: the same for the prompt's tokens.
        logit_gap: report how far the likeliest first token is ahead of the second.
        early_gap: end after the first token if its logit gap is at least this; None = never.
    """

    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    stop: tuple[str, ...] = ()
    shown_token_ids: frozenset[int] = frozenset()
    stop_token_ids: frozenset[int] = frozenset()
    ignore_eos: bool = False
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_gap: bool = False
    early_gap: float | None = None
