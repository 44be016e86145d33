"""Step batches by hand: sequences whose pages lie scattered over the cache, as after hours of traffic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from layerscale_core.specs import KVLayout, PageRange, StepBatch


@dataclass(slots=True)
class PagedSequence:
    """A token stream's place in the cache.

    Attributes:
        pages: in order, with their valid ranges.
        next_position: the RoPE position of the next token.
    """

    pages: list[PageRange] = field(default_factory=list)
    next_position: int = 0


@dataclass(frozen=True, slots=True)
class Span:
    """The next tokens of one sequence, and whether the logits of each or of the last alone are wanted."""

    sequence: PagedSequence
    token_ids: Sequence[int]
    all_logits: bool = False


class PageBook:
    """Hands out the pages of a cache in a random order, never twice, and writes step batches over them."""

    def __init__(self, layout: KVLayout, seed: int = 0) -> None:
        self._page_size = layout.page_size
        self._free = np.random.default_rng(seed).permutation(layout.num_pages).tolist()

    def sequence(self) -> PagedSequence:
        """A new, empty sequence."""
        return PagedSequence()

    def take_page(self) -> int:
        """A page that no sequence has."""
        return int(self._free.pop())

    def batch(self, spans: Sequence[Span], wanted: Sequence[int] | None = None) -> StepBatch:
        """Extend each span's sequence by its tokens, in one ragged batch.

        Args:
            wanted: the tokens of the batch whose logits are wanted, instead of what the spans say.
        """
        slots = [self._extend(span.sequence, len(span.token_ids)) for span in spans]
        lengths = [len(span.token_ids) for span in spans]
        cu_seqlens = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        positions = [
            np.arange(span.sequence.next_position - length, span.sequence.next_position)
            for span, length in zip(spans, lengths, strict=True)
        ]
        if wanted is None:
            wanted = [
                token
                for span, start, stop in zip(spans, cu_seqlens, cu_seqlens[1:], strict=False)
                for token in range(start if span.all_logits else stop - 1, stop)
            ]
        return StepBatch(
            token_ids=np.concatenate([span.token_ids for span in spans]).astype(np.int32),
            positions=np.concatenate(positions).astype(np.int32),
            slot_mapping=np.concatenate(slots).astype(np.int64),
            cu_seqlens=cu_seqlens,
            page_tables=_table([[page.page_id for page in span.sequence.pages] for span in spans], padding=-1),
            page_starts=_table([[page.start for page in span.sequence.pages] for span in spans], padding=0),
            page_stops=_table([[page.stop for page in span.sequence.pages] for span in spans], padding=0),
            logits_indices=np.array(wanted, np.int32),
        )

    def _extend(self, sequence: PagedSequence, num_tokens: int) -> list[int]:
        """Slots for new tokens, in pages taken as needed."""
        slots = []
        for _ in range(num_tokens):
            if not sequence.pages or sequence.pages[-1].stop == self._page_size:
                sequence.pages.append(PageRange(self.take_page(), 0, 0))
            page = sequence.pages[-1]
            slots.append(page.page_id * self._page_size + page.stop)
            page.stop += 1
        sequence.next_position += num_tokens
        return slots


def _table(rows: Sequence[Sequence[int]], padding: int) -> np.typing.NDArray[np.int32]:
    table = np.full((len(rows), max(map(len, rows))), padding, np.int32)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return table
