"""Every method of the official client but those of its sessions, against a server process with the real model."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import layerscale
import pytest

from tests.support.in_turn import InTurn
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.model, pytest.mark.xdist_group("official client")]  # one server for all of them

MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY: dict[str, Any] = {"messages": MESSAGES, "temperature": 0.0, "max_tokens": 16}


@pytest.fixture(scope="module")
def address(real_model_path: Path) -> Iterator[str]:
    with ServerProcess(real_model_path) as server:
        yield server.wait_until_ready().address


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, address: str) -> Iterator[Any]:
    """The methods of both clients."""
    if request.param == "sync":
        with layerscale.LayerScale(address, max_retries=0) as client:
            yield client
        return
    with asyncio.Runner() as runner:
        other = layerscale.AsyncLayerScale(address, max_retries=0)
        yield InTurn(other, runner)
        runner.run(other.close())


def test_health_check(client: Any) -> None:
    health = client.health.check()
    assert (health.ok, health.status) == (True, 200)


def test_models_list(client: Any) -> None:
    models = client.models.list()
    (model,) = models.data
    assert model.id == models.server.model.id
    assert models.server.model.layers == 30
    assert models.server.scheduler.max_sessions == 1
    assert models.server.licensed is False


def test_completions_create(client: Any) -> None:
    completion = client.completions.create(prompt="The capital of France is", temperature=0.0, max_tokens=4)
    assert "Paris" in completion.choices[0].text
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.completion_tokens == 4


def test_chat_create(client: Any) -> None:
    completion = client.chat.create(**GREEDY)
    assert "Paris" in completion.choices[0].message.content
    assert completion.choices[0].finish_reason == "stop"


def test_chat_stream(client: Any) -> None:
    whole = client.chat.create(**GREEDY).choices[0]
    chunks = list(client.chat.stream(**GREEDY))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.message.content
    assert chunks[-1].choices[0].finish_reason == whole.finish_reason


def test_messages_create(client: Any) -> None:
    message = client.messages.create(**GREEDY)
    (block,) = message.content
    assert block.text == client.chat.create(**GREEDY).choices[0].message.content
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.input_tokens == client.chat.create(**GREEDY).usage.prompt_tokens


def test_messages_create_with_everything(client: Any) -> None:
    message = client.messages.create(
        messages=[*MESSAGES, {"role": "assistant", "content": [{"type": "text", "text": "The capital of"}]}],
        max_tokens=16,
        model="any",
        system="You answer questions.",
        temperature=0.0,
        top_p=0.5,
        stop_sequences=["Paris"],
        tools=[],
        tool_choice={"type": "auto"},
    )
    assert (message.content[0].text, message.stop_reason, message.stop_sequence) == (
        " France is ",
        "stop_sequence",
        "Paris",
    )


def test_messages_stream(client: Any) -> None:
    whole = client.messages.create(**GREEDY)
    events = list(client.messages.stream(**GREEDY))
    names = [event.type for event in events]
    num_deltas = len(names) - 5
    assert names == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * num_deltas,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert "".join(event.delta.text for event in events[2:-3]) == whole.content[0].text
    assert events[-2].delta.stop_reason == whole.stop_reason
    assert events[0].message.usage.input_tokens == whole.usage.input_tokens
    assert events[-2].usage.output_tokens == whole.usage.output_tokens


def test_messages_in_a_session(client: Any) -> None:
    session_id = client.sessions.create(type="event").session_id
    try:
        alone = client.messages.create(**GREEDY)
        first = client.messages.create(**GREEDY, session_id=session_id)
        assert first.content == alone.content
        held = client.sessions.get(session_id).n_tokens
        assert held >= first.usage.input_tokens + first.usage.output_tokens - 1
        events = list(client.messages.stream(**GREEDY, session_id=session_id))
        assert "".join(event.delta.text for event in events[2:-3]) == first.content[0].text
    finally:
        client.sessions.delete(session_id)


def test_errors_are_the_clients_own(client: Any) -> None:
    with pytest.raises(layerscale.BadRequestError, match="max_tokens") as caught:
        client.messages.create(messages=MESSAGES)
    assert caught.value.type == "invalid_request_error"
    with pytest.raises(layerscale.BadRequestError, match="prompt is too long: "):
        client.messages.stream(messages=[{"role": "user", "content": "why " * 10_000}], max_tokens=1)
    with pytest.raises(layerscale.NotFoundError):
        client.messages.create(**GREEDY, session_id="sess_000000000000")
    with pytest.raises(layerscale.BadRequestError, match="temperature"):
        client.chat.create(**GREEDY | {"temperature": 9.0})
    with pytest.raises(layerscale.BadRequestError, match="prompt"):
        client.completions.create()
