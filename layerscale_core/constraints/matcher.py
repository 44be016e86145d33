"""A compiled grammar, and where one answer stands in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from layerscale_core.constraints.grammar import Grammar
from layerscale_core.errors import GrammarError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

_WORD_BITS, _WORD_BYTES = 32, 4


class Constraint:
    """A compiled grammar. Immutable; safe from any thread.

    Args:
        grammar: what it was compiled from.
        start: never advanced.
        table: of the model's tokens.
    """

    def __init__(self, grammar: Grammar, start: LLMatcher, table: LLTokenizer) -> None:
        self.grammar = grammar
        self._start = start
        self._table = table

    def begin(self) -> Matcher:
        """The state of an answer that has no token yet; takes microseconds."""
        return Matcher(self._start.deep_copy(), self._table.vocab_size)

    def may_begin_with(self, text: str) -> bool:
        """Whether there is an answer that begins with a text."""
        matcher = self.begin()
        return all(not matcher.is_finished and matcher.try_accept(each) for each in self._table.greedy_tokenize(text))


class Matcher:
    """Where one answer stands in its grammar. Used by one thread at a time.

    Args:
        num_tokens: ids that the grammar knows; there is none above.

    Once ``is_finished``, nothing but the end of the answer can follow, and nothing else may be asked or accepted.
    """

    def __init__(self, state: LLMatcher, num_tokens: int) -> None:
        self._state = state
        self._num_tokens = num_tokens
        self._mask: NDArray[np.uint8] | None = None  # made when first needed: an answer may never need it
        self._mask_address = 0

    @property
    def is_finished(self) -> bool:
        """Whether the answer is complete, and no token but the end of the sequence could follow."""
        return self._state.is_stopped()

    def allowed(self, vocab_size: int) -> NDArray[np.bool_]:
        """Which tokens can come next, at least one: [vocab_size].

        Raises:
            GrammarError: to find out takes more than the limits allow.
        """
        bits = np.unpackbits(self._compute_mask(), count=vocab_size, bitorder="little")
        return bits.view(np.bool_)

    def try_accept(self, token_id: int) -> bool:
        """Take in a token if it can come next. Costs microseconds, whatever the size of the vocabulary."""
        return token_id < self._num_tokens and self._state.try_consume_tokens([token_id]) == 1

    def accept(self, token_id: int) -> None:
        """Take in the next token of the answer.

        Raises:
            GrammarError: it cannot come next, or to find out takes more than the limits allow.
        """
        if not self._state.consume_token(token_id):
            raise _out_of_bounds()

    def forced_tokens(self) -> list[int]:
        """The tokens that must come next, as the model's own tokenizer cuts their text; not accepted yet.

        Empty where there is a choice, also where only the cut is open: the text may go on within the same token.
        """
        return self._state.compute_ff_tokens()

    def _compute_mask(self) -> NDArray[np.uint8]:
        """One bit for each token, set where it can come next; whole words of 32 bits."""
        if self._mask is None:
            self._mask = np.zeros(-(-self._num_tokens // _WORD_BITS) * _WORD_BYTES, np.uint8)
            self._mask_address = self._mask.ctypes.data  # to ask for it takes longer than to compute most masks
        self._state.unsafe_compute_mask_ptr(self._mask_address, self._mask.size)
        if self._state.is_error():
            raise _out_of_bounds()
        return self._mask


def _out_of_bounds() -> GrammarError:
    return GrammarError("what the answer must match is too complex to go on with")
