"""The replay: bars pushed into a session through the official client, and one question asked in three ways."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeVar

from board import Board, Comparison
from layerscale import APIConnectionError, LayerScale
from market_data import Bar
from questions import AD_HOC, FIRST_LIVE_BAR, LAST_CLOSE, REGISTERED, session_prompt

T = TypeVar("T")

WINDOW_BARS = 120
"""The session holds so many of the newest bars."""

COMPARE_AT = (10, 30, 60, 90, 120)
COMPARE_EVERY = 120
"""After which bars the ways to ask are compared, at first and later."""

POLL_S = 0.01
FRESH_LIMIT_S = 30.0


class Replay:
    """A session that is fed bars; what happens is written on the board. Use as a context manager.

    Args:
        bars: all of the file, those that the examples are taken from included.
    """

    def __init__(self, url: str, bars: Sequence[Bar], board: Board) -> None:
        self._url = url
        self._bars = bars
        self._board = board
        self._client = LayerScale(url)
        session = self._client.sessions.create(
            type="ohlcv",
            prompt=session_prompt(bars),
            window_size=WINDOW_BARS,
            flash=[{"query": question.text, "max_tokens": question.max_tokens} for question in REGISTERED],
            mark_prefix=True,
        )
        self._session_id = session.session_id
        self._listener = threading.Thread(target=self._listen, name="session events", daemon=True)

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with contextlib.suppress(APIConnectionError):  # a server that is gone has no session left
            self._client.sessions.delete(self._session_id)  # which ends the events as well
        self._listener.join(FRESH_LIMIT_S)
        self._client.close()

    @property
    def num_bars_left(self) -> int:
        """Bars that can still be pushed; the file's last one is what the last forecast is compared with."""
        return len(self._bars) - 1 - FIRST_LIVE_BAR - len(self._board.bars)

    def run(self, num_bars: int, interval_s: float) -> None:
        """Push bars one by one, each once the one before is in the KV cache, and compare now and then.

        Args:
            interval_s: from one bar to the next.
        """
        for _ in range(num_bars):
            due = time.monotonic() + interval_s
            index = FIRST_LIVE_BAR + len(self._board.bars)
            self._board.add_bar(self._bars[index], self._bars[index + 1])
            self._client.sessions.push(self._session_id, [self._bars[index].entry()], wait=True, wait_interval=POLL_S)
            if len(self._board.bars) in COMPARE_AT or len(self._board.bars) % COMPARE_EVERY == 0:
                self._compare()
            time.sleep(max(0.0, due - time.monotonic()))

    def _listen(self) -> None:
        """Take in answers as they change. Every bar is waited for, so a version of the data is a number of bars."""
        by_text = {question.text: question for question in REGISTERED}
        with LayerScale(self._url) as client, client.sessions.events(self._session_id) as events:
            for event in events:
                if event.type == "flash_ready":
                    self._board.add_answer(
                        by_text[event.query], event.data_version, event.value.strip(), event.confidence
                    )

    def _compare(self) -> None:
        """Ask the session, ask for the same tokens without it, and ask what is registered. No bars come meanwhile."""
        sessions, board = self._client.sessions, self._board
        self._wait_until_fresh()
        held = sessions.get(self._session_id)
        board.is_comparing = True
        stored, stored_s = timed(lambda: sessions.query(self._session_id, prompt=LAST_CLOSE.text))
        asked, asked_s = timed(
            lambda: sessions.query(self._session_id, prompt=AD_HOC.text, max_tokens=AD_HOC.max_tokens)
        )
        # Its first line is unique, so that the prefix cache of the server has not seen the text.
        reread, reread_s = timed(
            lambda: self._client.completions.create(
                prompt=f"Copy {time.time_ns()}\n{held.context_text}{AD_HOC.text}",
                max_tokens=AD_HOC.max_tokens,
                temperature=0,
            )
        )
        board.is_comparing = False
        assert stored.flash, "the registered question was not answered from the store"
        board.add_comparison(
            Comparison(
                num_bars=len(board.bars),
                num_tokens=held.n_tokens,
                asked_tokens=asked.model_extra["n_prefilled"] if asked.model_extra else 0,
                asked_s=asked_s,
                reread_tokens=reread.usage.prompt_tokens,
                reread_s=reread_s,
                stored_s=stored_s,
            )
        )

    def _wait_until_fresh(self) -> None:
        """Wait until every registered question is answered from all the bars."""
        deadline = time.monotonic() + FRESH_LIMIT_S
        while time.monotonic() < deadline:
            stored = self._client.sessions.list_flash(self._session_id)
            if all(query.data_version == stored.current_data_version for query in stored.flash_queries):
                return
            time.sleep(POLL_S)


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and the seconds that it took."""
    started = time.perf_counter()
    result = call()
    return result, time.perf_counter() - started
