"""Sessions on the fake executor, in virtual time: the test is the engine thread and the one that prepares batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from layerscale_core.engine import Engine, EngineLimits, FairPolicy, PagedKVPool, Request, SamplingParams
from layerscale_core.errors import StepError
from layerscale_core.memory_plan import MemoryPlan, pages_of_session
from layerscale_core.sessions import (
    ChatPrompt,
    NewFlashQuery,
    NewSession,
    NoPrompt,
    Prompt,
    Session,
    SessionEvent,
    SessionLimits,
    Sessions,
    TextPrompt,
    Turn,
)
from layerscale_core.specs import Executor, StepBatch
from tests.support.engine_harness import VirtualClock
from tests.support.fake_executor import PRINTABLE, FakeExecutor
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.recording_sink import RecordingSink

PAGE_SIZE = 4

T = TypeVar("T")


class NoteType:
    """A stream of notes ``{"text": …}``, each a line of its own. Implements ``specs.StreamType``."""

    name = "note"

    def validate(self, entry: object) -> Mapping[str, Any]:
        assert isinstance(entry, dict)
        return entry

    def render(self, entry: Mapping[str, Any]) -> str:
        return str(entry["text"])

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        return {"newest": entries[-1]["text"] if entries else ""}


def note(text: str) -> dict[str, str]:
    """An entry; it takes its text's bytes and one more."""
    return {"text": text}


@dataclass
class SessionHarness:
    """Sessions with what they were made of."""

    sessions: Sessions
    engine: Engine
    executor: Executor
    pool: PagedKVPool
    sinks: dict[str, RecordingSink] = field(default_factory=dict)
    num_steps: int = 0

    def create(self, prompt: bytes = b"", *, window_size: int = 1000, flash: Sequence[bytes] = ()) -> Session:
        """A session, its prompt still pending."""
        queries = tuple(NewFlashQuery(query.decode(), tuple(query), 5) for query in flash)
        return self.now(self.sessions.create(NewSession("note", tuple(prompt), None, window_size, queries)))

    def now(self, future: Future[T]) -> T:
        """What the engine thread does before its next step."""
        self.step()
        return future.result(timeout=0)

    def ask(
        self, session: Session, prompt: Prompt | bytes | None, max_tokens: int = 3, *, clears_after: bool = False
    ) -> RecordingSink:
        """Submit a turn with a new sink."""
        sink, request_id = RecordingSink(), f"turn {len(self.sinks)}"
        self.sinks[request_id] = sink
        if prompt is None:
            prompt = NoPrompt()
        elif isinstance(prompt, bytes):
            prompt = TextPrompt(tuple(prompt))
        session.submit(Turn(request_id, prompt, SamplingParams(max_tokens, ignore_eos=True), sink, clears_after))
        return sink

    def warm_up(self, session: Session, conversation: bytes) -> RecordingSink:
        """Submit a warm-up with a new sink."""
        sink, request_id = RecordingSink(), f"warm-up {len(self.sinks)}"
        self.sinks[request_id] = sink
        prompt = ChatPrompt(tuple(conversation))
        session.submit(Turn(request_id, prompt, SamplingParams(max_tokens=0), sink, is_warm_up=True))
        return sink

    def submit(self, prompt: bytes, max_tokens: int) -> RecordingSink:
        """A stateless request."""
        sink, request_id = RecordingSink(), f"stateless {len(self.sinks)}"
        self.engine.submit(Request(request_id, tuple(prompt), SamplingParams(max_tokens, ignore_eos=True)), sink)
        self.sinks[request_id] = sink
        return sink

    def push(self, session: Session, *texts: str) -> None:
        """Push notes, each a batch of its own if the harness is run in between."""
        self.sessions.push(session, [note(text) for text in texts])

    def held(self, session: Session) -> bytes:
        """Everything the session holds."""
        return bytes(self.now(session.describe())[1])

    def fail_steps(self, number: int) -> None:
        """Have the next steps fail."""
        failures = iter(range(number))

        def fail(batch: StepBatch) -> None:
            if next(failures, None) is not None:
                raise StepError("injected")

        assert isinstance(self.executor, FakeExecutor)
        self.executor.before_step = fail

    def step(self) -> bool:
        """One step of the engine; returns whether there was anything to compute."""
        progressed = self.engine.step()
        self.pool.check_integrity()
        self.num_steps += 1
        return progressed

    def run(self, max_steps: int = 5000) -> int:
        """Prepare and step until nothing is left to do; returns the number of steps."""
        for num_steps in range(max_steps):
            has_prepared = self.sessions.prepare()
            if not self.step() and not has_prepared:
                return num_steps
        raise AssertionError("the sessions do not come to rest")

    def check_at_rest(self) -> None:
        """Every turn ended once, every batch was in order; then all sessions are deleted and give everything back."""
        assert all(sink.end for sink in self.sinks.values())
        for session in self.sessions.all():
            self.now(self.sessions.delete(session.session_id))
        stats = self.pool.stats()
        assert (stats.free_pages + stats.cached_pages, stats.reserved_pages) == (stats.total_pages, 0)
        assert not self.engine.stats().has_work
        assert self.pool.can_reserve(self.sessions.limits.max_sessions * self._pages_per_session)
        if isinstance(self.executor, FakeExecutor):
            assert not self.executor.violations

    @property
    def _pages_per_session(self) -> int:
        return pages_of_session(self.sessions.limits.max_context_len, PAGE_SIZE)


def make_session_harness(
    *,
    context_len: int = 64,
    num_sessions: int = 2,
    num_stateless_pages: int = 32,
    batch_tokens: int = 16,
    ring_capacity: int = 1000,
    max_tokens_per_step: int = 24,
    max_logits_per_step: int = 12,
    executor: Executor | None = None,
    plan: MemoryPlan | None = None,
    alphabet: Sequence[int] = PRINTABLE,
    looks_up_prompts: bool = True,
) -> SessionHarness:
    """Sessions on an engine that has not been started. Half of a short context is kept free for questions.

    Args:
        plan: says how many pages, sessions and burst slots there are, and how long contexts are.
    """
    num_session_pages = num_sessions * pages_of_session(context_len, PAGE_SIZE)
    num_pages, num_burst_slots = num_session_pages + num_stateless_pages, 8
    if plan is not None:
        context_len, num_sessions = plan.context_len, plan.request.num_sessions
        num_burst_slots = max(1, plan.burst_slots)
        num_pages, num_session_pages = plan.layout.num_pages, plan.layout.num_session_pages
    executor = executor or FakeExecutor(num_pages, PAGE_SIZE, max_gaps=1, alphabet=alphabet)
    tokenizer = ByteTokenizer()
    pool = PagedKVPool(num_pages, PAGE_SIZE, num_session_pages)
    limits = EngineLimits(
        context_len, num_burst_slots, max_tokens_per_step=max_tokens_per_step, max_logits_per_step=max_logits_per_step
    )
    clock = VirtualClock()  # it stands still: drafts cost nothing, so that none is left out
    engine = Engine(executor, tokenizer, pool, FairPolicy(), limits, looks_up_prompts=looks_up_prompts, clock=clock)
    sessions = Sessions(
        engine,
        executor,
        pool,
        tokenizer,
        stream_types={"note": NoteType()},
        limits=SessionLimits(num_sessions, context_len, ring_capacity, batch_tokens),
    )
    return SessionHarness(sessions, engine, executor, pool)


class RecordingSubscriber:
    """Remembers a session's events."""

    def __init__(self) -> None:
        self.events: list[SessionEvent] = []

    def __call__(self, event: SessionEvent) -> None:
        self.events.append(event)
