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
        self._rows = np.zeros((3, 8), np.int32)

    def update(self, pages: Sequence[PageRange]) -> None:
        """Take over what was appended: the last page known may have grown, others may have come."""
        if len(pages) > self._rows.shape[1]:
            grown = np.zeros((3, 2 * len(pages)), np.int32)
            grown[:, : self.num_pages] = self._rows[:, : self.num_pages]
            self._rows = grown
        for index in range(max(self.num_pages - 1, 0), len(pages)):
            page = pages[index]
            self._rows[:, index] = page.page_id, page.start, page.stop
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
