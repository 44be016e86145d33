"""The end of a licence, told in time: at start, then daily, from memory and by wall time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from layerscale_core.specs import License
from layerscale_server.logging import get_logger

_DAY_S = 24 * 60 * 60
_WARNING_DAYS = 14

logger = get_logger("layerscale.license")


async def watch_license(
    license_: License,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Warn now and every day from 14 days before the end, and say when it has come. Returns only if there is no end."""
    if license_.expires_at is None:
        return
    while True:
        tell_of_expiry(license_.expires_at, clock())
        left_s = license_.expires_at - clock()
        await sleep(min(left_s, _DAY_S) if left_s > 0 else _DAY_S)


def tell_of_expiry(expires_at: float, now: float) -> None:
    """One log line, if it is time for one."""
    end = datetime.fromtimestamp(expires_at, UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
    if now >= expires_at:
        logger.error(f"the licence expired at {end}: new requests are refused with the code license_expired")
    elif now >= expires_at - _WARNING_DAYS * _DAY_S:
        days_left = int((expires_at - now) // _DAY_S)
        logger.warning(f"the licence expires at {end}: new requests are refused from then on", days_left=days_left)
