"""The page on the HTTP API says what the server does."""

from __future__ import annotations

import json
import re

import pytest
from fastapi.routing import APIRoute, APIRouter, APIWebSocketRoute
from pydantic import BaseModel

from layerscale_core.engine.stats import EngineStats
from layerscale_core.sessions import Session, SessionLimits, StreamTotals
from layerscale_core.specs import PoolStats
from layerscale_server.http.app import GUARDED
from layerscale_server.http.routes import health
from layerscale_server.http.schemas.chat import ChatRequest
from layerscale_server.http.schemas.completions import CompletionRequest
from layerscale_server.http.schemas.generate import GenerateRequest
from layerscale_server.http.schemas.messages import MessagesRequest
from layerscale_server.http.schemas.responses import ResponsesRequest
from layerscale_server.http.schemas.sampling import SamplingFields
from layerscale_server.http.schemas.sessions import (
    AppendRequest,
    FlashRequest,
    NewSessionRequest,
    PushRequest,
    RestoreRequest,
)
from layerscale_server.http.schemas.tokenize import DetokenizeRequest, TokenizeRequest
from layerscale_server.metrics import Metrics
from layerscale_server.response_cache import ResponseCache
from tests.support.documentation import inline_code, read

PAGE = read("docs/http-api.md")
IDLE = EngineStats(
    num_running=0,
    num_waiting=0,
    num_waiting_prompt_tokens=0,
    pool=PoolStats(total_pages=1, free_pages=1, reserved_pages=0),
    num_steps=0,
    num_failed_steps=0,
    num_prompt_tokens=0,
    num_cached_tokens=0,
    num_generated_tokens=0,
    num_drafted_tokens=0,
    num_accepted_tokens=0,
    healthy=True,
    last_progress=0.0,
)
ROUTES = (health, *GUARDED)


class NoSessions:
    """The part of ``Sessions`` that is measured."""

    limits = SessionLimits(max_sessions=1, max_context_len=256)

    def all(self) -> list[Session]:
        return []

    def totals(self) -> StreamTotals:
        return StreamTotals()


_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


def table(heading: str, header: str) -> list[list[str]]:
    """The rows of all tables with this first column under a heading."""
    parts = _SECTION.split(PAGE)
    section = dict(zip(parts[1::2], parts[2::2], strict=True))[heading]
    rows: list[list[str]] = []
    for block in section.split("\n\n"):
        lines = [line.strip("| ").split(" | ") for line in block.strip().splitlines() if line.startswith("|")]
        if lines and lines[0][0] == header:
            rows += lines[2:]
    return rows


def documented_fields(heading: str) -> dict[str, str]:
    """Field to default, as a section's tables of fields say."""
    return {name: cells[1] for cells in table(heading, "field") for name in inline_code(cells[0])}


def actual_fields(schema: type[BaseModel], without: type[BaseModel] | None = None) -> dict[str, str]:
    """Field to default, as a schema says; fields that ``without`` has in the same way are left out."""
    inherited = actual_fields(without).items() if without is not None else ()
    fields = {
        name: "required" if field.is_required() else f"`{_as_json(field.get_default(call_default_factory=True))}`"
        for name, field in schema.model_fields.items()
    }
    return dict(fields.items() - inherited)


def _as_json(value: object) -> str:
    return "{}" if isinstance(value, BaseModel) else json.dumps(value)


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("Sampling", actual_fields(SamplingFields)),
        ("Chat completions", actual_fields(ChatRequest, without=SamplingFields)),
        ("Completions", actual_fields(CompletionRequest, without=SamplingFields)),
        ("Messages", actual_fields(MessagesRequest, without=SamplingFields)),
        ("Responses", actual_fields(ResponsesRequest, without=SamplingFields)),
        ("Sessions", actual_fields(NewSessionRequest) | actual_fields(AppendRequest)),
        ("Saved sessions", actual_fields(RestoreRequest)),
        ("Generate", actual_fields(GenerateRequest, without=SamplingFields)),
        ("Streams of data", actual_fields(PushRequest)),
        ("Flash queries", actual_fields(FlashRequest)),
        ("Tokenize and detokenize", actual_fields(TokenizeRequest) | actual_fields(DetokenizeRequest)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_tables_of_fields_have_every_field_with_its_default(heading: str, expected: dict[str, str]) -> None:
    assert documented_fields(heading) == expected


def routes_of(router: APIRouter) -> set[str]:
    """``METHOD path`` of a router's routes, without HEAD, which every GET route also answers; GET opens WebSockets."""
    return {
        f"{method} {re.sub(r':path}', '}', route.path)}"
        for route in router.routes
        if isinstance(route, APIRoute | APIWebSocketRoute)
        for method in (route.methods - {"HEAD"} if isinstance(route, APIRoute) else {"GET"})
    }


def test_the_index_has_every_endpoint_and_no_other() -> None:
    parts = PAGE.split("## ")[0]
    rows = [line.strip("| ").split(" | ") for line in parts.splitlines() if line.startswith("| ")]
    documented = {f"{cells[0]} {path}" for cells in rows for path in inline_code(cells[1])}
    assert documented == set().union(*(routes_of(module.router) for module in ROUTES))


def test_the_table_of_metrics_has_every_metric_with_its_kind_and_no_other() -> None:
    metrics = Metrics()
    metrics.watch_engine(lambda: IDLE, page_size=16)
    metrics.watch_responses(ResponseCache(0).stats)
    metrics.watch_sessions(NoSessions())  # type: ignore[arg-type]  # the part of them used here
    actual = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in metrics.registry.collect()
        if family.name.startswith("layerscale_")
    }
    rows = table("Health and metrics", "metric")
    assert {name: cells[1] for cells in rows for name in inline_code(cells[0])} == actual
