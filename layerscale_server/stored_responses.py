"""Responses that can be gone on from by their id, as long as there is room."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from layerscale_core.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response and all that led to it.

    Attributes:
        body: as its client was given it.
        messages: the conversation, its answer included, without instructions, as chat templates expect it.
        root: id of the response that the conversation began with.
        num_chars: of all its texts, those of responses before it included.
    """

    body: dict[str, Any]
    messages: Sequence[dict[str, Any]]
    root: str
    num_chars: int


class StoredResponses:
    """The newest responses, of which those that were not used for longest go first. Event loop only.

    Args:
        max_responses, max_chars: what is kept at most.
    """

    def __init__(self, max_responses: int, max_chars: int) -> None:
        self._max_responses = max_responses
        self._max_chars = max_chars
        self._responses: OrderedDict[str, StoredResponse] = OrderedDict()
        self._num_chars = 0

    def get(self, response_id: str) -> StoredResponse:
        """A response, which counts as used.

        Raises:
            NotFoundError: there never was one, or it had to go.
        """
        response = self._responses.get(response_id)
        if response is None:
            raise NotFoundError(
                "there is no such response: it was not stored, was deleted, or had to make room",
                code="response_not_found",
            )
        self._responses.move_to_end(response_id)
        return response

    def add(self, response: StoredResponse) -> None:
        """Keep one, if it is not too long by itself; then it goes, and the others stay."""
        if response.num_chars > self._max_chars:
            return
        self._responses[response.body["id"]] = response
        self._num_chars += response.num_chars
        while len(self._responses) > self._max_responses or self._num_chars > self._max_chars:
            _, oldest = self._responses.popitem(last=False)
            self._num_chars -= oldest.num_chars

    def delete(self, response_id: str) -> None:
        """Forget one.

        Raises:
            NotFoundError: it is not there.
        """
        self._num_chars -= self.get(response_id).num_chars
        del self._responses[response_id]


def num_chars_of(messages: Sequence[dict[str, Any]]) -> int:
    """Characters of a conversation's texts, calls and results."""
    return sum(len(str(value)) for message in messages for value in message.values())
