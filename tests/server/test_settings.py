"""Settings and limits as rows."""

from __future__ import annotations

from dataclasses import fields
from enum import StrEnum

import pytest

from layerscale_core.models.quantize import Quantization
from layerscale_core.specs import KVType
from layerscale_server.limits import Limits
from layerscale_server.rows import Row, markdown_table
from layerscale_server.settings import LIMIT_ROWS, SETTING_ROWS, Settings, parse_limits

EVERY_ROW = (*SETTING_ROWS, *LIMIT_ROWS)
NUMBERS = [row for row in EVERY_ROW if row.kind is not str]
TEXTS = [row for row in EVERY_ROW if row.kind is str and not row.choices]
CHOICES = [row for row in EVERY_ROW if row.choices]


def name_of(row: Row) -> str:
    return row.name


def test_every_field_is_a_row_with_a_help_text() -> None:
    assert [row.name for row in SETTING_ROWS] == [each.name for each in fields(Settings) if each.name != "limits"]
    assert [row.name for row in LIMIT_ROWS] == [each.name for each in fields(Limits)]
    assert all(row.help for row in EVERY_ROW)


def test_defaults_are_the_contract() -> None:
    settings = Settings(model="m")
    assert (settings.context, settings.host, settings.port) == (0, "0.0.0.0", 8080)
    assert (settings.cpu_offload_gb, settings.kv_cache_type, settings.log_format) == (0, "fp16", "text")
    assert (settings.sessions, settings.prefix_cache, settings.prompt_lookup) == (1, "on", "on")
    assert (settings.response_cache_mib, settings.quantization) == (0, "none")
    limits = settings.limits
    assert (limits.head_bytes, limits.head_fields, limits.body_bytes) == (16384, 64, 16 << 20)
    assert (limits.json_depth, limits.json_keys, limits.messages) == (64, 4096, 2048)
    assert (limits.header_deadline_s, limits.body_deadline_s, limits.write_deadline_s) == (10, 30, 10)
    assert (limits.top_logprobs, limits.stops, limits.stop_bytes) == (20, 16, 256)
    assert (limits.template_chars, limits.template_render_s) == (1 << 20, 0.25)
    assert (limits.waiting_requests, limits.waiting_contexts, limits.bearer_bytes) == (1024, 16, 1024)


@pytest.mark.parametrize("row", NUMBERS, ids=name_of)
def test_number_is_taken_at_its_bounds_and_refused_past_them(row: Row) -> None:
    step = 1 if row.kind is int else 0.001
    assert row.minimum is not None
    assert row.parse(str(row.minimum)) == row.minimum
    refused = [str(row.minimum - step), "", "x", "nan", "inf", "-inf", "0x10", "1e999"]
    if row.maximum is not None:
        assert row.parse(str(row.maximum)) == row.maximum
        refused.append(str(row.maximum + step))
    if row.kind is int:
        refused.append(str(row.minimum + 0.5))
    if row.besides is not None:
        assert row.parse(str(row.besides)) == row.besides
    for text in refused:
        with pytest.raises(ValueError, match="must be"):
            row.parse(text)


@pytest.mark.parametrize("row", TEXTS, ids=name_of)
def test_text_is_taken_as_it_is_and_refused_when_empty(row: Row) -> None:
    assert row.parse(" é/x") == " é/x"
    with pytest.raises(ValueError, match="must not be empty"):
        row.parse("")


@pytest.mark.parametrize("row", CHOICES, ids=name_of)
def test_choice_is_taken_and_anything_else_refused_with_the_choices(row: Row) -> None:
    for choice in row.choices:
        assert row.parse(choice) == choice
    for text in ("", "nonsense", row.choices[0].upper(), f" {row.choices[0]}"):
        with pytest.raises(ValueError, match=", ".join(row.choices)):
            row.parse(text)


@pytest.mark.parametrize(
    "row", [row for row in EVERY_ROW if row.default is not None and row.kind is not str], ids=name_of
)
def test_default_is_a_value_of_its_own_row(row: Row) -> None:
    assert row.parse(str(row.default)) == row.default


def test_a_window_is_never_larger_than_ten_thousand_entries() -> None:
    assert parse_limits(["window_entries=10000"]).window_entries == 10_000
    with pytest.raises(ValueError, match="window_entries must be 1 to 10000, not 10001"):
        parse_limits(["window_entries=10001"])


def test_context_refusal_gives_both_numbers() -> None:
    context = next(row for row in SETTING_ROWS if row.name == "context")
    with pytest.raises(ValueError, match="must be 256 to 1048576, or 0, not 255"):
        context.parse("255")


def test_limits_are_set_by_name() -> None:
    assert parse_limits([]) == Limits()
    limits = parse_limits(["json_depth=8", "body_bytes=2048", "json_depth=9"])
    assert (limits.json_depth, limits.body_bytes) == (9, 2048)
    for bad in ("json_depth", "=1", "json_depth=", "json_depth=7", "unknown=1", "json_depth=x", ""):
        with pytest.raises(ValueError, match="json_depth"):
            parse_limits([bad])


def test_documentation_table_has_a_line_per_row() -> None:
    lines = markdown_table(SETTING_ROWS).splitlines()
    assert len(lines) == 2 + len(SETTING_ROWS)
    assert "| `--port` | `8080` | 0 to 65535 |" in markdown_table(SETTING_ROWS)
    assert "| `json_depth` | `64` | 8 to 512 |" in markdown_table(LIMIT_ROWS, spelling="name")


@pytest.mark.parametrize(("name", "kinds"), [("kv_cache_type", KVType), ("quantization", Quantization)])
def test_precisions_are_those_of_the_engine(name: str, kinds: type[StrEnum]) -> None:
    (found,) = (each for each in SETTING_ROWS if each.name == name)
    assert found.choices == tuple(kinds)
