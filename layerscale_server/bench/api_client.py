"""An HTTP client that times what it receives."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

import httpx2

from layerscale_server.bench.errors import BenchmarkError

TIMEOUT_S = 600.0
"""Longest silence of a server; a long prompt on a slow machine is silent for minutes."""

_DATA = b"data:"
_MAX_SHOWN = 300


class ApiClient:
    """Talks JSON and server-sent events to one server; for any number of threads. Use as a context manager.

    Args:
        address: the server's URL, without ``/v1``.
        key: sent as a bearer token; empty = none.
    """

    def __init__(self, address: str, key: str = "") -> None:
        self.address = address.rstrip("/").removesuffix("/v1")
        # As many connections as there are requests: one that waits for a connection would look like a slow server.
        self._client = httpx2.Client(
            base_url=self.address,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=TIMEOUT_S,
            limits=httpx2.Limits(max_connections=None),
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    def request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        """The JSON answer.

        Raises:
            BenchmarkError: there is none, or its status is not 200.
        """
        try:
            response = self._client.request(method, path, json=body)
            self._check(path, response)
            return dict(response.json())
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise self._failure(path, error) from None

    def post_stream(self, path: str, body: Mapping[str, object]) -> Iterator[tuple[float, dict[str, Any]]]:
        """The JSON events of a streamed answer, each with the moment it was received, by ``time.perf_counter``.

        Raises:
            BenchmarkError: the status is not 200, or the stream breaks off.
        """
        try:
            with self._client.stream("POST", path, json=body) as response:
                self._check(path, response)
                for data in event_data(response.iter_bytes()):
                    yield time.perf_counter(), json.loads(data)
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise self._failure(path, error) from None

    def _check(self, path: str, response: httpx2.Response) -> None:
        if response.status_code != httpx2.codes.OK:
            text = response.read().decode(errors="replace")[:_MAX_SHOWN]
            raise BenchmarkError(f"{self.address}{path} answered {response.status_code}: {text}")

    def _failure(self, path: str, error: Exception) -> BenchmarkError:
        return BenchmarkError(f"{self.address}{path}: {type(error).__name__}: {error}")


def event_data(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The JSON objects of server-sent events, as soon as their lines are complete; comments and ``[DONE]`` are none.

    Lines end where the bytes of a line feed are: what else Unicode calls a line's end may stand inside a JSON text.
    """
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            data = line.removeprefix(_DATA).strip()
            if line.startswith(_DATA) and data.startswith(b"{"):
                yield data
