"""``POST /v1/chat/completions``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from layerscale_core.dialogue import AnswerPlan, CallArguments, CallBegun, Piece, ReasoningPiece, TextPiece
from layerscale_core.engine import request as engine
from layerscale_core.specs import Tokenizer
from layerscale_server.http.adoption import find_session
from layerscale_server.http.answers import Answer, ResponseHead, collect
from layerscale_server.http.conversations import chat_conversation, prepare_turn
from layerscale_server.http.dependencies import AcceptingModel, Server, json_body
from layerscale_server.http.event_stream import EventStreamResponse, cancelled_on_disconnect, frames_of
from layerscale_server.http.logprobs import chat_logprobs
from layerscale_server.http.replies import CallIds, Reply, openai_calls
from layerscale_server.http.schemas.chat import ChatRequest
from layerscale_server.http.turns import begin_turn

router = APIRouter()


@router.post("/v1/chat/completions")
async def chat(
    request: Request,
    server: Server,
    model: AcceptingModel,
    body: Annotated[ChatRequest, Depends(json_body(ChatRequest))],
) -> Response:
    """Continue a conversation, in a session if one is named."""
    request_id = request.state.request_id
    conversation = chat_conversation(
        body.messages, body.offer(), body.template_variables(), continues_last=body.continue_final_message
    )
    session, conversation = await find_session(model, conversation, request.headers, body.session_id)
    turn = await prepare_turn(model, conversation, body.grammar())
    sampling = body.sampling_params(body.answer_tokens, stop=tuple(body.stop), logprobs=body.num_logprobs)
    generation = begin_turn(model, session, request_id, turn, sampling, is_warm_up=body.warm_up)
    shape = _Shape(request_id, model.model_id, model.tokenizer, body)
    if body.stream:
        heartbeat_s = server.settings.limits.heartbeat_s
        frames = frames_of(generation, _Chunks(shape, turn.plan), heartbeat_s=heartbeat_s, request_id=request_id)
        return EventStreamResponse(generation, frames)
    async with cancelled_on_disconnect(generation, request.receive):
        (answer,) = await collect(generation, num_answers=1)
    return JSONResponse(shape.whole(answer, turn.plan))


class _Shape:
    """How whole answers and chunks look."""

    def __init__(self, request_id: str, model_id: str, tokenizer: Tokenizer, body: ChatRequest) -> None:
        self._head = ResponseHead(f"chatcmpl-{request_id.removeprefix('req_')}", model_id)
        self.call_ids = CallIds("call", request_id)
        self._tokenizer = tokenizer
        self._has_logprobs = body.logprobs
        self.include_usage = body.stream_options.include_usage

    def whole(self, answer: Answer, plan: AnswerPlan) -> dict[str, Any]:
        """The answer in one piece."""
        reply = Reply.of(answer, plan.make_parser())
        choice: dict[str, Any] = {"index": 0, "message": self._message(reply)}
        choice["logprobs"] = chat_logprobs(self._tokenizer, answer.logprobs) if self._has_logprobs else None
        choice["finish_reason"] = reply.finish_reason(answer.end)
        return self._head.body("chat.completion", [choice], [answer.end.usage])

    def _message(self, reply: Reply) -> dict[str, Any]:
        said = reply.sorted
        message: dict[str, Any] = {"role": "assistant", "content": None if said.calls and not said.text else said.text}
        if said.reasoning:
            message["reasoning_content"] = said.reasoning
        if said.calls:
            message["tool_calls"] = openai_calls(said.calls, self.call_ids)
        return message

    def chunk(
        self, delta: dict[str, Any], reason: str | None = None, logprobs: Sequence[engine.TokenLogprob] = ()
    ) -> dict[str, Any]:
        """A piece of the answer."""
        choice: dict[str, Any] = {"index": 0, "delta": delta}
        if logprobs:
            choice["logprobs"] = chat_logprobs(self._tokenizer, logprobs)
        choice["finish_reason"] = reason
        return self._head.body("chat.completion.chunk", [choice])

    def usage_chunk(self, usage: engine.Usage) -> dict[str, Any]:
        """The last chunk, when usage was asked for."""
        return self._head.body("chat.completion.chunk", [], [usage])


class _Chunks:
    """Events to chunks: the role, what is said and called, the reason it ended, and the usage if asked for."""

    def __init__(self, shape: _Shape, plan: AnswerPlan) -> None:
        self._shape = shape
        self._reply = Reply(plan.make_parser())
        self._has_begun = False
        self._usage: engine.Usage | None = None

    def chunks(self, _index: int, event: engine.Event) -> Iterator[dict[str, Any]]:
        """The chunks that tell a client of an event."""
        if not self._has_begun:
            self._has_begun = True
            yield self._shape.chunk({"role": "assistant", "content": ""})
        deltas = [delta for piece in self._reply.read(event) for delta in self._deltas(piece)]
        logprobs = event.logprobs if isinstance(event, engine.TokensGenerated) else ()
        if logprobs:  # they belong to tokens, whatever these tokens say
            first, *deltas = deltas or [{"content": ""}]
            yield self._shape.chunk(first, logprobs=logprobs)
        yield from map(self._shape.chunk, deltas)
        if isinstance(event, engine.Finished):
            self._usage = event.usage
            yield self._shape.chunk({}, self._reply.finish_reason(event))

    def _deltas(self, piece: Piece) -> Iterator[dict[str, Any]]:
        match piece:
            case TextPiece(text):
                yield {"content": text}
            case ReasoningPiece(text):
                yield {"reasoning_content": text}
            case CallBegun(index, name):
                function = {"name": name, "arguments": ""}
                call = {"index": index, "id": self._shape.call_ids[index], "type": "function", "function": function}
                yield {"tool_calls": [call]}
            case CallArguments(index, text):
                yield {"tool_calls": [{"index": index, "function": {"arguments": text}}]}

    def closing(self) -> Iterator[dict[str, Any]]:
        """The usage, if it was asked for."""
        if self._shape.include_usage and self._usage is not None:
            yield self._shape.usage_chunk(self._usage)
