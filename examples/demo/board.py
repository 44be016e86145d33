"""What the demo has seen so far. Written by the replay and its listener, read by whoever shows it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from market_data import Bar
from questions import REGISTERED, Question, first_number

SAY_EVERY = 5
"""So often a bar and the answers about it are said."""


@dataclass(frozen=True)
class Comparison:
    """One question, asked in three ways after the same bars.

    Attributes:
        num_tokens: held by the session.
        asked_tokens, reread_tokens: computed before the first token of the answer.
        asked_s, reread_s, stored_s: from request to answer at the client.
    """

    num_bars: int
    num_tokens: int
    asked_tokens: int
    asked_s: float
    reread_tokens: int
    reread_s: float
    stored_s: float

    @property
    def times_longer(self) -> float:
        """How many times longer reading everything again takes than asking the session."""
        return self.reread_s / self.asked_s


@dataclass(frozen=True)
class Standing:
    """The newest answer to a registered question.

    Attributes:
        misses: how far each answer so far was from the truth, as a part of it.
    """

    answer: str = ""
    confidence: float = 0.0
    misses: tuple[float, ...] = ()


class Board:
    """Bars, answers and times.

    Args:
        say: receives a line now and then, for those who see no screen.

    Attributes:
        bars: pushed so far.
        is_comparing: the question is being asked.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.bars: list[Bar] = []
        self.standings = {question: Standing() for question in REGISTERED}
        self.comparisons: list[Comparison] = []
        self.is_comparing = False
        self._say = say
        self._lock = threading.Lock()
        self._following: Bar | None = None

    def add_bar(self, bar: Bar, following: Bar) -> None:
        """A bar is on its way. The one that follows it is known to the board alone, to check forecasts with."""
        with self._lock:
            self.bars.append(bar)
            self._following = following
        if len(self.bars) % SAY_EVERY == 0:
            self._say(f"bar {len(self.bars):4}  {bar.date}  close {bar.close:g}  volume {bar.volume:.0f}")

    def add_answer(self, question: Question, num_bars: int, answer: str, confidence: float) -> None:
        """A registered question has another answer, about the first bars."""
        number = first_number(answer)
        with self._lock:
            following = self.bars[num_bars] if num_bars < len(self.bars) else self._following
            assert following is not None
            truth = question.truth(self.bars[num_bars - 1], following)
        standing = self.standings[question]
        misses = (*standing.misses, abs(float(number or 0) / truth - 1))
        self.standings[question] = Standing(number or "–", confidence, misses)
        if num_bars % SAY_EVERY == 0:
            self._say(f"         {question.text.strip()} {number}  sure by {confidence:.1f}")

    def add_comparison(self, comparison: Comparison) -> None:
        """The question was asked in three ways."""
        self.comparisons.append(comparison)
        self._say(
            f"{comparison.num_bars} bars, {comparison.num_tokens} tokens: asked in the session"
            f" {milliseconds(comparison.asked_s)}, everything read again {milliseconds(comparison.reread_s)}"
            f" ({comparison.times_longer:.0f} times as long), registered {milliseconds(comparison.stored_s)}"
        )


def milliseconds(seconds: float) -> str:
    """A time as people compare it."""
    return f"{seconds * 1e3:,.1f} ms" if seconds < 0.01 else f"{seconds * 1e3:,.0f} ms"
