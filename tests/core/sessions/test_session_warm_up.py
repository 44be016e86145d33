"""Warm-ups: the next turn of a conversation is computed ahead, nothing is held of it, and whatever comes goes first."""

from __future__ import annotations

import pytest

from layerscale_core.engine import Failed
from layerscale_core.errors import ContextLengthError
from layerscale_core.sessions import ChatPrompt, NoPrompt, Prompt, TextPrompt, TurnFinished
from tests.support.fake_executor import greedy_answer
from tests.support.recording_sink import RecordingSink
from tests.support.session_harness import SessionHarness, make_session_harness

CONVERSATION = b"a conversation of some length"


def chat(text: bytes) -> ChatPrompt:
    return ChatPrompt(tuple(text))


def end_of(sink: RecordingSink) -> TurnFinished:
    assert isinstance(sink.end, TurnFinished)
    return sink.end


def test_a_warmed_turn_computes_its_last_token_only() -> None:
    harness = make_session_harness()
    session = harness.create()
    assert end_of(run(harness, harness.warm_up(session, CONVERSATION))).num_prefilled == len(CONVERSATION)
    assert harness.held(session) == b""
    sink = run(harness, harness.ask(session, chat(CONVERSATION)))
    assert sink.text.encode() == bytes(greedy_answer(CONVERSATION, 3))
    assert end_of(sink).num_prefilled == 1
    assert end_of(sink).usage.cached_tokens == len(CONVERSATION) - 1
    harness.check_at_rest()


def test_the_turn_may_go_on_from_what_is_warm() -> None:
    harness = make_session_harness()
    session = harness.create()
    run(harness, harness.warm_up(session, CONVERSATION))
    sink = run(harness, harness.ask(session, chat(CONVERSATION + b" and its end")))
    assert sink.text.encode() == bytes(greedy_answer(CONVERSATION + b" and its end", 3))
    assert end_of(sink).num_prefilled == len(b" and its end")
    harness.check_at_rest()


@pytest.mark.parametrize("num_steps", [1, 2, 4])
def test_a_warm_up_gives_way_and_keeps_what_it_has_computed(num_steps: int) -> None:
    harness = make_session_harness(max_tokens_per_step=4)
    session = harness.create()
    warm_up = harness.warm_up(session, CONVERSATION)
    for _ in range(num_steps):
        harness.step()
    sink = harness.ask(session, chat(CONVERSATION))
    harness.run()
    assert sink.text.encode() == bytes(greedy_answer(CONVERSATION, 3))
    num_warmed = end_of(warm_up).num_prefilled
    assert 0 < num_warmed <= 4 * num_steps
    assert end_of(sink).num_prefilled == len(CONVERSATION) - num_warmed
    harness.check_at_rest()


@pytest.mark.parametrize("prompt", [TextPrompt(tuple(b" Why?")), NoPrompt(), chat(b"Hi")])
def test_nothing_else_sees_what_is_warm(prompt: Prompt) -> None:
    harness, other = make_session_harness(), make_session_harness()
    warmed, plain = harness.create(b"Hi"), other.create(b"Hi")
    for each, session in ((harness, warmed), (other, plain)):
        run(each, each.ask(session, b" Who?"))
    run(harness, harness.warm_up(warmed, b"Hi Who are you"))
    assert harness.held(warmed) == other.held(plain)
    sink, expected = run(harness, harness.ask(warmed, prompt)), run(other, other.ask(plain, prompt))
    assert sink.text == expected.text
    assert harness.held(warmed) == other.held(plain)
    harness.check_at_rest()


def test_data_that_arrives_goes_first() -> None:
    harness = make_session_harness(max_tokens_per_step=4)
    session = harness.create(b"P\n")
    harness.run()
    warm_up = harness.warm_up(session, b"P\n" + CONVERSATION)
    harness.step()
    harness.push(session, "aa")
    harness.run()
    assert end_of(warm_up).num_prefilled < len(CONVERSATION)
    assert harness.held(session) == b"P\naa\n"
    harness.check_at_rest()


def test_a_conversation_that_does_not_fit_is_refused_and_leaves_what_is_held() -> None:
    harness = make_session_harness()
    session = harness.create(b"Hi")
    run(harness, harness.ask(session, b" Who?"))
    before = harness.held(session)
    sink = run(harness, harness.warm_up(session, b"x" * 100))
    assert isinstance(sink.end, Failed)
    assert isinstance(sink.end.error, ContextLengthError)
    assert harness.held(session) == before
    harness.check_at_rest()


def run(harness: SessionHarness, sink: RecordingSink) -> RecordingSink:
    harness.run()
    return sink
