"""The bodies of the routes that make and change a session."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, FailFast, Field, ValidationInfo

from layerscale_core.memory_plan import CONTEXT_STEP
from layerscale_core.sessions import DEFAULT_ANSWER_TOKENS, MAX_QUERIES
from layerscale_server.http.schemas.base import RequestModel, limits_of


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("should not be empty")
    return text


def _as_query(flash: Any) -> Any:
    return {"query": flash} if isinstance(flash, str) else flash


def _as_queries(flash: Any) -> Any:
    return list(map(_as_query, flash)) if isinstance(flash, list) else flash


def _within_window(window_size: int, info: ValidationInfo) -> int:
    return min(window_size, limits_of(info).window_entries)


class FlashRequest(RequestModel):
    """A question to be answered again after every batch of data."""

    query: Annotated[str, AfterValidator(_not_blank)]
    max_tokens: int = DEFAULT_ANSWER_TOKENS


class NewSessionRequest(RequestModel):
    """A session to be made. A bare text in ``flash`` is a query."""

    type: str
    prompt: str | None = None
    context: int | None = Field(None, ge=CONTEXT_STEP)
    window_size: Annotated[int, AfterValidator(_within_window)] = Field(10_000, ge=1, validate_default=True)
    flash: Annotated[
        list[FlashRequest],
        FailFast(),
        Field(max_length=MAX_QUERIES),
        BeforeValidator(_as_queries, json_schema_input_type=list[FlashRequest | str]),
    ] = Field(default_factory=list)


class AppendRequest(RequestModel):
    """Text that the session is to hold for good."""

    text: str


class RestoreRequest(RequestModel):
    """A saved session to be opened."""

    session_id: str


class PushRequest(RequestModel):
    """Entries of the session's stream; what each must have is the stream type's own matter."""

    data: Annotated[list[dict[str, Any]], FailFast()]
