"""Keeping one party's exceptions from the others."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable

from layerscale_core.errors import StepError

logger = logging.getLogger(__name__)


def contained(call: Callable[[], None], complaint: str) -> bool:
    """Call code that is not ours and log its exception as ``complaint``; returns whether there was none."""
    try:
        call()
    except Exception:
        logger.exception(complaint)
        return False
    return True


def logged_error(what: str) -> StepError:
    """Log the exception being handled under a new id, which is all that a client learns of it."""
    error_id = secrets.token_hex(6)
    logger.exception("%s (error id %s)", what, error_id)
    return StepError(f"{what} (error id {error_id})")
