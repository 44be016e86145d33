"""What one rendering may cost: its output, its time, and the size of every value on the way."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

MAX_CHARS = 2 << 20
"""Characters of one value, those of its items included. An item that is contained twice counts twice, as it would
when the value is compared or printed."""
MAX_ITEMS = 100_000
"""Items of one value, those of its items included."""
MAX_INT_BITS = 1024
MAX_WORK_BYTES = 128 << 20
"""Memory of all values made during one rendering, also of those that are long forgotten."""

_ITEM_BYTES = 64  # a slot, and a small object of its own

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class TemplateLimits:
    """What one rendering may cost; the other limits are those of a step of it, and follow from its text.

    Attributes:
        max_chars: of the prompt.
        max_render_s: processor time of the rendering thread: on a machine that is busy with others, an innocent
            template still renders.
    """

    max_chars: int = 1 << 20
    max_render_s: float = 0.25


class TemplateLimitError(Exception):
    """A template exceeds a limit; the text says which."""


class Budget:
    """The means of one rendering, counted down. Its clock, that of the thread which makes it, starts at once."""

    def __init__(self, limits: TemplateLimits) -> None:
        self._max_render_s = limits.max_render_s
        self._bytes_left = MAX_WORK_BYTES
        self._has_second_half = True
        self._half_ends = self._next_look = 0.0
        self._begin_half()

    def tick(self) -> None:
        """Pass a point at which a rendering that takes too long ends."""
        # The thread's own clock is a system call: looked at only once it can have run out.
        now = time.monotonic()
        if now > self._next_look:
            left = self._half_ends - time.thread_time()
            if left > 0:
                self._next_look = now + left
            elif self._has_second_half:
                self._has_second_half = False
                self._begin_half()
            else:
                raise TemplateLimitError(f"rendering takes longer than {self._max_render_s * 1000:.0f} ms")

    def _begin_half(self) -> None:
        """The time comes in two halves: a clock that jumps once, as that of a suspended machine, ends nothing."""
        self._half_ends = time.thread_time() + self._max_render_s / 2
        self._next_look = time.monotonic() + self._max_render_s / 2

    def admit(self, value: Value) -> Value:
        """Pass a new value on, counted, unless it is too large."""
        self.tick()
        if isinstance(value, str):
            check_chars(len(value))
            self._spend(sys.getsizeof(value))
        elif isinstance(value, int):
            if value.bit_length() > MAX_INT_BITS:
                raise TemplateLimitError(f"a number has more than {MAX_INT_BITS} bits")
        elif isinstance(value, (list, tuple, dict)):
            measure(value)
            self._spend(_ITEM_BYTES * len(value))
        return value

    def _spend(self, num_bytes: int) -> None:
        self._bytes_left -= num_bytes
        if self._bytes_left < 0:
            raise TemplateLimitError(f"rendering makes more than {MAX_WORK_BYTES >> 20} MiB of values")


def check_chars(num_chars: int) -> None:
    """Refuse a text before it is made."""
    if num_chars > MAX_CHARS:
        raise TemplateLimitError(f"a value has more than {MAX_CHARS} characters")


def check_items(num_items: int) -> None:
    """Refuse a list before it is made."""
    if num_items > MAX_ITEMS:
        raise TemplateLimitError(f"a value has more than {MAX_ITEMS} items")


def measure(value: object) -> int:
    """The characters of a value, its items' included; refuses one that is too large."""
    chars = items = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        inner: Iterable[object] = ()
        if isinstance(item, str):
            chars += len(item)
            check_chars(chars)
        elif isinstance(item, dict):
            items += 2 * len(item)
            inner = (part for pair in item.items() for part in pair)
        elif isinstance(item, (list, tuple)):
            items += len(item)
            inner = item
        check_items(items)
        waiting.extend(inner)
    return chars
