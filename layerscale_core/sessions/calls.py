"""Functions that other threads have called on the engine thread, and the futures they wait for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

from layerscale_core.engine import Engine
from layerscale_core.errors import RequestError

T = TypeVar("T")


def fulfil(future: Future[T], function: Callable[[], T]) -> None:
    """Call a function and hand over its result or its exception; whoever has cancelled the future is spared both."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = function()
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def post(engine: Engine, function: Callable[[], T]) -> Future[T]:
    """Have a function called on the engine thread before the next step; returns the future of its result.

    Raises:
        ShuttingDownError: the engine has stopped.
    """
    future: Future[T] = Future()
    engine.post(partial(fulfil, future, function))
    return future


class Call(Generic[T]):
    """Something to do on the engine thread between two turns.

    Args:
        needs_prefill: only once nothing is pending.
    """

    def __init__(self, function: Callable[[], T], *, needs_prefill: bool) -> None:
        self.future: Future[T] = Future()
        self.needs_prefill = needs_prefill
        self._function = function

    @property
    def is_over(self) -> bool:
        """Whether it has failed, or nobody waits for it."""
        return self.future.done()

    def run(self) -> None:
        """Do it, unless it is over."""
        if not self.is_over:
            fulfil(self.future, self._function)

    def fail(self, error: RequestError) -> None:
        """Do not do it."""
        if not self.is_over and self.future.set_running_or_notify_cancel():
            self.future.set_exception(error)
