"""What the server adds to core's exceptions.

::

    RequestError
    ├── InvalidRequestError
    │   └── RequestTooLargeError     the body is larger than allowed
    ├── ShuttingDownError
    │   └── ModelLoadingError        the model is not loaded yet
    ├── AuthenticationError          no valid key came with the request
    ├── ForeignOriginError           a page of another site asks for a WebSocket
    ├── LicenseExpiredError          the server's licence ended while it ran
    └── SlowReaderError              the client leaves its events unread
    ClientGoneError                  nobody is there to be answered
"""

from __future__ import annotations

from layerscale_core.errors import InvalidRequestError, RequestError, ShuttingDownError


class AuthenticationError(RequestError):
    """No valid key came with the request."""


class ForeignOriginError(RequestError):
    """A page of another site asks for a WebSocket."""

    def __init__(self) -> None:
        super().__init__("a WebSocket may be opened by no page of another origin than this host")


class LicenseExpiredError(RequestError):
    """The server's licence ended while it ran: what was begun is finished, nothing new is taken."""

    def __init__(self) -> None:
        super().__init__("the licence of this server has expired: it takes no new requests until it has a new key")


class RequestTooLargeError(InvalidRequestError):
    """The body is larger than allowed."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"the request body is larger than {max_bytes} bytes", code="request_too_large")


class ModelLoadingError(ShuttingDownError):
    """The model is not loaded yet."""

    def __init__(self) -> None:
        super().__init__("the model is still loading; try again shortly")


class SlowReaderError(RequestError):
    """The client leaves its events unread."""

    def __init__(self) -> None:
        super().__init__("the events of this stream were not read in time")


class ClientGoneError(Exception):
    """The client has left: there is nobody to answer."""
