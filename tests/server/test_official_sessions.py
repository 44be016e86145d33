"""The official client's sessions, as it is installed, against a server process with the real model."""

from __future__ import annotations

import asyncio
import importlib.metadata
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import layerscale
import pytest
from layerscale.types import GenerateStreamDone, GenerateStreamToken

from tests.support.in_turn import InTurn
from tests.support.server_process import ServerProcess
from tests.support.stream_entries import EXAMPLES, NAMES

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("official sessions")]  # one server for all of them

_README_BLOCK = re.compile(r"^#+ ([^\n]+)\n(?:(?!^#)[^\n]*\n)*?```python\n(.*?)```", re.MULTILINE | re.DOTALL)
PROMPT = "You watch a market."
BAR = {"o": 2, "h": 4, "l": 1, "c": 3, "v": 5}
QUESTION = "The last close was"


@pytest.fixture(scope="module")
def address(real_model_path: Path) -> Iterator[str]:
    """A server with memory for one session."""
    with ServerProcess(real_model_path) as server:
        yield server.wait_until_ready().address


@pytest.fixture
def client(address: str) -> Iterator[layerscale.LayerScale]:
    """The client; whatever sessions a test leaves are deleted after it."""
    with layerscale.LayerScale(address, max_retries=0) as client:
        yield client
        for session in client.sessions.list().sessions:
            client.sessions.delete(session.session_id)


@pytest.fixture(params=["sync", "async"])
def sessions(request: pytest.FixtureRequest, client: layerscale.LayerScale, address: str) -> Iterator[Any]:
    """The methods of ``client.sessions``, of both clients."""
    if request.param == "sync":
        yield client.sessions
        return
    with asyncio.Runner() as runner:
        other = layerscale.AsyncLayerScale(address, max_retries=0)
        yield InTurn(other.sessions, runner)
        runner.run(other.close())


@pytest.fixture
def session_id(sessions: Any) -> str:
    """A new session."""
    made: str = sessions.create(type="ohlcv", prompt=PROMPT).session_id
    return made


def answered(sessions: Any, session_id: str) -> list[Any]:
    """The flash queries, once they are answered for the newest data."""
    for _ in range(3000):
        listed = sessions.list_flash(session_id)
        if all(each.data_version == listed.current_data_version for each in listed.flash_queries):
            return list(listed.flash_queries)
        asyncio.run(asyncio.sleep(0.01))
    raise AssertionError("the flash queries are not answered")


# What its documentation shows


def readme() -> dict[str, str]:
    """The first example under each heading of the installed client's own documentation."""
    text = importlib.metadata.metadata("layerscale").get_payload()
    assert isinstance(text, str)
    return {match[1]: match[2] for match in _README_BLOCK.finditer(text)}


def test_the_complete_example(client: layerscale.LayerScale, address: str, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(readme()["Complete example"].replace("http://localhost:8080", address), names)
    assert capsys.readouterr().out.startswith("Answer: ")
    assert names["answer"].data_version == 1
    assert len(names["candles"]) == 5
    exec(readme()["Async client"].replace("http://localhost:8080", address), names)
    names["client"].close()
    assert client.sessions.list().count == 0


def test_the_further_examples(client: layerscale.LayerScale) -> None:
    examples, names = readme(), {"client": client}
    for heading in ("Sessions", "Continuous streaming", "Session management"):
        exec(examples[heading], names)
    assert names["answer"].n_tokens > 0
    assert names["status"].statistics.total_enqueued == 1
    assert names["stats"].type == "ohlcv"
    assert names["state"].session_id == names["session"].session_id
    assert client.sessions.list().count == 0


def test_the_example_with_flash_queries(client: layerscale.LayerScale) -> None:
    names: dict[str, Any] = {"client": client, "session": client.sessions.create(type="ohlcv")}
    exec(readme()["Flash queries"], names)
    assert names["queries"].count == 2
    assert client.sessions.list_flash(names["session"].session_id).count == 1


def test_chat_in_a_session(client: layerscale.LayerScale) -> None:
    session_id = client.sessions.create(type="event").session_id
    messages: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
    first = client.chat.create(messages=messages, session_id=session_id, temperature=0.0, max_tokens=8)
    alone = client.chat.create(messages=messages, temperature=0.0, max_tokens=8)
    assert first.choices[0].message.content == alone.choices[0].message.content
    answer = client.sessions.query(session_id, messages=messages, max_tokens=8)
    assert answer.text == first.choices[0].message.content


# One after the other


def test_create(sessions: Any) -> None:
    made = sessions.create(type="ohlcv", prompt=PROMPT, context=512, window_size=7, flash=[{"query": "Up?"}])
    assert (made.type, made.context, made.window_size, made.flash_queries) == ("ohlcv", 512, 7, 1)
    assert made.pos_max == made.n_tokens - 1 > 0


def test_create_and_mark_the_prefix(sessions: Any) -> None:
    made = sessions.create(type="ohlcv", prompt=PROMPT, mark_prefix=True)
    assert sessions.get(made.session_id).prefix_end == made.n_tokens


def test_one_session_too_many(sessions: Any, session_id: str) -> None:
    with pytest.raises(layerscale.InternalServerError) as caught:
        sessions.create(type="ohlcv")
    assert (caught.value.status_code, caught.value.code) == (503, "max_sessions_reached")
    sessions.delete(session_id)
    assert sessions.create(type="ohlcv").session_id != session_id


def test_list(sessions: Any, session_id: str) -> None:
    listed = sessions.list()
    assert (listed.count, listed.max_sessions) == (1, 1)
    assert listed.sessions[0].session_id == session_id


def test_get(sessions: Any, session_id: str) -> None:
    state = sessions.get(session_id)
    assert (state.context_text, state.type, state.data_count) == (PROMPT, "ohlcv", 0)
    assert (state.pos_min, state.pos_max, state.pos_next) == (0, state.n_tokens - 1, state.n_tokens)


def test_an_empty_session(sessions: Any) -> None:
    made = sessions.create(type="ohlcv")
    assert (made.n_tokens, made.pos_max) == (0, -1)
    state = sessions.get(made.session_id)
    assert (state.pos_min, state.pos_max, state.pos_next, state.context_text) == (-1, -1, 0, "")


def test_delete(sessions: Any, session_id: str) -> None:
    sessions.delete(session_id)
    with pytest.raises(layerscale.NotFoundError) as caught:
        sessions.get(session_id)
    assert caught.value.code == "session_not_found"


def test_append(sessions: Any, session_id: str) -> None:
    appended = sessions.append(session_id, " It is noon.")
    assert appended.total_tokens == appended.pos_max + 1 > appended.n_tokens_added > 0
    assert sessions.get(session_id).context_text == PROMPT + " It is noon."


def test_mark_prefix(sessions: Any, session_id: str) -> None:
    marked = sessions.mark_prefix(session_id)
    assert marked.prefix_end == sessions.get(session_id).n_tokens
    assert marked.message


def test_query(sessions: Any, session_id: str) -> None:
    answer = sessions.query(session_id, prompt=" The trend is", max_tokens=5, stop=["\n"], top_p=0.9, clear_after=1)
    assert answer.n_tokens <= 5
    assert answer.finish_reason in {"stop", "length"}
    assert sessions.get(session_id).context_text == PROMPT


def test_query_stream(sessions: Any, session_id: str) -> None:
    whole = sessions.query(session_id, prompt=" The trend is", max_tokens=9, clear_after=1)
    *tokens, done = list(sessions.query_stream(session_id, prompt=" The trend is", max_tokens=9))
    assert isinstance(done, GenerateStreamDone)
    assert all(isinstance(each, GenerateStreamToken) for each in tokens)
    assert "".join(each.token for each in tokens) == done.text == whole.text
    assert (done.n_tokens, done.finish_reason) == (whole.n_tokens, whole.finish_reason)
    positions = [each.pos for each in tokens]
    assert positions == list(range(positions[0], positions[0] + len(tokens)))


def test_fast_answer(sessions: Any, session_id: str) -> None:
    question = {"prompt": " Once upon a", "max_tokens": 4, "clear_after": 1}
    whole = sessions.query(session_id, **question)
    fast = sessions.query(session_id, **question, fast_answer=True)
    assert whole.speculative is None
    assert fast.speculative is True
    assert (fast.n_tokens, fast.finish_reason) == (1, "stop")
    assert fast.logit_gap >= 2
    assert whole.text.startswith(fast.text)


def test_push(sessions: Any, session_id: str) -> None:
    ack = sessions.push(session_id, [BAR] * 3)
    assert (ack.pushed, ack.dropped, ack.total_enqueued, ack.total_dropped) == (3, 0, 3, 0)
    assert ack.queue_capacity >= 16_384
    ack = sessions.push(session_id, [BAR] * 2, wait=True, wait_interval=0.01)
    assert ack.total_enqueued == 5
    assert sessions.get(session_id).data_count == 5


@pytest.mark.parametrize(
    "entry", [{}, {**BAR, "c": "11"}, {**BAR, "timestamp": 1.5}, {**BAR, "sym": 1}, EXAMPLES["iot"]]
)
def test_push_of_a_wrong_entry(sessions: Any, session_id: str, entry: dict[str, Any]) -> None:
    with pytest.raises(layerscale.BadRequestError) as caught:
        sessions.push(session_id, [BAR, entry])
    assert "data.1" in caught.value.message
    assert sessions.stream_status(session_id).statistics.total_enqueued == 0


def test_stream_status(sessions: Any, session_id: str) -> None:
    status = sessions.stream_status(session_id)
    assert (status.streaming.initialized, status.data.initialized) == (False, False)
    sessions.push(session_id, [BAR], wait=True, wait_interval=0.01)
    status = sessions.stream_status(session_id)
    assert (status.streaming.running, status.data.data_count) == (True, 1)
    assert status.data.total_data_tokens > 5


@pytest.mark.parametrize("name", NAMES)
def test_stats(sessions: Any, name: str) -> None:
    session_id = sessions.create(type=name).session_id
    assert sessions.stats(session_id).count == 0
    sessions.push(session_id, [EXAMPLES[name]] * 3, wait=True, wait_interval=0.01)
    stats = sessions.stats(session_id)
    assert (stats.type, stats.count) == (name, 3)


def test_flash(sessions: Any, session_id: str) -> None:
    registered = sessions.flash(session_id, QUESTION, max_tokens=1000)
    assert (registered.id, registered.max_tokens, registered.total_flash_queries) == (1, 256, 1)
    assert registered.n_tokens > 2
    with pytest.raises(layerscale.ConflictError):
        sessions.flash(session_id, QUESTION)


def test_list_flash_and_an_answer_from_the_store(sessions: Any) -> None:
    session_id = sessions.create(type="ohlcv", prompt=PROMPT, flash=[{"query": QUESTION, "max_tokens": 4}]).session_id
    sessions.push(session_id, [BAR] * 5, wait=True, wait_interval=0.01)
    (query,) = answered(sessions, session_id)
    assert query.has_answer
    assert query.confidence > 0
    stored = sessions.query(session_id, prompt=QUESTION)
    assert (stored.flash, stored.flash_id, stored.text) == (True, query.id, query.value)
    assert stored.confidence == query.confidence
    computed = sessions.query(session_id, prompt=QUESTION, max_tokens=4, stop=["never said"])
    assert computed.flash is None
    assert (computed.text, computed.n_tokens) == (stored.text, stored.n_tokens)


def test_unflash(sessions: Any, session_id: str) -> None:
    query_id = sessions.flash(session_id, QUESTION).id
    removed = sessions.unflash(session_id, query_id)
    assert (removed.success, removed.remaining) == (True, 0)
    with pytest.raises(layerscale.NotFoundError):
        sessions.unflash(session_id, query_id)


def test_a_query_costs_its_own_tokens_from_20_to_190_bars(client: layerscale.LayerScale, address: str) -> None:
    session_id = client.sessions.create(type="ohlcv", prompt=PROMPT, mark_prefix=True).session_id
    question = {"prompt": QUESTION, "max_tokens": 1}
    num_tokens = len(httpx.post(f"{address}/tokenize", json={"prompt": QUESTION}).json()["tokens"])
    held: list[int] = []
    for num_bars, num_new in ((20, 20), (75, 55), (155, 80), (165, 10), (190, 25)):
        client.sessions.push(session_id, [BAR] * num_new, wait=True, wait_timeout=200, wait_interval=0.01)
        answer = httpx.post(f"{address}/v1/sessions/{session_id}/generate", json=question, timeout=60).json()
        state = client.sessions.get(session_id)
        assert state.data_count == num_bars
        assert answer["n_prefilled"] == answer["usage"]["prompt_tokens"] == num_tokens
        held.append(answer["total_tokens"])
    assert held[-1] > 9 * held[0] > 9 * 20 * 8
