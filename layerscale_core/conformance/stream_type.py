"""The contract of a stream type."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, ClassVar

import pytest

from layerscale_core.errors import InvalidRequestError
from layerscale_core.specs import StreamType

_HOSTILE_TEXTS = (
    "a\nb\r\x1b[0m\u2028c",
    "\r\n",
    "\v\f\x1c\x1d\x1e\x85\u2028\u2029",
    "\u202e\u200b\u2066\ufeff",
    "\ud800",
    "\0" * 10_000,
)


class StreamTypeContract:
    """Every promise of ``StreamType``.

    Attributes:
        entries: valid entries, at least two and not all alike; the first has every optional field, and its numbers that
            need not be whole are floats.
        required: the fields that no entry may lack.
    """

    entries: ClassVar[Sequence[Mapping[str, Any]]]
    required: ClassVar[Sequence[str]]

    def make_stream_type(self) -> StreamType:
        """The stream type under test."""
        raise NotImplementedError

    @pytest.fixture
    def stream_type(self) -> StreamType:
        """The stream type under test."""
        return self.make_stream_type()

    def test_has_a_name(self, stream_type: StreamType) -> None:
        """``name``: what a session asks for."""
        assert stream_type.name == stream_type.name.strip().lower() != ""

    def test_a_valid_entry_is_returned_and_not_changed(self, stream_type: StreamType) -> None:
        """``validate``: the entry, with what was declared; validating it again changes nothing."""
        for entry in self.entries:
            before = dict(entry)
            validated = stream_type.validate(entry)
            assert entry == before
            assert validated == entry
            assert validated is not entry

    def test_a_validated_entry_can_be_saved_and_restored(self, stream_type: StreamType) -> None:
        """``validate``: JSON carries what it returns, and validating that again changes no value and no type."""
        for entry in self.entries:
            validated = stream_type.validate(entry)
            restored = stream_type.validate(json.loads(json.dumps(validated, allow_nan=False)))
            assert restored == validated
            assert _shape(restored) == _shape(validated)
            assert stream_type.render(restored) == stream_type.render(validated)

    def test_fields_that_are_not_declared_are_dropped(self, stream_type: StreamType) -> None:
        """``validate``: the declared fields only."""
        entry = self.entries[0]
        assert stream_type.validate({**entry, "not a field": 1}) == stream_type.validate(entry)

    def test_a_missing_field_is_named(self, stream_type: StreamType) -> None:
        """``validate``: ``InvalidRequestError`` names the field."""
        for name in self.required:
            entry = {field: value for field, value in self.entries[0].items() if field != name}
            with pytest.raises(InvalidRequestError, match=name) as refusal:
                stream_type.validate(entry)
            assert refusal.value.param == name

    @pytest.mark.parametrize("value", [None, [], {}, float("nan"), float("inf")], ids=str)
    def test_a_wrong_value_is_refused(self, stream_type: StreamType, value: object) -> None:
        """``validate``: a required field of no type that any field could have."""
        for name in self.required:
            with pytest.raises(InvalidRequestError, match=name) as refusal:
                stream_type.validate({**self.entries[0], name: value})
            assert refusal.value.param == name

    def test_an_entry_is_one_short_line_always_the_same(self, stream_type: StreamType) -> None:
        """``render``: one line; equal entries give equal text, different ones here do not."""
        texts = [stream_type.render(stream_type.validate(entry)) for entry in self.entries]
        for text, entry in zip(texts, self.entries, strict=True):
            assert text
            assert text.splitlines() == [text]
            assert stream_type.render(stream_type.validate(dict(sorted(entry.items())))) == text
        assert len(set(texts)) > 1

    @pytest.mark.parametrize("text", _HOSTILE_TEXTS, ids=ascii)
    def test_texts_in_an_entry_cannot_break_its_line(self, stream_type: StreamType, text: str) -> None:
        """``validate`` and ``render``: what comes from outside is refused, or stays in its line and can be sent on."""
        for entry in self.entries:
            hostile = {name: text for name, value in entry.items() if isinstance(value, str)}
            validated = _accepted(stream_type, entry, hostile)
            if validated is not None:
                rendered = stream_type.render(validated)
                assert rendered.splitlines() == [rendered]
                assert rendered.isprintable()
                json.dumps(stream_type.statistics([validated]), ensure_ascii=False).encode()

    def test_statistics_have_the_same_fields_for_any_window(self, stream_type: StreamType) -> None:
        """``statistics``: fields and their types do not depend on the window; JSON can carry them."""
        window = [stream_type.validate(entry) for entry in self.entries]
        shapes = {json.dumps(_shape(stream_type.statistics(window[:count]))) for count in range(len(window) + 1)}
        assert len(shapes) == 1
        assert not {"type", "count"} & stream_type.statistics(window).keys()

    def test_statistics_are_finite_even_of_extreme_numbers(self, stream_type: StreamType) -> None:
        """``statistics``: numbers that ``validate`` accepts never become NaN or infinite, which JSON lacks."""
        window = []
        for largest in (sys.float_info.max, sys.float_info.max, -sys.float_info.max, 0.0):
            extreme = {name: largest for name, value in self.entries[0].items() if isinstance(value, float)}
            validated = _accepted(stream_type, self.entries[0], extreme)
            if validated is not None:
                window.append(validated)
        for first in range(len(window)):
            json.dumps(stream_type.statistics(window[first:]), allow_nan=False)

    def test_statistics_leave_the_window_as_it_is_and_share_nothing(self, stream_type: StreamType) -> None:
        """``statistics``: any sequence will do; each answer is its own."""
        window = deque(stream_type.validate(entry) for entry in self.entries)
        before = json.dumps(list(window))
        answer = json.dumps(stream_type.statistics(window))
        _spoil(stream_type.statistics(window))
        _spoil(stream_type.statistics([]))
        assert json.dumps(list(window)) == before
        assert json.dumps(stream_type.statistics(window)) == answer
        assert not any(_leaves(stream_type.statistics([])))

    def test_an_empty_window_has_zeros_and_empty_texts(self, stream_type: StreamType) -> None:
        """``statistics``: nothing to tell of an empty window."""
        assert not any(_leaves(stream_type.statistics([])))


def _accepted(
    stream_type: StreamType, entry: Mapping[str, Any], changes: Mapping[str, Any]
) -> Mapping[str, Any] | None:
    """The validated entry with these changes, or None where it is refused for one of them."""
    try:
        return stream_type.validate({**entry, **changes})
    except InvalidRequestError as refusal:
        if refusal.param not in changes:
            raise
        return None


def _shape(value: object) -> object:
    """A value with every leaf replaced by its JSON type."""
    if isinstance(value, Mapping):
        return {name: _shape(inner) for name, inner in value.items()}
    return type(value).__name__


def _spoil(value: object) -> None:
    """Overwrite every leaf of an answer that can be changed."""
    if isinstance(value, MutableMapping):
        for name, inner in value.items():
            _spoil(inner)
            if not isinstance(inner, Mapping):
                value[name] = "spoiled"


def _leaves(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    return [value]
