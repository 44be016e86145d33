"""The contract of a stream type."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest

from layerscale_core.errors import InvalidRequestError
from layerscale_core.specs import StreamType


class StreamTypeContract:
    """Every promise of ``StreamType``.

    Attributes:
        entries: valid entries, at least two and not all alike; the first has every optional field.
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
            assert stream_type.validate(validated) == validated

    def test_fields_that_are_not_declared_are_dropped(self, stream_type: StreamType) -> None:
        """``validate``: the declared fields only."""
        entry = self.entries[0]
        assert stream_type.validate({**entry, "not a field": 1}) == stream_type.validate(entry)

    def test_a_missing_field_is_named(self, stream_type: StreamType) -> None:
        """``validate``: ``InvalidRequestError`` names the field."""
        for name in self.required:
            entry = {field: value for field, value in self.entries[0].items() if field != name}
            with pytest.raises(InvalidRequestError, match=name):
                stream_type.validate(entry)

    @pytest.mark.parametrize("value", [None, [], {}, float("nan"), float("inf")], ids=str)
    def test_a_wrong_value_is_refused(self, stream_type: StreamType, value: object) -> None:
        """``validate``: a required field of no type that any field could have."""
        for name in self.required:
            with pytest.raises(InvalidRequestError, match=name):
                stream_type.validate({**self.entries[0], name: value})

    def test_an_entry_is_one_short_line_always_the_same(self, stream_type: StreamType) -> None:
        """``render``: one line; equal entries give equal text, different ones here do not."""
        texts = [stream_type.render(stream_type.validate(entry)) for entry in self.entries]
        for text, entry in zip(texts, self.entries, strict=True):
            assert text
            assert text.splitlines() == [text]
            assert stream_type.render(stream_type.validate(dict(sorted(entry.items())))) == text
        assert len(set(texts)) > 1

    def test_texts_in_an_entry_cannot_break_its_line(self, stream_type: StreamType) -> None:
        """``render``: what comes from outside stays in its line."""
        entry = dict(self.entries[0])
        hostile = {name: "a\nb\r\x1b[0m\u2028c" for name, value in entry.items() if isinstance(value, str)}
        text = stream_type.render(stream_type.validate(entry | hostile))
        assert text.splitlines() == [text]
        assert text.isprintable()

    def test_statistics_have_the_same_fields_for_any_window(self, stream_type: StreamType) -> None:
        """``statistics``: fields and their types do not depend on the window; JSON can carry them."""
        window = [stream_type.validate(entry) for entry in self.entries]
        shapes = {json.dumps(_shape(stream_type.statistics(window[:count]))) for count in range(len(window) + 1)}
        assert len(shapes) == 1
        json.dumps(stream_type.statistics(window), allow_nan=False)

    def test_an_empty_window_has_zeros_and_empty_texts(self, stream_type: StreamType) -> None:
        """``statistics``: nothing to tell of an empty window."""
        assert not any(_leaves(stream_type.statistics([])))


def _shape(value: object) -> object:
    """A value with every leaf replaced by its JSON type."""
    if isinstance(value, Mapping):
        return {name: _shape(inner) for name, inner in value.items()}
    return type(value).__name__


def _leaves(value: object) -> list[object]:
    if isinstance(value, Mapping):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    return [value]
