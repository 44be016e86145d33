"""How OpenAI's responses look, from their beginning to their end."""

from __future__ import annotations

import time
from typing import Any

from layerscale_core.dialogue import SortedAnswer
from layerscale_core.engine import Finished, FinishReason
from layerscale_core.specs import Tokenizer
from layerscale_server.http.replies import CallIds, Reply
from layerscale_server.http.response_items import Item, output_items
from layerscale_server.http.schemas.responses import ResponsesRequest


class ResponseShape:
    """How a response looks at every moment of its life."""

    def __init__(self, request_id: str, model_id: str, tokenizer: Tokenizer, body: ResponsesRequest) -> None:
        stem = request_id.removeprefix("req_")
        self.id = f"resp_{stem}"
        self.item_ids = CallIds("item", request_id)
        self.call_ids = CallIds("call", request_id)
        self._tokenizer = tokenizer
        self._head = {"id": self.id, "object": "response", "created_at": int(time.time()), "model": model_id}
        self._asked = _echo(body)

    def at(self, status: str, output: list[Item] | None = None) -> dict[str, Any]:
        """The response while it is made."""
        return self._head | {
            "status": status,
            "error": None,
            "incomplete_details": None,
            "output": output or [],
            "usage": None,
            **self._asked,
        }

    def finished(self, reply: Reply, end: Finished) -> dict[str, Any]:
        """The whole response."""
        is_cut = end.reason is FinishReason.LENGTH
        output = output_items(reply.sorted, self.item_ids, self.call_ids, is_cut=is_cut)
        usage = self._usage(reply.sorted, end)
        body = self.at("incomplete" if is_cut else "completed", output) | {"usage": usage}
        return body | {"incomplete_details": {"reason": "max_output_tokens"}} if is_cut else body

    def _usage(self, answer: SortedAnswer, end: Finished) -> dict[str, Any]:
        usage = end.usage
        reasoning = self._tokenizer.encode(answer.reasoning, add_special=False) if answer.reasoning else []
        num_computed = usage.prompt_tokens - usage.cached_tokens
        return {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": num_computed},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": len(reasoning)},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        }


def _echo(body: ResponsesRequest) -> dict[str, Any]:
    """What a response repeats of its request."""
    names = {"instructions", "max_output_tokens", "metadata", "parallel_tool_calls", "previous_response_id", "store"}
    further = {"temperature", "text", "tool_choice", "tools", "top_p", "truncation", "reasoning"}
    return body.model_dump(mode="json", by_alias=True, include=names | further)
