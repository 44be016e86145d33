"""What a message says: a text, or a list of pieces of text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, FailFast

from layerscale_server.http.schemas.base import RequestModel


class TextPart(RequestModel):
    """A piece of text."""

    type: Literal["text"]
    text: str


def as_parts(content: Any) -> Any:
    """A bare text as the one piece that it is."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text_of(parts: Iterable[object]) -> str:
    """The pieces of text among these, one directly after the other."""
    return "".join(part.text for part in parts if isinstance(part, TextPart))


TextContent = Annotated[
    list[TextPart], FailFast(), BeforeValidator(as_parts, json_schema_input_type=str | list[TextPart])
]
