"""News reaches the engine thread whenever it comes, also between its looking and its going to sleep."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from layerscale_core.engine import Request, SamplingParams
from layerscale_core.engine.intake import Intake
from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.engine.waiting_queue import WaitingQueue
from layerscale_core.errors import ShuttingDownError
from tests.support.fake_tokenizer import ByteTokenizer


@pytest.fixture
def intake() -> Intake:
    return Intake(WaitingQueue(max_requests=10, max_prompt_tokens=100))


def make_sequence(request_id: str) -> LiveSequence:
    return LiveSequence(Request(request_id, (1,), SamplingParams(1)), lambda event: None, ByteTokenizer(), 8, 0.0)


def wakes(intake: Intake, within_s: float = 30.0) -> bool:
    sleeper = threading.Thread(target=intake.wait_for_news, daemon=True)
    sleeper.start()
    sleeper.join(within_s)
    return not sleeper.is_alive()


def accept(intake: Intake) -> None:
    intake.accept(make_sequence("new"))


def cancel(intake: Intake) -> None:
    intake.cancel("old")


@pytest.mark.parametrize("news", [accept, cancel, Intake.stop])
def test_news_that_came_before_sleep_is_not_slept_through(intake: Intake, news: Callable[[Intake], None]) -> None:
    intake.accept(make_sequence("old"))
    intake.take_posted()
    news(intake)
    assert wakes(intake)


def test_what_was_seen_is_no_news(intake: Intake) -> None:
    intake.accept(make_sequence("old"))
    intake.take_posted()
    assert not wakes(intake, within_s=0.02)
    intake.stop()  # lets the sleeper go


def test_a_stop_is_news_for_ever(intake: Intake) -> None:
    intake.stop()
    intake.take_posted()
    assert wakes(intake)
    assert intake.is_stopping


def test_a_cancelled_sequence_is_taken_once_and_only_while_it_lives(intake: Intake) -> None:
    first, second = make_sequence("a"), make_sequence("b")
    intake.accept(first)
    intake.accept(second)
    for request_id in ("a", "b", "a", "unknown"):
        intake.cancel(request_id)
    intake.forget(first)
    successor = make_sequence("a")
    intake.accept(successor)
    assert intake.take_cancelled() == [second]
    assert intake.take_cancelled() == []
    assert intake.live() == [second, successor]


def test_closing_refuses_the_new_and_keeps_the_old(intake: Intake) -> None:
    intake.accept(make_sequence("a"))
    intake.close()
    with pytest.raises(ShuttingDownError):
        intake.accept(make_sequence("b"))
    assert len(intake.live()) == 1
    assert not intake.wait_until_empty(0.0)
    intake.forget(intake.live()[0])
    assert intake.wait_until_empty(0.0)
    assert intake.num_waiting == (0, 0)
