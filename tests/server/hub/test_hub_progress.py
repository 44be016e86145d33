"""What is said of a download while it runs."""

from __future__ import annotations

import logging
import sys
import threading

import pytest
from huggingface_hub.utils.tqdm import are_progress_bars_disabled

from layerscale_server.hub.progress import show_progress

LOGGER = "layerscale_server.hub.progress"


class Lines(logging.Handler):
    """Keeps what is logged, and says when the first line came."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.came = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())
        self.came.set()


@pytest.fixture
def lines() -> Lines:
    return Lines()


@pytest.fixture(autouse=True)
def logger(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger(LOGGER)
    monkeypatch.setattr(logger, "handlers", [lines])
    monkeypatch.setattr(logger, "level", logging.INFO)


@pytest.mark.parametrize("wants_bars", [True, False])
def test_without_a_terminal_it_is_a_line_now_and_then(lines: Lines, wants_bars: bool) -> None:
    sizes = iter([1_000_000])
    with show_progress(lambda: next(sizes, 4_500_000), 2_500_000_000, wants_bars=wants_bars, interval_s=0.001):
        assert are_progress_bars_disabled()
        assert lines.came.wait(30)
    assert lines.lines[0] == "downloaded 3.5 MB of 2.5 GB"
    assert not are_progress_bars_disabled()


def test_on_a_terminal_it_is_a_bar(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with show_progress(lambda: 0, 1, wants_bars=True, interval_s=0.001):
        assert not are_progress_bars_disabled()
        assert not lines.came.wait(0.05)


def test_where_logs_are_for_machines_a_terminal_gets_no_bar(lines: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with show_progress(lambda: 0, 1, wants_bars=False, interval_s=0.001):
        assert are_progress_bars_disabled()
        assert lines.came.wait(30)
