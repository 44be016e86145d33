"""A session goes on after a restart, or as a fork, as if nothing had happened."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from layerscale_core.errors import (
    ConflictError,
    InvalidRequestError,
    MaxSessionsError,
    NotFoundError,
    StateNotSavedError,
    StepError,
)
from layerscale_core.sessions import FlashQuery, NewSession, Session, SessionView
from layerscale_core.sessions.state_directory import REJECTED, SUFFIX
from tests.support.session_process import PAGE_SIZE, NoteStream, SessionProcess
from tests.support.tiny_gguf import write_tiny_llama

QUESTION = "And now?"


def words(first: int, last: int) -> list[str]:
    return [f"note {number}" for number in range(first, last)]


def look(session: Session) -> dict[str, Any]:
    """All that can be seen of a session, but for when it was used."""
    view = session.view
    assert isinstance(view, SessionView)
    return {
        "view": dataclasses.replace(view, last_used_at=0),
        "tokens": list(session.context.tokens),
        "entries": session.entries(),
        "counts": session.ring.counts,
        "flash": session.flash.queries,
    }


def fill(process: SessionProcess) -> Session:
    """A session with all that one can have: a prefix, a window that has slid, text between entries, a tail, a query."""
    session = process.create("Once upon a time there were notes.", window_size=6)
    process.result(session.mark_prefix())
    process.result(session.append(process.tokenizer.encode(" They are these:", add_special=False)))
    process.result(session.register_flash("How many?", 4, tuple(process.tokenizer.encode("How many?"))))
    for first in range(0, 12, 3):
        process.push(session, *words(first, first + 3))
    process.result(session.append(process.tokenizer.encode("(so it was said)", add_special=False)))
    process.push(session, *words(12, 15))
    process.ask(session, "What was that?")
    process.run()
    return session


def test_a_restart_changes_nothing(tiny_model_path: Path, tmp_path: Path) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        session = fill(process)
        assert session.context.gap > 0
        assert session.fresh_answer("How many?") is not None
        process.stop()
        before, num_evaluations = look(session), session.num_evaluations
    with SessionProcess(tiny_model_path, tmp_path) as process:
        restored = process.sessions.get(session.session_id)
        assert look(restored) == before
        assert restored.num_evaluations == num_evaluations
        assert restored.view.num_pending == 0
        assert restored.fresh_answer("How many?") is not None
        process.run()
        assert not process.executor.logits, "something was computed again"


def test_what_follows_is_the_same_bit_for_bit(tiny_model_path: Path, tmp_path: Path) -> None:
    """A session that was saved goes on, and so does the one that is restored: the same answers from the same logits."""
    with SessionProcess(tiny_model_path, tmp_path) as process:
        session = fill(process)
        process.save(session)
        expected = [go_on(process, session, number) for number in range(4)]
    with SessionProcess(tiny_model_path, tmp_path) as process:
        restored = process.sessions.get(session.session_id)
        for number, (text, logits) in enumerate(expected):
            again, again_logits = go_on(process, restored, number)
            assert again == text
            np.testing.assert_array_equal(again_logits, logits)


def go_on(process: SessionProcess, session: Session, number: int) -> tuple[str, np.ndarray[Any, Any]]:
    """Data, then a question."""
    if number:
        process.push(session, *words(100 * number, 100 * number + 2))
    return process.ask(session, QUESTION)


def test_entries_that_wait_at_the_stop_are_computed_after_the_start(tiny_model_path: Path, tmp_path: Path) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        session = process.create("Notes:")
        process.push(session, "first")
        waiting = ["x" * 80, *words(0, 9)]
        process.sessions.push(session, [{"text": text} for text in waiting])
        assert process.sessions.prepare()
        process.engine.step()
        assert session.ring.counts.num_in_flight == 1, "a batch is half computed when the engine stops"
        process.stop()
    with SessionProcess(tiny_model_path, tmp_path) as process:
        restored = process.sessions.get(session.session_id)
        assert restored.ring.counts.total_enqueued == 11
        assert restored.ring.counts.queue_size == 10
        process.run()
        counts = restored.ring.counts
        assert (counts.items_processed, counts.total_enqueued, counts.total_dropped) == (11, 11, 0)
        assert [entry["text"] for entry in restored.entries()] == ["first", *waiting]


def test_pending_text_is_computed_after_the_start(tiny_model_path: Path, tmp_path: Path) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        expected = process.ask(process.create("Once upon a time there was a long beginning."), QUESTION)
        future = process.sessions.create(new_session(process, "Once upon a time there was a long beginning."))
        process.engine.step()
        process.stop()
        session_id = future.result().session_id
    with SessionProcess(tiny_model_path, tmp_path) as process:
        restored = process.sessions.get(session_id)
        text, logits = process.ask(restored, QUESTION)
        assert text == expected[0]
        np.testing.assert_array_equal(logits, expected[1])


def new_session(process: SessionProcess, prompt: str) -> NewSession:
    return NewSession("note", tuple(process.tokenizer.encode(prompt)))


def test_other_pages_are_computed_again_from_the_tokens(
    tiny_model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        session = fill(process)
        process.stop()
        before = look(session)
    with SessionProcess(tiny_model_path, tmp_path, page_size=2 * PAGE_SIZE) as process:
        assert f"its {before['view'].pos_next - session.context.gap} tokens are computed again" in caplog.text
        restored = process.sessions.get(session.session_id)
        assert restored.view.num_pending == session.context.durable_end
        assert restored.context.gap == 0
        process.push(restored, "one more", "and another")
        assert restored.view.num_pending == 0
        assert restored.data_version == session.data_version + 1
        text, logits = process.ask(restored, QUESTION)
        # A session whose tokens were all computed here, never saved, says the same.
        fresh = process.create()
        tokens = restored.context.tokens[: restored.context.durable_end]
        process.result(fresh.append(tokens[1:] if tokens[0] == process.tokenizer.bos_id else tokens))
        assert fresh.context.tokens == tokens
        fresh_text, fresh_logits = process.ask(fresh, QUESTION)
        assert text == fresh_text
        np.testing.assert_allclose(logits, fresh_logits, atol=2e-2)


def test_a_question_during_the_recomputation_is_answered(tiny_model_path: Path, tmp_path: Path) -> None:
    """It waits for the data's first page to begin; what is left is computed together with it."""
    with SessionProcess(tiny_model_path, tmp_path) as process:
        session = fill(process)
        process.stop()
    with SessionProcess(tiny_model_path, tmp_path, page_size=2 * PAGE_SIZE) as process:
        restored = process.sessions.get(session.session_id)
        process.executor.logits.clear()
        first = process.ask_at_once(restored, QUESTION)
        process.run()
        assert process.ask(restored, QUESTION)[0] == first


def test_a_recomputation_that_fails_fails_the_question_and_is_tried_again_for_the_next(
    tiny_model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        session = fill(process)
        process.stop()
    with SessionProcess(tiny_model_path, tmp_path, page_size=2 * PAGE_SIZE) as process:
        restored = process.sessions.get(session.session_id)
        with monkeypatch.context() as patch:

            def fail(_batch: object) -> None:
                raise RuntimeError("the device is gone")

            patch.setattr(process.executor, "step", fail)
            assert isinstance(process.ask_in_vain(restored, QUESTION), StepError)
        process.pool.check_integrity()
        first = process.ask_at_once(restored, QUESTION)
        assert process.ask(restored, QUESTION)[0] == first


def test_a_fork_goes_on_by_itself(tiny_model_path: Path, tmp_path: Path) -> None:
    with SessionProcess(tiny_model_path, None) as process:
        session = fill(process)
        before = look(session)
        fork = process.result(process.sessions.fork(session.session_id))
        assert fork.session_id != session.session_id
        assert look(fork)["tokens"] == before["tokens"]
        assert look(fork)["flash"] == before["flash"]
        assert look(fork)["counts"] == before["counts"]
        process.push(fork, "only", "there")
        assert look(session) == before
        own, fork_own = go_on(process, session, 5), go_on(process, fork, 5)
        assert own[0] != fork_own[0] or not np.array_equal(own[1], fork_own[1])
        process.result(process.sessions.delete(session.session_id))
        assert process.ask(fork, QUESTION)[0] == fork_own[0]


def test_a_fork_says_what_its_source_says(tiny_model_path: Path) -> None:
    with SessionProcess(tiny_model_path, None) as process:
        session = fill(process)
        fork = process.result(process.sessions.fork(session.session_id))
        for number in range(3):
            text, logits = go_on(process, session, number)
            fork_text, fork_logits = go_on(process, fork, number)
            assert fork_text == text
            np.testing.assert_array_equal(fork_logits, logits)


def test_a_fork_needs_a_place(tiny_model_path: Path) -> None:
    with SessionProcess(tiny_model_path, None, max_sessions=1) as process:
        session = process.create("Notes:")
        with pytest.raises(MaxSessionsError):
            process.result(process.sessions.fork(session.session_id))
        with pytest.raises(NotFoundError):
            process.sessions.fork("sess_000000000000")


def test_a_deleted_session_does_not_come_back(tiny_model_path: Path, tmp_path: Path) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        kept, deleted, only_saved = (process.create(f"Number {number}") for number in range(3))
        for session in (kept, deleted, only_saved):
            process.save(session)
        process.delete(deleted)
        with pytest.raises(NotFoundError):
            process.delete(deleted)
        process.result(process.sessions.delete(only_saved.session_id))
        process.delete(only_saved)
    with SessionProcess(tiny_model_path, tmp_path) as process:
        assert [session.session_id for session in process.sessions.all()] == [kept.session_id]


def test_a_session_deleted_while_it_is_saved_leaves_no_file(tiny_model_path: Path, tmp_path: Path) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        session = process.create("Notes:")
        capture = process.result(process.saved.capture(session))
        process.delete(session)
        with pytest.raises(NotFoundError):
            process.saved.write(session, capture)
        assert not list(tmp_path.glob(f"*{SUFFIX}"))


def test_restores_one_session_when_asked(tiny_model_path: Path, tmp_path: Path) -> None:
    with SessionProcess(tiny_model_path, tmp_path, max_sessions=2) as process:
        first, second = process.create("First"), process.create("Second")
        process.stop()
    with SessionProcess(tiny_model_path, tmp_path, max_sessions=1) as process:
        (opened,) = process.sessions.all()
        other = second if opened.session_id == first.session_id else first
        with pytest.raises(ConflictError):
            process.restore(opened.session_id)
        with pytest.raises(MaxSessionsError):
            process.restore(other.session_id)
        process.result(process.sessions.delete(opened.session_id))
        assert process.restore(other.session_id).context.tokens == other.context.tokens
        with pytest.raises(NotFoundError):
            process.restore("sess_000000000000")
        with pytest.raises(NotFoundError):
            process.restore("../etc/passwd")


def test_a_file_that_is_refused_harms_no_other(
    tiny_model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        good, damaged = process.create("Good"), process.create("Damaged")
        process.stop()
    path = tmp_path / f"{damaged.session_id}{SUFFIX}"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (tmp_path / f"foreign{SUFFIX}").write_bytes(b"not ours")
    with SessionProcess(tiny_model_path, tmp_path) as process:
        assert [session.session_id for session in process.sessions.all()] == [good.session_id]
    assert f"session {damaged.session_id} is not restored: its pages are damaged" in caplog.text
    assert "session foreign is not restored: its name is no session's" in caplog.text
    assert (tmp_path / REJECTED / path.name).read_bytes() == content
    assert (tmp_path / REJECTED / f"foreign{SUFFIX}").read_bytes() == b"not ours"


def test_another_model_refuses_and_keeps_the_file(
    tiny_model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SessionProcess(tiny_model_path, tmp_path / "state") as process:
        session = process.create("Notes:")
        process.stop()
    other_model = write_tiny_llama(tmp_path / "other.gguf", seed=1)
    with SessionProcess(other_model, tmp_path / "state") as process:
        assert process.sessions.all() == []
    assert f"session {session.session_id} is not restored: it was saved with another model" in caplog.text
    assert (tmp_path / "state" / REJECTED / f"{session.session_id}{SUFFIX}").exists()


def test_what_does_not_fit_today_stays_for_another_day(
    tiny_model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        session = process.create("A long beginning " * 8)
        before = look(session)
        process.stop()
    with SessionProcess(tiny_model_path, tmp_path, context_len=32) as process:
        assert process.sessions.all() == []
        assert "this server has 32; its file stays" in caplog.text
    with SessionProcess(tiny_model_path, tmp_path, stream_types=()) as process:
        assert process.sessions.all() == []
        assert "this server has no stream type 'note'; its file stays" in caplog.text
    with SessionProcess(tiny_model_path, tmp_path) as process:
        assert look(process.sessions.get(session.session_id)) == before


def test_a_shorter_context_takes_what_fits(tiny_model_path: Path, tmp_path: Path) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        session = process.create("Short")
        process.stop()
    with SessionProcess(tiny_model_path, tmp_path, context_len=64) as process:
        restored = process.sessions.get(session.session_id)
        assert restored.context.context_len == 64
        assert restored.context.tokens == session.context.tokens


def test_entries_that_no_stream_type_made_are_refused(tiny_model_path: Path, tmp_path: Path) -> None:
    class OtherNotes(NoteStream):
        def validate(self, entry: Any) -> Any:
            return {"number": entry["number"]}

    with SessionProcess(tiny_model_path, tmp_path) as process:
        session = process.create("Notes:")
        process.push(session, "first")
        process.stop()
    with SessionProcess(tiny_model_path, tmp_path, stream_types=(OtherNotes(),)) as process:
        assert process.sessions.all() == []
    assert (tmp_path / REJECTED / f"{session.session_id}{SUFFIX}").exists()


def test_a_save_that_fails_is_told_and_harms_no_other(
    tiny_model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        first, second = process.create("First"), process.create("Second")
        (tmp_path / f"{first.session_id}.partial").mkdir()
        with pytest.raises(StateNotSavedError):
            process.save(first)
        caplog.set_level(logging.INFO)
        process.stop()
        (tmp_path / f"{first.session_id}.partial").rmdir()
    assert f"session {first.session_id}: the session cannot be saved: Is a directory" in caplog.text
    assert f"session {second.session_id} is saved" in caplog.text
    with SessionProcess(tiny_model_path, tmp_path) as process:
        assert [session.session_id for session in process.sessions.all()] == [second.session_id]


def test_a_device_that_fails_at_the_stop_or_the_start_harms_no_other(
    tiny_model_path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SessionProcess(tiny_model_path, tmp_path) as process:
        first, second = process.create("First"), process.create("Second")
        for session in (first, second):
            process.save(session)
        read_pages = process.executor.read_pages

        def read(page_ids: NDArray[np.int32]) -> NDArray[np.uint8]:
            if page_ids[0] == first.context.table.pages[0].page_id:
                raise RuntimeError("the device is gone")
            return read_pages(page_ids)

        monkeypatch.setattr(process.executor, "read_pages", read)
        process.stop()
    assert f"session {first.session_id} is not saved; what was saved before is kept" in caplog.text
    process = SessionProcess(tiny_model_path, tmp_path)
    num_calls = iter(range(9))

    def write(page_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> None:
        assert next(num_calls) > 0, "the device is gone"

    monkeypatch.setattr(process.executor, "write_pages", write)
    with process:
        assert len(process.sessions.all()) == 1
    assert "is not restored, and its file stays" in caplog.text
    with SessionProcess(tiny_model_path, tmp_path) as process:
        assert {session.session_id for session in process.sessions.all()} == {first.session_id, second.session_id}


PIECES = st.sampled_from(["a", "some words", "a rather long text that takes more than a page of tokens"])
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), PIECES),
        st.tuples(st.just("push"), PIECES),
        st.tuples(st.just("ask"), PIECES),
        st.tuples(st.just("flash"), PIECES),
        st.just(("mark", "")),
        st.just(("restart", "")),
    ),
    max_size=14,
)


@given(st.sampled_from(["", "Once"]), OPERATIONS)
@settings(max_examples=15, deadline=None)
def test_whatever_a_session_went_through_it_can_be_restored(
    tiny_model_path: Path, tmp_path_factory: pytest.TempPathFactory, prompt: str, operations: list[tuple[str, str]]
) -> None:
    """A session that is restarted now and then says the same as one that is not."""
    state = tmp_path_factory.mktemp("state")
    with SessionProcess(tiny_model_path, None) as other:
        plain = other.create(prompt, window_size=3)
        process = SessionProcess(tiny_model_path, state).__enter__()
        session = process.create(prompt, window_size=3)
        for operation, text in [*operations, ("restart", ""), ("ask", "a")]:
            if operation == "restart":
                process.stop()
                process.__exit__()
                process = SessionProcess(tiny_model_path, state).__enter__()
                session = process.sessions.get(session.session_id)
                continue
            assert outcome(process, session, operation, text) == outcome(other, plain, operation, text)
            assert session.context.tokens == plain.context.tokens
            assert session.flash.queries == without_times(plain.flash.queries, session.flash.queries)
        process.__exit__()


def outcome(process: SessionProcess, session: Session, operation: str, text: str) -> object:
    """What an operation came to, an error included."""
    token_ids = tuple(process.tokenizer.encode(text, add_special=False))
    try:
        match operation:
            case "append":
                process.result(session.append(token_ids))
            case "push":
                process.push(session, text, text)
            case "ask":
                answer, logits = process.ask(session, text, 3)
                return answer, logits.tobytes()
            case "flash":
                process.result(session.register_flash(text, 2, token_ids))
            case "mark":
                process.result(session.mark_prefix())
    except (InvalidRequestError, ConflictError) as error:
        return str(error)
    return None


def without_times(queries: tuple[FlashQuery, ...], like: tuple[FlashQuery, ...]) -> tuple[FlashQuery, ...]:
    """The queries, as if they had been answered at the same seconds as the others."""
    return tuple(
        query
        if query.answer is None or other.answer is None
        else dataclasses.replace(
            query, answer=dataclasses.replace(query.answer, evaluated_at=other.answer.evaluated_at)
        )
        for query, other in zip(queries, like, strict=True)
    )
