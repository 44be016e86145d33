"""Conversations on their way to the engine: rendered, and with what their answers are constrained and read by."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from layerscale_core.constraints import Constraint, Grammar, GrammarKind
from layerscale_core.dialogue import AnswerPlan, Dialogue, ToolOffer
from layerscale_core.errors import GrammarError, InvalidRequestError
from layerscale_server.http.prompts import off_loop
from layerscale_server.http.schemas.chat import Message
from layerscale_server.http.structured_output import compiled
from layerscale_server.http.tool_history import check_tools_are_written
from layerscale_server.state import LoadedModel

TemplateMessage = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What the model is shown.

    Attributes:
        messages: as chat templates expect them.
        answer_start: what the assistant is to go on from.
        variables: of the template.
    """

    messages: Sequence[TemplateMessage]
    offer: ToolOffer | None = None
    answer_start: str = ""
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreparedTurn:
    """What is asked of the engine, and how its answer is read."""

    token_ids: list[int]
    plan: AnswerPlan
    constraint: Constraint | None


def chat_conversation(
    messages: Sequence[Message],
    offer: ToolOffer | None = None,
    variables: Mapping[str, Any] | None = None,
    *,
    continues_last: bool = False,
) -> Conversation:
    """A conversation in OpenAI's words.

    Args:
        continues_last: the answer goes on in the middle of the last message.

    Raises:
        InvalidRequestError: the last message cannot be gone on with.
    """
    shown = [message.for_template() for message in messages]
    answer_start = ""
    if continues_last:
        last = shown.pop()
        if last["role"] != "assistant" or "tool_calls" in last:
            name = "continue_final_message"
            raise InvalidRequestError(f"{name} needs a last message of the assistant's, without calls", param=name)
        answer_start = last["content"]
    return Conversation(shown, offer, answer_start, variables or {})


async def prepare_turn(
    model: LoadedModel, conversation: Conversation, asked: tuple[str, Grammar] | None = None
) -> PreparedTurn:
    """A conversation as the model's own template writes it, and how its answer is constrained and read.

    Args:
        asked: what the answer must match, after any reasoning, and the field of the request that says so.

    Raises:
        InvalidRequestError: the model cannot render it, or the answer cannot be held to what is asked.
    """
    if asked is not None and conversation.answer_start:
        raise InvalidRequestError(f"{asked[0]} needs an answer that is not begun in messages", param=asked[0])
    if asked is not None and conversation.offer is not None:
        return await _prepare_either(model, conversation, *asked)
    token_ids, plan = await off_loop(_plan, model, conversation)
    constraint = None
    if asked is not None:
        constraint = await compiled(model, asked[0], _constrained(plan, *asked))
    elif plan.grammar is not None:
        constraint = await compiled(model, "tools", plan.grammar)
    return PreparedTurn(token_ids, plan, constraint)


async def _prepare_either(model: LoadedModel, conversation: Conversation, field: str, grammar: Grammar) -> PreparedTurn:
    """A conversation whose answer is either calls of tools or JSON that matches a schema."""
    if grammar.kind is not GrammarKind.JSON_SCHEMA:
        raise InvalidRequestError(f"{field} cannot be combined with tools unless it is a JSON schema", param=field)
    alone = await compiled(model, field, grammar)
    token_ids, plan = await off_loop(_plan, model, conversation, json.loads(grammar.text))
    if any(map(alone.may_begin_with, plan.call_starts)):
        message = f"{field} describes what this model would write to call one of the tools"
        raise InvalidRequestError(message, param=field)
    assert plan.grammar is not None
    return PreparedTurn(token_ids, plan, await compiled(model, "tools", plan.grammar))


def _constrained(plan: AnswerPlan, field: str, grammar: Grammar) -> Grammar:
    try:
        return plan.constrained(grammar)
    except GrammarError as error:
        raise GrammarError(str(error), param=field) from None


def _plan(model: LoadedModel, conversation: Conversation, schema: Any = None) -> tuple[list[int], AnswerPlan]:
    dialogue = _dialogue_of(model)
    text = _render(dialogue, conversation)
    try:
        plan = dialogue.plan_answer(text, conversation.offer, schema)
    except GrammarError as error:
        raise GrammarError(f"tools: {error}", param="tools") from None
    return _token_ids(model, text), plan


def conversation_ids(
    model: LoadedModel, conversation: Conversation, *, add_generation_prompt: bool = True
) -> list[int]:
    """The token ids of a conversation. Not for the event loop.

    Raises:
        InvalidRequestError: the model cannot render it.
    """
    text = _render(_dialogue_of(model), conversation, add_generation_prompt=add_generation_prompt)
    return _token_ids(model, text)


def _dialogue_of(model: LoadedModel) -> Dialogue:
    if model.dialogue is None:
        raise InvalidRequestError(
            "this model has no chat template; use /v1/completions with a prompt", param="messages"
        )
    return model.dialogue


def _render(dialogue: Dialogue, conversation: Conversation, *, add_generation_prompt: bool = True) -> str:
    render = partial(
        dialogue.render,
        tools=() if conversation.offer is None else conversation.offer.tools,
        add_generation_prompt=add_generation_prompt,
        variables=conversation.variables,
    )
    text = render(conversation.messages)
    check_tools_are_written(render, conversation.messages, text)
    return text + conversation.answer_start


def _token_ids(model: LoadedModel, text: str) -> list[int]:
    ids = model.tokenizer.encode(text, add_special=True, parse_special=True)
    # Most templates write BOS themselves, and the tokenizer may add another.
    is_doubled = len(ids) > 1 and ids[0] == ids[1] == model.tokenizer.bos_id
    return ids[1:] if is_doubled else ids
