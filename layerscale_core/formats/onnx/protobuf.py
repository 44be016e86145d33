"""Protocol buffers' wire format, read in place and without trusting it.

Nothing is copied or built before it is asked for, so that a message of gigabytes costs what is looked at.
Source: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from layerscale_core.errors import ModelFileError

MAX_FIELDS = 8_000_000
"""Fields that are read of one file: a graph of a thousand layers has fewer."""

MAX_DEPTH = 24
"""Messages within messages: the branches of a graph may hold graphs of their own."""

_MAX_VARINT_BYTES = 10


class WireFile:
    """A mapped file that holds one message.

    Args:
        path: for errors.
    """

    def __init__(self, data: mmap.mmap, path: str) -> None:
        self.data = data
        self.path = path
        self._num_fields = 0

    @property
    def root(self) -> Span:
        """The message."""
        return Span(self, 0, len(self.data), depth=0)

    def count_field(self, offset: int) -> None:
        """Spend one of the fields that may be read."""
        self._num_fields += 1
        if self._num_fields > MAX_FIELDS:
            self.fail(f"it has more than {MAX_FIELDS:,} fields", offset)

    def fail(self, reason: str, offset: int, field: str | None = None) -> NoReturn:
        """Raise the error that names a place in the file."""
        raise ModelFileError(self.path, reason, field=field, offset=offset)


@dataclass(frozen=True, slots=True)
class Span:
    """A part of the file: a message, a text, or numbers one after the other."""

    file: WireFile
    start: int
    stop: int
    depth: int

    @property
    def num_bytes(self) -> int:
        """Its length."""
        return self.stop - self.start

    def fail(self, reason: str, field: str | None = None) -> NoReturn:
        """Raise the error that names this place."""
        self.file.fail(reason, self.start, field)

    def text(self) -> str:
        """Read as a text."""
        try:
            return self.file.data[self.start : self.stop].decode()
        except UnicodeDecodeError:
            self.fail("a text is not valid UTF-8")

    def integers(self) -> Iterator[int]:
        """Read as numbers of variable length."""
        offset = self.start
        while offset < self.stop:
            self.file.count_field(offset)
            number, offset = self._varint(offset)
            yield number

    def fields(self) -> Fields:
        """Read as a message: its own fields, and nothing of the messages within."""
        if self.depth > MAX_DEPTH:
            self.fail(f"its messages are nested more than {MAX_DEPTH} deep")
        values: defaultdict[int, list[int | Span]] = defaultdict(list)
        offset = self.start
        while offset < self.stop:
            self.file.count_field(offset)
            tag, after_tag = self._varint(offset)
            value, offset = self._value(tag & 7, after_tag)
            values[tag >> 3].append(value)
        return Fields(self, dict(values))

    def _value(self, wire_type: int, offset: int) -> tuple[int | Span, int]:
        match wire_type:
            case 0:  # a number
                return self._varint(offset)
            case 1:
                length = 8
            case 5:
                length = 4
            case 2:  # as long as it says
                length, offset = self._varint(offset)
            case _:
                self.file.fail("not an ONNX model: a field of an unknown kind", offset)
        if length > self.stop - offset:
            self.file.fail("it ends within a field", offset)
        return Span(self.file, offset, offset + length, self.depth + 1), offset + length

    def _varint(self, offset: int) -> tuple[int, int]:
        """A number of seven bits a byte, the lowest first, and where it ends."""
        number = 0
        data, number = self.file.data, 0
        for index in range(min(_MAX_VARINT_BYTES, self.stop - offset)):
            byte = data[offset + index]
            number |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                return number, offset + index + 1
        return self.file.fail("it ends within a number, or the number is too long", offset)


@dataclass(frozen=True, slots=True)
class Fields:
    """A message's fields by number. What is missing is empty, 0 or ``""``, as the format has it."""

    span: Span
    values: dict[int, list[int | Span]]

    def integers(self, number: int) -> list[int]:
        """A repeated number, packed or not."""
        found: list[int] = []
        for value in self.values.get(number, ()):
            found.extend([value] if isinstance(value, int) else value.integers())
        return found

    def integer(self, number: int) -> int:
        """A number: of several the last."""
        return next(reversed(self.integers(number)), 0)

    def spans(self, number: int) -> Sequence[Span]:
        """A repeated message or text."""
        spans = [value for value in self.values.get(number, ()) if isinstance(value, Span)]
        if len(spans) != len(self.values.get(number, ())):
            self.span.fail(f"field {number} is not the message that it must be")
        return spans

    def texts(self, number: int) -> list[str]:
        """A repeated text."""
        return [span.text() for span in self.spans(number)]

    def text(self, number: int) -> str:
        """A text: of several the last."""
        return next(reversed(self.texts(number)), "")
