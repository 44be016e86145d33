"""The loop: plan, compute, sample, commit, publish."""

from __future__ import annotations

from collections.abc import Callable

from layerscale_core.engine.copy_on_write import copy_shared_pages
from layerscale_core.engine.faults import contained, logged_error
from layerscale_core.engine.observer import EngineObserver, StepMetrics
from layerscale_core.engine.plan import ScheduledSequence, plan_step
from layerscale_core.engine.prefix_sharing import PrefixSharing
from layerscale_core.engine.request import Failed
from layerscale_core.engine.roster import Roster
from layerscale_core.engine.sampler import find_likeliest
from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.engine.speculation import Speculation
from layerscale_core.engine.stats import Counters
from layerscale_core.engine.step_builder import StepBuilder
from layerscale_core.specs.executor import Executor, StepLogits
from layerscale_core.specs.kv_pool import KVPool
from layerscale_core.specs.scheduler import SchedulerPolicy, TokenBudget


class Loop:
    """Advances the sequences that run, step by step. Thread: engine.

    Between two steps the device has nothing to do, and what is done here finds the processor's caches full of weights:
    every object and line of code that is touched for a token counts several times what it counts in a warm loop.

    Args:
        clock: monotonic seconds.
    """

    def __init__(
        self,
        executor: Executor,
        pool: KVPool,
        policy: SchedulerPolicy,
        budget: TokenBudget,
        *,
        roster: Roster,
        sharing: PrefixSharing,
        speculation: Speculation,
        counters: Counters,
        observer: EngineObserver,
        clock: Callable[[], float],
    ) -> None:
        self._executor = executor
        self._pool = pool
        self._policy = policy
        self._budget = budget
        self._roster = roster
        self._sharing = sharing
        self._speculation = speculation
        self._builder = StepBuilder(pool, budget.max_tokens, budget.max_logits)
        self._counters = counters
        self._observer = observer
        self._clock = clock

    def step(self) -> bool:
        """Plan, compute, sample, commit and publish, once; returns whether there was anything to compute."""
        started = self._clock()
        concerned = list(self._roster.running.values())
        if not concerned:
            return False
        try:
            scheduled = plan_step(self._policy, self._sharing.begin_ready(self._roster.running), self._budget)
            scheduled = self._speculation.add_drafts(scheduled)
            concerned = [item.sequence for item in scheduled]
            copy_shared_pages(self._pool, self._executor, concerned)
            batch = self._builder.build(scheduled)
            logits = self._executor.step(batch)
            likeliest = find_likeliest(logits)
            assert len(likeliest) == len(batch.logits_indices), "the executor returned other logits than asked for"
        except Exception:
            self._fail_step(concerned)
        else:
            self._commit(scheduled, logits, likeliest, started)
        return True

    def _commit(
        self,
        scheduled: list[ScheduledSequence],
        logits: StepLogits,
        likeliest: list[int | None],
        started: float,
    ) -> None:
        now = self._clock()
        self._speculation.step_took(scheduled, now - started)
        num_logits = num_prefill = num_decode = 0
        for item in scheduled:
            rows = range(num_logits, num_logits + item.num_logits)
            num_logits += item.num_logits
            num_prefill += 0 if item.is_decoding else item.num_tokens
            num_decode += item.num_tokens if item.is_decoding else 0
            self._commit_sequence(item, logits, likeliest, rows, now)
        finished = self._clock()
        self._counters.step_succeeded(finished, num_prefill)
        metrics = StepMetrics(finished - started, len(scheduled), num_prefill, num_decode)
        contained(self._observer.on_step, metrics, "the observer failed")

    def _commit_sequence(
        self, item: ScheduledSequence, logits: StepLogits, likeliest: list[int | None], rows: range, now: float
    ) -> None:
        """Advance one sequence and publish what came of it. Whatever goes wrong here concerns it alone."""
        sequence = item.sequence
        if sequence.has_ended:
            return
        num_generated, num_computed = sequence.answer.num_tokens, sequence.num_computed
        try:
            events = sequence.advance(item.num_tokens, logits, likeliest, rows, now=now, draft=item.draft)
            self._speculation.settle(item, sequence.num_computed - num_computed)
        except Exception:
            self._roster.end(sequence, Failed(logged_error("a step's result could not be processed")))
        else:
            if not item.is_decoding and not any(isinstance(event, Failed) for event in events):
                self._sharing.publish(sequence)
            self._counters.num_generated_tokens += sequence.answer.num_tokens - num_generated
            self._roster.tell(sequence, events)

    def _fail_step(self, concerned: list[LiveSequence]) -> None:
        """End the sequences of a step that failed, all that run if the plan itself did. Called in the handler."""
        self._counters.step_failed()
        failed = Failed(logged_error("a step failed"))
        for sequence in concerned:
            self._roster.end(sequence, failed)
