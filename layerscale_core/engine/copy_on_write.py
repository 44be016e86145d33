"""Copy-on-write: before a step, whoever would write into a shared page gets one of its own."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.specs.executor import Executor
from layerscale_core.specs.kv_pool import KVPool, PageCopy


def copy_shared_pages(pool: KVPool, executor: Executor, writing: Iterable[LiveSequence]) -> None:
    """Copy the shared last pages of sequences that are about to grow; of the owners of one page, the last keeps it."""
    copies: list[PageCopy] = []
    for sequence in writing:
        copy = pool.make_writable(sequence.admitted.table)
        if copy is not None:
            sequence.admitted.page_arrays.start_over()
            copies.append(copy)
    if copies:
        source_ids = np.array([copy.source_id for copy in copies], np.int32)
        target_ids = np.array([copy.target_id for copy in copies], np.int32)
        executor.copy_pages(source_ids, target_ids)
