"""``POST /v1/sessions/{session_id}/generate``: a question to a session."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from layerscale_core.dialogue import JSON, AnswerParser, CallArguments, CallBegun, CallEnded, Piece, TextPiece
from layerscale_core.engine import Event, SamplingParams, TokensGenerated, Usage
from layerscale_core.sessions import FlashQuery, NoPrompt, Prompt, Session, SessionView, TextPrompt, TurnFinished
from layerscale_server.generation import Generation
from layerscale_server.http.answers import collect, usage_of
from layerscale_server.http.conversations import chat_conversation, prepare_turn
from layerscale_server.http.dependencies import AcceptingSession, AcceptingSessions, Server, json_body
from layerscale_server.http.event_stream import (
    SESSION,
    EventStreamResponse,
    cancelled_on_disconnect,
    data_frame,
    frames_of,
    whole_stream,
)
from layerscale_server.http.prompts import off_loop, prompt_ids
from layerscale_server.http.replies import CallIds, Reply, openai_calls
from layerscale_server.http.schemas.generate import GenerateRequest
from layerscale_server.http.structured_output import constraint_of
from layerscale_server.http.turns import begin_turn
from layerscale_server.state import LoadedModel

router = APIRouter(prefix="/v1/sessions/{session_id}")

_CLEAR_GAP = 2.0
"""Logits by which the first token must be ahead of any other to be a fast answer."""


@router.post("/generate")
async def generate(
    request: Request,
    server: Server,
    model: AcceptingSessions,
    session: AcceptingSession,
    body: Annotated[GenerateRequest, Depends(json_body(GenerateRequest))],
) -> Response:
    """Ask a session; at once where the answer is there already."""
    sampling = body.sampling_params(body.max_tokens, stop=tuple(body.stop))
    is_plain = body.grammar() is None and _is_plain(sampling)
    if is_plain and body.prompt is not None and (query := session.fresh_answer(body.prompt)) is not None:
        server.metrics.count_flash_hit()
        return _stored(query, session.view, is_streamed=body.stream)
    if body.fast_answer and is_plain:
        sampling = replace(sampling, early_gap=_CLEAR_GAP)
    request_id = request.state.request_id
    generation, parser = await _begin(model, session, request_id, body, sampling)
    call_ids = CallIds("call", request_id)
    if body.stream:
        heartbeat_s = server.settings.limits.heartbeat_s
        chunks = _Chunks(Reply(parser), call_ids)
        frames = frames_of(generation, chunks, heartbeat_s=heartbeat_s, request_id=request_id, dialect=SESSION)
        return EventStreamResponse(generation, frames)
    async with cancelled_on_disconnect(generation, request.receive):
        (answer,) = await collect(generation, num_answers=1)
    assert isinstance(answer.end, TurnFinished)
    return JSONResponse(_result(Reply.of(answer, parser), answer.end, call_ids))


async def _begin(
    model: LoadedModel, session: Session, request_id: str, body: GenerateRequest, sampling: SamplingParams
) -> tuple[Generation, AnswerParser]:
    """Ask the session, and say how to read its answer: a conversation's is sorted, that to raw text is as it is."""
    clears_after = body.clear_after > 0
    if body.messages is None:
        constraint = await constraint_of(model, body)
        prompt = await off_loop(_raw_prompt, model, body)
        generation = model.engine.ask(
            session, request_id, prompt, sampling, clears_after=clears_after, constraint=constraint
        )
        return generation, AnswerParser()
    conversation = chat_conversation(body.messages, body.offer(), body.template_variables())
    turn = await prepare_turn(model, conversation, body.grammar())
    generation = begin_turn(
        model, session, request_id, turn, sampling, clears_after=clears_after, is_warm_up=body.warm_up
    )
    return generation, turn.plan.make_parser()


def _raw_prompt(model: LoadedModel, body: GenerateRequest) -> Prompt:
    if body.prompt is None:
        return NoPrompt()
    return TextPrompt(tuple(prompt_ids(model, body.prompt, add_special=False)))


def _is_plain(sampling: SamplingParams) -> bool:
    """Whether the likeliest tokens are wanted, and nothing that would change them."""
    indifferent = replace(sampling, max_tokens=1, top_p=1.0, top_k=0, min_p=0.0, seed=None)
    return indifferent == SamplingParams(max_tokens=1)


def _result(reply: Reply, end: TurnFinished, call_ids: CallIds) -> dict[str, Any]:
    """A whole answer."""
    said = reply.sorted
    result: dict[str, Any] = {
        "text": said.text,
        "n_tokens": end.num_generated,
        "total_tokens": end.total_tokens,
        "pos_max": end.pos_max,
        "finish_reason": reply.finish_reason(end),
        "data_version": end.data_version,
        "n_prefilled": end.num_prefilled,
        "usage": usage_of([end.usage]),
    }
    if said.reasoning:
        result["reasoning_content"] = said.reasoning
    if said.calls:
        result["tool_calls"] = openai_calls(said.calls, call_ids)
    return result | {"speculative": True, "logit_gap": end.logit_gap} if end.is_early else result


def _stored(query: FlashQuery, view: SessionView, *, is_streamed: bool) -> Response:
    """The answer that a flash query has; the session is not touched."""
    answer, num_prompt_tokens = query.answer, len(query.token_ids)
    assert answer is not None
    result = {
        "text": answer.value,
        "n_tokens": answer.num_tokens,
        "total_tokens": view.num_tokens,
        "pos_max": view.pos_max,
        "finish_reason": "stop",
        "data_version": answer.data_version,
        "n_prefilled": 0,
        "usage": usage_of([Usage(num_prompt_tokens, answer.num_tokens, num_prompt_tokens)]),
        "flash": True,
        "flash_id": query.id,
        "confidence": answer.confidence,
    }
    if not is_streamed:
        return JSONResponse(result)
    token = _token_chunk(answer.value, view.pos_next + num_prompt_tokens)
    return whole_stream([data_frame(token), data_frame({"done": True} | result)])


def _token_chunk(text: str, position: int) -> dict[str, Any]:
    return {"token": text, "pos": position, "done": False}


class _Chunks:
    """Events to the chunks of this route: text and calls with their positions, then the whole answer."""

    def __init__(self, reply: Reply, call_ids: CallIds) -> None:
        self._reply = reply
        self._call_ids = call_ids
        self._position = 0

    def chunks(self, _index: int, event: Event) -> Iterator[dict[str, Any]]:
        """The chunks that tell a client of an event."""
        if isinstance(event, TokensGenerated):
            self._position = event.position
        for piece in self._reply.read(event):
            yield from self._tokens(piece)
        if isinstance(event, TurnFinished):
            yield {"done": True} | _result(self._reply, event, self._call_ids)

    def closing(self) -> Iterator[dict[str, Any]]:
        """Nothing: the whole answer is the last."""
        yield from ()

    def _tokens(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """Calls look the same whatever the model's format; reasoning only comes with the whole answer."""
        match piece:
            case TextPiece(text) | CallArguments(_, text):
                yield _token_chunk(text, self._position)
            case CallBegun(_, name):
                yield _token_chunk(JSON.opening_of(name), self._position) | {"tool_call": True}
            case CallEnded():
                yield _token_chunk(JSON.close, self._position)
