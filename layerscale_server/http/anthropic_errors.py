"""Errors as Anthropic's clients read them: the other envelope, and the paths that are answered in it."""

from __future__ import annotations

from typing import Any

_ROOT = "/v1/messages"

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    503: "overloaded_error",
}


def is_anthropic_path(path: str) -> bool:
    """Whether a path, or a request's target, belongs to Anthropic's API, routes that do not exist included."""
    return path.partition("?")[0] == _ROOT or path.startswith(f"{_ROOT}/")


def translated(body: dict[str, Any], status: int, request_id: str | None = None) -> dict[str, Any]:
    """OpenAI's envelope as Anthropic's; the field that is wrong stays named in the message."""
    error = {"type": _TYPES.get(status, "invalid_request_error"), "message": body["error"]["message"]}
    shaped: dict[str, Any] = {"type": "error", "error": error}
    return shaped if request_id is None else shaped | {"request_id": request_id}
