"""An answer as it grows: tokens picked from logits, what of them is shown, and how it ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from layerscale_core.engine.detokenizer import IncrementalDetokenizer
from layerscale_core.engine.request import (
    Finished,
    FinishReason,
    Request,
    TokenLogprob,
    TokensGenerated,
    Usage,
)
from layerscale_core.engine.sampler import Sampler, logit_gap, token_logprob
from layerscale_core.errors import NumericalError
from layerscale_core.specs.tokenizer import Tokenizer


class Answer:
    """Everything that a request's sampling parameters decide. Thread: as ``LiveSequence``.

    Args:
        tokens: the sequence's, so far its prompt's; those of the answer are added to it.
        first_position: RoPE position of the first of them.
        max_new_tokens: what was asked for, clipped to the context window.

    Attributes:
        stop_ids: the tokens that end it.
        num_cached: of the prompt's tokens, those that were found in the prefix cache; for the usage.
    """

    def __init__(
        self, request: Request, tokenizer: Tokenizer, tokens: list[int], first_position: int, max_new_tokens: int
    ) -> None:
        params = request.sampling
        ignores_stops = params.ignore_eos and request.constraint is None
        self.stop_ids = (frozenset() if ignores_stops else tokenizer.stop_ids) | params.stop_token_ids
        self.num_cached = 0
        self._params = params
        self._is_free = request.constraint is None
        self._wants_gap = params.logit_gap or params.early_gap is not None
        self._tokens = tokens
        self._prompt_len = len(tokens)
        self._first_position = first_position
        self._max_new_tokens = max_new_tokens
        matcher = None if request.constraint is None else request.constraint.begin()
        self._sampler = Sampler(params, request.prompt_ids, max_new_tokens, self.stop_ids, matcher)
        self._detokenizer = IncrementalDetokenizer(tokenizer, params.stop, params.shown_token_ids)
        self._logit_gap: float | None = None

    @property
    def num_tokens(self) -> int:
        """Its length, the token that stopped it included."""
        return len(self._tokens) - self._prompt_len

    @property
    def usage(self) -> Usage:
        """Token counts so far; a stop token counts, as it was generated, though it is never shown."""
        return Usage(self._prompt_len, self.num_tokens, self.num_cached)

    def advance(
        self, read_logits: Callable[[], NDArray[np.float32]], likeliest: int | None
    ) -> list[TokensGenerated | Finished]:
        """Add the next token, and those that a constraint forces behind it; returns what the client is to be told.

        Args:
            read_logits: gives those after the last token [vocab_size]; called once at most.
            likeliest: their argmax; None where it is not finite.

        Raises:
            NumericalError: it is not finite, or the request rules out every token.
            GrammarError: the constraint is too complex to go on with.
        """
        if likeliest is None:
            raise NumericalError("the model produced logits that are not finite")
        if self._max_new_tokens == 0:
            return [self._finished(FinishReason.LENGTH)]
        if self._sampler.is_finished:
            return [self._finished(FinishReason.STOP)]
        params, position = self._params, self._first_position + len(self._tokens)
        if params.logprobs is not None or self._wants_gap:
            read_logits = cache(read_logits)  # else the sampler alone reads them
        if self._wants_gap and self.num_tokens == 0:
            self._logit_gap = logit_gap(read_logits())
        shown, text, end = self._take(self._sampler.next_tokens(read_logits, likeliest))
        logprobs: tuple[TokenLogprob, ...] = ()
        if params.logprobs is not None:
            logprobs = tuple(token_logprob(read_logits(), token_id, params.logprobs) for token_id in shown)
        generated = [TokensGenerated(text, tuple(shown), logprobs, position)] if shown else []
        return [*generated, end] if end is not None else [*generated]

    def _take(self, token_ids: list[int]) -> tuple[list[int], str, Finished | None]:
        """Add tokens up to the one that ends the answer; returns those that are shown, their text, and the end."""
        shown: list[int] = []
        text, end = "", None
        for token_id in token_ids:
            self._tokens.append(token_id)
            if token_id in self.stop_ids:
                return shown, text, self._finished(FinishReason.STOP)
            shown.append(token_id)
            text += self._detokenizer.push(token_id)
            end = self._end_after(is_last=len(shown) == len(token_ids))
            if end is not None:
                break
        return shown, text, end

    def _end_after(self, *, is_last: bool) -> Finished | None:
        """How the answer ends behind the token that was just added, if it does."""
        if self._detokenizer.stop_text is not None:
            return self._finished(FinishReason.STOP)
        if self._is_clear_enough():
            return self._finished(FinishReason.STOP, is_early=True)
        if is_last and self._sampler.is_finished:
            return self._finished(FinishReason.STOP)
        if self.num_tokens == self._max_new_tokens:
            return self._finished(FinishReason.LENGTH)
        return None

    def _is_clear_enough(self) -> bool:
        """Whether the first token may be the whole answer."""
        wanted, gap = self._params.early_gap, self._logit_gap
        return self._is_free and self.num_tokens == 1 and wanted is not None and gap is not None and gap >= wanted

    def _finished(self, reason: FinishReason, *, is_early: bool = False) -> Finished:
        held_back = self._detokenizer.flush()
        return Finished(reason, self.usage, held_back, self._detokenizer.stop_text, self._logit_gap, is_early)
