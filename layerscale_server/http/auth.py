"""Who may ask: dependencies of the routers, so that a new route is closed until somebody opens it."""

from __future__ import annotations

import hmac
from collections.abc import Iterator

from starlette.requests import HTTPConnection

from layerscale_server.errors import AuthenticationError, ForeignOriginError
from layerscale_server.http.dependencies import Server
from layerscale_server.state import digest_of


async def require_key(connection: HTTPConnection, server: Server) -> None:
    """Let a request or WebSocket upgrade pass that carries the server's key, or any where the tier needs none.

    Raises:
        AuthenticationError: neither ``Authorization: Bearer KEY`` nor ``x-api-key: KEY`` matches.
    """
    if not server.tier.requires_auth:
        return
    max_bytes = server.settings.limits.bearer_bytes
    offered = [key for key in _offered_keys(connection) if len(key) <= max_bytes]
    # No short cut: the time taken does not tell which of several keys matched.
    matches = [hmac.compare_digest(digest_of(key), server.key_digest) for key in offered]
    if not any(matches):
        raise AuthenticationError("this server needs its key: Authorization: Bearer KEY, or x-api-key: KEY")


async def require_same_origin(connection: HTTPConnection) -> None:
    """Let a WebSocket upgrade pass that comes from no page, or from a page of this host.

    A browser lets every page open WebSockets to everywhere, and asks nobody first.

    Raises:
        ForeignOriginError: it comes from a page of another site.
    """
    host = connection.headers.get("host", "").lower()
    origins = connection.headers.getlist("origin")
    if any(origin.partition("://")[2].lower() != host for origin in origins):
        raise ForeignOriginError


def _offered_keys(connection: HTTPConnection) -> Iterator[bytes]:
    for name, value in connection.headers.raw:
        if name == b"x-api-key":
            yield value
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            yield value[7:].strip()
