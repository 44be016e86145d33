"""A fake model that says what a test wants, as far as its constraint lets it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from layerscale_core.specs import StepBatch
from tests.support.fake_executor import FakeExecutor
from tests.support.fake_tokenizer import ByteTokenizer

_SURE = 100.0


class ScriptedModel:
    """Makes one sequence at a time say a text and end; control tokens in the text are said as such.

    A token is made the likeliest by its place in the answer; those that a constraint forces are not asked for.

    Args:
        is_quiet: whether nothing is computed, also not in the background: the next answer is then the next request's.
    """

    def __init__(self, executor: FakeExecutor, tokenizer: ByteTokenizer, is_quiet: Callable[[], bool]) -> None:
        self._tokenizer = tokenizer
        self._is_quiet = is_quiet
        self._token_ids: Sequence[int] = ()
        self._first: int | None = None
        executor.after_step = self._prefer

    def say(self, text: str, *, ends: bool = True) -> None:
        """The next answer."""
        while not self._is_quiet():
            time.sleep(0.001)
        token_ids = self._tokenizer.encode(text, add_special=False, parse_special=True)
        self._token_ids = [*token_ids, *([ByteTokenizer.EOS_ID] if ends else [])]
        self._first = None

    def _prefer(self, batch: StepBatch, logits: NDArray[np.float32]) -> None:
        if not len(logits):  # a part of a prompt
            return
        positions = batch.positions[batch.logits_indices].tolist()
        self._first = positions[-1] if self._first is None else self._first
        for row, position in enumerate(positions):
            index = position - self._first
            if 0 <= index < len(self._token_ids):
                logits[row, self._token_ids[index]] = _SURE
