"""``POST /v1/completions``: raw prompts, one or many, as text or token ids; with ``echo`` also scoring."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import JSONResponse, Response

from layerscale_core.engine import request as engine
from layerscale_core.errors import ContextLengthError
from layerscale_core.specs import Tokenizer
from layerscale_server.http.answers import Answer, ResponseHead, collect
from layerscale_server.http.dependencies import AcceptingModel, Server, json_body
from layerscale_server.http.event_stream import EventStreamResponse, cancelled_on_disconnect, frames_of
from layerscale_server.http.logprobs import CompletionLogprobs, joined
from layerscale_server.http.prompts import many_prompt_ids, off_loop
from layerscale_server.http.schemas.completions import CompletionRequest
from layerscale_server.http.structured_output import constraint_of

router = APIRouter()

_OBJECT = "text_completion"


@router.post("/v1/completions")
async def completions(
    request: Request,
    server: Server,
    model: AcceptingModel,
    body: Annotated[CompletionRequest, Depends(json_body(CompletionRequest))],
) -> Response:
    """Continue raw prompts; choice ``i`` belongs to prompt ``i``."""
    request_id = request.state.request_id
    prompts = await off_loop(many_prompt_ids, model, body.prompt)
    sampling = body.sampling_params(
        body.max_tokens, logprobs=body.logprobs, prompt_logprobs=body.logprobs if body.echo else None
    )
    constraint = await constraint_of(model, body)
    try:
        generation = model.engine.submit(
            [
                engine.Request(f"{request_id}-{index}", tuple(ids), sampling, constraint=constraint)
                for index, ids in enumerate(prompts)
            ]
        )
    except ContextLengthError as error:
        error.param = "prompt"  # the engine cannot know what the prompt is called here
        raise
    head = ResponseHead(f"cmpl-{request_id.removeprefix('req_')}", model.model_id)
    choices = [_Choice(model.tokenizer, body, index, ids[0]) for index, ids in enumerate(prompts)]
    if body.stream:
        heartbeat_s = server.settings.limits.heartbeat_s
        chunks = _Chunks(head, choices, include_usage=body.stream_options.include_usage)
        frames = frames_of(generation, chunks, heartbeat_s=heartbeat_s, request_id=request_id)
        return EventStreamResponse(generation, frames)
    async with cancelled_on_disconnect(generation, request.receive):
        answers = await collect(generation, len(prompts))
    return await off_loop(_whole_response, head, choices, answers)


def _whole_response(head: ResponseHead, choices: list[_Choice], answers: list[Answer]) -> Response:
    whole = [choice.whole(answer) for choice, answer in zip(choices, answers, strict=True)]
    return JSONResponse(head.body(_OBJECT, whole, [answer.end.usage for answer in answers]))


class _Choice:
    """One prompt's answer, whole or in pieces; with ``echo`` it begins with the prompt."""

    def __init__(self, tokenizer: Tokenizer, body: CompletionRequest, index: int, first_id: int) -> None:
        prompt = body.prompt[index]
        self._index = index
        self._first_id = first_id
        self._echo = ""
        if body.echo:
            self._echo = prompt if isinstance(prompt, str) else tokenizer.decode(prompt, skip_special=False)
        self._logprobs = None if body.logprobs is None else CompletionLogprobs(tokenizer, self._echo)

    def whole(self, answer: Answer) -> dict[str, Any]:
        """The answer in one piece."""
        logprobs = None
        if self._logprobs is not None:
            scored = self._scored(answer.prompt_logprobs) if answer.prompt_logprobs else []
            logprobs = joined([*scored, self._logprobs.piece(answer.logprobs)])
        return self._choice(self._echo + answer.text, logprobs, answer.end.reason.value)

    def chunks(self, event: engine.Event) -> Iterator[dict[str, Any]]:
        """The pieces that tell a client of an event."""
        if isinstance(event, engine.PromptScored):
            yield self._choice(self._take_echo(), joined(self._scored(event.logprobs)))
        elif isinstance(event, engine.TokensGenerated) and (event.text or event.logprobs):
            logprobs = self._logprobs.piece(event.logprobs) if self._logprobs is not None else None
            yield self._choice(self._take_echo() + event.text, logprobs)
        elif isinstance(event, engine.Finished):
            text = self._take_echo() + event.text
            if text:
                yield self._choice(text)
            yield self._choice("", reason=event.reason.value)

    def _take_echo(self) -> str:
        """The echoed prompt, the first time."""
        echo, self._echo = self._echo, ""
        return echo

    def _scored(self, prompt_logprobs: tuple[engine.TokenLogprob | None, ...]) -> list[dict[str, Any]]:
        assert self._logprobs is not None
        predicted = [each for each in prompt_logprobs if each is not None]
        return [self._logprobs.unpredicted(self._first_id), self._logprobs.piece(predicted)]

    def _choice(self, text: str, logprobs: dict[str, Any] | None = None, reason: str | None = None) -> dict[str, Any]:
        return {"text": text, "index": self._index, "logprobs": logprobs, "finish_reason": reason}


class _Chunks:
    """Events to chunks, each of one choice, and the usage of all if asked for."""

    def __init__(self, head: ResponseHead, choices: list[_Choice], *, include_usage: bool) -> None:
        self._head = head
        self._choices = choices
        self._include_usage = include_usage
        self._usages: list[engine.Usage] = []

    def chunks(self, index: int, event: engine.Event) -> Iterator[dict[str, Any]]:
        """The chunks that tell a client of an event."""
        if isinstance(event, engine.Finished):
            self._usages.append(event.usage)
        for choice in self._choices[index].chunks(event):
            yield self._head.body(_OBJECT, [choice])

    def closing(self) -> Iterator[dict[str, Any]]:
        """The usage, if it was asked for."""
        if self._include_usage:
            yield self._head.body(_OBJECT, [], self._usages)
