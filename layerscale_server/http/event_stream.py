"""Server-sent events: frames, and the response that writes them until the end or until the client leaves.

Our own response, because sse-starlette's ends every stream as soon as the server begins to shut down; ours finish.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from layerscale_core.engine import Event, PromptScored
from layerscale_core.errors import RequestError
from layerscale_server.generation import Batch, Generation
from layerscale_server.http.errors import anthropic_envelope, envelope

DONE = b"data: [DONE]\n\n"
HEARTBEAT = b": heartbeat\n\n"


_HEADERS = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}


def data_frame(payload: Any) -> bytes:
    """One event: compact JSON, all but ASCII escaped, because a client may split lines at any Unicode line end."""
    return b"data: " + json.dumps(payload, separators=(",", ":")).encode() + b"\n\n"


def event_frame(payload: dict[str, Any]) -> bytes:
    """One event with its type also on a line of its own."""
    return f"event: {payload['type']}\n".encode() + data_frame(payload)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a stream is written.

    Attributes:
        frame: a chunk as bytes.
        error: an error, and the request's id, as the chunk that tells of it.
        end: what follows the last chunk.
    """

    frame: Callable[[dict[str, Any]], bytes]
    error: Callable[[Exception, str], dict[str, Any]]
    end: bytes = b""


OPENAI = Dialect(data_frame, envelope, DONE)
SESSION = Dialect(data_frame, envelope)
ANTHROPIC = Dialect(event_frame, anthropic_envelope)


class Source(Protocol):
    """Where a stream's events come from. Leaving its ``async with`` cancels it."""

    async def __aenter__(self) -> Self:
        """Begin."""
        ...

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """End."""
        ...

    def cancel(self) -> None:
        """Nobody listens any more. Idempotent."""
        ...


class ChunkWriter(Protocol):
    """Turns events into the chunks of one route."""

    def chunks(self, index: int, event: Event) -> Iterator[dict[str, Any]]:
        """The chunks that tell a client of an event."""
        ...

    def closing(self) -> Iterator[dict[str, Any]]:
        """The chunks after the last event."""
        ...


async def frames_of(
    generation: Generation, writer: ChunkWriter, *, heartbeat_s: float, request_id: str, dialect: Dialect = OPENAI
) -> AsyncGenerator[bytes]:
    """A generation as the frames of a stream.

    An error before the first frame is raised, so that it can be an ordinary HTTP answer; after it, it is a frame.
    """
    has_begun = False
    try:
        async for batch in generation.batches(heartbeat_s):
            frames = await _render(batch, writer, dialect) if batch else HEARTBEAT
            if frames:
                has_begun = True
                yield frames
        yield b"".join(map(dialect.frame, writer.closing()))
    except RequestError as error:
        if not has_begun:
            raise
        yield dialect.frame(dialect.error(error, request_id))
    yield dialect.end


async def _render(batch: Batch, writer: ChunkWriter, dialect: Dialect) -> bytes:
    """A batch's frames. A scored prompt is long, so that its frame is made on another thread."""

    def render() -> bytes:
        return b"".join(dialect.frame(chunk) for index, event in batch for chunk in writer.chunks(index, event))

    is_long = any(isinstance(event, PromptScored) for _, event in batch)
    return await asyncio.to_thread(render) if is_long else render()


@contextlib.asynccontextmanager
async def cancelled_on_disconnect(source: Source, receive: Receive) -> AsyncIterator[None]:
    """While inside, a client that leaves cancels the source; leaving cancels what has not ended."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        source.cancel()

    watcher = asyncio.create_task(watch())
    try:
        async with source:
            yield
    finally:
        watcher.cancel()


def whole_stream(frames: Iterable[bytes]) -> Response:
    """A stream of which everything is there already."""
    return Response(b"".join(frames), headers=_HEADERS)


class EventStreamResponse(Response):
    """Writes frames as they come. The head is sent with the first, so until then an error can be another answer."""

    def __init__(self, source: Source, frames: AsyncGenerator[bytes]) -> None:
        self._source = source
        self._frames = frames
        self.background = None
        self.status_code = 200
        self.init_headers(_HEADERS)

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        """Write the stream.

        Raises:
            RequestError: before the first frame.
            ClientGoneError: the client left.
        """
        has_begun = False
        async with cancelled_on_disconnect(self._source, receive), contextlib.aclosing(self._frames) as frames:
            async for frame in frames:
                if not has_begun:
                    await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
                    has_begun = True
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
