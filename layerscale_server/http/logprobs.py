"""Log-probabilities in OpenAI's two shapes: one for chat, one for completions."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from typing import Any

from layerscale_core.engine.request import TokenLogprob
from layerscale_core.specs import Tokenizer

_LEAST_LOGPROB = -9999.0
"""Stands for minus infinity, which JSON has not."""


def token_name(tokenizer: Tokenizer, token_id: int) -> str:
    """A token's text; where it is only part of a character ``bytes:`` and its bytes in hexadecimal, as at OpenAI."""
    data = tokenizer.token_bytes(token_id)
    if not data:
        return tokenizer.token_text(token_id)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)


def chat_logprobs(tokenizer: Tokenizer, logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
    """``choices[].logprobs`` of a chat answer."""

    def entry(token_id: int, logprob: float) -> dict[str, Any]:
        return {
            "token": token_name(tokenizer, token_id),
            "logprob": max(logprob, _LEAST_LOGPROB),
            "bytes": list(tokenizer.token_bytes(token_id)),
        }

    content = [
        entry(each.token_id, each.logprob) | {"top_logprobs": [entry(*alternative) for alternative in each.top]}
        for each in logprobs
    ]
    return {"content": content, "refusal": None}


class CompletionLogprobs:
    """``choices[].logprobs`` of one completion, a piece at a time: it knows where in the text the next token begins.

    Args:
        echo: the prompt that the text begins with; it may spell out control tokens.
    """

    def __init__(self, tokenizer: Tokenizer, echo: str = "") -> None:
        self._tokenizer = tokenizer
        self._echo = echo
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._offset = 0

    def unpredicted(self, token_id: int) -> dict[str, Any]:
        """The first token of a text, which nothing predicts."""
        return self._piece([token_id], [None], [None])

    def piece(self, logprobs: Iterable[TokenLogprob]) -> dict[str, Any]:
        """The next tokens."""
        each = list(logprobs)
        return self._piece(
            [one.token_id for one in each],
            [max(one.logprob, _LEAST_LOGPROB) for one in each],
            [self._alternatives(one) for one in each],
        )

    def _piece(self, token_ids: list[int], values: list[float | None], tops: list[Any]) -> dict[str, Any]:
        return {
            "tokens": [token_name(self._tokenizer, token_id) for token_id in token_ids],
            "token_logprobs": values,
            "top_logprobs": tops,
            "text_offset": [self._advance(token_id) for token_id in token_ids],
        }

    def _alternatives(self, one: TokenLogprob) -> dict[str, float]:
        """The likeliest tokens and the chosen one by name; of two with one name the likelier stays."""
        named: dict[str, float] = {}
        for token_id, logprob in (*one.top, (one.token_id, one.logprob)):
            named.setdefault(token_name(self._tokenizer, token_id), max(logprob, _LEAST_LOGPROB))
        return named

    def _advance(self, token_id: int) -> int:
        """Where in the text a token begins; the next one begins behind it."""
        offset = self._offset
        data = self._tokenizer.token_bytes(token_id)
        control = "" if data else self._tokenizer.token_text(token_id)
        if self._echo.startswith(control, offset):
            self._offset += len(control)
        self._offset += len(self._decoder.decode(data))
        return offset


def joined(pieces: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Several pieces of one completion as one."""
    whole: dict[str, Any] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
    for piece in pieces:
        for name, values in piece.items():
            whole[name] += values
    return whole
