"""The engine: requests in from any thread, their events out on one."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from layerscale_core.engine.faults import contained, logged_error
from layerscale_core.engine.intake import Intake
from layerscale_core.engine.limits import EngineLimits
from layerscale_core.engine.loop import Loop
from layerscale_core.engine.observer import EngineObserver, NullObserver
from layerscale_core.engine.prefix_sharing import PrefixSharing
from layerscale_core.engine.request import Cancelled, EventSink, Failed, Request
from layerscale_core.engine.roster import Roster
from layerscale_core.engine.sampling_params import SamplingParams
from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.engine.speculation import Speculation
from layerscale_core.engine.stats import Counters, EngineStats
from layerscale_core.engine.validation import check_request, check_sampling
from layerscale_core.engine.waiting_queue import WaitingQueue
from layerscale_core.errors import NoBurstSlotsError, ShuttingDownError
from layerscale_core.specs.executor import Executor
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
        observer = observer or NullObserver()
        self._tokenizer = tokenizer
        self._pool = pool
        self._limits = limits
        self._clock = clock
        self._intake = Intake(WaitingQueue(limits.max_waiting, limits.waiting_prompt_tokens))
        self._sharing = PrefixSharing(pool, is_on=shares_prefixes)
        self._roster = Roster(pool, self._intake, self._sharing, limits.max_running, observer=observer, clock=clock)
        self._counters = Counters(last_progress=clock())
        budget = TokenBudget(limits.max_tokens_per_step, limits.max_logits_per_step)
        self._speculation = Speculation(pool, budget, is_on=looks_up_prompts)
        self._loop = Loop(
            executor,
            pool,
            policy,
            budget,
            roster=self._roster,
            sharing=self._sharing,
            speculation=self._speculation,
            counters=self._counters,
            observer=observer,
            clock=clock,
        )
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
        sequence = LiveSequence(
            request,
            sink,
            self._tokenizer,
            self._limits.max_context_len,
            self._clock(),
            first_position=first_position,
            history=history,
        )
        self._roster.admit_resident(sequence, table)
        return sequence

    def end_resident(self, sequence: LiveSequence) -> None:
        """End a session's sequence at once, as cancelled; one that has ended is no mistake. Engine thread."""
        self._roster.end(sequence, Cancelled())

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
            num_running=len(self._roster.running),
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
        """Take in the news, admit and do a step; returns whether there was anything to compute."""
        if self._intake.has_news:
            self._call_posted()
            self._roster.end_cancelled()
        self._roster.admit_waiting()
        has_computed = self._loop.step()
        self._pool_stats = self._pool.stats()
        return has_computed

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

    def _end_all(self) -> None:
        self._call_posted()
        self._roster.end_all(Failed(ShuttingDownError("the server shut down before the answer was complete")))
        self._pool_stats = self._pool.stats()

    def _break_down(self) -> None:
        """End everything after a mistake in our books or a plugin's, without touching them. Called in the handler."""
        self._counters.is_broken = True
        self._roster.abandon_all(Failed(logged_error("the engine broke down")))
        self._call_posted()  # whoever waits for one is told
