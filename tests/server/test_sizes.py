"""Amounts of memory as text."""

from __future__ import annotations

import pytest

from layerscale_server.sizes import parse_size, readable


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("48GiB", 48 << 30), ("1.5 GB", 1_500_000_000), ("500MB", 500_000_000), ("4096", 4096), (" 2 tib ", 2 << 40)],
)
def test_sizes_are_read_with_their_units(text: str, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "1e9", "-1", "1..5GB", "1 GiBi", "inf", "9" * 13])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size such as"):
        parse_size(text)


def test_sizes_are_written_for_people() -> None:
    assert readable((3 << 30) + (1 << 29)) == "3.50 GiB"
    assert readable(98_566_144) == "94.0 MiB"
    assert readable(0) == "0.0 MiB"
