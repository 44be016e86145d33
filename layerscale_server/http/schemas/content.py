"""What a message says: a text, or a list of pieces of text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import FailFast

from layerscale_server.http.schemas.base import RequestModel, text_or_list


class TextPart(RequestModel):
    """A piece of text."""

    type: Literal["text"]
    text: str


def as_parts(text: str) -> list[Any]:
    """A bare text as the one piece that it is."""
    return [{"type": "text", "text": text}]


def text_of(parts: Iterable[object]) -> str:
    """The pieces of text among these, one directly after the other."""
    return "".join(part.text for part in parts if isinstance(part, TextPart))


TextContent = Annotated[list[TextPart], FailFast(), text_or_list(as_parts, str | list[TextPart])]
