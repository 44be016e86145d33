"""Events of a server process: through the official client with a real model, and at the end of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import layerscale
import pytest
from layerscale.lib.ws import WsConnected, WsDataUpdated, WsError, WsEvent, WsFlashReady, WsPong, WsPushAck
from layerscale.types.sessions import ConnectedEvent, DataUpdatedEvent, FlashReadyEvent, SessionEvent
from websockets.exceptions import ConnectionClosedOK

from tests.support.live_sessions import TIMEOUT_S, listening, talking
from tests.support.server_process import ServerProcess

BARS: list[Any] = [
    {"o": 100.0 + day, "h": 102.0 + day, "l": 99.5 + day, "c": 101.5 + day, "v": 1000.0 + day, "sym": "ACME"}
    for day in range(5)
]
NEW: dict[str, Any] = {
    "type": "ohlcv",
    "prompt": "Daily bars of a share.",
    "context": 1024,
    "flash": [{"query": "The price goes", "max_tokens": 4}],
}


@pytest.fixture(scope="module")
def real_server(real_model_path: Path) -> Iterator[str]:
    with ServerProcess(real_model_path, "--context", "1024", "--sessions", "1") as running:
        yield running.wait_until_ready().address


def check_told(told: list[SessionEvent]) -> None:
    """What a subscriber is told who listens from before the first push until the first answer."""
    connected, updated, ready = told
    assert isinstance(connected, ConnectedEvent)
    assert (connected.data_version, connected.flash_queries) == (0, 1)
    assert isinstance(updated, DataUpdatedEvent)
    assert (updated.data_version, updated.data_count) == (1, len(BARS))
    assert isinstance(ready, FlashReadyEvent)
    assert (ready.query, ready.data_version) == ("The price goes", 1)
    assert ready.value
    assert ready.confidence > 0


def check_conversation(told: list[WsEvent]) -> None:
    """What a socket is told that pings, pushes, and pushes something wrong, until the first answer and the error."""
    assert isinstance(told[0], WsConnected)
    assert isinstance(told[1], WsPong)
    assert isinstance(told[2], WsPushAck)
    assert (told[2].data.pushed, told[2].data.dropped) == (len(BARS), 0)
    [error] = [event.data for event in told if isinstance(event, WsError)]
    assert error.code == 400
    [updated] = [event.data for event in told if isinstance(event, WsDataUpdated)]
    [ready] = [event.data for event in told if isinstance(event, WsFlashReady)]
    assert (updated.data_count, ready.data_version) == (len(BARS), updated.data_version)


@pytest.mark.model
def test_events_through_the_official_client(real_server: str) -> None:
    with layerscale.LayerScale(real_server) as client:
        session = client.sessions.create(**NEW)
        with client.sessions.events(session.session_id) as events:
            told = [next(events)]
            client.sessions.push(session.session_id, BARS)
            told += [next(events), next(events)]
            check_told(told)
            with client.sessions.events(session.session_id) as late:
                assert isinstance(next(late), ConnectedEvent)
                assert next(late) == told[2]
            client.sessions.delete(session.session_id)
            assert next(events, None) is None


@pytest.mark.model
def test_events_through_the_official_async_client(real_server: str) -> None:
    async def work() -> None:
        async with layerscale.AsyncLayerScale(real_server) as client:
            session = await client.sessions.create(**NEW)
            async with await client.sessions.events(session.session_id) as events:
                told = [await anext(events)]
                await client.sessions.push(session.session_id, BARS)
                told += [await anext(events), await anext(events)]
                check_told(told)
                await client.sessions.delete(session.session_id)
                assert await anext(events, None) is None

    asyncio.run(asyncio.wait_for(work(), TIMEOUT_S))


@pytest.mark.model
def test_a_socket_of_the_official_client(real_server: str) -> None:
    with layerscale.LayerScale(real_server) as client:
        session = client.sessions.create(**NEW)
        with client.sessions.stream(session.session_id) as stream:
            stream.ping()
            stream.push(BARS)
            stream.push([{"o": 1.0}])  # type: ignore[typeddict-item]
            told: list[WsEvent] = []
            for event in stream:
                told.append(event)
                if {WsError, WsFlashReady} <= {type(each) for each in told}:
                    break
            check_conversation(told)
            client.sessions.delete(session.session_id)
            assert list(stream) == []


@pytest.mark.model
def test_a_socket_of_the_official_async_client(real_server: str) -> None:
    async def work() -> None:
        async with layerscale.AsyncLayerScale(real_server) as client:
            session = await client.sessions.create(**NEW)
            async with client.sessions.stream(session.session_id) as stream:
                await stream.ping()
                await stream.push(BARS)
                await stream.push([{"o": 1.0}])  # type: ignore[typeddict-item]
                told: list[WsEvent] = []
                async for event in stream:
                    told.append(event)
                    if {WsError, WsFlashReady} <= {type(each) for each in told}:
                        break
                check_conversation(told)
                await client.sessions.delete(session.session_id)
                assert [event async for event in stream] == []

    asyncio.run(asyncio.wait_for(work(), TIMEOUT_S))


def test_sigterm_ends_events_and_sockets_in_order(tiny_model_path: Path) -> None:
    with ServerProcess(tiny_model_path, "--sessions", "1", "--context", "256") as running:
        address = running.wait_until_ready().address
        session_id = httpx.post(address + "/v1/sessions/init", json={"type": "ohlcv"}).json()["session_id"]
        with listening(address, session_id) as listener, talking(address, session_id) as talker:
            assert listener.event()["type"] == "connected"
            running.signal()
            assert listener.rest() == []
            with pytest.raises(ConnectionClosedOK) as caught:
                talker.connection.recv(TIMEOUT_S)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1001
        assert running.wait() == 0
    assert not [event for event in running.events if event["level"] not in ("info", "debug")]
