"""What the head of every answer has, also of those that the edge gives before the application is asked."""

from __future__ import annotations

import uuid


def new_request_id() -> str:
    """A request's id."""
    return f"req_{uuid.uuid4().hex[:24]}"


def answer_headers(request_id: str) -> dict[str, str]:
    """Its id by the names that clients know, and leave for a browser's page of any origin to read the answer."""
    return {
        "x-request-id": request_id,
        "request-id": request_id,
        "access-control-allow-origin": "*",
        "access-control-expose-headers": "x-request-id, request-id, retry-after",
    }
