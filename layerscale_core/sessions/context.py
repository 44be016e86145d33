"""What a session holds: its tokens by region, and their positions."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence

from layerscale_core.errors import ContextLengthError
from layerscale_core.sessions.pages import SessionPages
from layerscale_core.sessions.window import Run
from layerscale_core.specs.executor import Executor
from layerscale_core.specs.kv_pool import KVPool, PageTable

logger = logging.getLogger(__name__)

_MIN_TAIL_TOKENS = 512


def tail_reserve(context_len: int) -> int:
    """Tokens of a context that data never takes: room for a question and its answer."""
    return min(max(_MIN_TAIL_TOKENS, context_len // 8), context_len // 2)


class SessionContext:
    """Tokens ``prefix | data | tail`` and the page table that holds those already computed. Thread: engine.

    The tokens up to ``durable_end`` stay until they slide out of the window; the tail after them is the last question
    with its answer. The first ``num_computed`` tokens are in the pool.

    Data begins on a page of its own, so that the oldest of it can be dropped by moving a page's valid range. Positions
    do not move with it: dropping leaves a gap of ``gap`` positions between prefix and data, until the context's last
    position is near. Then ``close_gap`` re-rotates the keys of the data.

    Args:
        context_len: most tokens, and most positions.

    Attributes:
        window: what the data region consists of, oldest first.
        warmed: tokens computed ahead for the next turn of a conversation. In the pool they follow the first
            ``warm_start`` tokens; they are not held, and only a conversation goes on from them.
        revision: counts the changes of what is durable that are complete.
        end_forks: ends whatever runs on forks, which share pages and hold some of their own.
    """

    def __init__(self, pool: KVPool, executor: Executor, context_len: int) -> None:
        self.context_len = context_len
        self.tokens: list[int] = []
        self.prefix_end = 0
        self.data_start: int | None = None
        self.durable_end = 0
        self.gap = 0
        self.window: deque[Run] = deque()
        self.warmed: list[int] = []
        self.warm_start = 0
        self.revision = 0
        self.end_forks: Callable[[], None] = lambda: None
        self._executor = executor
        self._pages = SessionPages(pool, context_len)

    def release(self) -> None:
        """Give everything back; nothing of it runs any more."""
        self._pages.release()

    @property
    def table(self) -> PageTable:
        """The pages of what is computed."""
        return self._pages.table

    @property
    def num_computed(self) -> int:
        """Tokens in the pool."""
        return self._pages.num_tokens

    @property
    def num_pending(self) -> int:
        """Durable tokens still waiting for their forward pass."""
        return max(0, self.durable_end - self.num_computed)

    @property
    def lacks_prefix(self) -> bool:
        """Whether tokens before those of the window are pending: it was restored without its pages."""
        return bool(self.window) and not self.takes_data

    @property
    def num_next(self) -> int:
        """Pending tokens that follow each other without a gap: none of the window's before it begins a page."""
        return self.data_begin - self.num_computed if self.lacks_prefix else self.num_pending

    @property
    def has_data(self) -> bool:
        """Whether a batch of data was ever taken in."""
        return self.data_start is not None

    @property
    def data_begin(self) -> int:
        """First token of the data region, or where it would be."""
        return self.durable_end if self.data_start is None else self.data_start

    @property
    def data_budget(self) -> int:
        """Most tokens of the data region."""
        return max(0, self.context_len - self.data_begin - tail_reserve(self.context_len))

    def position(self, index: int) -> int:
        """RoPE position of a token."""
        return index if self.data_start is None or index < self.data_start else index + self.gap

    @property
    def pos_max(self) -> int:
        """The highest position; -1 when it is empty."""
        return self.position(len(self.tokens) - 1) if self.tokens else -1

    @property
    def room(self) -> int:
        """Tokens that still find a position after the last one."""
        return self.context_len - len(self.tokens) - self.gap

    # What stays

    def append(self, token_ids: Sequence[int]) -> None:
        """Add durable tokens. Without data a tail becomes durable with them; with data it goes, and they follow.

        Raises:
            ContextLengthError: they do not fit; nothing is changed.
        """
        num_kept = self.durable_end if self.has_data else len(self.tokens)
        if num_kept + len(token_ids) > self.context_len:
            raise ContextLengthError(num_kept + len(token_ids), self.context_len, param="text")
        if not token_ids:
            return
        self.truncate(num_kept)
        self.make_positions(len(token_ids))
        if self.takes_data or self.window:
            self._add_run(token_ids, is_entry=False)
        else:
            self._extend_prefix(token_ids)
        self.revision += 1

    def mark_prefix(self) -> None:
        """Freeze what is held; everything durable is computed and there is no data."""
        assert not self.has_data
        self.drop_tail()
        self.prefix_end = self.durable_end

    def begin_data(self, separator: Sequence[int]) -> None:
        """Freeze what is held and have data follow it, once all of it, ``separator`` included, is computed."""
        self.mark_prefix()
        self._extend_prefix(separator)
        self.data_start = self.durable_end

    @property
    def takes_data(self) -> bool:
        """Whether what comes before the data is computed, so that data can follow."""
        return self.data_start is not None and self.num_computed >= self.data_start

    def add_entry(self, token_ids: Sequence[int]) -> None:
        """Add an entry at the end of the data; there is no tail and it fits."""
        self._add_run(token_ids, is_entry=True)

    def drop_runs(self, num_runs: int) -> None:
        """Drop the oldest of the window; there is no tail."""
        assert self.data_start is not None
        num_tokens = sum(self.window.popleft().num_tokens for _ in range(num_runs))
        self._pages.drop_front(max(0, min(num_tokens, self.num_computed - self.data_start)))
        del self.tokens[self.data_start : self.data_start + num_tokens]
        self.durable_end -= num_tokens
        self.gap = self.gap + num_tokens if self.num_computed > self.data_start else 0

    def drop_newest(self, num_entries: int) -> None:
        """Undo the last calls of ``add_entry``; nothing of the entries is computed."""
        for _ in range(num_entries):
            self.durable_end -= self.window.pop().num_tokens
        self.truncate(self.durable_end)

    # Room

    def make_positions(self, num_tokens: int) -> None:
        """See that so many more tokens find a position, if there is room for them at all."""
        if self.gap and self.room < num_tokens:
            self.end_forks()
            self._close_gap()

    def begin_page(self) -> None:
        """Called before more is computed: the window begins on a page of its own."""
        if self.window and self.num_computed == self.data_start:
            self._pages.begin_page()

    def make_pages(self, num_tokens: int) -> None:
        """See that so many more tokens find their pages."""
        if not self._pages.has_room(num_tokens):
            self.end_forks()

    @property
    def max_fork_len(self) -> int:
        """Tokens that a fork of what is durable can grow to, if it is the only one."""
        return min(self.context_len - self.gap, self._pages.max_fork_len(self.durable_end))

    def fork(self, max_tokens: int) -> PageTable | None:
        """A fork of what is durable that may grow to ``max_tokens``; None if there are too few pages.

        A tail that stands in the way gives its pages up, and is computed again when somebody goes on from it.
        """
        num_tokens = max_tokens - self.durable_end
        if not self._pages.has_room(num_tokens):
            self.uncompute(self.durable_end)
        if not self._pages.has_room(num_tokens):
            return None
        return self._pages.fork(self.durable_end, max_tokens)

    def release_fork(self, fork: PageTable) -> None:
        """Give a fork back; nothing runs on it any more."""
        self._pages.release_fork(fork)

    def _close_gap(self) -> None:
        """Move the data, and the tail after it, to the positions right behind the prefix."""
        assert self.data_start is not None
        page_ids = self._pages.ids_behind(self.data_start)
        try:
            if page_ids.size:
                self._executor.shift_positions(page_ids, -self.gap)
        except Exception:
            logger.exception("cached keys could not be moved; they are computed again")
            self.uncompute(self.data_start)
        self.gap = 0

    # What comes and goes

    def drop_tail(self) -> None:
        """Forget the last question and its answer."""
        self.truncate(self.durable_end)

    def replace_tail(self, num_kept: int, new: Sequence[int]) -> None:
        """Have other tokens, none of them computed, follow the first ones, which include all durable ones."""
        self.truncate(num_kept)
        self.tokens += new

    def truncate(self, num_tokens: int) -> None:
        """Keep the first tokens; durable ones are never cut."""
        assert self.durable_end <= num_tokens <= len(self.tokens)
        del self.tokens[num_tokens:]
        self.uncompute(num_tokens)

    def uncompute(self, num_tokens: int) -> None:
        """Take back what was computed beyond the first tokens."""
        del self.warmed[max(0, num_tokens - self.warm_start) :]
        self._pages.truncate(num_tokens)

    def keep_warm(self, tail: Sequence[int]) -> None:
        """Hold another tail again, and keep what was computed beyond it for the turn that comes."""
        computed = self.tokens[: self.num_computed]
        held = [*self.tokens[: self.durable_end], *tail]
        self.warm_start = num_common(held, computed)
        self.tokens, self.warmed = held, computed[self.warm_start :]

    def take_warmed(self) -> None:
        """Have what is warm stand in for the tokens that it displaced."""
        if self.warmed:
            self.tokens[self.warm_start :] = self.warmed
            self.warmed = []

    def drop_warmed(self) -> None:
        """Forget what is warm."""
        if self.warmed:
            self.uncompute(self.warm_start)

    def distrust(self, num_tokens: int) -> None:
        """Take back what a failed step may have spoiled, of which only the first tokens had been computed before.

        That may include a copy of the page they end in.
        """
        self.uncompute(num_tokens)
        if num_suspect := self._pages.num_in_open_page:
            first_data = (self.data_start or 0) if self.takes_data else 0
            self.uncompute(max(first_data, self.num_computed - num_suspect))

    def _extend_prefix(self, token_ids: Sequence[int]) -> None:
        self.tokens += token_ids
        self.durable_end = len(self.tokens)
        if self.has_data:  # none of it is there yet
            self.data_start = self.durable_end

    def _add_run(self, token_ids: Sequence[int], *, is_entry: bool) -> None:
        assert self.durable_end == len(self.tokens), "there is a tail"
        assert self.takes_data or self.window
        self.tokens += token_ids
        self.durable_end = len(self.tokens)
        self.window.append(Run(len(token_ids), is_entry))


def num_common(first: Sequence[int], second: Sequence[int]) -> int:
    """How many leading tokens are the same."""
    return next(
        (index for index, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
