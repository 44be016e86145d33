"""Any interleaving of what can be asked of a session leaves exactly what a plain list of tokens would hold."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from layerscale_core.engine import Cancelled, Event, Failed, SamplingParams, TerminalEvent, TokensGenerated
from layerscale_core.errors import ConflictError, ContextLengthError, InvalidRequestError, NotFoundError
from layerscale_core.sessions import (
    ChatPrompt,
    DataUpdated,
    FlashQuery,
    NewSession,
    NoPrompt,
    Prompt,
    Session,
    SessionEvent,
    SessionView,
    TextPrompt,
    Turn,
    TurnFinished,
)
from tests.support.fake_executor import greedy_answer
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.session_harness import PAGE_SIZE, make_session_harness, note
from tests.support.session_model import PlainSession

WORDS = st.text("abcdefghij", max_size=12)
CONTEXT_LEN = 64
QUERY_TOKENS = 5


@dataclass
class Watched:
    """A session, its plain model, and what has been asked of it and not yet ended."""

    session: Session
    model: PlainSession
    pushed: list[list[int]] = field(default_factory=list)
    num_processed: int = 0
    live: list[str] = field(default_factory=list)
    last_version: int = 0
    is_deleted: bool = False

    def sync(self) -> None:
        """The first batch freezes what is held when it is begun, which may be long before it is in."""
        if self.session.context.has_data:
            self.model.begin_data()

    def has_failed_with_its_session(self, error: BaseException | None) -> bool:
        assert self.is_deleted or not isinstance(error, NotFoundError)
        return isinstance(error, NotFoundError)

    def on_event(self, event: SessionEvent) -> None:
        if isinstance(event, DataUpdated):
            num_processed = self.session.ring.counts.items_processed
            self.model.ingest(self.pushed[self.num_processed : num_processed])
            self.num_processed = num_processed
            assert event.data_version == self.model.data_version > self.last_version
            self.last_version = event.data_version
            assert event.data_count == self.model.num_entries
            assert list(self.session.context.tokens) == self.model.tokens

    def on_append(self, token_ids: list[int], future: Future[SessionView]) -> None:
        if self.has_failed_with_its_session(future.exception()):
            return
        self.sync()
        goes_to_head = self.session.context.data_begin != len(self.model.head)
        if self.model.append(token_ids, goes_to_head=goes_to_head):
            assert future.result().num_tokens == len(self.model.tokens)
        else:
            assert isinstance(future.exception(), ContextLengthError)

    def on_mark(self, future: Future[SessionView]) -> None:
        if self.has_failed_with_its_session(future.exception()):
            return
        self.sync()
        if self.model.has_data:
            assert isinstance(future.exception(), InvalidRequestError)
        else:
            self.model.mark_prefix()
            assert future.result().prefix_end == self.model.prefix_end
            assert future.result().num_pending == 0

    def on_turn(self, turn: Turn, generated: list[int], end: TerminalEvent) -> None:
        self.live.remove(turn.request_id)
        if self.has_failed_with_its_session(end.error if isinstance(end, Failed) else None):
            return
        self.sync()
        tail = self.model.place(turn.prompt)
        if isinstance(end, Failed):
            assert tail is None
            assert isinstance(end.error, InvalidRequestError)
            return
        if isinstance(end, Cancelled) and not generated:
            return
        assert tail is not None
        assert generated == greedy_answer(self.model.durable + tail, len(generated))
        if isinstance(end, TurnFinished):
            room = CONTEXT_LEN - len(self.model.durable) - len(tail)
            assert len(generated) == end.num_generated == min(turn.sampling.max_tokens, room)
            assert end.data_version == self.model.data_version
            if not (turn.clears_after or turn.is_warm_up):
                self.model.tail = tail + generated
            assert end.total_tokens == len(self.model.tokens)


class SessionMachine(RuleBasedStateMachine):
    """Two sessions on one engine. What is asked runs when ``step`` or ``settle`` lets it."""

    @initialize(
        prompts=st.lists(WORDS, min_size=2, max_size=2),
        window_size=st.sampled_from([1, 3, 100]),
        batch_tokens=st.sampled_from([4, 16]),
        max_tokens_per_step=st.sampled_from([3, 24]),
    )
    def begin(self, prompts: list[str], window_size: int, batch_tokens: int, max_tokens_per_step: int) -> None:
        self.harness = make_session_harness(
            context_len=CONTEXT_LEN,
            num_sessions=2,
            batch_tokens=batch_tokens,
            max_tokens_per_step=max_tokens_per_step,
        )
        self.violations: list[AssertionError] = []
        self.num_live = 0
        self.num_ended = 0
        self.watched: list[Watched] = []
        self.prompts, self.window_size = prompts, window_size
        for prompt in prompts:
            self.create(prompt)

    def create(self, prompt: str) -> None:
        harness = self.harness
        new = NewSession("note", tuple(prompt.encode()), None, self.window_size)
        session = harness.now(harness.sessions.create(new))
        model = PlainSession(CONTEXT_LEN, self.window_size)
        model.append(list(prompt.encode()), goes_to_head=True)
        watched = Watched(session, model)
        harness.now(session.subscribe(lambda event: self.checked(lambda: watched.on_event(event))))
        self.watched.append(watched)

    def checked(self, check: Callable[[], None]) -> None:
        """The engine contains what its clients raise; the machine wants to know."""
        try:
            check()
        except AssertionError as violation:
            self.violations.append(violation)

    sessions = st.integers(0, 1)

    @rule(index=sessions, text=WORDS)
    def append(self, index: int, text: str) -> None:
        watched, token_ids = self.watched[index], list(text.encode())
        self.num_live += 1
        self.when_done(watched.session.append(token_ids), lambda done: watched.on_append(token_ids, done))

    @rule(index=sessions)
    def mark_prefix(self, index: int) -> None:
        self.num_live += 1
        self.when_done(self.watched[index].session.mark_prefix(), self.watched[index].on_mark)

    def when_done(self, future: Future[SessionView], check: Callable[[Future[SessionView]], None]) -> None:
        def done(future: Future[SessionView]) -> None:
            self.num_ended += 1
            self.checked(lambda: check(future))

        future.add_done_callback(done)

    @rule(index=sessions, texts=st.lists(WORDS, min_size=1, max_size=4))
    def push(self, index: int, texts: list[str]) -> None:
        watched = self.watched[index]
        ack = self.harness.sessions.push(watched.session, [note(text) for text in texts])
        assert (ack.num_pushed, ack.num_dropped) == (len(texts), 0)
        watched.pushed += [[*text.encode(), 10] for text in texts]

    @rule(index=sessions, text=WORDS, max_tokens=st.integers(1, 6), clears=st.booleans())
    def ask(self, index: int, text: str, max_tokens: int, clears: bool) -> None:
        self.submit(index, TextPrompt(tuple(text.encode())), max_tokens, clears)

    @rule(index=sessions, max_tokens=st.sampled_from([1, 4, 100]), clears=st.booleans())
    def go_on(self, index: int, max_tokens: int, clears: bool) -> None:
        self.submit(index, NoPrompt(), max_tokens, clears)

    @rule(index=sessions, num_kept=st.integers(0, 70), text=WORDS, has_bos=st.booleans(), max_tokens=st.integers(1, 4))
    def converse(self, index: int, num_kept: int, text: str, has_bos: bool, max_tokens: int) -> None:
        """A conversation that begins like what is held, up to some token."""
        token_ids = (*self.watched[index].model.tokens[:num_kept], *text.encode())
        bos = (ByteTokenizer.BOS_ID,) if has_bos else ()
        self.submit(index, ChatPrompt((*bos, *token_ids), ByteTokenizer.BOS_ID), max_tokens, False)

    @rule(index=sessions, num_kept=st.integers(0, 70), text=WORDS)
    def warm_up(self, index: int, num_kept: int, text: str) -> None:
        """What is expected next; nothing that the model knows of changes."""
        token_ids = (*self.watched[index].model.tokens[:num_kept], *text.encode())
        self.submit(index, ChatPrompt(token_ids), max_tokens=0, clears=False, warms_up=True)

    def submit(self, index: int, prompt: Prompt, max_tokens: int, clears: bool, *, warms_up: bool = False) -> None:
        watched, generated = self.watched[index], list[int]()
        has_ended = False

        def sink(event: Event) -> None:
            nonlocal has_ended
            if isinstance(event, TokensGenerated):
                generated.extend(event.token_ids)
            elif isinstance(event, TerminalEvent):
                self.num_ended += 1
                self.checked(lambda: watched.on_turn(turn, generated, event))
                assert not has_ended
                has_ended = True

        turn = Turn(
            str(self.num_live), prompt, SamplingParams(max_tokens, ignore_eos=True), sink, clears, is_warm_up=warms_up
        )
        self.num_live += 1
        watched.live.append(turn.request_id)
        watched.session.submit(turn)

    @rule(index=sessions, number=st.integers(0, 5))
    def cancel(self, index: int, number: int) -> None:
        watched = self.watched[index]
        if number < len(watched.live):
            watched.session.cancel(watched.live[number])

    @rule(index=sessions, text=st.sampled_from(["up?", "why is it so?", "a"]))
    def register(self, index: int, text: str) -> None:
        session = self.watched[index].session
        refusals = [ConflictError] if session.flash.find(text) is not None else []
        if session.context.data_begin + len(text) >= session.context.context_len:
            refusals.append(ContextLengthError)
        future = session.register_flash(text, QUERY_TOKENS, tuple(text.encode()))
        self.step(1)
        assert isinstance(future.exception(timeout=0), tuple(refusals)) if refusals else future.result(timeout=0).id > 0

    @rule(index=sessions)
    def forget(self, index: int) -> None:
        session = self.watched[index].session
        if session.flash.queries:
            session.remove_flash(session.flash.queries[0].id)
            self.step(1)

    @rule(num_steps=st.integers(1, 6))
    def step(self, num_steps: int) -> None:
        for _ in range(num_steps):
            self.harness.sessions.prepare()
            self.harness.step()

    @rule()
    def settle(self) -> None:
        self.harness.run()
        assert self.num_live == self.num_ended, "something asked was not answered"
        for watched in self.watched:
            self.check_at_rest(watched)

    @rule(index=sessions)
    def replace(self, index: int) -> None:
        """Delete a session in whatever it is doing, and make another; what was asked of it fails."""
        watched = self.watched[index]
        self.watched.remove(watched)
        watched.is_deleted = True
        deleted = self.harness.sessions.delete(watched.session.session_id)
        self.harness.step()
        assert deleted.done()
        self.create(self.prompts[0])

    @invariant()
    def nothing_is_violated(self) -> None:
        if hasattr(self, "harness"):
            assert not self.violations, self.violations[0]
            assert not self.harness.executor.violations, self.harness.executor.violations[0]

    def check_at_rest(self, watched: Watched) -> None:
        session, model = watched.session, watched.model
        watched.sync()
        view, tokens = self.harness.now(session.describe())
        assert tokens == model.tokens
        assert view.num_pending == 0
        assert view.num_tokens == len(tokens)
        assert view.prefix_end == model.prefix_end
        assert (view.data_tokens, view.data_count) == (len(model.data), model.num_entries)
        assert (view.data_version, view.revision) == (model.data_version, model.revision)
        assert view.data_end - view.data_start == len(model.data)
        assert view.data_end == view.pos_next
        assert view.pos_max - view.pos_next == len(model.tail) - 1
        assert view.pos_max < CONTEXT_LEN
        assert not view.is_busy
        counts = session.ring.counts
        assert counts.is_settled
        assert counts.items_processed == counts.total_enqueued == len(watched.pushed)
        assert counts.batches_processed == model.data_version
        assert len(session.entries()) == model.num_entries
        for query in session.flash.queries:
            self.check_answer(watched, query)

    def check_answer(self, watched: Watched, query: FlashQuery) -> None:
        model = watched.model
        answer = watched.session.fresh_answer(query.query)
        has_room = len(model.durable) + len(query.token_ids) + QUERY_TOKENS + 4 * PAGE_SIZE < CONTEXT_LEN
        assert answer is not None or model.data_version == 0 or not has_room
        if answer is not None and answer.answer is not None:
            expected = bytes(greedy_answer([*model.durable, *query.token_ids], QUERY_TOKENS))
            assert expected.startswith(answer.answer.value.encode())
            assert answer.answer.num_tokens == QUERY_TOKENS or not has_room
            assert answer.answer.data_version <= model.data_version

    def teardown(self) -> None:
        if hasattr(self, "harness"):
            self.settle()
            self.nothing_is_violated()
            self.harness.check_at_rest()


TestSessions = SessionMachine.TestCase
TestSessions.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
