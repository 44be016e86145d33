"""The bodies of ``POST /tokenize`` and ``POST /detokenize``, as vLLM has them."""

from __future__ import annotations

from pydantic import model_validator

from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.schemas.base import RequestModel, TokenIds
from layerscale_server.http.schemas.chat import ContinueField, Messages
from layerscale_server.http.schemas.turn import ToolFields


class TokenizeRequest(ToolFields, ContinueField):
    """A text or a conversation; exactly one of them."""

    prompt: str | None = None
    messages: Messages | None = None
    add_special_tokens: bool = True
    add_generation_prompt: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _check_choice(self) -> TokenizeRequest:
        if (self.prompt is None) == (self.messages is None):
            raise InvalidRequestError("exactly one of prompt and messages is needed", param="prompt")
        return self


class DetokenizeRequest(RequestModel):
    """Token ids."""

    tokens: TokenIds
