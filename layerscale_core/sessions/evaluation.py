"""Answering Flash Queries: forks of what a session holds for good, each with a question behind it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from layerscale_core.engine import SamplingParams, TokensGenerated
from layerscale_core.engine.request import Event, Failed, Finished, Request, TerminalEvent
from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.errors import RequestError
from layerscale_core.sessions.flash import FlashAnswer, FlashQuery
from layerscale_core.sessions.parts import SessionParts
from layerscale_core.specs.kv_pool import PageTable
from layerscale_core.specs.scheduler import Priority

logger = logging.getLogger(__name__)

_MAX_VERSIONS_BEHIND = 8
"""Flash Queries wait for a quiet moment of the session until their answers are so many versions behind."""


@dataclass(eq=False, slots=True)
class Evaluation:
    """A query being answered.

    Attributes:
        data_version, revision: of the context when it began.
        may_be_superseded: the evaluation of this query before it was not.
        fork: what the session holds for good, shared, and then the question.
        is_ended_by_us: the session ended it.
    """

    query_id: int
    data_version: int
    revision: int
    may_be_superseded: bool
    fork: PageTable
    sequence: LiveSequence | None = None
    is_ended_by_us: bool = False
    pieces: list[str] = field(default_factory=list)
    num_tokens: int = 0

    def collect(self, event: TokensGenerated) -> None:
        """Take in a piece of the answer."""
        self.pieces.append(event.text)
        self.num_tokens += len(event.token_ids)

    def answer(self, end: Finished, evaluated_at: int) -> FlashAnswer:
        """The whole answer."""
        value = "".join((*self.pieces, end.text))
        return FlashAnswer(value, self.num_tokens, self.data_version, self.revision, end.logit_gap or 0.0, evaluated_at)


class FlashEvaluations:
    """Keeps a board's answers up to date, in batches, as far as there are pages. Thread: engine.

    An evaluation is superseded when what is durable changes, though none of the same query twice in a row: data waits
    for the second one. Under a stream that never pauses answers are late, and yet they come.

    Args:
        when_ended: called when an evaluation has ended by itself.

    Attributes:
        num_finished: evaluations that gave an answer.
    """

    def __init__(self, parts: SessionParts, when_ended: Callable[[], None]) -> None:
        self.num_finished = 0
        self._parts = parts
        self._context = parts.context
        self._board = parts.flash
        self._when_ended = when_ended
        self._running: dict[int, Evaluation] = {}
        self._superseded: set[int] = set()
        self._given_up: dict[int, int] = {}  # the revision at which a query could not be evaluated
        self._context.end_forks = self.end_all

    @property
    def num_running(self) -> int:
        """Queries being answered."""
        return len(self._running)

    @property
    def must_finish(self) -> bool:
        """Whether one runs that data has to wait for."""
        return any(not evaluation.may_be_superseded for evaluation in self._running.values())

    def start_due(self, data_version: int, *, is_quiet: bool) -> None:
        """Drop what is superseded; start every query without an answer to what is durable now, if it is time for it.

        Args:
            is_quiet: nothing more urgent is about to begin.
        """
        self._end_superseded()
        due = [query for query in self._board.queries if self._is_due(query)] if data_version else []
        if not due or not (is_quiet or _is_late(due, data_version)):
            return
        self._context.make_positions(max(len(query.token_ids) + query.max_tokens for query in due))
        if not self._context.num_pending:
            for query in due:
                if not self._start(query, data_version):
                    break

    def end(self, query_id: int) -> None:
        """End a query's evaluation, if there is one."""
        if (evaluation := self._running.get(query_id)) is not None:
            evaluation.is_ended_by_us = True
            assert evaluation.sequence is not None
            self._parts.engine.end_resident(evaluation.sequence)

    def end_all(self) -> None:
        """End every evaluation: their pages are needed, or the keys they share are about to change."""
        for query_id in list(self._running):
            self._superseded.add(query_id)
            self.end(query_id)

    def _end_superseded(self) -> None:
        for evaluation in list(self._running.values()):
            if evaluation.may_be_superseded and evaluation.revision != self._context.revision:
                self._superseded.add(evaluation.query_id)
                self.end(evaluation.query_id)

    def _is_due(self, query: FlashQuery) -> bool:
        revision = self._context.revision
        is_evaluated = query.answer is not None and query.answer.revision == revision
        return not is_evaluated and query.id not in self._running and self._given_up.get(query.id) != revision

    def _start(self, query: FlashQuery, data_version: int) -> bool:
        """Fork what is durable and ask; returns whether there were pages for it."""
        context = self._context
        question_end = context.durable_end + len(query.token_ids)
        max_tokens = min(query.max_tokens, context.max_fork_len - question_end)
        if max_tokens < 1:
            self._given_up[query.id] = context.revision
            logger.warning("session %s: flash query %d does not fit the context", self._parts.session_id, query.id)
            return True
        fork = context.fork(question_end + max_tokens - 1)
        if fork is None:
            return False
        evaluation = Evaluation(
            query.id, data_version, context.revision, may_be_superseded=query.id not in self._superseded, fork=fork
        )
        request = Request(
            f"{self._parts.session_id}-flash-{query.id}",
            query.token_ids,
            SamplingParams(max_tokens, logit_gap=True),
            Priority.FLASH,
        )
        sink, position = partial(self._on_event, evaluation), context.position(context.durable_end)
        try:
            evaluation.sequence = self._parts.engine.begin_resident(request, sink, fork, position)
        except RequestError:
            context.release_fork(fork)
            return False
        self._running[query.id] = evaluation
        return True

    def _on_event(self, evaluation: Evaluation, event: Event) -> None:
        if isinstance(event, TokensGenerated):
            evaluation.collect(event)
        elif isinstance(event, TerminalEvent):
            self._context.release_fork(evaluation.fork)
            del self._running[evaluation.query_id]
            if isinstance(event, Finished):
                self._store(evaluation, event)
            elif isinstance(event, Failed):
                self._given_up[evaluation.query_id] = evaluation.revision
            if not evaluation.is_ended_by_us:
                self._when_ended()

    def _store(self, evaluation: Evaluation, end: Finished) -> None:
        query = self._board.get(evaluation.query_id)
        assert query is not None, "its evaluation ends with it"
        answer = evaluation.answer(end, self._parts.now())
        answered = replace(query, answer=answer)
        self._board.put(answered)
        self._superseded.discard(query.id)
        self.num_finished += 1
        if query.answer is None or query.answer.value != answer.value:
            self._parts.subscribers.tell(answered.ready_event())


def _is_late(due: Sequence[FlashQuery], data_version: int) -> bool:
    oldest = min(0 if query.answer is None else query.answer.data_version for query in due)
    return data_version - oldest >= _MAX_VERSIONS_BEHIND
