"""Sessions that are made for whoever names a conversation, and given up again when another one needs the room."""

from __future__ import annotations

import logging
from concurrent.futures import Future
from functools import partial

from layerscale_core.engine import Engine
from layerscale_core.errors import MaxSessionsError
from layerscale_core.sessions.calls import post
from layerscale_core.sessions.new_session import NewSession
from layerscale_core.sessions.session import Session
from layerscale_core.sessions.sessions import Sessions

logger = logging.getLogger(__name__)

IDLE_S = 60
"""So long after its last use an adopted session is not given up: its agent runs a tool, and comes back."""


class Adoption:
    """Finds or makes the session of a conversation by its label. Sessions that a client made itself are left alone.

    Args:
        stream_type: of sessions that are made; it only matters if somebody pushes data to one.
    """

    def __init__(self, sessions: Sessions, engine: Engine, stream_type: str) -> None:
        self._sessions = sessions
        self._engine = engine
        self._stream_type = stream_type

    def adopt(self, label: str) -> Future[Session | None]:
        """The session with a label, made if need be; None while there is room for no more.

        Raises:
            ShuttingDownError: the engine has stopped.
        """
        return post(self._engine, partial(self._adopt, label))

    def _adopt(self, label: str) -> Session | None:
        found = next((session for session in self._sessions.all() if session.label == label), None)
        session = found or self._make(label)
        if session is not None:
            session.actor.touch()
        return session

    def _make(self, label: str) -> Session | None:
        try:
            return self._create(label)
        except MaxSessionsError:
            idle = self._longest_idle()
            if idle is None:
                logger.info("a conversation goes without a session: all of them are in use")
                return None
        logger.info("session %s is given up for another conversation", idle.session_id)
        self._sessions.delete_now(idle.session_id)
        return self._create(label)

    def _create(self, label: str) -> Session:
        session = self._sessions.create_now(NewSession(self._stream_type, label=label))
        logger.info("session %s is adopted for a conversation", session.session_id)
        return session

    def _longest_idle(self) -> Session | None:
        adopted = [session for session in self._sessions.all() if session.label and session.actor.idle_s >= IDLE_S]
        return min(adopted, key=lambda session: session.actor.last_used_at, default=None)
