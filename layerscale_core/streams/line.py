"""The words of an entry's line: short for the tokenizer, plain for the model, and the same every time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_S = 86_400
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_WHOLE_BELOW = 1e15


def line(*words: str) -> str:
    """The words that are not empty, as one line."""
    return " ".join(filter(None, words))


def number_text(value: float) -> str:
    """A number of at most seven significant digits; whole ones below 10^15 keep all of theirs.

    Seven are what a feed's float32 holds: 185.64 that arrives as 185.63999938964844 is written as 185.64 again.
    """
    rounded = f"{value + 0.0:.7g}"  # adding zero takes the sign from -0.0
    return f"{value:.0f}" if "e+" in rounded and abs(value) < _WHOLE_BELOW else rounded


def name_text(value: str) -> str:
    """A name that cannot break its line: whatever does not print is a space, and spaces are single."""
    if not value.isprintable():
        value = "".join(character if character.isprintable() else " " for character in value)
    return " ".join(value.split())


def time_text(entry: Mapping[str, Any]) -> str:
    """When an entry happened, in UTC: ``Jan 2 14:30``, with seconds unless they are zero; empty without a timestamp.

    What begins a day shows the year in place of the time, ``Jan 2 2024``: daily data spans years, other data seldom
    does. A timestamp beyond the years 1 to 9999 stays a number.
    """
    timestamp = entry.get("timestamp")
    if timestamp is None:
        return ""
    try:
        moment = _EPOCH + timedelta(seconds=timestamp)
    except OverflowError:
        return str(timestamp)
    day = f"{_MONTHS[moment.month - 1]} {moment.day}"
    if timestamp % _DAY_S == 0:
        return f"{day} {moment.year}"
    seconds = f":{moment.second:02}" if moment.second else ""
    return f"{day} {moment.hour:02}:{moment.minute:02}{seconds}"
