"""Python's collector of cyclic garbage, kept from what is built once and stays."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """Look for no garbage while modules and models are built: nearly nothing is any, and looking takes a tenth."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def keep_what_is_there() -> None:
    """Take all that there is for good, and look for garbage among what comes from now on.

    A full collection stops every thread for as long as it takes to go through the objects: some 20 ms for those of all
    modules, which are left out from now on.
    """
    gc.freeze()
    gc.enable()
