"""From a session to what is kept of it, and back into the pages of another."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from layerscale_core.sessions.context import SessionContext
from layerscale_core.sessions.saved_state import SavedContext, SavedSession
from layerscale_core.specs.kv_pool import KVPool, PageTable

if TYPE_CHECKING:
    from layerscale_core.sessions.session import Session

PageIds = NDArray[np.int32]

FillPages = Callable[[PageIds], None]
"""Puts the keys and values of a session into pages, in the order of its table."""


def snapshot(session: Session) -> SavedSession:
    """A session as it stands between two things that it does. Engine thread."""
    session.context.drop_warmed()  # its pages are to hold what its tokens say
    waiting, counts = session.ring.unprocessed()
    return SavedSession(
        session_id=session.session_id,
        label=session.label,
        type=session.stream_type.name,
        window_size=session.window_size,
        created_at=session.actor.created_at,
        last_used_at=session.actor.last_used_at,
        data_version=session.data_version,
        revision=session.context.revision,
        context=_saved_context(session.context),
        entries=tuple(session.entries()),
        waiting=tuple(waiting),
        counts=counts,
        flash=session.flash.queries,
        last_flash_id=session.flash.last_id,
        num_evaluations=session.num_evaluations,
    )


def _saved_context(context: SessionContext) -> SavedContext:
    return SavedContext(
        context_len=context.context_len,
        tokens=tuple(context.tokens),
        prefix_end=context.prefix_end,
        data_start=context.data_start,
        durable_end=context.durable_end,
        gap=context.gap,
        window=tuple(context.window),
        num_computed=context.num_computed,
        data_offset=_data_offset(context),
    )


def resume(session: Session, saved: SavedSession) -> None:
    """Have a new session, whose context is in place, go on where another was left. Engine thread."""
    actor = session.actor
    actor.created_at, actor.last_used_at = saved.created_at, saved.last_used_at
    actor.ingestion.data_version = saved.data_version
    actor.evaluations.num_finished = saved.num_evaluations
    session.context.revision = saved.revision
    session.window.slide(0, saved.entries)
    session.flash.restore(saved.flash, saved.last_flash_id)
    session.ring.restore(saved.waiting, saved.counts)
    actor.advance()


def rebuild(context: SessionContext, saved: SavedContext, pool: KVPool, fill: FillPages | None) -> None:
    """Have a new context hold what is saved. Engine thread.

    Args:
        fill: puts what was computed into the pages; None = compute it again.
    """
    context.tokens = list(saved.tokens)
    context.prefix_end, context.data_start = saved.prefix_end, saved.data_start
    context.durable_end = saved.durable_end
    context.window = deque(saved.window)
    if fill is None:
        return  # positions are given anew, and leave no gap
    context.gap = saved.gap
    _lay_out(context.table, saved, pool)
    page_ids = page_ids_of(context.table)
    if page_ids.size:
        fill(page_ids)


def page_ids_of(table: PageTable) -> PageIds:
    """The pages of a table in order."""
    return np.array([page.page_id for page in table.pages], np.int32)


def _lay_out(table: PageTable, saved: SavedContext, pool: KVPool) -> None:
    """Give an empty table the pages, and these the valid ranges, of the table that was saved."""
    if saved.data_start is None or saved.data_offset is None:
        pool.append(table, saved.num_computed)
        return
    pool.append(table, saved.data_start)
    pool.begin_page(table)
    pool.append(table, saved.data_offset + saved.num_computed - saved.data_start)
    pool.drop_front(table, saved.data_offset)


def _data_offset(context: SessionContext) -> int | None:
    """Where in its page the first token of data lies, if a page begins with it."""
    num_tokens = 0
    for page in context.table.pages:
        if num_tokens == context.data_start:
            return page.start
        num_tokens += page.stop - page.start
    return None
