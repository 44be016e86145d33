"""A session that begins with its data: nothing comes before the window."""

from __future__ import annotations

from pathlib import Path

from layerscale_core.sessions import NewSession
from tests.support.session_process import SessionProcess


def test_its_whole_window_can_leave_at_once(tiny_model_path: Path) -> None:
    with SessionProcess(tiny_model_path, None) as process:
        session = process.result(process.sessions.create(NewSession("note", (), window_size=1)))
        for text in ("first", "second", "third"):
            process.push(session, text)
            assert session.entries() == [{"text": text}]
            assert session.view.data_tokens == session.view.num_tokens
            process.ask(session, "And now?")
        assert session.ring.counts.items_processed == 3
