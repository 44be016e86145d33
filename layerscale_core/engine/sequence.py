"""A live request's token stream, from submission to its terminal event."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from layerscale_core.engine.detokenizer import IncrementalDetokenizer
from layerscale_core.engine.observer import RequestMetrics
from layerscale_core.engine.page_arrays import PageArrays
from layerscale_core.engine.request import (
    Event,
    EventSink,
    Finished,
    FinishReason,
    PromptScored,
    Request,
    TerminalEvent,
    TokenLogprob,
    TokensGenerated,
    Usage,
)
from layerscale_core.engine.sampler import Sampler, logit_gap, token_logprob
from layerscale_core.errors import NumericalError
from layerscale_core.specs.executor import StepLogits
from layerscale_core.specs.kv_pool import PageTable, PrefixMiss
from layerscale_core.specs.scheduler import Priority, RunningSequence
from layerscale_core.specs.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Admission:
    """What a sequence holds from its admission on.

    Attributes:
        sequence_id: ascending in the order of admission.
        admitted_at: clock reading.
        is_owner: the table ends with the sequence; otherwise it belongs to a session.
    """

    sequence_id: int
    table: PageTable
    admitted_at: float
    page_arrays: PageArrays = field(default_factory=PageArrays)
    is_owner: bool = True


class LiveSequence:
    """A sequence and what a request wants of it.

    ``tokens`` are the prompt's, then the generated ones. ``[0, num_computed)`` are in the KV pool,
    ``[num_computed, len(tokens))`` are not: the rest of the prompt in prefill, then the last sampled token and those
    that a constraint forced behind it. The very last token of an answer is never computed.

    In a session the tokens before these are in the pool already; then ``tokens`` begins at ``first_position``.

    Thread: made by whoever submits, from then on the engine's.

    Attributes:
        priority: its class of work; may be raised.
        first_position: RoPE position of its first token.
        max_new_tokens: what was asked for, clipped to the context window.
        max_computed: most tokens that will ever be in the pool.
        num_cached: leading tokens that were found in the prefix cache; None until it begins to compute.
        prefix_miss: why they are not more.
        admission: None while it waits.
        has_ended: it was sent its terminal event, or is about to be.
        submitted_at, first_token_at, last_token_at: clock readings, None until then.
    """

    def __init__(
        self,
        request: Request,
        sink: EventSink,
        tokenizer: Tokenizer,
        max_context_len: int,
        submitted_at: float,
        *,
        first_position: int = 0,
    ) -> None:
        params = request.sampling
        self.request = request
        self.sink = sink
        self.priority = request.priority
        self.first_position = first_position
        self.tokens = list(request.prompt_ids)
        self.prompt_len = len(self.tokens)
        self.max_new_tokens = min(params.max_tokens, max_context_len - first_position - self.prompt_len)
        self.max_computed = self.prompt_len + max(self.max_new_tokens - 1, 0)
        self.num_computed = 0
        self.steps_waited = 0
        self.has_ended = False
        self.num_cached: int | None = None
        self.prefix_miss: PrefixMiss | None = None

        self.admission: Admission | None = None
        self.submitted_at = submitted_at
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None

        ignores_stops = params.ignore_eos and request.constraint is None
        self._stop_ids = (frozenset() if ignores_stops else tokenizer.stop_ids) | params.stop_token_ids
        matcher = None if request.constraint is None else request.constraint.begin()
        self._sampler = Sampler(params, request.prompt_ids, self.max_new_tokens, self._stop_ids, matcher)
        self._detokenizer = IncrementalDetokenizer(tokenizer, params.stop, params.shown_token_ids)
        self._prompt_logprobs: list[TokenLogprob | None] = [None]
        self._logit_gap: float | None = None

    @property
    def admitted(self) -> Admission:
        """The admission of a sequence that is known to run."""
        assert self.admission is not None
        return self.admission

    @property
    def num_generated(self) -> int:
        """Tokens of the answer, the one that stopped it included."""
        return len(self.tokens) - self.prompt_len

    @property
    def num_uncomputed(self) -> int:
        """Tokens known and not yet in the pool."""
        return len(self.tokens) - self.num_computed

    @property
    def is_decoding(self) -> bool:
        """Whether the prompt is in the pool."""
        return self.num_computed >= self.prompt_len

    @property
    def usage(self) -> Usage:
        """Token counts so far; a stop token counts, as it was generated, though it is never shown."""
        return Usage(self.prompt_len, self.num_generated, self.num_cached or 0)

    @property
    def has_begun(self) -> bool:
        """Whether its prefix was looked up, so that the rest can be computed."""
        return self.num_cached is not None

    @property
    def shares_prefix(self) -> bool:
        """Whether its prompt may come from the prefix cache, and go there. A session's is its own."""
        return self.admitted.is_owner

    @property
    def scores_whole_prompt(self) -> bool:
        """Whether every prompt token's logits are wanted, so that all must be computed."""
        return self.request.sampling.prompt_logprobs is not None

    def begin(self, num_cached: int, miss: PrefixMiss | None) -> None:
        """Start with what the prefix cache gave."""
        self.num_computed = self.num_cached = num_cached
        self.prefix_miss = miss

    def num_logits(self, num_tokens: int) -> int:
        """Of how many of the next ``num_tokens`` tokens the logits are wanted; always the last ones."""
        if self._scores_prompt:
            return num_tokens
        return 1 if num_tokens == self.num_uncomputed else 0

    def view(self) -> RunningSequence:
        """What the scheduler policy sees."""
        return RunningSequence(
            sequence_id=self.admitted.sequence_id,
            priority=self.priority,
            num_uncomputed=self.num_uncomputed,
            is_decoding=self.is_decoding,
            wants_prompt_logits=self._scores_prompt,
            steps_waited=self.steps_waited,
        )

    def advance(self, num_tokens: int, logits: StepLogits, likeliest: list[int | None], now: float) -> list[Event]:
        """Take the result of a step in which the next ``num_tokens`` tokens were computed.

        Args:
            logits: [num_logits(num_tokens), vocab_size]
            likeliest: each row's argmax; None where it is not finite.
            now: clock reading.

        Returns:
            What the client is to be told; a terminal event, which is then the last, if the sequence ended.

        Raises:
            NumericalError: a row is not finite.
        """
        if None in likeliest:
            raise NumericalError("the model produced logits that are not finite")
        events: list[Event] = []
        self.steps_waited = 0
        if self._scores_prompt:
            self._score_prompt(num_tokens, logits)
        self.num_computed += num_tokens
        if self.num_computed == self.prompt_len and self.scores_whole_prompt:
            events.append(PromptScored(tuple(self._prompt_logprobs)))
        if self.num_uncomputed == 0:
            events += self._generate(logits[-1:], likeliest[-1], now)
        return events

    def metrics(self, end: TerminalEvent) -> RequestMetrics:
        """What the request's life measured, once it has ended."""
        tpot_s = None
        if self.first_token_at is not None and self.last_token_at is not None and self.num_generated > 1:
            tpot_s = (self.last_token_at - self.first_token_at) / (self.num_generated - 1)
        return RequestMetrics(
            prompt_tokens=self.prompt_len,
            completion_tokens=self.num_generated,
            queue_s=None if self.admission is None else self.admission.admitted_at - self.submitted_at,
            ttft_s=None if self.first_token_at is None else self.first_token_at - self.submitted_at,
            tpot_s=tpot_s,
            prefix_miss=self.prefix_miss,
            is_background=self.request.priority is not Priority.INTERACTIVE or self._wants_nothing,
            end=end,
        )

    @property
    def _wants_nothing(self) -> bool:
        """Whether the prompt is to be computed and no more."""
        return self.max_new_tokens == 0 and not self.scores_whole_prompt

    @property
    def _scores_prompt(self) -> bool:
        return self.scores_whole_prompt and not self.is_decoding

    def _score_prompt(self, num_tokens: int, logits: StepLogits) -> None:
        num_top = self.request.sampling.prompt_logprobs
        assert num_top is not None
        predicted = self.tokens[self.num_computed + 1 : self.num_computed + 1 + num_tokens]
        rows = np.asarray(logits)
        for row, token_id in zip(rows, predicted, strict=False):  # the last row predicts the first new token
            self._prompt_logprobs.append(token_logprob(row, token_id, num_top))

    def _generate(self, logits: StepLogits, likeliest: int | None, now: float) -> list[Event]:
        if self.max_new_tokens == 0:
            return [self._finished(FinishReason.LENGTH)]
        if self._sampler.is_finished:
            return [self._finished(FinishReason.STOP)]
        assert likeliest is not None
        params, position = self.request.sampling, self.first_position + len(self.tokens)
        read_logits = cache(lambda: logits[0])  # from the device, if anything needs them
        if self.num_generated == 0 and (params.logit_gap or params.early_gap is not None):
            self._logit_gap = logit_gap(read_logits())
        sampled = self._sampler.next_tokens(read_logits, likeliest)
        shown, text, end = self._take(sampled)
        self.first_token_at = now if self.first_token_at is None else self.first_token_at
        self.last_token_at = now
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
            self.tokens.append(token_id)
            if token_id in self._stop_ids:
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
        if self.num_generated == self.max_new_tokens:
            return self._finished(FinishReason.LENGTH)
        return None

    def _is_clear_enough(self) -> bool:
        """Whether the first token may be the whole answer."""
        wanted, gap = self.request.sampling.early_gap, self._logit_gap
        is_free = self.request.constraint is None
        return is_free and self.num_generated == 1 and wanted is not None and gap is not None and gap >= wanted

    def _finished(self, reason: FinishReason, *, is_early: bool = False) -> Finished:
        held_back = self._detokenizer.flush()
        return Finished(reason, self.usage, held_back, self._detokenizer.stop_text, self._logit_gap, is_early)
