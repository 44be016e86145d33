"""A live request's token stream, from submission to its terminal event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from layerscale_core.engine.answer import Answer
from layerscale_core.engine.drafter import Drafter
from layerscale_core.engine.observer import RequestMetrics
from layerscale_core.engine.page_arrays import PageArrays
from layerscale_core.engine.request import (
    Event,
    EventSink,
    Failed,
    PromptScored,
    Request,
    TerminalEvent,
    TokenLogprob,
)
from layerscale_core.engine.sampler import token_logprob
from layerscale_core.errors import NumericalError, RequestError
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
    that a constraint forced behind it. What the last sampling gave at the end of an answer is never computed.

    In a session the tokens before these, the ``history``, are in the pool already; then ``tokens`` begins at
    ``first_position``.

    Thread: made by whoever submits, from then on the engine's.

    Attributes:
        priority: its class of work; may be raised.
        first_position: RoPE position of its first token.
        max_new_tokens: what was asked for, clipped to the context window.
        max_computed: most tokens that will ever be in the pool.
        scores_whole_prompt: every prompt token's logits are wanted, so that all must be computed.
        answer: what is sampled, and what the client is shown of it.
        drafter: what proposes its drafts, once that has begun.
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
        history: Sequence[int] = (),
    ) -> None:
        params = request.sampling
        self.request = request
        self.sink = sink
        self.priority = request.priority
        self.first_position = first_position
        self.history = history
        self.tokens = list(request.prompt_ids)
        self.prompt_len = len(self.tokens)
        self.max_new_tokens = min(params.max_tokens, max_context_len - first_position - self.prompt_len)
        self.max_computed = self.prompt_len + max(self.max_new_tokens - 1, 0)
        self.num_computed = 0
        self.steps_waited = 0
        self.has_ended = False
        self.scores_whole_prompt = params.prompt_logprobs is not None
        self.num_cached: int | None = None
        self.prefix_miss: PrefixMiss | None = None

        self.admission: Admission | None = None
        self.submitted_at = submitted_at
        self.first_token_at: float | None = None
        self.last_token_at: float | None = None

        self.drafter: Drafter | None = None
        self.answer = Answer(request, tokenizer, self.tokens, first_position, self.max_new_tokens)
        self._prompt_logprobs: list[TokenLogprob | None] = [None]

    @property
    def admitted(self) -> Admission:
        """The admission of a sequence that is known to run."""
        assert self.admission is not None
        return self.admission

    @property
    def num_uncomputed(self) -> int:
        """Tokens known and not yet in the pool."""
        return len(self.tokens) - self.num_computed

    @property
    def is_decoding(self) -> bool:
        """Whether the prompt is in the pool."""
        return self.num_computed >= self.prompt_len

    @property
    def has_begun(self) -> bool:
        """Whether its prefix was looked up, so that the rest can be computed."""
        return self.num_cached is not None

    @property
    def shares_prefix(self) -> bool:
        """Whether its prompt may come from the prefix cache, and go there. A session's is its own."""
        return self.admitted.is_owner

    def begin(self, num_cached: int, miss: PrefixMiss | None) -> None:
        """Start with what the prefix cache gave."""
        self.num_computed = self.num_cached = self.answer.num_cached = num_cached
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

    def advance(
        self,
        num_tokens: int,
        logits: StepLogits,
        likeliest: list[int | None],
        rows: range,
        *,
        now: float,
        draft: Sequence[int] = (),
    ) -> list[Event]:
        """Take the result of a step in which the next ``num_tokens`` tokens were computed.

        Args:
            logits: of the whole step, [num_logits, vocab_size].
            likeliest: each row's argmax; None where it is not finite.
            rows: those that are of these tokens, the last of them.
            now: clock reading.
            draft: the last of those tokens, of which none was known: they count as computed as far as they come true.

        Returns:
            What the client is to be told; a terminal event, which is then the last, if the sequence ended. It fails
            where a row that is needed is not finite, or where no token can follow.
        """
        self.steps_waited = 0
        events: list[Event] = []
        try:
            if self._scores_prompt:
                self._score_prompt(logits, likeliest, rows)
            self.num_computed += num_tokens - len(draft)
            if self.scores_whole_prompt and self.num_computed == self.prompt_len:
                events.append(PromptScored(tuple(self._prompt_logprobs)))
            if self.num_uncomputed == 0:
                self._generate(logits, likeliest, rows[-1] - len(draft), now=now, draft=list(draft), events=events)
        except RequestError as error:
            events.append(Failed(error))
        return events

    def metrics(self, end: TerminalEvent) -> RequestMetrics:
        """What the request's life measured, once it has ended."""
        tpot_s = None
        if self.first_token_at is not None and self.last_token_at is not None and self.answer.num_tokens > 1:
            tpot_s = (self.last_token_at - self.first_token_at) / (self.answer.num_tokens - 1)
        return RequestMetrics(
            prompt_tokens=self.prompt_len,
            completion_tokens=self.answer.num_tokens,
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

    def _score_prompt(self, logits: StepLogits, likeliest: list[int | None], rows: range) -> None:
        num_top = self.request.sampling.prompt_logprobs
        assert num_top is not None
        if any(likeliest[row] is None for row in rows):
            raise NumericalError("the model produced logits that are not finite")
        predicted = self.tokens[self.num_computed + 1 : self.num_computed + 1 + len(rows)]
        for row, token_id in zip(rows, predicted, strict=False):  # the last row predicts the first new token
            self._prompt_logprobs.append(token_logprob(logits[row], token_id, num_top))

    def _generate(
        self,
        logits: StepLogits,
        likeliest: list[int | None],
        first_row: int,
        *,
        now: float,
        draft: list[int],
        events: list[Event],
    ) -> None:
        """Go on row by row while the draft comes true; the first row follows the last known token."""
        num_known, row = len(self.tokens), 0
        while row <= len(draft) and self.tokens[num_known:] == draft[:row]:
            self.num_computed = num_known + row
            events += self.answer.advance(partial(logits.__getitem__, first_row + row), likeliest[first_row + row])
            row = len(self.tokens) - num_known
            if row:
                self.first_token_at = now if self.first_token_at is None else self.first_token_at
                self.last_token_at = now
            if events and isinstance(events[-1], TerminalEvent):
                break
