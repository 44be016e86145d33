"""Keeping one party's exceptions from the others."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from typing import TypeVar

from layerscale_core.errors import StepError

logger = logging.getLogger(__name__)

T = TypeVar("T")


def contained(call: Callable[[T], None], argument: T, complaint: str, *about: object) -> bool:
    """Call code that is not ours; log its exception as ``complaint % about``. Returns whether there was none."""
    try:
        call(argument)
    except Exception:
        logger.exception(complaint, *about)
        return False
    return True


def logged_error(what: str) -> StepError:
    """Log the exception being handled under a new id, which is all that a client learns of it."""
    error_id = secrets.token_hex(6)
    logger.exception("%s (error id %s)", what, error_id)
    return StepError(f"{what} (error id {error_id})")
