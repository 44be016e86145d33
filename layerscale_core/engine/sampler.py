"""Picks tokens from logits.

A row of logits passes, in this order:

1. penalties on what was seen (repetition, then frequency and presence), logit bias, stop tokens ruled out until
   ``min_tokens``: the logits processors; then every token ruled out that the constraint does not allow, which has the
   last word (``_choose_allowed`` says how that is spared);
2. temperature 0: the likeliest token. Otherwise the logits are divided by the temperature and
3. cut to the ``top_k`` likeliest tokens, then
4. to the nucleus: the fewest tokens that hold ``top_p`` of what is left, then
5. to those at least ``min_p`` times as likely as the likeliest;
6. one is drawn, with a number of the request's own random stream.

Bias comes after penalties so that -100 bans and +100 forces whatever was seen before. Others differ: vLLM adds the bias
and rules out stop tokens before the penalties, and applies min-p before top-k and top-p; llama.cpp cuts first (top-k,
top-p, min-p) and applies the temperature last. Where only one of these parameters is set, all three agree.

Among equal values the lower token id comes first, everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from math import isfinite

import numpy as np
from numpy.typing import NDArray

from layerscale_core.constraints.matcher import Matcher
from layerscale_core.engine.logits_processors import make_logits_processors
from layerscale_core.engine.request import TokenLogprob
from layerscale_core.engine.sampling_params import SamplingParams
from layerscale_core.engine.vocabulary import draw, largest, log_sum_exp, nucleus
from layerscale_core.errors import NumericalError
from layerscale_core.specs.executor import StepLogits

_MIN_TEMPERATURE = 1e-5
"""Below it the division overflows float32 and the distribution is one token anyway: greedy, as in vLLM."""

_FEW = 1 / 8
"""Up to this share of the vocabulary, allowed tokens are gathered: then the row of logits is not gone through."""


def find_likeliest(logits: StepLogits) -> list[int | None]:
    """Each row's likeliest token, for the whole batch at once; None where a row holds NaN or infinity.

    Args:
        logits: [num_logits, vocab_size].
    """
    if not isinstance(logits, np.ndarray):
        return logits.likeliest
    # NaN wins an argmax and infinity a maximum; what is left to find is minus infinity. Nothing but these two searches:
    # between two steps numpy's other machinery is not in the caches, and would take longer than they do.
    extremes = zip(logits.argmax(axis=1).tolist(), logits.argmin(axis=1).tolist(), strict=True)
    return [
        largest if isfinite(logits.item(row, largest)) and isfinite(logits.item(row, smallest)) else None
        for row, (largest, smallest) in enumerate(extremes)
    ]


class Sampler:
    """Picks one sequence's tokens. Its random stream depends on nothing outside the sequence.

    Args:
        stop_ids: the ids that end this sequence.
        matcher: where the answer stands in what it must match.
    """

    def __init__(
        self,
        params: SamplingParams,
        prompt_ids: tuple[int, ...],
        max_new_tokens: int,
        stop_ids: Collection[int],
        matcher: Matcher | None = None,
    ) -> None:
        self._params = params
        self._processors = make_logits_processors(params, prompt_ids, max_new_tokens, stop_ids)
        self._is_greedy = params.temperature < _MIN_TEMPERATURE
        self._random = None if self._is_greedy else np.random.Generator(np.random.PCG64(_seed_bits(params.seed)))
        self._is_cut = not self._is_greedy and (params.top_k > 0 or params.top_p < 1.0 or params.min_p > 0.0)
        self._matcher = matcher
        self._forced: list[int] | None = None
        """What must come next; None where that was not asked yet."""
        self._num_left = max_new_tokens

    @property
    def is_finished(self) -> bool:
        """Whether the constraint allows no further token."""
        return self._matcher is not None and self._matcher.is_finished

    def next_tokens(self, read_logits: Callable[[], NDArray[np.float32]], likeliest: int) -> list[int]:
        """The next token, and those behind it that the constraint forces: at least one, all of them remembered.

        A constraint may force the very first ones; then nothing is sampled. Where log-probabilities are wanted it is
        one token at a time, so that each has its row of logits.

        Args:
            read_logits: gives them [vocab_size], finite, not modified; not called where the likeliest is enough.
            likeliest: their argmax.

        Raises:
            NumericalError: the request rules out every token.
            GrammarError: the constraint is too complex to go on with.
        """
        if forced := self._take_forced():
            return forced
        token_id = self.sample(read_logits, likeliest)
        return [token_id] if self._params.logprobs is not None else [token_id, *self._take_forced()]

    def sample(self, read_logits: Callable[[], NDArray[np.float32]], likeliest: int) -> int:
        """Pick the next token and remember it; arguments and errors are those of ``next_tokens``."""
        token_id = likeliest if self._takes(likeliest) else self._choose(read_logits(), likeliest)
        self._forced = None
        self._observe(token_id)
        return token_id

    def _takes(self, likeliest: int) -> bool:
        """Whether the likeliest token is the next one, whatever the others are; the constraint then has accepted it."""
        is_plain = self._is_greedy and not self._processors
        return is_plain and (self._matcher is None or self._matcher.try_accept(likeliest))

    def _choose(self, logits: NDArray[np.float32], likeliest: int) -> int:
        adjusted = logits
        if self._processors:
            adjusted = logits.copy()
            for processor in self._processors:
                processor.apply(adjusted)
            likeliest = int(adjusted.argmax())
        if self._matcher is None:
            return self._pick(adjusted, likeliest)
        return self._choose_allowed(logits, adjusted, likeliest, self._matcher)

    def _pick(self, logits: NDArray[np.float32], likeliest: int) -> int:
        if not np.isfinite(logits[likeliest]):
            raise NumericalError("the sampling parameters leave no token to sample")
        return likeliest if self._random is None else pick(logits, likeliest, self._params, self._random.random())

    def _choose_allowed(
        self, logits: NDArray[np.float32], adjusted: NDArray[np.float32], likeliest: int, matcher: Matcher
    ) -> int:
        """Choose a token that the constraint allows, by the model's own logits where parameters rule all of them out.

        Most often the likeliest token of all is allowed, or the one drawn from all. Drawing once more where it is not,
        from the allowed ones, gives each the share that it has among them. Not so behind a cut: that keeps others of
        all tokens than of the allowed ones.
        """
        if not self._is_cut and np.isfinite(adjusted[likeliest]):
            token_id = self._pick(adjusted, likeliest)
            if matcher.try_accept(token_id):
                return token_id
        allowed = matcher.allowed(logits.size)
        row, token_ids = _narrow(adjusted, allowed)
        likeliest = int(row.argmax())
        if not np.isfinite(row[likeliest]):
            row, token_ids = _narrow(logits, allowed)
            likeliest = int(row.argmax())
        index = self._pick(row, likeliest)
        token_id = index if token_ids is None else int(token_ids[index])
        matcher.accept(token_id)
        return token_id

    def _take_forced(self) -> list[int]:
        if self._matcher is None or self._matcher.is_finished:
            return []
        if self._forced is None:
            self._forced = self._matcher.forced_tokens()
        num_taken = min(len(self._forced), self._num_left if self._params.logprobs is None else 1)
        taken, self._forced = self._forced[:num_taken], self._forced[num_taken:]
        for token_id in taken:
            self._observe(token_id)
            self._matcher.accept(token_id)
        return taken

    def _observe(self, token_id: int) -> None:
        self._num_left -= 1
        for processor in self._processors:
            processor.observe(token_id)


def _narrow(
    logits: NDArray[np.float32], allowed: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int64] | None]:
    """A copy of the logits without the tokens that are not allowed, and the ids of what is left where it is short."""
    if np.count_nonzero(allowed) <= _FEW * logits.size:
        token_ids = np.flatnonzero(allowed)
        return logits[token_ids], token_ids
    narrowed = logits.copy()
    narrowed[~allowed] = -np.inf
    return narrowed, None


def pick(logits: NDArray[np.float32], likeliest: int, params: SamplingParams, point: float) -> int:
    """Temperature, top-k, top-p and min-p, then the token at ``point`` of the cumulative distribution.

    Args:
        logits: [vocab_size], not modified.
        likeliest: its argmax.
        point: uniform in [0, 1).
    """
    token_ids: NDArray[np.int64] | None = None  # None: the whole vocabulary, in order
    if 0 < params.top_k < logits.size:
        token_ids = largest(logits, params.top_k)
    weights = (logits if token_ids is None else logits[token_ids]) - logits[likeliest]
    weights /= np.float32(params.temperature)
    np.exp(weights, out=weights)
    if params.top_p < 1.0:
        kept = nucleus(weights, params.top_p)
        token_ids = kept if token_ids is None else token_ids[kept]
        weights = weights[kept]
    if params.min_p > 0.0:  # the likeliest token weighs 1
        weights = np.where(weights >= params.min_p, weights, np.float32(0))
    index = draw(weights, point)
    return index if token_ids is None else int(token_ids[index])


def logit_gap(logits: NDArray[np.float32]) -> float:
    """How far the likeliest token is ahead of the second, in logits; 0 for a vocabulary of one.

    Args:
        logits: [vocab_size], as the model gave them.
    """
    if logits.size < 2:
        return 0.0
    second, first = np.partition(logits, -2)[-2:]
    return float(first) - float(second)


def token_logprob(logits: NDArray[np.float32], token_id: int, num_top: int) -> TokenLogprob:
    """A token's log-probability and the ``num_top`` likeliest alternatives, under the distribution of the model itself.

    Args:
        logits: [vocab_size], as the model gave them.
    """
    normalizer = log_sum_exp(logits)
    top = largest(logits, num_top) if num_top else np.empty(0, np.int64)
    return TokenLogprob(
        token_id,
        float(logits[token_id]) - normalizer,
        tuple((top_id, logit - normalizer) for top_id, logit in zip(top.tolist(), logits[top].tolist(), strict=True)),
    )


def _seed_bits(seed: int | None) -> int | None:
    """A seed of any sign as the 64 bits that the generator takes."""
    return None if seed is None else seed % 2**64
