"""A page table in the form that executors read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from layerscale_core.specs.kv_pool import PageRange


class PageArrays:
    """A page table as arrays, kept beside it so that a step copies rows instead of walking page objects.

    Pages before the last one known are taken to be unchanged; whoever changes one (drops tokens, copies on write)
    calls ``start_over``, and whoever takes the last ones away ``cut``.
    """

    def __init__(self) -> None:
        self.num_pages = 0
        self._make_room(8)

    def update(self, pages: Sequence[PageRange]) -> None:
        """Take over what was appended: the last page known may have grown, others may have come."""
        if len(pages) > self._rows.shape[1]:
            known = self.rows
            self._make_room(2 * len(pages))
            self._rows[:, : self.num_pages] = known
        for index in range(max(self.num_pages - 1, 0), len(pages)):
            page = pages[index]
            self._place[0, index], self._place[1, index], self._place[2, index] = page.page_id, page.start, page.stop
        self.num_pages = len(pages)

    def cut(self, num_pages: int) -> None:
        """Forget all but the first pages; the last of these may have shrunk."""
        self.num_pages = min(self.num_pages, num_pages)

    def start_over(self) -> None:
        """Take every page over anew at the next ``update``."""
        self.num_pages = 0

    @property
    def rows(self) -> NDArray[np.int32]:
        """[3, num_pages]: page ids, starts, stops."""
        return self._rows[:, : self.num_pages]

    def _make_room(self, max_pages: int) -> None:
        self._rows = np.zeros((3, max_pages), np.int32)
        self._place = self._rows.data  # faster for single numbers
