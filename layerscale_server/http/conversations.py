"""Conversations on their way to the engine: rendered, and with what their answers are constrained and read by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from layerscale_core.constraints import Constraint
from layerscale_core.dialogue import AnswerPlan, Dialogue, ToolOffer
from layerscale_core.errors import GrammarError, InvalidRequestError
from layerscale_server.http.schemas.chat import Message
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
    messages: Sequence[Message], offer: ToolOffer | None = None, variables: Mapping[str, Any] | None = None
) -> Conversation:
    """A conversation in OpenAI's words."""
    return Conversation([message.for_template() for message in messages], offer, variables=variables or {})


def prepare_turn(model: LoadedModel, conversation: Conversation) -> PreparedTurn:
    """A conversation as the model's own template writes it, and the plan of its answer. Not for the event loop.

    Raises:
        InvalidRequestError: the model cannot render it, or a tool's schema cannot be held to.
    """
    dialogue = _dialogue_of(model)
    text = _render(dialogue, conversation)
    try:
        plan = dialogue.plan_answer(text, conversation.offer)
        constraint = None if plan.grammar is None else model.constraints.compile(plan.grammar)
    except GrammarError as error:
        raise GrammarError(f"tools: {error}", param="tools") from None
    return PreparedTurn(_token_ids(model, text), plan, constraint)


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
