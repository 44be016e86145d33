"""Sessions with drafts: what they hold and answer is what it would be without, whatever came true."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.engine.request import Event
from tests.support.fake_executor import greedy_answer
from tests.support.session_harness import SessionHarness, make_session_harness, note

ALPHABET = tuple(b"ab")

acts = st.one_of(
    st.tuples(st.just("push"), st.text("ab", min_size=1, max_size=9)),
    st.tuples(st.just("append"), st.text("ab", min_size=1, max_size=5)),
    st.tuples(st.just("ask"), st.text("ab?", max_size=6), st.integers(1, 40), st.booleans()),
    st.tuples(st.just("cancel"), st.integers(1, 9)),
)


def live(script: Sequence[tuple[object, ...]], *, looks_up_prompts: bool) -> tuple[list[list[Event]], list[int], int]:
    """Two sessions, the second at rest; returns what was answered, what the first holds, and the tokens accepted."""
    harness = make_session_harness(context_len=128, alphabet=ALPHABET, looks_up_prompts=looks_up_prompts)
    session, other = harness.create(b"ab", window_size=4, flash=[b"a?"]), harness.create(b"other")
    harness.run()
    told = []
    for act in script:
        match act:
            case "push", str(text):
                harness.sessions.push(session, [note(text)])
            case "append", str(text):
                session.append(text.encode())
            case "ask", str(prompt), int(max_tokens), bool(clears_after):
                told.append(harness.ask(session, prompt.encode() or None, max_tokens, clears_after=clears_after).events)
            case "cancel", int(num_steps):
                cancel_after(harness, num_steps)
        harness.run()
    answer = harness.ask(other, b"?", 9)
    harness.run()
    assert answer.token_ids == greedy_answer(b"other?", 9, ALPHABET)
    _, tokens = harness.now(session.describe())
    num_accepted = harness.engine.stats().num_accepted_tokens
    harness.check_at_rest()
    return told, tokens, num_accepted


def cancel_after(harness: SessionHarness, num_steps: int) -> None:
    """A question that is cancelled on its way: nothing of it may stay."""
    session = harness.sessions.all()[0]
    harness.ask(session, b"abba", 40, clears_after=True)
    for _ in range(num_steps):
        harness.step()
    session.cancel(list(harness.sinks)[-1])


@given(st.lists(acts, max_size=9))
@settings(max_examples=60, deadline=None)
def test_sessions_answer_and_hold_the_same(script: list[tuple[object, ...]]) -> None:
    *within, _ = live(script, looks_up_prompts=True)
    *without, num_accepted = live(script, looks_up_prompts=False)
    assert within == without
    assert num_accepted == 0


def test_an_answer_copies_from_what_its_session_held_before() -> None:
    """Its own tokens are too few to go by; what it repeats stood in an earlier turn."""
    harness = make_session_harness(context_len=256, num_sessions=1, alphabet=ALPHABET)
    session = harness.create(bytes(greedy_answer(b"x", 100, ALPHABET)))
    harness.run()
    num_before = harness.num_steps
    sink = harness.ask(session, b"ab", 40)
    harness.run()
    assert len(sink.token_ids) == 40
    assert harness.num_steps - num_before < 25
    assert harness.engine.stats().num_accepted_tokens > 15
    harness.check_at_rest()
