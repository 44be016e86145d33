"""What the demo asks about the bars, and how it tells the model what the answers should look like.

A model of 135 million parameters follows no instructions, but it goes on as a text began. So the session's prompt shows
it, on older bars of the same stock, how bars are followed by answers. It then finds the last volume nearly always, the
last close often, and its next open is a forecast as good as the last price.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from market_data import Bar

NUM_EXAMPLES = 4
BARS_PER_EXAMPLE = 3
BARS_BETWEEN_EXAMPLES = 50
FIRST_LIVE_BAR = 780
"""Where the replay begins: September 2007, as the stock begins to climb to its height and then falls."""

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Question:
    """A question whose answer is a number that can be checked.

    Attributes:
        text: ends with a space, so that the answer's first token is a digit: confidence is about the first token.
        max_tokens: as many as the answer has, for this model a token a digit.
        truth: the right answer, from the last bar and the one after it.
    """

    text: str
    max_tokens: int
    truth: Callable[[Bar, Bar], float]


LAST_CLOSE = Question("Last: close ", 6, lambda last, _: last.close)
LAST_VOLUME = Question("Last volume = ", 8, lambda last, _: last.volume)
NEXT_OPEN = Question("Next: open ", 6, lambda _, following: following.open)

REGISTERED = (LAST_CLOSE, LAST_VOLUME, NEXT_OPEN)
"""The Flash Queries: answered again after every batch of bars."""

AD_HOC = Question("Next: close ", 6, lambda _, following: following.close)
"""What nobody has registered."""


def first_number(answer: str) -> str:
    """The number that an answer begins with; empty if it does not."""
    match = _NUMBER.match(answer.strip())
    return match[0] if match else ""


def session_prompt(bars: Sequence[Bar]) -> str:
    """Examples: bars from before the replay, each group followed by the questions with the right answers."""
    starts = range(FIRST_LIVE_BAR - NUM_EXAMPLES * BARS_BETWEEN_EXAMPLES, FIRST_LIVE_BAR, BARS_BETWEEN_EXAMPLES)
    return "".join(_example(bars[start : start + BARS_PER_EXAMPLE + 1]) for start in starts)


def _example(bars: Sequence[Bar]) -> str:
    *shown, following = bars
    lines = [
        f"open {bar.open:g} high {bar.high:g} low {bar.low:g} close {bar.close:g} volume {bar.volume:.0f}"
        for bar in shown
    ]
    lines += [f"{question.text}{question.truth(shown[-1], following):.10g}" for question in REGISTERED]
    return "\n".join(lines) + "\n\n"
