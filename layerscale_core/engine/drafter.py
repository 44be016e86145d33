"""How long a sequence's drafts are, and when it makes none: as long as those before came true often enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from layerscale_core.engine.prompt_lookup import PromptLookup

MAX_DRAFT_LEN = 15
"""With the token before it, a draft of one less than a power of two fills the groups in which kernels take tokens."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 8, 256
"""Steps without a draft after one that did not pay: doubled each time, so that trying costs less and less."""
_DECAY = 0.75
"""Of what earlier drafts count for, with each further one."""

Price = Callable[[int], float]
"""What a token costs in a draft of this length, in tokens that plain steps would give meanwhile; 0 if it is unknown."""


class Drafter:
    """One sequence's drafts. A draft pays if more of its tokens come true than it costs.

    Drafts double while all of their tokens come true, and halve otherwise. Where they do not pay there is a pause, then
    a draft of one token. A draft that came true is always followed by another: what longer ones cost is measured anew.
    """

    def __init__(self, lookup: PromptLookup) -> None:
        self._lookup = lookup
        self._draft_len = 1
        self._pause, self._num_to_pause = _SHORTEST_PAUSE, 0
        # As if half of a draft had come true: neither proven nor given up.
        self._num_drafted, self._num_accepted = 2.0, 1.0

    def propose(self, tokens: Sequence[int], max_tokens: int) -> list[int]:
        """What may come after ``tokens``; often nothing."""
        if self._num_to_pause:
            self._num_to_pause -= 1
            return []
        return self._lookup.draft(tokens, min(self._draft_len, max_tokens))

    def learn(self, num_drafted: int, num_accepted: int, price: Price) -> None:
        """Take in what became of a draft."""
        self._num_drafted = _DECAY * self._num_drafted + num_drafted
        self._num_accepted = _DECAY * self._num_accepted + num_accepted
        if num_accepted == num_drafted:
            self._draft_len = min(2 * self._draft_len + 1, MAX_DRAFT_LEN)
            self._pause = _SHORTEST_PAUSE
            return
        self._draft_len = max(self._draft_len // 2, 1)
        if self._num_accepted < self._num_drafted * price(self._draft_len):
            self._num_to_pause, self._pause = self._pause, min(2 * self._pause, _LONGEST_PAUSE)
            self._draft_len = 1
