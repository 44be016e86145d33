"""The collector of cyclic garbage at start-up."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from layerscale_server.collector import keep_what_is_there, paused_collector


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.enable()


def test_is_paused_and_goes_on_also_after_an_error() -> None:
    def fail() -> None:
        assert not gc.isenabled()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), paused_collector():
        fail()
    assert gc.isenabled()


def test_goes_on_within_the_pause_without_what_was_there() -> None:
    kept: list[object] = [[]]
    with paused_collector():
        keep_what_is_there()
        assert gc.isenabled()
    new: list[object] = [[]]
    looked_at = {id(each) for each in gc.get_objects()}
    assert id(kept) not in looked_at
    assert id(new) in looked_at
