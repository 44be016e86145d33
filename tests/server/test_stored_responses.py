"""Stored responses: bounded by number and by length, the longest unused go first."""

from __future__ import annotations

import pytest

from layerscale_core.errors import NotFoundError
from layerscale_server.stored_responses import StoredResponse, StoredResponses


def response(name: str, num_chars: int = 1) -> StoredResponse:
    return StoredResponse({"id": name}, (), name, num_chars)


def kept(stored: StoredResponses, names: str) -> str:
    """Which of the names are there; asking uses them."""
    found = ""
    for name in names:
        try:
            found += stored.get(name).root
        except NotFoundError:
            continue
    return found


def test_only_so_many_are_kept() -> None:
    stored = StoredResponses(2, 100)
    for name in "abc":
        stored.add(response(name))
    assert kept(stored, "abc") == "bc"


def test_what_was_used_stays_longer() -> None:
    stored = StoredResponses(2, 100)
    stored.add(response("a"))
    stored.add(response("b"))
    stored.get("a")
    stored.add(response("c"))
    assert kept(stored, "abc") == "ac"


def test_long_ones_make_others_go_and_one_too_long_goes_itself() -> None:
    stored = StoredResponses(10, 100)
    stored.add(response("a", 60))
    stored.add(response("b", 60))
    assert kept(stored, "ab") == "b"
    stored.add(response("c", 101))
    assert kept(stored, "bc") == "b"
    stored.add(response("d", 100))
    assert kept(stored, "bd") == "d"


def test_a_deleted_one_makes_room() -> None:
    stored = StoredResponses(10, 100)
    stored.add(response("a", 90))
    stored.delete("a")
    with pytest.raises(NotFoundError):
        stored.delete("a")
    stored.add(response("b", 90))
    assert kept(stored, "ab") == "b"
