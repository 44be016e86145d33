"""Prompt lookup: where the last few tokens stood before, and what came next there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

RUN_LEN = 4
"""Tokens that must have stood somewhere before. Two or three recur by chance in any text."""
_MULTIPLIERS = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F)
"""Odd numbers below 2**32: with token ids below 2**29 no sum of products leaves 64 bits."""
_MAX_BITS = 16
"""Of a hash: at most 65,536 places are remembered, in 256 KiB; then later ones replace earlier ones."""
_MANY = 32
"""Tokens from which on vectors are faster than a loop."""

_Ids = TypeVar("_Ids", int, NDArray[np.int64])


class PromptLookup:
    """The tokens of one sequence, and for each run of a few tokens the place where it stood last.

    Runs are found through a table of their hashes, as dictionary coders do it (LZ77): a token costs the same few
    operations however much came before, and what is found is compared with what was looked for. As long as the text
    goes on as it did at the place found, that place is followed.

    Source: prompt lookup decoding (Saxena, 2023); LLMA (arXiv:2304.04487).

    Args:
        history: tokens before those that ``draft`` will be told of.
        max_tokens: how many there will be in all, about.
    """

    def __init__(self, history: Sequence[int], max_tokens: int) -> None:
        num_bits = min(max_tokens.bit_length() + 1, _MAX_BITS)
        self._shift = 32 - num_bits
        self._places = np.zeros(1 << num_bits, np.int32)  # the index after the run that stood last; 0: none
        self._place = self._places.data  # faster for single numbers
        self._tokens: list[int] = []
        self._last_hash = 0
        self._source: int | None = None
        self._history_len = len(history)
        self._extend(history)

    def draft(self, tokens: Sequence[int], num_tokens: int) -> list[int]:
        """What may follow, by what followed before: ``num_tokens``, or none if there is nothing to go by.

        Args:
            tokens: the sequence so far, its history aside; it only ever grows.
        """
        self._extend(tokens[len(self._tokens) - self._history_len :])
        if self._source is None:
            self._source = self._find()
        if self._source is None:
            return []
        # What is copied may reach into the copy: a period shorter than the draft goes round.
        source, period = self._source, len(self._tokens) - self._source
        return [self._tokens[source + index % period] for index in range(num_tokens)]

    @property
    def num_bytes(self) -> int:
        """Memory of the table."""
        return self._places.nbytes

    def _extend(self, new: Sequence[int]) -> None:
        tokens, first = self._tokens, len(self._tokens)
        tokens += new
        for index in range(first, len(tokens)):
            if self._source is None:
                break
            self._source = self._source + 1 if tokens[self._source] == tokens[index] else None
        first = max(first, RUN_LEN - 1)  # before it there is no run yet, and what is entered for none is never found
        if len(tokens) - first > _MANY:
            self._enter_many(first)
        else:
            for index in range(first, len(tokens)):
                self._place[self._last_hash] = index
                self._last_hash = self._hash(*tokens[index + 1 - RUN_LEN : index + 1])

    def _enter_many(self, first: int) -> None:
        """The same for all tokens from ``first`` on; of equal runs the last one stays, as numpy promises."""
        ids = np.array(self._tokens[first + 1 - RUN_LEN :], np.int64)
        num_new = len(self._tokens) - first
        hashes = self._hash(*(ids[offset : offset + num_new] for offset in range(RUN_LEN)))
        self._place[self._last_hash] = first
        self._places[hashes[:-1]] = np.arange(first + 1, len(self._tokens), dtype=np.int32)
        self._last_hash = int(hashes[-1])

    def _find(self) -> int | None:
        """The index after the last run's earlier occurrence."""
        place = self._place[self._last_hash]
        tokens = self._tokens
        return place if place >= RUN_LEN and tokens[place - RUN_LEN : place] == tokens[-RUN_LEN:] else None

    def _hash(self, first: _Ids, second: _Ids, third: _Ids, fourth: _Ids) -> _Ids:
        """Of one run, or of many."""
        a, b, c, d = _MULTIPLIERS
        return ((first * a + second * b + third * c + fourth * d) & 0xFFFFFFFF) >> self._shift
