"""Sessions adopted by the names of conversations: found again, given up when idle, never those of others."""

from __future__ import annotations

from layerscale_core.sessions import Adoption, Session
from layerscale_core.sessions.adoption import IDLE_S
from tests.support.session_harness import SessionHarness, make_session_harness


class Agents:
    """Adopts on a harness, with sessions that can be made to look idle."""

    def __init__(self, num_sessions: int = 2) -> None:
        self.harness: SessionHarness = make_session_harness(num_sessions=num_sessions)
        self.adoption = Adoption(self.harness.sessions, self.harness.engine, "note")

    def adopt(self, label: str) -> Session | None:
        return self.harness.now(self.adoption.adopt(label))

    def age(self, session: Session | None, seconds: int = IDLE_S) -> None:
        assert session is not None
        session.actor.last_used_at -= seconds


def test_a_label_finds_its_session_again() -> None:
    agents = Agents()
    first = agents.adopt("a")
    assert first is not None
    assert agents.adopt("a") is first
    assert agents.adopt("b") is not first
    agents.harness.check_at_rest()


def test_the_longest_idle_is_given_up_for_another() -> None:
    agents = Agents()
    first, second = agents.adopt("a"), agents.adopt("b")
    agents.age(first, IDLE_S)
    agents.age(second, 2 * IDLE_S)
    third = agents.adopt("c")
    assert agents.harness.sessions.all() == [first, third] or agents.harness.sessions.all() == [third, first]
    agents.harness.check_at_rest()


def test_one_that_was_just_used_is_kept() -> None:
    agents = Agents(num_sessions=1)
    first = agents.adopt("a")
    agents.age(first, IDLE_S - 1)
    assert agents.adopt("b") is None
    assert agents.harness.sessions.all() == [first]
    agents.harness.check_at_rest()


def test_one_that_is_in_use_is_kept() -> None:
    agents = Agents(num_sessions=1)
    first = agents.adopt("a")
    assert first is not None
    agents.harness.ask(first, b"a question", 50)
    agents.harness.step()
    agents.age(first)
    assert agents.adopt("b") is None
    agents.harness.run()
    agents.harness.check_at_rest()


def test_sessions_that_clients_made_are_left_alone() -> None:
    agents = Agents(num_sessions=1)
    made = agents.harness.create(b"mine")
    agents.age(made)
    assert agents.adopt("a") is None
    assert agents.harness.sessions.all() == [made]
    agents.harness.check_at_rest()


def test_use_counts_from_the_last_adoption() -> None:
    agents = Agents(num_sessions=1)
    first = agents.adopt("a")
    agents.age(first)
    agents.adopt("a")
    assert agents.adopt("b") is None
    agents.harness.check_at_rest()
