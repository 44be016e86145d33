"""From raw text to token ids. Slow for large inputs: not for the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from layerscale_server.state import LoadedModel

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def off_loop(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Run a function that may take long on another thread."""
    return await asyncio.to_thread(function, *args, **kwargs)


def prompt_ids(model: LoadedModel, prompt: str | list[int], *, add_special: bool = True) -> list[int]:
    """A raw prompt: text without a template, special tokens recognised in it, or ids as they are."""
    if isinstance(prompt, str):
        return model.tokenizer.encode(prompt, add_special=add_special, parse_special=True)
    return prompt


def many_prompt_ids(model: LoadedModel, prompts: Sequence[str | list[int]]) -> list[list[int]]:
    """Several raw prompts."""
    return [prompt_ids(model, prompt) for prompt in prompts]
