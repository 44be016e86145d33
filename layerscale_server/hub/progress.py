"""How a download is shown: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator

from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from layerscale_server.hub.blobs import file_size

log = logging.getLogger(__name__)

_LINE_INTERVAL_S = 30.0


@contextlib.contextmanager
def show_progress(
    stored_bytes: Callable[[], int], num_bytes: int, *, wants_bars: bool, interval_s: float = _LINE_INTERVAL_S
) -> Iterator[None]:
    """Show what is downloaded within the block.

    Args:
        stored_bytes: what is on disk now.
        num_bytes: how many will have been added.
        wants_bars: let huggingface_hub show bars, if standard error is a terminal and its user has not forbidden them.
    """
    if wants_bars and sys.stderr.isatty() and not are_progress_bars_disabled():
        yield
        return
    before, done = stored_bytes(), threading.Event()

    def report() -> None:
        while not done.wait(interval_s):
            log.info("downloaded %s of %s", file_size(stored_bytes() - before), file_size(num_bytes))

    reporter = threading.Thread(target=report, name="download progress", daemon=True)
    reporter.start()
    try:
        with _without_bars():
            yield
    finally:
        done.set()
        reporter.join()


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    if are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
