"""Amounts of memory, as people write and read them."""

from __future__ import annotations

import re

_UNITS = {
    "": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate(("", "k", "m", "g", "t"))},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate(("k", "m", "g", "t"), start=1)},
}


def parse_size(text: str) -> int:
    """Bytes of a size such as ``48GiB``, ``1.5 GB`` or ``4096``.

    Raises:
        ValueError: it is none; the message follows the setting's name.
    """
    match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d{1,6})?)\s*([a-z]{0,3})\s*", text.lower())
    if match is None or match[2] not in _UNITS:
        raise ValueError(f"must be a size such as 48GiB or 500MB, not {text!r}")
    return int(float(match[1]) * _UNITS[match[2]])


def readable(num_bytes: int) -> str:
    """A size for people."""
    return f"{num_bytes / 2**30:,.2f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.1f} MiB"
