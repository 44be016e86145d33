"""``POST /v1/messages``, Anthropic's API, and the count of a conversation's tokens."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from layerscale_server.http.adoption import find_session
from layerscale_server.http.answers import collect
from layerscale_server.http.anthropic_conversation import conversation_of
from layerscale_server.http.anthropic_messages import AnthropicEvents, AnthropicMessage
from layerscale_server.http.conversations import conversation_ids, prepare_turn
from layerscale_server.http.dependencies import AcceptingModel, Model, Server, json_body
from layerscale_server.http.event_stream import ANTHROPIC, EventStreamResponse, cancelled_on_disconnect, frames_of
from layerscale_server.http.prompts import off_loop
from layerscale_server.http.replies import Reply
from layerscale_server.http.schemas.messages import CountTokensRequest, MessagesRequest
from layerscale_server.http.turns import begin_turn

router = APIRouter(prefix="/v1/messages")


@router.post("")
async def messages(
    request: Request,
    server: Server,
    model: AcceptingModel,
    body: Annotated[MessagesRequest, Depends(json_body(MessagesRequest))],
) -> Response:
    """Continue a conversation, in a session if one is named."""
    request_id = request.state.request_id
    conversation = await off_loop(conversation_of, body)
    session, conversation = await find_session(model, conversation, request.headers, body.session_id)
    turn = await prepare_turn(model, conversation)
    sampling = body.sampling_params(body.max_tokens, stop=tuple(body.stop_sequences))
    generation = begin_turn(model, session, request_id, turn, sampling, is_warm_up=body.warm_up)
    message = AnthropicMessage(request_id, model.model_id, len(turn.token_ids), shows_thinking=body.wants_thinking)
    parser = turn.plan.make_parser()
    if body.stream:
        heartbeat_s = server.settings.limits.heartbeat_s
        frames = frames_of(
            generation,
            AnthropicEvents(message, Reply(parser)),
            heartbeat_s=heartbeat_s,
            request_id=request_id,
            dialect=ANTHROPIC,
        )
        return EventStreamResponse(generation, frames)
    async with cancelled_on_disconnect(generation, request.receive):
        (answer,) = await collect(generation, num_answers=1)
    return JSONResponse(message.whole(Reply.of(answer, parser), answer.end))


@router.post("/count_tokens")
async def count_tokens(
    model: Model, body: Annotated[CountTokensRequest, Depends(json_body(CountTokensRequest))]
) -> Response:
    """The tokens of a conversation as it would be rendered."""
    prompt = await off_loop(conversation_ids, model, conversation_of(body))
    return JSONResponse({"input_tokens": len(prompt)})
