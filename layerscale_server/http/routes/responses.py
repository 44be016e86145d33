"""``/v1/responses``, OpenAI's newer API: conversations that can be gone on from by the id of their last answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from layerscale_server.http.adoption import find_session
from layerscale_server.http.answers import collect
from layerscale_server.http.conversations import Conversation, prepare_turn
from layerscale_server.http.dependencies import AcceptingModel, Model, Server, json_body
from layerscale_server.http.event_stream import EventStreamResponse, cancelled_on_disconnect, frames_of
from layerscale_server.http.replies import Reply
from layerscale_server.http.response_events import RESPONSES, ResponseEvents
from layerscale_server.http.response_items import TemplateMessage, assistant_message, template_messages
from layerscale_server.http.responses import ResponseShape
from layerscale_server.http.schemas.responses import ResponsesRequest
from layerscale_server.http.turns import begin_turn
from layerscale_server.stored_responses import StoredResponse, StoredResponses, num_chars_of

router = APIRouter(prefix="/v1/responses")


@router.post("")
async def respond(
    request: Request,
    server: Server,
    model: AcceptingModel,
    body: Annotated[ResponsesRequest, Depends(json_body(ResponsesRequest))],
) -> Response:
    """Continue a conversation: the one sent, or one that is stored and what follows it."""
    before = None if body.previous_response_id is None else server.responses.get(body.previous_response_id)
    messages = template_messages(() if before is None else before.messages, body.input)
    told = [{"role": "system", "content": body.instructions}] if body.instructions else []
    conversation = Conversation([*told, *messages], body.offer(), variables=body.template_variables())
    chain = None if before is None else before.root
    session, conversation = await find_session(model, conversation, request.headers, body.session_id, chain)
    request_id = request.state.request_id
    turn = await prepare_turn(model, conversation, body.grammar())
    is_warm_up, sampling = body.prompt_cache_options.prewarm, body.sampling_params(body.max_output_tokens)
    generation = begin_turn(model, session, request_id, turn, sampling, is_warm_up=is_warm_up)
    shape = ResponseShape(request_id, model.model_id, model.tokenizer, body)
    keep = _keeper(server.responses, shape, messages, chain or shape.id) if body.store and not is_warm_up else _forget
    parser = turn.plan.make_parser()
    if body.stream:
        heartbeat_s = server.settings.limits.heartbeat_s
        events = ResponseEvents(shape, Reply(parser), keep)
        frames = frames_of(generation, events, heartbeat_s=heartbeat_s, request_id=request_id, dialect=RESPONSES)
        return EventStreamResponse(generation, frames)
    async with cancelled_on_disconnect(generation, request.receive):
        (answer,) = await collect(generation, num_answers=1)
    reply = Reply.of(answer, parser)
    response = shape.finished(reply, answer.end)
    keep(reply, response)
    return JSONResponse(response)


@router.get("/{response_id}")
async def retrieve(response_id: str, server: Server, _model: Model) -> Response:
    """A stored response."""
    return JSONResponse(server.responses.get(response_id).body)


@router.delete("/{response_id}")
async def delete(response_id: str, server: Server, _model: Model) -> Response:
    """Forget a stored response; those that went on from it stay."""
    server.responses.delete(response_id)
    return JSONResponse({"id": response_id, "object": "response", "deleted": True})


def _keeper(
    stored: StoredResponses, shape: ResponseShape, messages: Sequence[TemplateMessage], root: str
) -> Callable[[Reply, dict[str, Any]], None]:
    """What stores a response once it is whole."""

    def keep(reply: Reply, response: dict[str, Any]) -> None:
        conversation = (*messages, assistant_message(reply.sorted, shape.call_ids))
        stored.add(StoredResponse(response, conversation, root, num_chars_of(conversation)))

    return keep


def _forget(_reply: Reply, _response: dict[str, Any]) -> None:
    """The client wants nothing stored."""
