"""The streaming comparison's own arms, on a tiny random model: what a question costs, counted and not timed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layerscale_server.bench.api_client import ApiClient
from layerscale_server.bench.stream_arms import NEW_ENTRIES, NUM_STORED, Arms
from layerscale_server.bench.stream_session import SessionFollower
from tests.support.documentation import ROOT
from tests.support.market_bars import write_bars
from tests.support.server_process import ServerProcess
from tests.support.tiny_gguf import write_tiny_llama

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("streaming comparison")]

WINDOW = 30


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_llama(tmp_path_factory.mktemp("models") / "roomy.gguf", context=16384)


@pytest.fixture(scope="module")
def client(model: Path) -> Iterator[ApiClient]:
    with (
        ServerProcess(model, "--context", "16384") as server,
        ApiClient(server.wait_until_ready().address) as client,
    ):
        yield client


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The benchmark's modules; they lie beside each other, not in a package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import market_bars  # noqa: PLC0415
    import streaming_systems  # noqa: PLC0415

    yield market_bars, streaming_systems
    for name in ("market_bars", "streaming_systems", "http_stream"):
        sys.modules.pop(name, None)


def test_a_question_to_a_session_costs_its_own_tokens_whatever_the_session_holds(
    model: Path, client: ApiClient, benchmark: Any, tmp_path: Path
) -> None:
    bars, _ = benchmark
    market = bars.read_market(write_bars(tmp_path / "bars.csv", 200), model)
    session = SessionFollower("session", client, market.feed)
    run = Arms(session, 0.01, 0, lambda: 0.0)
    samples = [*run.append_only((20, 190)), *run.sliding(WINDOW, num_slides=2)]
    session.end()
    assert [sample.size for sample in samples] == [20, 190, WINDOW, WINDOW]
    assert {sample.query.num_prefilled for sample in samples} == {len(market.question_ids)}
    assert all(0 <= sample.entries_behind <= NEW_ENTRIES for sample in samples)


def test_without_a_session_the_new_bars_are_read_at_the_question(
    model: Path, client: ApiClient, benchmark: Any, tmp_path: Path
) -> None:
    bars, systems = benchmark
    market = bars.read_market(write_bars(tmp_path / "bars.csv", 200), model)
    (sample,) = Arms(systems.Rereader("stateless", client, market), 0.0, 0, lambda: 0.0).append_only((20,))
    new = sum(len(bar.token_ids) for bar in market.bars[10:20])
    assert new < sample.query.num_prefilled <= new + len(market.prompt(0, 10))
    assert sample.entries_behind == 0


def test_a_registered_question_is_answered_from_the_store(
    model: Path, client: ApiClient, benchmark: Any, tmp_path: Path
) -> None:
    bars, _ = benchmark
    market = bars.read_market(write_bars(tmp_path / "bars.csv", 200), model)
    session = SessionFollower("registered", client, market.feed, is_registered=True)
    samples = [sample for sample in Arms(session, 0.01, 0, lambda: 0.0).registered((20,)) if sample.query.is_stored]
    session.end()
    assert len(samples) >= NUM_STORED
    assert {sample.query.num_prefilled for sample in samples} == {0}
