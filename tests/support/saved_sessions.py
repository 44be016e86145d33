"""A saved session with something in every field, and the fingerprint that it was saved with."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from layerscale_core.sessions import FlashAnswer, FlashQuery, StreamCounts
from layerscale_core.sessions.saved_state import Fingerprint, SavedContext, SavedSession
from layerscale_core.sessions.window import Run

SESSION_ID = "sess_0123456789abcdef"
FINGERPRINT = Fingerprint(model="a model", tokenizer="a tokenizer", kv="pages of 4 tokens")
VOCAB_SIZE = 258


def make_saved(session_id: str = SESSION_ID) -> SavedSession:
    """Six tokens of prefix, two entries and a text in a window that has moved, and a tail, most of it computed."""
    entry = {"o": 1.0, "h": 2.5, "l": 0.5, "c": 2.0, "v": 10, "sym": "ÅÄÖ"}
    answer = FlashAnswer("up", 1, data_version=3, revision=4, confidence=1.25, evaluated_at=1_700_000_009)
    return SavedSession(
        session_id=session_id,
        label="an agent",
        type="ohlcv",
        window_size=100,
        created_at=1_700_000_000,
        last_used_at=1_700_000_010,
        data_version=3,
        revision=5,
        context=SavedContext(
            context_len=256,
            tokens=tuple(range(40, 60)),
            prefix_end=5,
            data_start=6,
            durable_end=16,
            gap=7,
            window=(Run(4, is_entry=True), Run(2, is_entry=False), Run(4, is_entry=True)),
            num_computed=19,
            data_offset=3,
        ),
        entries=(entry, {**entry, "c": 1.5}),
        waiting=({**entry, "c": 0.25},),
        counts=StreamCounts(
            queue_size=1, total_enqueued=6, total_dropped=2, batches_processed=3, items_processed=5, process_time_us=99
        ),
        flash=(
            FlashQuery(1, "Up or down?", 8, (1, 2, 3), answer),
            FlashQuery(4, "Why?", 32, (4, 5)),
        ),
        last_flash_id=5,
        num_evaluations=12,
    )


def make_pages() -> NDArray[np.uint8]:
    """Two pages of prefix and four of data."""
    return np.random.default_rng(1).integers(0, 256, (6, 64), np.uint8)
