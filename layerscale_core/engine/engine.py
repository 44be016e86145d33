"""The loop: admit, plan, compute, sample, commit, publish."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from layerscale_core.engine.copy_on_write import copy_shared_pages
from layerscale_core.engine.faults import contained, logged_error
from layerscale_core.engine.intake import Intake
from layerscale_core.engine.limits import EngineLimits
from layerscale_core.engine.observer import EngineObserver, NullObserver, StepMetrics
from layerscale_core.engine.plan import ScheduledSequence, plan_step
from layerscale_core.engine.prefix_sharing import PrefixSharing
from layerscale_core.engine.request import Cancelled, Event, EventSink, Failed, Request, TerminalEvent
from layerscale_core.engine.sampler import find_likeliest
from layerscale_core.engine.sampling_params import SamplingParams
from layerscale_core.engine.sequence import Admission, LiveSequence
from layerscale_core.engine.speculation import Speculation
from layerscale_core.engine.stats import Counters, EngineStats
from layerscale_core.engine.step_builder import StepBuilder
from layerscale_core.engine.validation import check_request, check_sampling
from layerscale_core.engine.waiting_queue import WaitingQueue
from layerscale_core.errors import NoBurstSlotsError, ShuttingDownError, StepError
from layerscale_core.specs.executor import Executor, StepLogits
from layerscale_core.specs.kv_pool import KVPool, PageTable
from layerscale_core.specs.scheduler import SchedulerPolicy, TokenBudget
from layerscale_core.specs.tokenizer import Tokenizer

logger = logging.getLogger(__name__)


class Engine:
    """Runs requests to their ends on one thread. Every accepted request gets exactly one terminal event, as its last.

    Threads: ``step`` belongs to the engine thread, which ``start`` makes; without it, whoever calls ``step`` is that
    thread, and simulations run in virtual time. Everything else may be called from any thread, and from a sink too
    except for ``drain`` and ``stop``.

    Sessions hold tables of their own and run *resident* sequences on them: beside the queue and the burst slots, in the
    same steps as everybody else.

    Args:
        executor: closed by whoever made it, after ``stop``.
        shares_prefixes: reuse computed prompts (the prefix cache).
        looks_up_prompts: draft tokens by prompt lookup, as long as that pays.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        executor: Executor,
        tokenizer: Tokenizer,
        pool: KVPool,
        policy: SchedulerPolicy,
        limits: EngineLimits,
        *,
        shares_prefixes: bool = True,
        looks_up_prompts: bool = True,
        observer: EngineObserver | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._executor = executor
        self._tokenizer = tokenizer
        self._pool = pool
        self._policy = policy
        self._limits = limits
        self._observer = observer or NullObserver()
        self._clock = clock
        self._budget = TokenBudget(limits.max_tokens_per_step, limits.max_logits_per_step)
        self._sharing = PrefixSharing(pool, is_on=shares_prefixes)
        self._speculation = Speculation(pool, self._budget, is_on=looks_up_prompts)
        self._builder = StepBuilder(pool, limits.max_tokens_per_step, limits.max_logits_per_step)
        self._intake = Intake(WaitingQueue(limits.max_waiting, limits.waiting_prompt_tokens))
        self._running: dict[int, LiveSequence] = {}
        self._num_admitted = 0
        self._num_burst = 0
        self._counters = Counters(last_progress=clock())
        self._pool_stats = pool.stats()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the engine thread."""
        assert self._thread is None, "started twice"
        self._thread = threading.Thread(target=self._run, name="layerscale-engine", daemon=True)
        self._thread.start()

    def check_accepting(self) -> None:
        """Ask before work is spent on a request whether any could be accepted now.

        Raises:
            QueueFullError, ShuttingDownError: as ``submit``.
        """
        self._intake.check_accepting(num_prompt_tokens=1)

    def submit(self, request: Request, sink: EventSink) -> None:
        """Accept a request; its events go to ``sink``, on the engine thread.

        An answer that would outgrow the context window is cut there and ends with ``FinishReason.LENGTH``.

        Raises:
            InvalidRequestError: names the field.
            NoBurstSlotsError: the pool is too small for it, ever.
            ContextLengthError: the prompt leaves no room in the context window.
            QueueFullError: too much is waiting.
            ShuttingDownError: no work is accepted any more.
        """
        check_request(request, self._limits, self._tokenizer.vocab_size)
        sequence = LiveSequence(request, sink, self._tokenizer, self._limits.max_context_len, self._clock())
        if not self._pool.fits_ever(sequence.max_computed):
            message = "prompt and max_tokens together need more KV memory than there is for stateless requests"
            raise NoBurstSlotsError(message)
        self._intake.accept(sequence)

    def check_sampling(self, sampling: SamplingParams) -> None:
        """Check parameters against the model and the limits, as ``submit`` does.

        Raises:
            InvalidRequestError: names the field.
        """
        check_sampling(sampling, self._limits, self._tokenizer.vocab_size)

    def post(self, call: Callable[[], None]) -> None:
        """Have something called on the engine thread before the next step.

        Raises:
            ShuttingDownError: the engine has stopped, or is about to.
        """
        self._intake.post(call)

    def begin_resident(
        self,
        request: Request,
        sink: EventSink,
        table: PageTable,
        first_position: int,
        history: Sequence[int] = (),
    ) -> LiveSequence:
        """Compute further tokens of a table that belongs to a session, from the next step on. Engine thread.

        Args:
            table: what the prompt's tokens follow; not released at the end.
            first_position: of the prompt's first token.
            history: tokens that the table holds, for drafts; a session need not tell.

        Raises:
            ShuttingDownError: no work is accepted any more.
            InvalidRequestError: the id is in use.
        """
        now = self._clock()
        sequence = LiveSequence(
            request,
            sink,
            self._tokenizer,
            self._limits.max_context_len,
            now,
            first_position=first_position,
            history=history,
        )
        self._intake.accept_resident(sequence)
        self._run_admitted(sequence, table, now, is_owner=False)
        sequence.begin(num_cached=0, miss=None)
        return sequence

    def end_resident(self, sequence: LiveSequence) -> None:
        """End a session's sequence at once, as cancelled; one that has ended is no mistake. Engine thread."""
        self._end(sequence, Cancelled())

    def cancel(self, request_id: str) -> None:
        """End a request before the next step, whatever it is doing. One that is unknown or has ended is no mistake."""
        self._intake.cancel(request_id)

    def drain(self, timeout_s: float) -> bool:
        """Accept no more, let what is accepted finish for ``timeout_s``, then ``stop``. Needs a started engine.

        Returns:
            Whether everything finished in time; the rest ended with ``ShuttingDownError``.
        """
        self._intake.close()
        finished = self._wait_until_idle(time.monotonic() + timeout_s)
        self.stop()
        return finished

    def stop(self, timeout_s: float = 30.0) -> None:
        """End what is left with ``ShuttingDownError``, and the thread. Idempotent.

        Args:
            timeout_s: how long to wait for the step that is running; a hanging device is left behind and logged.
        """
        self._intake.stop()
        if self._thread is None:
            self._end_all()
            return
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            logger.error("the engine thread is still in a step after %.0f s and is left behind", timeout_s)

    def stats(self) -> EngineStats:
        """The numbers now; does not wait for a running step."""
        counters = self._counters
        num_waiting, num_waiting_prompt_tokens = self._intake.num_waiting
        return EngineStats(
            num_running=len(self._running),
            num_waiting=num_waiting,
            num_waiting_prompt_tokens=num_waiting_prompt_tokens,
            pool=self._pool_stats,
            num_steps=counters.num_steps,
            num_failed_steps=counters.num_failed_steps,
            num_prompt_tokens=counters.num_prompt_tokens,
            num_cached_tokens=self._sharing.num_cached_tokens,
            num_generated_tokens=counters.num_generated_tokens,
            num_drafted_tokens=self._speculation.num_drafted,
            num_accepted_tokens=self._speculation.num_accepted,
            healthy=not counters.is_broken and counters.num_failed_in_a_row < self._limits.max_failed_steps,
            last_progress=max(counters.last_progress, self._intake.busy_since),
        )

    def step(self) -> bool:
        """Admit, plan, compute, sample, commit and publish, once; returns whether there was anything to compute."""
        self._call_posted()
        self._end_cancelled()
        self._admit()
        started = self._clock()
        concerned = list(self._running.values())
        if concerned:
            try:
                scheduled = plan_step(self._policy, self._sharing.begin_ready(self._running), self._budget)
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
        self._pool_stats = self._pool.stats()
        return bool(concerned)

    def _run(self) -> None:
        try:
            while not self._intake.is_stopping:
                if not self.step():
                    self._pool.check_integrity()  # the books must balance before we rest
                    self._intake.wait_for_news()
            self._end_all()
        except BaseException:
            self._break_down()

    def _wait_until_idle(self, deadline: float) -> bool:
        """Wait until nothing is live and no end has begun anything else: a session's next question, say."""
        while self._intake.wait_until_empty(max(0.0, deadline - time.monotonic())):
            has_passed = threading.Event()
            try:
                self._intake.post(has_passed.set)
            except ShuttingDownError:
                return True
            if not has_passed.wait(max(0.0, deadline - time.monotonic())):
                return False
            if self._intake.wait_until_empty(0.0):
                return True
        return False

    def _call_posted(self) -> None:
        for call in self._intake.take_posted():
            contained(lambda call: call(), call, "a posted call failed")

    def _end_cancelled(self) -> None:
        for sequence in self._intake.take_cancelled():
            self._end(sequence, Cancelled())

    def _admit(self) -> None:
        """Admit in the order of arrival while there is room; whoever does not fit yet holds up all behind it."""
        while self._num_burst < self._limits.max_running and (sequence := self._intake.head()) is not None:
            if not self._pool.can_admit(sequence.max_computed):
                assert self._num_burst, "the pool refuses a sequence that fits, and nothing will be given back"
                break
            now = self._clock()
            self._intake.admit_head(now)
            self._run_admitted(sequence, self._pool.admit(sequence.max_computed), now, is_owner=True)

    def _run_admitted(self, sequence: LiveSequence, table: PageTable, now: float, *, is_owner: bool) -> None:
        sequence.admission = Admission(self._num_admitted, table, now, is_owner=is_owner)
        self._running[self._num_admitted] = sequence
        self._num_admitted += 1
        self._num_burst += is_owner

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
            rows = slice(num_logits, num_logits + item.num_logits)
            num_logits += item.num_logits
            num_prefill += 0 if item.is_decoding else item.num_tokens
            num_decode += item.num_tokens if item.is_decoding else 0
            self._commit_sequence(item, logits[rows], likeliest[rows], now)
        finished = self._clock()
        self._counters.step_succeeded(finished, num_prefill)
        metrics = StepMetrics(finished - started, len(scheduled), num_prefill, num_decode)
        contained(self._observer.on_step, metrics, "the observer failed")

    def _commit_sequence(
        self, item: ScheduledSequence, logits: StepLogits, likeliest: list[int | None], now: float
    ) -> None:
        """Advance one sequence and publish what came of it. Whatever goes wrong here concerns it alone."""
        sequence = item.sequence
        if sequence.has_ended:
            return
        num_generated, num_computed = sequence.answer.num_tokens, sequence.num_computed
        try:
            events = sequence.advance(item.num_tokens, logits, likeliest, now, item.draft)
            self._speculation.settle(item, sequence.num_computed - num_computed)
        except Exception:
            self._end(sequence, Failed(logged_error("a step's result could not be processed")))
        else:
            if not item.is_decoding and not any(isinstance(event, Failed) for event in events):
                self._sharing.publish(sequence)
            self._counters.num_generated_tokens += sequence.answer.num_tokens - num_generated
            self._publish(sequence, events)

    def _publish(self, sequence: LiveSequence, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, TerminalEvent):
                self._end(sequence, event)
            elif not self._send(sequence, event):
                self._end(sequence, Failed(StepError("an event could not be delivered")))
                return

    def _fail_step(self, concerned: list[LiveSequence]) -> None:
        """End the sequences of a step that failed, all that run if the plan itself did. Called in the handler."""
        self._counters.step_failed()
        failed = Failed(logged_error("a step failed"))
        for sequence in concerned:
            self._end(sequence, failed)

    def _end(self, sequence: LiveSequence, event: TerminalEvent) -> None:
        """The one place where a sequence ends: it gives back what it holds, then its client is told."""
        if sequence.has_ended:
            return  # whoever was told of another one's end has ended it
        sequence.has_ended = True
        self._intake.forget(sequence)
        try:
            if sequence.admission is not None:
                del self._running[sequence.admission.sequence_id]
                settle = self._sharing.withdraw if isinstance(event, Failed) else self._sharing.publish
                settle(sequence)
                if sequence.admission.is_owner:
                    self._num_burst -= 1
                    self._pool.release(sequence.admission.table)
        finally:
            self._send(sequence, event)
        contained(self._observer.on_request_finished, sequence.metrics(event), "the observer failed")

    def _end_all(self) -> None:
        self._call_posted()
        for sequence in self._intake.live():
            self._end(sequence, Failed(ShuttingDownError("the server shut down before the answer was complete")))
        self._pool_stats = self._pool.stats()

    def _break_down(self) -> None:
        """End everything after a mistake in our books or a plugin's, without touching them. Called in the handler."""
        self._counters.is_broken = True
        self._running.clear()
        failed = Failed(logged_error("the engine broke down"))
        for sequence in self._intake.abandon():
            self._send(sequence, failed)
        self._call_posted()  # whoever waits for one is told

    def _send(self, sequence: LiveSequence, event: Event) -> bool:
        return contained(sequence.sink, event, "the sink of request %s failed", sequence.request.request_id)
