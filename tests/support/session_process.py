"""A server's sessions on the reference executor, whose process ends and begins again as often as a test wants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from layerscale_core.allocator import CountingAllocator
from layerscale_core.engine import Engine, EngineLimits, FairPolicy, PagedKVPool, SamplingParams
from layerscale_core.engine.request import Failed
from layerscale_core.formats.gguf import GgufFormat
from layerscale_core.forward import KernelExecutor
from layerscale_core.memory_plan import pages_of_session
from layerscale_core.reference import ReferenceKernels
from layerscale_core.sessions import NewSession, Session, SessionLimits, Sessions, TextPrompt, Turn
from layerscale_core.sessions.durability import SavedSessions
from layerscale_core.sessions.saved_state import Fingerprint
from layerscale_core.sessions.state_directory import StateDirectory
from layerscale_core.specs import KVLayout, StepBatch, StreamType
from layerscale_core.streams import OhlcvStream
from layerscale_core.tokenizers.fingerprint import tokenizer_fingerprint
from tests.support.recording_sink import RecordingSink

T = TypeVar("T")

CONTEXT_LEN = 512
PAGE_SIZE = 8


class NoteStream:
    """Entries of one short text, so that many fit a tiny context."""

    name = "note"

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"text": str(entry["text"])}

    def render(self, entry: Mapping[str, Any]) -> str:
        return str(entry["text"])

    def statistics(self, entries: object) -> Mapping[str, Any]:
        return {}


class LogitsRecorder(KernelExecutor):
    """An executor that keeps all logits that it returned."""

    logits: list[NDArray[np.float32]]

    def step(self, batch: StepBatch) -> NDArray[np.float32]:
        logits = super().step(batch)
        self.logits.append(logits.copy())
        return logits


class SessionProcess:
    """An engine with sessions, from start to end. The test is every thread of it.

    Args:
        state: where sessions are kept; None = nowhere.
    """

    def __init__(
        self,
        model: Path,
        state: Path | None,
        *,
        max_sessions: int = 3,
        context_len: int = CONTEXT_LEN,
        page_size: int = PAGE_SIZE,
        stream_types: tuple[StreamType, ...] = (NoteStream(), OhlcvStream()),
    ) -> None:
        file = GgufFormat().open(model)
        self.tokenizer = file.make_tokenizer()
        attention = file.spec.layers[0].attention
        num_pages = max_sessions * pages_of_session(context_len, page_size)
        layout = KVLayout(
            num_pages, page_size, len(file.spec.layers), attention.num_kv_heads, attention.head_dim, num_pages
        )
        allocator = CountingAllocator(2**40, "the test's memory")
        self.executor = LogitsRecorder(ReferenceKernels(allocator), file.spec, file.weights, layout)
        self.executor.logits = []
        self.pool = PagedKVPool(num_pages, page_size, num_pages)
        limits = EngineLimits(context_len, 8, max_tokens_per_step=32, max_logits_per_step=16)
        self.engine = Engine(self.executor, self.tokenizer, self.pool, FairPolicy(), limits)
        self.sessions = Sessions(
            self.engine,
            self.executor,
            self.pool,
            self.tokenizer,
            stream_types={each.name: each for each in stream_types},
            limits=SessionLimits(max_sessions, context_len, ring_capacity=64, batch_tokens=32),
        )
        self._directory = None if state is None else StateDirectory(state)
        if self._directory is not None:
            fingerprint = Fingerprint(
                file.fingerprint, tokenizer_fingerprint(self.tokenizer), self.executor.kv_fingerprint
            )
            self.saved = SavedSessions(
                self.sessions, self.executor, self._directory, fingerprint, vocab_size=file.spec.vocab_size
            )
        file.close()

    def __enter__(self) -> Self:
        if self._directory is not None:
            self.saved.restore_all()
        return self

    def __exit__(self, *_: object) -> None:
        """The process is gone; whatever was not saved with it."""
        self.pool.check_integrity()
        if self._directory is not None:
            self._directory.close()

    def stop(self) -> None:
        """End gracefully."""
        self.sessions.stop()
        self.engine.stop()
        self.pool.check_integrity()
        self.saved.save_all()

    def create(self, prompt: str = "", session_type: str = "note", **fields: Any) -> Session:
        return self.result(
            self.sessions.create(NewSession(session_type, tuple(self.tokenizer.encode(prompt)), **fields))
        )

    def push(self, session: Session, *texts: str) -> None:
        """Have entries computed."""
        self.sessions.push(session, [{"text": text} for text in texts])
        self.run()

    def ask(self, session: Session, question: str, max_tokens: int = 6) -> tuple[str, NDArray[np.float32]]:
        """The answer, and the logits of all its tokens."""
        sink = RecordingSink()
        prompt = TextPrompt(tuple(self.tokenizer.encode(question, add_special=False)))
        self.run()
        self.executor.logits.clear()
        session.submit(Turn("ask", prompt, SamplingParams(max_tokens, ignore_eos=True), sink))
        while not sink.has_ended:
            self.engine.step()
        return sink.text, np.concatenate(self.executor.logits)

    def ask_at_once(self, session: Session, question: str) -> str:
        """The answer to a question that does not wait until the session is at rest."""
        return self._submit(session, question).text

    def ask_in_vain(self, session: Session, question: str) -> Exception:
        """The error that a question ends with."""
        end = self._submit(session, question).end
        assert isinstance(end, Failed)
        return end.error

    def _submit(self, session: Session, question: str) -> RecordingSink:
        sink = RecordingSink()
        prompt = TextPrompt(tuple(self.tokenizer.encode(question, add_special=False)))
        session.submit(Turn("at once", prompt, SamplingParams(6, ignore_eos=True), sink))
        while not sink.has_ended:
            self.engine.step()
        return sink

    def save(self, session: Session) -> int:
        return self.saved.write(session, self.result(self.saved.capture(session)))

    def restore(self, session_id: str) -> Session:
        return self._while_running(lambda: self.saved.restore(session_id))

    def delete(self, session: Session) -> None:
        self._while_running(lambda: self.saved.delete(session.session_id))

    def _while_running(self, call: Callable[[], T]) -> T:
        """Call what waits for the engine, which this thread runs meanwhile."""
        with ThreadPoolExecutor(1) as other_thread:
            future = other_thread.submit(call)
            while not future.done():
                self.run()
            return future.result()

    def result(self, future: Future[T]) -> T:
        """What a future comes to; everything else is done as well."""
        self.run()
        return future.result(timeout=0)

    def run(self) -> None:
        """Work until there is nothing left to do."""
        for _ in range(10_000):
            if not (self.sessions.prepare() | self.engine.step()):
                self.pool.check_integrity()
                return
        raise AssertionError("the engine does not come to rest")
