"""Data on its way into a session: batches, windows, failures, and what is left when the engine stops."""

from __future__ import annotations

import pytest

from layerscale_core.engine import Finished
from layerscale_core.errors import StepError
from layerscale_core.sessions import DataUpdated, FlashReady
from layerscale_core.sessions.stream import EntryRing
from layerscale_core.sessions.window import Eviction, Run, plan_eviction
from tests.support.fake_executor import FakeExecutor, greedy_answer
from tests.support.session_harness import RecordingSubscriber, make_session_harness, note


def test_a_batch_that_fails_twice_is_in_at_the_third_attempt() -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n")
    harness.run()
    harness.fail_steps(2)
    harness.push(session, "aa")
    harness.run()
    assert harness.held(session) == b"P\naa\n"
    assert (session.data_version, session.ring.counts.items_processed) == (1, 1)
    harness.check_at_rest()


def test_a_batch_that_fails_thrice_is_lost_counted_and_reported() -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n", window_size=1)
    harness.push(session, "aa")
    harness.run()
    harness.fail_steps(3)
    harness.push(session, "bb")
    harness.run()
    counts = session.ring.counts
    assert (counts.items_processed, counts.has_failed, session.data_version) == (2, True, 1)
    assert harness.held(session) == b"P\n", "what the lost entry evicted is gone"
    assert session.entries() == []
    harness.push(session, "cc")
    harness.run()
    assert harness.held(session) == b"P\ncc\n"
    assert not session.ring.counts.has_failed
    harness.check_at_rest()


def test_a_prefix_that_cannot_be_computed_loses_the_batch_and_not_the_session() -> None:
    harness = make_session_harness()
    harness.fail_steps(9)
    session = harness.create(b"P")
    harness.push(session, "aa")
    harness.run()
    assert session.ring.counts.has_failed
    sink = harness.ask(session, b"?")
    harness.fail_steps(0)
    harness.run()
    assert isinstance(sink.end, Finished)
    harness.push(session, "bb")
    harness.run()
    assert harness.held(session) == b"P\nbb\n"
    harness.check_at_rest()


def test_an_entry_larger_than_the_window_counts_and_empties_it() -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n")
    harness.push(session, "aa")
    harness.run()
    harness.push(session, "x" * 60)
    harness.run()
    assert harness.held(session) == b"P\naa\n", "it left before it came, and took nobody along"
    assert (session.data_version, session.ring.counts.items_processed) == (2, 2)
    harness.check_at_rest()


def test_text_between_entries_leaves_with_the_entries_around_it() -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n", window_size=2)
    harness.push(session, "aa")
    harness.run()
    harness.now(session.append(b"note\n"))
    for text in ("bb", "cc", "dd"):
        harness.push(session, text)
        harness.run()
        assert harness.held(session).startswith(b"P\n")
    assert harness.held(session) == b"P\ncc\ndd\n"
    harness.check_at_rest()


def test_moving_keys_that_fails_costs_a_computation_and_no_answer() -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n", window_size=2)
    for number in range(5):
        harness.push(session, f"n{number}")
        harness.run()
    assert session.context.gap > 0
    executor = harness.executor
    assert isinstance(executor, FakeExecutor)

    def fail(*_: object) -> None:
        raise StepError("injected")

    executor.shift_positions = fail  # type: ignore[method-assign]
    sink = harness.ask(session, b"?", 60)
    harness.run()
    assert session.context.gap == 0
    assert sink.token_ids[:8] == greedy_answer(b"P\nn3\nn4\n?", 8)
    harness.check_at_rest()


def test_questions_go_before_data_and_data_is_not_held_up_for_ever() -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n")
    harness.run()
    harness.ask(session, b"0", 4)
    harness.step()
    harness.push(session, "aa")
    for number in range(1, 9):
        harness.ask(session, str(number).encode(), 1)
    versions = []
    while harness.sessions.prepare() or harness.step():
        versions.append((sum(sink.has_ended for sink in harness.sinks.values()), session.data_version))
    num_before = max(number for number, version in versions if version == 0)
    assert 1 <= num_before <= 5, "a batch lets four questions go first"
    harness.check_at_rest()


def test_a_stop_returns_what_is_not_computed_to_the_ring() -> None:
    harness = make_session_harness(max_tokens_per_step=4)
    session = harness.create(b"P\n")
    harness.push(session, "aa", "bb", "cc", "dd", "ee", "ff", "gg")
    harness.sessions.prepare()
    harness.step()
    assert session.ring.counts.num_in_flight
    harness.engine.stop()
    entries, counts = session.ring.unprocessed()
    assert [entry["text"] for entry in entries] == ["aa", "bb", "cc", "dd", "ee", "ff", "gg"]
    assert (counts.num_in_flight, counts.items_processed) == (0, 0)
    assert not harness.sessions.prepare(), "nobody would take it"


def test_subscribers_hear_of_data_before_the_answers_about_it() -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n", flash=[b"up?"])
    subscriber = RecordingSubscriber()
    harness.now(session.subscribe(subscriber))
    for text in ("aa", "bb", "cc"):
        harness.push(session, text)
        harness.run()
    version = 0
    for event in subscriber.events:
        if isinstance(event, DataUpdated):
            assert event.data_version == version + 1
            version = event.data_version
        elif isinstance(event, FlashReady):
            assert event.data_version == version
    assert version == 3
    harness.check_at_rest()


def test_answers_come_although_the_ring_never_empties() -> None:
    harness = make_session_harness(context_len=1024)
    session = harness.create(b"P\n", flash=[b"up?"])
    harness.push(session, "first")
    for number in range(60):
        harness.sessions.prepare()
        harness.push(session, f"n{number}")
        harness.step()
        assert not session.ring.counts.is_settled
    answer = session.flash.queries[0].answer
    assert answer is not None
    assert session.data_version - answer.data_version <= 20
    harness.run()
    harness.check_at_rest()


@pytest.mark.parametrize("num_queries", [1, 20])
def test_flash_queries_of_full_length_fit_beside_a_full_context(num_queries: int) -> None:
    harness = make_session_harness(context_len=256)
    session = harness.create(b"P\n")
    harness.push(session, *("x" * 9 for _ in range(40)))
    harness.run()
    for number in range(num_queries):
        session.register_flash(f"question {number:2}?", 256, tuple(b"question %2d?" % number))
    sink = harness.ask(session, b"?", 1000)
    harness.run()
    assert isinstance(sink.end, Finished)
    assert all(session.fresh_answer(query.query) for query in session.flash.queries)
    harness.check_at_rest()


def test_a_full_ring_counts_what_it_drops_also_when_entries_come_back() -> None:
    ring = EntryRing(4)
    assert ring.push([note(str(number)) for number in range(6)]).num_dropped == 2
    taken = ring.take(3)
    ring.push([note("a")] * 3)
    ring.put_back(taken)
    ack = ring.push([note("b")] * 2)
    assert (ack.num_pushed, ack.num_dropped, ack.queue_size) == (0, 2, 7)
    assert (ack.total_enqueued, ack.total_dropped) == (7, 4)
    counts = ring.counts
    assert counts.queue_size + counts.num_in_flight + counts.items_processed == counts.total_enqueued


@pytest.mark.parametrize(
    ("held_runs", "new", "max_entries", "max_tokens", "eviction"),
    [
        ([], [3], 5, 10, Eviction(0, 0, 0)),
        ([(3, True)], [3], 1, 10, Eviction(1, 1, 0)),
        ([(3, False), (3, True)], [3], 1, 10, Eviction(2, 1, 0)),
        ([(8, True), (8, True)], [8], 9, 16, Eviction(2, 2, 0)),
        ([(4, True)], [20], 9, 16, Eviction(0, 0, 1)),
        ([], [4, 4, 4], 2, 16, Eviction(0, 0, 1)),
        ([(4, True)], [4], 9, 0, Eviction(1, 1, 1)),
    ],
)
def test_the_oldest_leave(
    held_runs: list[tuple[int, bool]], new: list[int], max_entries: int, max_tokens: int, eviction: Eviction
) -> None:
    runs = [Run(num_tokens, is_entry) for num_tokens, is_entry in held_runs]
    assert plan_eviction(runs, new, max_entries=max_entries, max_tokens=max_tokens) == eviction


def test_answers_come_although_the_stream_never_pauses_and_the_window_slides() -> None:
    harness = make_session_harness(context_len=64)
    session = harness.create(b"P\n", flash=[b"up?", b"dn?"])
    lags = []
    for number in range(120):
        harness.push(session, f"entry {number}")
        harness.sessions.prepare()
        for _ in range(3):
            harness.step()
        if session.data_version > 40:
            answers = [query.answer for query in session.flash.queries]
            lags += [session.data_version - (0 if answer is None else answer.data_version) for answer in answers]
    assert session.context.window
    assert lags
    assert max(lags) <= 12, "eight versions until they are late, one superseded, one finished, and its batch"
    harness.run()
    harness.check_at_rest()
