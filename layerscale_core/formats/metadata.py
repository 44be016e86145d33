"""A file's metadata, read with the type and range that the reader of a key expects."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeGuard

from layerscale_core.errors import ModelFileError

MAX_INTEGER = 2**31 - 1


class Metadata:
    """Keys and values of a file.

    A value is a bool, int, float or str, or a sequence of one of these, maybe packed; in JSON also None, which is as
    good as no value. Text that is not UTF-8 holds lone surrogates (``surrogateescape``).
    """

    def __init__(self, values: Mapping[str, object], offsets: Mapping[str, int], path: str) -> None:
        self.values = values
        self.path = path
        self._offsets = offsets

    def fail(self, key: str, reason: str) -> NoReturn:
        """Raise the error that names a key and where its value stands."""
        raise ModelFileError(self.path, reason, field=key, offset=self._offsets.get(key))

    def integer(self, key: str, *, default: int | None = None, minimum: int = 1, maximum: int = MAX_INTEGER) -> int:
        """A whole number in ``[minimum, maximum]``; without a default the key is required."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int):
            self.fail(key, f"expected a whole number, found {_kind(value)}")
        if not minimum <= value <= maximum:
            self.fail(key, f"must be between {minimum} and {maximum}, found {value}")
        return value

    def number(self, key: str, *, default: float | None = None, above: float = 0.0) -> float:
        """A finite number greater than ``above``; without a default the key is required."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.fail(key, f"expected a number, found {_kind(value)}")
        if not above < value < math.inf:
            self.fail(key, f"must be a finite number above {above:g}, found {value:g}")
        return float(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """A boolean."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            self.fail(key, f"expected a boolean, found {_kind(value)}")
        return value

    def text(self, key: str, *, default: str | None = None) -> str:
        """Text in valid UTF-8; without a default the key is required."""
        value = self._value(key, default)
        if not isinstance(value, str):
            self.fail(key, f"expected text, found {_kind(value)}")
        try:
            value.encode()
        except UnicodeEncodeError:
            self.fail(key, "the text is not valid UTF-8")
        return value

    def array(self, key: str) -> Sequence[object]:
        """A required array that is not empty."""
        value = self._value(key, None)
        if not is_array(value) or not value:
            self.fail(key, f"expected an array with entries, found {_kind(value)}")
        return value

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def _value(self, key: str, default: object) -> object:
        value = self.values.get(key)
        if value is None:
            value = default
        if value is None:
            self.fail(key, "the key is missing")
        return value


def is_array(value: object) -> TypeGuard[Sequence[object]]:
    """Whether a value has entries; texts are values of their own."""
    return isinstance(value, Sequence) and not isinstance(value, str)


def _kind(value: object) -> str:
    """What a value is, without showing it: it may be long."""
    if is_array(value):
        return f"an array of {len(value)}"
    kinds = {bool: "a boolean", int: "a whole number", float: "a number", str: "text"}
    return kinds.get(type(value), "an object")
