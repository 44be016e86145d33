"""From what a client sent to token ids. Slow for large inputs, and templates are code from a file: not for the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar

from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.schemas.chat import Message
from layerscale_server.http.tool_history import check_tools_are_written
from layerscale_server.state import LoadedModel

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def off_loop(function: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """Run a function that may take long on another thread."""
    return await asyncio.to_thread(function, *args, **kwargs)


def chat_ids(model: LoadedModel, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> list[int]:
    """A conversation as the model's own template writes it.

    Raises:
        InvalidRequestError: the model cannot render it.
    """
    for_template = [message.for_template() for message in messages]
    return rendered_ids(model, for_template, add_generation_prompt=add_generation_prompt)


def rendered_ids(
    model: LoadedModel,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool = True,
    answer_start: str = "",
) -> list[int]:
    """A conversation in the form that templates expect, as the model's own writes it.

    Args:
        answer_start: what the assistant is to go on from.

    Raises:
        InvalidRequestError: the model has no template, or the template refuses the conversation or a part of it.
    """
    if model.chat_template is None:
        raise InvalidRequestError(
            "this model has no chat template; use /v1/completions with a prompt", param="messages"
        )
    render = partial(model.chat_template.render, add_generation_prompt=add_generation_prompt)
    text = render(messages)
    check_tools_are_written(render, messages, text)
    ids = model.tokenizer.encode(text + answer_start, add_special=True, parse_special=True)
    # Most templates write BOS themselves, and the tokenizer may add another.
    is_doubled = len(ids) > 1 and ids[0] == ids[1] == model.tokenizer.bos_id
    return ids[1:] if is_doubled else ids


def prompt_ids(model: LoadedModel, prompt: str | list[int], *, add_special: bool = True) -> list[int]:
    """A raw prompt: text without a template, special tokens recognised in it, or ids as they are."""
    if isinstance(prompt, str):
        return model.tokenizer.encode(prompt, add_special=add_special, parse_special=True)
    return prompt


def many_prompt_ids(model: LoadedModel, prompts: Sequence[str | list[int]]) -> list[list[int]]:
    """Several raw prompts."""
    return [prompt_ids(model, prompt) for prompt in prompts]
