"""Grammars compiled beside the event loop, a few at a time, each within a time limit."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from layerscale_core.constraints import Constraint, ConstraintCompiler, Grammar
from layerscale_core.errors import GrammarError, ShuttingDownError
from layerscale_server.freed_memory import return_freed_memory

_NUM_WORKERS = 2


class ConstraintWorkers:
    """A compiler with threads of its own; its methods are called on the event loop but for ``close``.

    Args:
        timeout_s: longest compilation. Past it the client is refused; the thread goes on to its end, which the limits
            of the compiler bound, and others use the rest of the threads.
    """

    def __init__(self, compiler: ConstraintCompiler, timeout_s: float) -> None:
        self._compiler = compiler
        self._timeout_s = timeout_s
        self._pool = ThreadPoolExecutor(_NUM_WORKERS, thread_name_prefix="layerscale-constraints")

    async def compile(self, grammar: Grammar) -> Constraint:
        """Compile a grammar, or find it compiled. The first one waits for the vocabulary to be indexed, once.

        Raises:
            GrammarError: it is wrong, not supported, or takes too much.
            ShuttingDownError: it was not begun before ``close``.
        """
        if (kept := self._compiler.find(grammar)) is not None:
            return kept
        loop, has_begun = asyncio.get_running_loop(), asyncio.Event()

        def work() -> Constraint:
            if self._compiler.prepare():
                return_freed_memory()
            loop.call_soon_threadsafe(has_begun.set)
            return self._compiler.compile(grammar)

        future = self._pool.submit(work)
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(has_begun.set))  # also one that never began
        await has_begun.wait()  # the wait for a thread is not the grammar's fault
        if future.cancelled():
            raise ShuttingDownError("the server is shutting down and accepts no work")
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            message = f"what the answer must match takes more than {round(1000 * self._timeout_s)} ms to compile"
            raise GrammarError(message) from None

    def close(self) -> None:
        """Take on no more; what runs ends by itself. Any thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)
