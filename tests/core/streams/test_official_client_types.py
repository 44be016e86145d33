"""Entries and statistics are those that the official client declares."""

from __future__ import annotations

from typing import Any, Required, get_origin, get_type_hints

import pytest
from layerscale.types import sessions, stream_data
from pydantic import BaseModel

from layerscale_core.errors import InvalidRequestError
from tests.support.stream_entries import EXAMPLES, NAMES, STREAM_TYPES

ENTRIES: dict[str, Any] = {
    "ohlcv": stream_data.OHLCVEntry,
    "iot": stream_data.IoTEntry,
    "spatial": stream_data.SpatialEntry,
    "event": stream_data.EventEntry,
    "vitals": stream_data.VitalsEntry,
}
STATISTICS: dict[str, type[BaseModel]] = {
    "ohlcv": sessions.OHLCVStats,
    "iot": sessions.IoTStats,
    "spatial": sessions.SpatialStats,
    "event": sessions.EventStats,
    "vitals": sessions.VitalsStats,
}


@pytest.mark.parametrize("name", NAMES)
def test_the_same_fields_are_declared_and_required(name: str) -> None:
    entry = EXAMPLES[name] | {"timestamp": 1704205800}
    declared = get_type_hints(ENTRIES[name], include_extras=True)
    assert set(STREAM_TYPES[name].validate(entry | {"not declared": 1})) == set(declared)
    for field, kind in declared.items():
        without = {other: value for other, value in entry.items() if other != field}
        if get_origin(kind) is Required:
            with pytest.raises(InvalidRequestError):
                STREAM_TYPES[name].validate(without)
        else:
            assert STREAM_TYPES[name].validate(without) == without


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_statistics_are_what_the_client_reads_and_nothing_else(name: str, count: int) -> None:
    window = [STREAM_TYPES[name].validate(EXAMPLES[name])] * count
    answer = {"type": name, "count": count, **STREAM_TYPES[name].statistics(window)}
    assert STATISTICS[name].model_validate(answer, strict=True).model_dump() == answer
