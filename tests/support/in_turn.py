"""Asynchronous clients, called like synchronous ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any


class InTurn:
    """An asynchronous object, its methods called one after the other; streams are read to their ends.

    What a method returns is waited for; attributes that are not methods are objects of the same kind.
    """

    def __init__(self, target: object, runner: asyncio.Runner) -> None:
        self._target = target
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        return self._in_turn(attribute) if callable(attribute) else InTurn(attribute, self._runner)

    def _in_turn(self, method: Callable[..., Any]) -> Callable[..., Any]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            result = method(*args, **kwargs)
            if hasattr(result, "__await__"):
                result = await result
            return [each async for each in result] if hasattr(result, "__aiter__") else result

        return lambda *args, **kwargs: self._runner.run(call(*args, **kwargs))
