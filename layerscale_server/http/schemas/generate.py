"""The body of ``POST /v1/sessions/{session_id}/generate``."""

from __future__ import annotations

from pydantic import Field, model_validator

from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.schemas.chat import Messages
from layerscale_server.http.schemas.turn import TurnFields


class GenerateRequest(TurnFields):
    """A question to a session: raw text, a conversation, or neither to go on from where it ends."""

    prompt: str | None = None
    messages: Messages | None = None
    temperature: float = Field(0.0, ge=0, le=2)
    fast_answer: bool = False
    clear_after: int = Field(0, description="positive: leave the session as it was")

    @model_validator(mode="after")
    def _check_choice(self) -> GenerateRequest:
        if self.prompt is not None and self.messages is not None:
            raise InvalidRequestError("at most one of prompt and messages may be given", param="prompt")
        if self.messages is None and self.tools:
            raise InvalidRequestError("tools need messages: raw text has no place for them", param="tools")
        if self.warm_up and self.messages is None:
            raise InvalidRequestError("warm_up needs messages: only a conversation can be warmed up", param="warm_up")
        return self
