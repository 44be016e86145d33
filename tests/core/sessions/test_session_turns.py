"""Turns: where their tokens go, and what a session holds afterwards, however they end."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from numpy.typing import NDArray

from layerscale_core.engine import Cancelled, Event, Failed, Finished, FinishReason, SamplingParams
from layerscale_core.errors import (
    ContextLengthError,
    InvalidRequestError,
    NotFoundError,
    ShuttingDownError,
    StepError,
)
from layerscale_core.sessions import ChatPrompt, NewSession, TextPrompt, Turn, TurnFinished
from tests.support.fake_executor import FakeExecutor, greedy_answer
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.session_harness import make_session_harness


def answer(context: bytes, num_tokens: int = 3) -> bytes:
    return bytes(greedy_answer(context, num_tokens))


def test_prompts_and_answers_build_a_transcript() -> None:
    harness = make_session_harness()
    session = harness.create(b"You are.")
    first = harness.ask(session, b" Who?")
    harness.run()
    assert first.text.encode() == answer(b"You are. Who?")
    transcript = b"You are. Who?" + answer(b"You are. Who?")
    second = harness.ask(session, b" Why?", 2)
    harness.run()
    assert second.text.encode() == answer(transcript + b" Why?", 2)
    assert harness.held(session) == transcript + b" Why?" + answer(transcript + b" Why?", 2)
    assert isinstance(second.end, TurnFinished)
    assert second.end.num_prefilled == 1 + 5, "the last token of the answer before was never computed"
    harness.check_at_rest()


def test_no_prompt_goes_on_from_the_end() -> None:
    harness = make_session_harness()
    session = harness.create(b"Once")
    harness.ask(session, None)
    harness.ask(session, None)
    harness.run()
    assert harness.held(session) == b"Once" + answer(b"Once", 6)
    harness.check_at_rest()


def test_no_prompt_on_an_empty_session_is_refused() -> None:
    harness = make_session_harness()
    sink = harness.ask(harness.create(), None)
    harness.run()
    assert isinstance(sink.end, Failed)
    assert isinstance(sink.end.error, InvalidRequestError)
    harness.check_at_rest()


def test_a_question_over_data_leaves_with_the_next_one() -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n")
    harness.push(session, "aa")
    harness.run()
    for question in (b"one?", b"two?"):
        sink = harness.ask(session, question)
        harness.run()
        assert sink.text.encode() == answer(b"P\naa\n" + question)
        assert harness.held(session) == b"P\naa\n" + question + answer(b"P\naa\n" + question)
    harness.check_at_rest()


@pytest.mark.parametrize("prompt", [b" Why?", None])
def test_clear_after_leaves_the_session_as_it_was(prompt: bytes | None) -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n")
    harness.push(session, "aa")
    harness.run()
    harness.ask(session, b"one?")
    harness.run()
    before = harness.held(session)
    sink = harness.ask(session, prompt, clears_after=True)
    harness.run()
    assert isinstance(sink.end, Finished)
    assert harness.held(session) == before
    again = harness.ask(session, None, 2)
    harness.run()
    assert again.text.encode() == answer(before, 2)
    harness.check_at_rest()


@pytest.mark.parametrize("num_steps", range(6))
def test_a_cancelled_turn_leaves_no_trace(num_steps: int) -> None:
    harness = make_session_harness(max_tokens_per_step=4)
    session = harness.create(b"P\n")
    harness.push(session, "aa")
    harness.run()
    harness.ask(session, b"one?")
    harness.run()
    before = harness.held(session)
    sink = harness.ask(session, b"a long question?", 5)
    for _ in range(num_steps):
        harness.step()
    session.cancel("turn 1")
    harness.run()
    assert isinstance(sink.end, Cancelled)
    assert harness.held(session) == before
    again = harness.ask(session, None)
    harness.run()
    assert again.text.encode() == answer(before)
    harness.check_at_rest()


def test_a_waiting_turn_can_be_cancelled() -> None:
    harness = make_session_harness()
    session = harness.create(b"P")
    first, second = harness.ask(session, b"one"), harness.ask(session, b"two")
    session.cancel("turn 1")
    session.cancel("nobody's")
    harness.run()
    assert isinstance(first.end, Finished)
    assert isinstance(second.end, Cancelled)
    assert second.events == [second.end]
    harness.check_at_rest()


def test_a_failed_turn_takes_back_what_its_step_may_have_spoiled() -> None:
    harness = make_session_harness()
    session = harness.create(b"P")
    harness.now(session.append(b"ending tokens"))
    harness.fail_steps(1)
    sink = harness.ask(session, b"one")
    harness.run()
    assert isinstance(sink.end, Failed)
    assert harness.held(session) == b"Pending tokens"
    again = harness.ask(session, b" two")
    harness.run()
    assert again.text.encode() == answer(b"Pending tokens two")
    harness.check_at_rest()


def test_a_turn_whose_page_could_not_be_copied_computes_it_again() -> None:
    harness = make_session_harness(context_len=128)
    session = harness.create(b"P\n", flash=[b"up?"])
    harness.push(session, "abcde")  # ends in the middle of a page
    while not session.actor.evaluations.num_running:
        harness.sessions.prepare()
        harness.step()
    harness.ask(session, b"one")  # shares that page with the evaluation
    executor = harness.executor
    assert isinstance(executor, FakeExecutor)
    copy_pages, num_failures = executor.copy_pages, 0

    def spoil(source_ids: NDArray[np.int32], target_ids: NDArray[np.int32]) -> None:
        nonlocal num_failures
        num_failures += 1
        if num_failures == 1:
            raise StepError("injected")
        copy_pages(source_ids, target_ids)

    executor.copy_pages = spoil  # type: ignore[method-assign]
    harness.run()
    assert num_failures >= 1
    assert isinstance(harness.sinks["turn 0"].end, Failed)
    again = harness.ask(session, b"two")
    harness.run()
    assert again.text.encode() == answer(b"P\nabcde\ntwo")
    harness.check_at_rest()


def test_a_sink_that_fails_stops_nobody_else() -> None:
    harness = make_session_harness()
    session = harness.create(b"P")

    def broken(event: Event) -> None:
        raise RuntimeError("the client is broken")

    session.submit(Turn("broken", TextPrompt(tuple(b"one")), SamplingParams(3), broken))
    after = harness.ask(session, b"two")
    harness.run()
    assert after.text.encode() == answer(b"Ptwo")
    harness.check_at_rest()


def test_an_answer_ends_where_the_sessions_context_does() -> None:
    harness = make_session_harness(context_len=32)
    session = harness.create(b"P")
    sink = harness.ask(session, b"one", 1000)
    harness.run()
    assert sink.finished.reason is FinishReason.LENGTH
    assert len(harness.held(session)) == 32
    refused = harness.ask(session, None)
    harness.run()
    assert isinstance(refused.end, Failed)
    assert isinstance(refused.end.error, ContextLengthError)
    harness.check_at_rest()


def test_a_shorter_session_than_the_server_allows_keeps_to_its_own_length() -> None:
    harness = make_session_harness(context_len=64)
    session = harness.now(harness.sessions.create(NewSession("note", tuple(b"P"), context_len=20)))
    sink = harness.ask(session, b"one", 1000)
    harness.run()
    assert sink.finished.usage.completion_tokens == 16
    assert len(harness.held(session)) == 20
    harness.check_at_rest()


def test_a_conversation_computes_only_what_is_new() -> None:
    harness = make_session_harness()
    session = harness.create()
    first = harness.ask(session, ChatPrompt((ByteTokenizer.BOS_ID, *b"U: hi A: "), ByteTokenizer.BOS_ID))
    harness.run()
    said = first.text.encode()
    harness.ask(session, ChatPrompt((ByteTokenizer.BOS_ID, *b"U: hi A: ", *said, *b" U: ho A:"), ByteTokenizer.BOS_ID))
    harness.run()
    end = harness.sinks["turn 1"].finished
    assert isinstance(end, TurnFinished)
    assert end.num_prefilled == 1 + 9
    assert end.usage.prompt_tokens == 1 + 9 + 3 + 9
    assert end.usage.cached_tokens == 1 + 9 + 3
    harness.check_at_rest()


def test_a_conversation_equal_to_what_is_held_computes_its_last_token_again() -> None:
    harness = make_session_harness()
    session = harness.create(b"U: hi A:")
    sinks = [harness.ask(session, ChatPrompt(tuple(b"U: hi A:")), clears_after=True) for _ in range(2)]
    harness.run()
    assert {sink.text.encode() for sink in sinks} == {answer(b"U: hi A:")}
    assert harness.held(session) == b"U: hi A:"
    harness.check_at_rest()


def test_a_conversation_goes_behind_data_without_a_second_bos() -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n")
    harness.push(session, "aa")
    harness.run()
    chat = ChatPrompt((ByteTokenizer.BOS_ID, *b"U: hi A:"), ByteTokenizer.BOS_ID)
    sink = harness.ask(session, chat)
    harness.run()
    assert sink.text.encode() == answer(b"P\naa\nU: hi A:")
    harness.check_at_rest()


def test_turns_of_one_session_follow_each_other_and_those_of_two_share_steps() -> None:
    harness = make_session_harness()
    one, other = harness.create(b"A"), harness.create(b"B")
    first, second, third = harness.ask(one, b"?"), harness.ask(one, b"!"), harness.ask(other, b"?")
    while not third.has_ended:
        assert not second.events or first.has_ended
        harness.step()
    assert first.has_ended, "the other session was served in the same steps"
    harness.run()
    assert harness.held(one) == b"A?" + answer(b"A?") + b"!" + second.text.encode()
    harness.check_at_rest()


@pytest.mark.parametrize("num_steps", range(4))
def test_deleting_a_session_ends_its_turns(num_steps: int) -> None:
    harness = make_session_harness()
    session = harness.create(b"P")
    sinks = [harness.ask(session, b"one", 9), harness.ask(session, b"two")]
    for _ in range(num_steps):
        harness.step()
    harness.now(harness.sessions.delete(session.session_id))
    late = harness.ask(session, b"three")
    harness.run()
    for sink in [*sinks, late]:
        assert isinstance(sink.end, Failed)
        assert isinstance(sink.end.error, NotFoundError)
    harness.check_at_rest()


def test_a_stop_ends_every_turn_that_was_accepted() -> None:
    harness = make_session_harness()
    session = harness.create(b"P")
    sinks = [harness.ask(session, b"one", 50), harness.ask(session, b"two"), harness.ask(session, b"three")]
    harness.step()
    harness.engine.stop()
    for sink in sinks:
        assert isinstance(sink.end, Failed)
        assert isinstance(sink.end.error, ShuttingDownError)
    with pytest.raises(ShuttingDownError):
        harness.ask(session, b"four")


def test_a_drain_finishes_the_questions_that_wait_behind_another() -> None:
    harness = make_session_harness()
    session = harness.create(b"P\n")
    turns = [harness.ask(session, prompt, 4) for prompt in (b"one", b"two", b"three")]
    harness.engine.start()
    assert harness.engine.drain(timeout_s=30)
    assert [len(turn.token_ids) for turn in turns] == [4, 4, 4]
    assert all(isinstance(turn.end, Finished) for turn in turns)


def test_where_a_conversation_parts_from_what_is_held_is_said(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "layerscale_core.sessions.turns")
    harness = make_session_harness()
    session = harness.create()
    harness.ask(session, ChatPrompt(tuple(b"Who are you?")))
    harness.run()
    assert caplog.messages == []
    harness.ask(session, ChatPrompt(tuple(b"Who am I?")))
    harness.run()
    assert caplog.messages == ["request turn 1: the conversation parts from what its session holds at token 5 of 15"]
    harness.check_at_rest()
