"""``POST /tokenize`` and ``POST /detokenize``, as in vLLM."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import JSONResponse, Response

from layerscale_core.errors import InvalidRequestError
from layerscale_server.http.conversations import chat_conversation, conversation_ids
from layerscale_server.http.dependencies import Model, json_body
from layerscale_server.http.logprobs import token_name
from layerscale_server.http.prompts import off_loop, prompt_ids
from layerscale_server.http.schemas.tokenize import DetokenizeRequest, TokenizeRequest
from layerscale_server.state import LoadedModel

router = APIRouter()


@router.post("/tokenize")
async def tokenize(model: Model, body: Annotated[TokenizeRequest, Depends(json_body(TokenizeRequest))]) -> Response:
    """The token ids of a text, or of a conversation as chat would render it."""
    return await off_loop(_tokenize, model, body)


def _tokenize(model: LoadedModel, body: TokenizeRequest) -> Response:
    if body.messages is not None:
        conversation = chat_conversation(
            body.messages, body.offer(), body.template_variables(), continues_last=body.continue_final_message
        )
        ids = conversation_ids(model, conversation, add_generation_prompt=body.add_generation_prompt)
    else:
        ids = prompt_ids(model, body.prompt or "", add_special=body.add_special_tokens)
    names = [token_name(model.tokenizer, token_id) for token_id in ids] if body.return_token_strs else None
    return JSONResponse(
        {"count": len(ids), "max_model_len": model.plan.context_len, "tokens": ids, "token_strs": names}
    )


@router.post("/detokenize")
async def detokenize(
    model: Model, body: Annotated[DetokenizeRequest, Depends(json_body(DetokenizeRequest))]
) -> Response:
    """The text of token ids, control tokens spelled out."""
    return await off_loop(_detokenize, model, body)


def _detokenize(model: LoadedModel, body: DetokenizeRequest) -> Response:
    if not all(0 <= token_id < model.tokenizer.vocab_size for token_id in body.tokens):
        raise InvalidRequestError("tokens: holds a token id outside the vocabulary", param="tokens")
    return JSONResponse({"prompt": model.tokenizer.decode(body.tokens, skip_special=False)})
