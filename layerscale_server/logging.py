"""Log lines: events with fields, one format for everything the process logs, on standard error.

``text`` is for people, ``json`` is one object a line with ``time`` (RFC 3339), ``level``, ``logger``, ``message`` and
the event's own fields; requests add ``request_id``, and ``session_id`` where they concern one. Text from outside cannot
forge a line in either. Prompts, completions and keys are never passed to a logger, and passwords in URLs are taken out.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TextIO

from layerscale_server.text import printable, without_credentials

_QUIET_LIBRARIES = ("uvicorn", "uvicorn.error", "asyncio", "httpx", "httpx2", "huggingface_hub", "filelock", "urllib3")
"""Loggers of libraries that are heard from warnings on."""

AS_TABLE = "as_table"
"""A field that holds lines for people: the text format shows them below the message, in place of the other fields, and
JSON shows the other fields alone."""

_FIELDS = "event_fields"
"""The attribute of a log record that holds the event's fields."""

_context_fields: ContextVar[Mapping[str, object]] = ContextVar("context_fields", default=MappingProxyType({}))


class Logger:
    """Logs events: a message that is always the same words, and fields beside it."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def log(self, level: int, message: str, **fields: object) -> None:
        """Log at a level of the standard library's."""
        self._logger.log(level, message, extra={_FIELDS: fields})

    def info(self, message: str, **fields: object) -> None:
        """What an operator expects."""
        self.log(logging.INFO, message, **fields)

    def warning(self, message: str, **fields: object) -> None:
        """What an operator should know."""
        self.log(logging.WARNING, message, **fields)

    def error(self, message: str, **fields: object) -> None:
        """What an operator should look into."""
        self.log(logging.ERROR, message, **fields)

    def exception(self, message: str, **fields: object) -> None:
        """An error, with the exception that is being handled."""
        self._logger.exception(message, extra={_FIELDS: fields})


def get_logger(name: str) -> Logger:
    """A logger by dotted name, e.g. ``layerscale.http``."""
    return Logger(name)


@contextlib.contextmanager
def bound_fields(**fields: object) -> Iterator[None]:
    """Give fields to every event within, also of libraries and of the tasks begun there."""
    token = _context_fields.set({**_context_fields.get(), **fields})
    try:
        yield
    finally:
        _context_fields.reset(token)


def name_session(session_id: str) -> None:
    """Have every line of this request name a session from here on, its last one too."""
    _context_fields.set({**_context_fields.get(), "session_id": session_id})


def configure_logging(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Give the process one handler.

    Args:
        log_format: ``text`` or ``json``.
        level: least level shown, in lower case.
        stream: where lines go; None = standard error.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields_of(record)
        fields.pop(AS_TABLE, None)
        if record.exc_info:
            fields["exception"] = without_credentials(self.formatException(record.exc_info))
        head = {"time": _time_of(record), "level": record.levelname.lower(), "logger": record.name}
        return json.dumps({**head, "message": _message_of(record), **fields}, default=str)


class _TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = _fields_of(record)
        as_table = fields.pop(AS_TABLE, ())
        line = f"{_time_of(record)} {record.levelname:<7} {record.name}: {printable(_message_of(record))}"
        if not as_table:
            line += "".join(f" {key}={printable(str(value))}" for key, value in fields.items())
        trace = without_credentials(self.formatException(record.exc_info)).splitlines() if record.exc_info else []
        below = [printable(each) for each in (*as_table, *trace)]
        return "\n".join([line, *(f"    | {each}" for each in below)])  # marked: none looks like a line of its own


def _message_of(record: logging.LogRecord) -> str:
    """What libraries say holds the addresses they asked, and these a mirror's password."""
    return without_credentials(record.getMessage())


def _fields_of(record: logging.LogRecord) -> dict[str, Any]:
    return {**_context_fields.get(), **getattr(record, _FIELDS, {})}


def _time_of(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
