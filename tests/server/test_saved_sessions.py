"""Sessions of an assembled server, on the backend that this machine has, from one start to the next."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from layerscale_core.engine import SamplingParams
from layerscale_core.engine.request import TokenLogprob
from layerscale_core.errors import StartupError
from layerscale_core.plugins import PluginRegistry
from layerscale_core.sessions import NewFlashQuery, NewSession, Session, TextPrompt, Turn
from layerscale_core.specs import FREE_TIER
from layerscale_server.assembly import Assembler, Assembly
from layerscale_server.metrics import Metrics
from layerscale_server.settings import Settings
from tests.support.recording_sink import RecordingSink

QUESTION = "\nIs the price going up or down? Answer:"


@contextmanager
def served(model: Path, state: Path, **settings: str) -> Iterator[Assembly]:
    asked = Settings(model=str(model), context=512, sessions=1, state_dir=str(state), threads=2, **settings)
    assembly = Assembler(asked, PluginRegistry.discover(), FREE_TIER, Metrics()).assemble()
    try:
        yield assembly
    finally:
        assembly.close()


def make_session(assembly: Assembly) -> Session:
    encode = assembly.model.tokenizer.encode
    query = NewFlashQuery(QUESTION, tuple(encode(QUESTION, add_special=False)), 4)
    new = NewSession("ohlcv", tuple(encode("Bars of a stock:\n")), window_size=3, flash=(query,))
    return assembly.sessions.create(new).result(30)


def push_bars(assembly: Assembly, session: Session, first: int, last: int) -> None:
    for number in range(first, last):
        bar = {"o": 10.0 + number, "h": 12.5 + number, "l": 9.75, "c": 11.0, "v": 1200.0}
        assembly.sessions.push(session, [assembly.sessions.stream_types["ohlcv"].validate(bar)])
        wait_until_answered(session)


def wait_until_answered(session: Session) -> None:
    deadline = time.monotonic() + 30
    while session.fresh_answer(QUESTION) is None:
        assert time.monotonic() < deadline, "the query is not answered"
        time.sleep(0.002)


def ask(assembly: Assembly, session: Session) -> tuple[str, list[TokenLogprob]]:
    sink = RecordingSink()
    prompt = TextPrompt(tuple(assembly.model.tokenizer.encode(QUESTION, add_special=False)))
    session.submit(Turn("ask", prompt, SamplingParams(8, logprobs=20, ignore_eos=True), sink))
    sink.wait()
    return sink.text, sink.logprobs


@pytest.mark.parametrize(
    "model", ["tiny_model_path", pytest.param("real_model_path", marks=pytest.mark.model)], ids=["tiny", "real"]
)
def test_a_session_goes_on_after_a_restart(request: pytest.FixtureRequest, model: str, tmp_path: Path) -> None:
    path = request.getfixturevalue(model)
    with served(path, tmp_path) as assembly:
        session = make_session(assembly)
        push_bars(assembly, session, 0, 6)
        ask(assembly, session)
        expected = ask(assembly, session)
        answers, view = session.flash.queries, session.view
    with served(path, tmp_path) as assembly:
        (restored,) = assembly.sessions.all()
        assert restored.session_id == session.session_id
        assert (restored.view.data_version, restored.view.revision) == (view.data_version, view.revision)
        assert restored.flash.queries == answers
        assert restored.ring.counts == session.ring.counts
        assert restored.fresh_answer(QUESTION) is not None
        assert ask(assembly, restored) == expected, "the log-probabilities are the same to the last bit"
        push_bars(assembly, restored, 6, 8)
        assert restored.ring.counts.items_processed == 8


def test_another_kv_cache_type_computes_the_tokens_again(
    tiny_model_path: Path, tmp_path: Path, logs: io.StringIO
) -> None:
    with served(tiny_model_path, tmp_path, kv_cache_type="int8") as assembly:
        session = make_session(assembly)
        push_bars(assembly, session, 0, 6)
        durable = session.context.tokens[: session.context.durable_end]
    with served(tiny_model_path, tmp_path, kv_cache_type="int8") as assembly:
        (restored,) = assembly.sessions.all()
        assert restored.view.num_pending == 0
    with served(tiny_model_path, tmp_path, kv_cache_type="fp16") as assembly:
        assert f"its {len(durable)} tokens are computed again" in logs.getvalue()
        (restored,) = assembly.sessions.all()
        text, _ = ask(assembly, restored)
        assert text
        assert restored.view.num_pending == 0
        push_bars(assembly, restored, 6, 7)
        assert restored.ring.counts.items_processed == 7


def test_a_directory_that_cannot_be_used_is_told_before_the_model_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StartupError, match="--state-dir"), served(tmp_path / "no model", tmp_path / "file"):
        pass


def test_a_start_that_fails_leaves_the_directory_to_the_next(tiny_model_path: Path, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="no file or directory"), served(tmp_path / "no model", tmp_path / "state"):
        pass
    with served(tiny_model_path, tmp_path / "state") as assembly:
        make_session(assembly)
    assert len(list((tmp_path / "state").iterdir())) == 1
