"""Log lines: structlog in front, one format for everything the process logs, on standard error.

``text`` is for people, ``json`` is one object a line with ``time`` (RFC 3339), ``level``, ``logger``, ``message`` and
the event's own fields; requests add ``request_id``, and ``session_id`` where they concern one. Text from outside cannot
forge a line in either. Prompts, completions and keys are never passed to a logger, and passwords in URLs are taken out.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from layerscale_server.text import printable, without_credentials

_QUIET_LIBRARIES = ("uvicorn", "uvicorn.error", "asyncio", "httpx", "httpx2", "huggingface_hub", "filelock", "urllib3")
"""Loggers of libraries that are heard from warnings on."""

AS_TABLE = "as_table"
"""A field that holds lines for people: the text format shows them below the message, in place of the other fields, and
JSON shows the other fields alone."""

Event = MutableMapping[str, Any]


def configure_logging(log_format: str, level: str, stream: TextIO | None = None) -> None:
    """Route structlog and the standard library's loggers to one handler.

    Args:
        log_format: ``text`` or ``json``.
        level: least level shown, in lower case.
        stream: where lines go; None = standard error.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.format_exc_info,
        _hide_credentials,
    ]
    render = _render_json if log_format == "json" else _render_text
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for name in _QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def name_session(session_id: str) -> None:
    """Have every line of this request name a session from here on, its last one too."""
    structlog.contextvars.bind_contextvars(session_id=session_id)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger by dotted name, e.g. ``layerscale.http``."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def _hide_credentials(_logger: object, _method: str, event: Event) -> Event:
    """What libraries say holds the addresses they asked, and these a mirror's password."""
    for key in event.keys() & {"event", "exception"}:
        event[key] = without_credentials(str(event[key]))
    return event


def _render_json(_logger: object, _method: str, event: Event) -> str:
    ordered = {key: event.pop(key) for key in ("time", "level", "logger")}
    ordered["message"] = event.pop("event")
    event.pop(AS_TABLE, None)
    return json.dumps(ordered | dict(event), default=str)


def _render_text(_logger: object, _method: str, event: Event) -> str:
    time, level, logger = (event.pop(key) for key in ("time", "level", "logger"))
    message, trace, as_table = event.pop("event"), event.pop("exception", ""), event.pop(AS_TABLE, ())
    line = f"{time} {level.upper():<7} {logger}: {printable(str(message))}"
    if not as_table:
        line += "".join(f" {key}={printable(str(value))}" for key, value in event.items())
    below = [printable(each) for each in (*as_table, *trace.splitlines())]
    return "\n".join([line, *(f"    | {each}" for each in below)])  # marked, so that none looks like a line of its own
