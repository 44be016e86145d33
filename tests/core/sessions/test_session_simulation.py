"""Random schedules of sessions beside stateless traffic, with failing steps: everyone ends once, nothing is lost."""

from __future__ import annotations

import logging
import random

import pytest

from layerscale_core.engine import Cancelled, Failed, Finished
from layerscale_core.errors import ContextLengthError, StepError
from layerscale_core.sessions import DataUpdated, FlashReady, NewFlashQuery, NewSession, Session
from layerscale_core.specs import StepBatch
from tests.support.fake_executor import FakeExecutor, greedy_answer
from tests.support.recording_sink import RecordingSink
from tests.support.session_harness import RecordingSubscriber, make_session_harness

CONTEXT_LEN = 64
QUERIES = (b"up?", b"why?", b"or else what?")


class Simulation:
    """One schedule: pushes, questions, stateless requests, deletions, cancellations and faults, from one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.harness = make_session_harness(
            context_len=CONTEXT_LEN,
            num_sessions=4,
            batch_tokens=self.chance.choice([4, 16]),
            max_tokens_per_step=self.chance.choice([4, 12, 40]),
            max_logits_per_step=self.chance.choice([3, 20]),
            ring_capacity=12,
        )
        self.fault_rate = self.chance.choice([0, 0, 0.03, 0.2])
        self.num_faults = self.num_lost = 0
        self.subscribers: dict[Session, RecordingSubscriber] = {}
        self.heads: dict[Session, bytes] = {}
        self.stateless: list[tuple[bytes, int, RecordingSink]] = []
        executor = self.harness.executor
        assert isinstance(executor, FakeExecutor)
        self.executor = executor
        executor.before_step = self.before_step

    def before_step(self, batch: StepBatch) -> None:
        if self.chance.random() < self.fault_rate:
            self.num_faults += 1
            raise StepError("injected")

    def run(self) -> None:
        for _ in range(3):
            self.create()
        acts = [self.create, self.delete, self.push, self.ask, self.append, self.cancel, self.request, self.restart]
        for _ in range(40):
            self.chance.choices(acts, [1, 0.5, 6, 4, 1, 2, 2, 0.3])[0]()
            for _ in range(self.chance.choice([0, 1, 1, 4])):
                self.harness.sessions.prepare()
                self.harness.step()
        self.fault_rate = 0
        self.harness.run()
        for session in self.harness.sessions.all():
            self.check(session)
        self.check_stateless()
        self.harness.check_at_rest()

    def create(self) -> None:
        if len(self.harness.sessions.all()) < 4:
            prompt = self.chance.choice([b"", b"P", b"Some prompt\n"])
            queries = tuple(NewFlashQuery(each.decode(), tuple(each), 5) for each in QUERIES)
            new = NewSession("note", tuple(prompt), None, self.chance.choice([2, 5, 100]), queries)
            session = self.harness.now(self.harness.sessions.create(new))
            subscriber = RecordingSubscriber()
            self.harness.now(session.subscribe(subscriber))
            self.subscribers[session], self.heads[session] = subscriber, prompt

    def delete(self) -> None:
        if (session := self.any_session()) is not None:
            self.harness.now(self.harness.sessions.delete(session.session_id))

    def restart(self) -> None:
        """Everything is deleted at once."""
        for session in self.harness.sessions.all():
            self.harness.sessions.delete(session.session_id)

    def push(self) -> None:
        if (session := self.any_session()) is not None:
            self.harness.push(session, *("x" * self.chance.randrange(9) for _ in range(self.chance.randrange(1, 7))))

    def ask(self) -> None:
        if (session := self.any_session()) is not None:
            prompt = self.chance.choice([b"one?", b"a longer question?", None])
            clears_after = self.chance.random() < 0.3
            self.harness.ask(session, prompt, self.chance.choice([1, 5, 100]), clears_after=clears_after)

    def append(self) -> None:
        if (session := self.any_session()) is not None:
            session.append(b"." * self.chance.randrange(6))

    def cancel(self) -> None:
        if (session := self.any_session()) is not None and self.harness.sinks:
            session.cancel(self.chance.choice(list(self.harness.sinks)[-3:]))

    def request(self) -> None:
        prompt, num_tokens = self.chance.randbytes(self.chance.randrange(1, 30)), self.chance.randrange(1, 9)
        self.stateless.append((prompt, num_tokens, self.harness.submit(prompt, num_tokens)))

    def any_session(self) -> Session | None:
        sessions = self.harness.sessions.all()
        return self.chance.choice(sessions) if sessions else None

    def check(self, session: Session) -> None:
        view, tokens = self.harness.now(session.describe())
        assert bytes(tokens[: len(self.heads[session])]) == self.heads[session]
        counts = session.ring.counts
        assert counts.is_settled
        assert counts.items_processed == counts.total_enqueued
        assert view.data_count == len(session.entries()) <= session.window_size
        assert (view.num_pending, view.is_busy) == (0, False)
        versions = [each.data_version for each in self.subscribers[session].events if isinstance(each, DataUpdated)]
        assert versions == list(range(1, view.data_version + 1)), "a version is lost"
        if not self.num_faults:
            assert counts.batches_processed == view.data_version
        self.check_answers(session, tokens[: session.context.durable_end])

    def check_answers(self, session: Session, durable: list[int]) -> None:
        told = [each for each in self.subscribers[session].events if isinstance(each, FlashReady)]
        for query in session.flash.queries:
            fresh = session.fresh_answer(query.query)
            if fresh is not None and fresh.answer is not None:
                expected = bytes(greedy_answer([*durable, *query.token_ids], 5))
                assert expected.startswith(fresh.answer.value.encode())
                assert [each.value for each in told if each.id == query.id][-1] == fresh.answer.value
            elif not self.num_faults:
                assert session.data_version == 0 or len(durable) > CONTEXT_LEN // 2

    def check_stateless(self) -> None:
        for prompt, num_tokens, sink in self.stateless:
            assert isinstance(sink.end, Finished) or self.num_faults
            assert sink.token_ids == greedy_answer(prompt, num_tokens)[: len(sink.token_ids)]


NUM_SCHEDULES, NUM_PARTS = 160, 4


@pytest.mark.parametrize("part", range(NUM_PARTS))
def test_random_schedules_of_sessions(part: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # injected failures would be formatted
    ends: list[object] = []
    num_evaluations = num_batches = 0
    for seed in range(part, NUM_SCHEDULES, NUM_PARTS):
        simulation = Simulation(seed)
        simulation.run()
        ends += [sink.end for sink in simulation.harness.sinks.values()]
        num_evaluations += sum(session.num_evaluations for session in simulation.subscribers)
        num_batches += sum(session.data_version for session in simulation.subscribers)
        if not simulation.num_faults:
            failures = [sink.end for sink in simulation.harness.sinks.values() if isinstance(sink.end, Failed)]
            assert not any(isinstance(failure.error, StepError) for failure in failures)
    for kind in (Finished, Failed, Cancelled):
        assert sum(isinstance(end, kind) for end in ends) >= 10, f"hardly any {kind}: the schedules test nothing"
    assert any(isinstance(end, Failed) and isinstance(end.error, ContextLengthError) for end in ends)
    assert min(num_evaluations, num_batches) >= 200


@pytest.mark.parametrize("num_steps_before", range(1, 12, 2))
def test_background_work_delays_no_question_by_more_than_a_step(num_steps_before: int) -> None:
    """A question to one session while another takes data in and answers twenty Flash Queries."""

    def steps_of_a_question(num_entries: int) -> int:
        harness = make_session_harness(context_len=256, max_tokens_per_step=24, max_logits_per_step=4)
        busy = harness.create(b"P\n", flash=[b"question number %d?" % number for number in range(20)])
        asked = harness.create(b"Q\n")
        harness.push(busy, *["abcdefgh"] * num_entries)
        for _ in range(num_steps_before):
            harness.sessions.prepare()
            harness.step()
        sink = harness.ask(asked, b"up?", 8)
        num_steps = 0
        while not sink.has_ended:
            harness.sessions.prepare()
            harness.step()
            num_steps += 1
        harness.run()
        harness.check_at_rest()
        return num_steps

    assert steps_of_a_question(12) <= steps_of_a_question(0) + 1
