"""What decode steps cost on this machine, with drafts and without, as measured while serving."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

_MEMORY = 8
"""Steps that an estimate is the average of, about."""
_FEWEST = 3
"""Plain steps that must have been seen before anything is held against them; the very first ones are often slow."""


class StepCosts:
    """Moving estimates, apart for each number of sequences in a step. Deterministic in what it is told."""

    def __init__(self) -> None:
        self._plain: defaultdict[int, _Estimate] = defaultdict(_Estimate)
        self._drafted: defaultdict[tuple[int, int], _Estimate] = defaultdict(_Estimate)

    def knows(self, num_seqs: int) -> bool:
        """Whether it is known what a plain step takes."""
        return self._plain[num_seqs].num_samples >= _FEWEST

    def price(self, num_seqs: int, draft_len: int) -> float:
        """What a token costs in a draft of about this length, in tokens that plain steps give meanwhile."""
        plain, drafted = self._plain[num_seqs].value, self._drafted[num_seqs, draft_len.bit_length()].value
        return num_seqs * drafted / plain if plain else 0.0

    def learn(self, num_seqs: int, longest_draft: int, num_drafted: int, seconds: float) -> None:
        """A step computed one token for each sequence, and ``num_drafted`` more; the longest draft had so many."""
        plain = self._plain[num_seqs]
        if not num_drafted:
            # Other work on the machine can make a step much longer; it says little about the next one.
            plain.take(min(seconds, 2 * plain.value) if plain.num_samples else seconds)
        elif plain.num_samples:
            each = (seconds - plain.value) / num_drafted
            self._drafted[num_seqs, longest_draft.bit_length()].take(min(max(each, 0.0), plain.value))


@dataclass(slots=True)
class _Estimate:
    """An average in which old samples fade."""

    value: float = 0.0
    num_samples: int = 0

    def take(self, sample: float) -> None:
        self.num_samples += 1
        self.value += (sample - self.value) / min(self.num_samples, _MEMORY)
