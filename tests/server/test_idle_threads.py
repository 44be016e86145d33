"""What numpy's threads are told while numpy is imported."""

from __future__ import annotations

import os

import pytest

from layerscale_server.idle_threads import idle_blas_threads_sleep

VARIABLE = "OPENBLAS_THREAD_TIMEOUT"


def test_threads_are_told_to_sleep_while_it_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with idle_blas_threads_sleep():
        assert os.environ[VARIABLE] == "4"
    assert VARIABLE not in os.environ


def test_what_the_user_set_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "20")
    with idle_blas_threads_sleep():
        assert os.environ[VARIABLE] == "20"
    assert os.environ[VARIABLE] == "20"
