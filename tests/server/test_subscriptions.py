"""From the engine's thread to the event loop: every subscriber is told everything in order, or no more."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Coroutine
from typing import Any

import pytest

from layerscale_core.errors import NotFoundError, QueueFullError, ShuttingDownError
from layerscale_core.sessions import NewSession, Session
from layerscale_server.event_messages import Message
from layerscale_server.subscriptions import End, Subscription
from tests.server.conftest import FakeServer, MakeServer
from tests.support.live_sessions import BAR


@pytest.fixture
def server(make_server: MakeServer) -> FakeServer:
    return make_server(num_sessions=1, context_len=4096)


@pytest.fixture
def session(server: FakeServer) -> Session:
    return server.sessions.create(NewSession("ohlcv")).result(30)


async def types(subscription: Subscription, number: int) -> list[str]:
    """The types of the next messages."""
    found: list[str] = []
    async for messages in subscription.batches():
        found += [message.type for message in messages]
        if len(found) >= number:
            break
    assert len(found) == number
    return found


async def to_end(subscription: Subscription) -> list[Message]:
    return [message async for messages in subscription.batches() for message in messages]


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def message(number: int) -> Message:
    return Message("data_updated", {"data_version": number})


def test_messages_come_in_order_and_what_waits_at_the_end_still_comes() -> None:
    async def work() -> None:
        subscription = Subscription(1000)
        told = [message(number) for number in range(200)]
        for each in told:
            subscription.put(each)
        subscription.finish(End.SESSION_DELETED)
        subscription.put(message(200))
        assert await to_end(subscription) == told
        assert subscription.end is End.SESSION_DELETED

    run(work())


def test_a_batch_is_bounded() -> None:
    async def work() -> None:
        subscription = Subscription(1000)
        for number in range(1000):
            subscription.put(message(number))
        subscription.finish(End.LEFT)
        assert max([len(messages) async for messages in subscription.batches()]) == 64

    run(work())


def test_the_queue_holds_its_limit_and_one_more_ends_it() -> None:
    async def work() -> None:
        subscription = Subscription(3)
        for number in range(3):
            subscription.put(message(number))
        assert subscription.end is None
        subscription.put(message(3))
        assert subscription.end is End.TOO_SLOW
        assert len(await to_end(subscription)) == 3

    run(work())


def test_a_subscriber_who_left_gets_nothing_more() -> None:
    async def work() -> None:
        subscription = Subscription(3)
        subscription.put(message(0))
        subscription.cancel()
        subscription.finish(End.TOO_SLOW)
        assert await to_end(subscription) == []
        assert subscription.end is End.LEFT

    run(work())


def test_silence_gives_an_empty_batch() -> None:
    async def work() -> None:
        subscription = Subscription(3)
        batches = subscription.batches(0.01)
        assert await anext(batches) == []
        subscription.put(message(0))
        assert [each.data["data_version"] for each in await anext(batches)] == [0]
        assert await anext(batches) == []

    run(work())


def test_subscribers_share_one_message(server: FakeServer, session: Session) -> None:
    async def work() -> None:
        subscriptions = [await server.state.subscriptions.subscribe(session, 100) for _ in range(3)]
        for subscription in subscriptions:
            assert await types(subscription, 1) == ["connected"]
        server.sessions.push(session, [BAR])
        told = [(await anext(subscription.batches()))[0] for subscription in subscriptions]
        assert told[0].type == "data_updated"
        assert told[0] is told[1] is told[2]
        assert told[0].sse is told[0].sse
        assert told[0].text is told[0].text

    run(work())


def test_a_slow_subscriber_is_ended_and_the_others_are_not(
    server: FakeServer, session: Session, logs: io.StringIO
) -> None:
    async def work() -> None:
        slow = await server.state.subscriptions.subscribe(session, 3)
        quick = await server.state.subscriptions.subscribe(session, 100)
        assert await types(quick, 1) == ["connected"]
        for _ in range(4):
            server.sessions.push(session, [BAR])
            assert await types(quick, 1) == ["data_updated"]
        assert slow.end is End.TOO_SLOW
        assert quick.end is None
        assert len(server.state.subscriptions) == 1
        assert [each.type for each in await to_end(slow)] == ["connected", "data_updated", "data_updated"]

    run(work())
    assert "a subscriber leaves its events unread" in logs.getvalue()


def test_a_session_has_so_many_subscribers_and_another_once_one_has_left(make_server: MakeServer) -> None:
    server = make_server(num_sessions=2, context_len=4096, event_subscribers=2)
    full, other = [server.sessions.create(NewSession("ohlcv")).result(30) for _ in range(2)]

    async def work() -> None:
        subscriptions = server.state.subscriptions
        first, _ = [await subscriptions.subscribe(full, 100) for _ in range(2)]
        with pytest.raises(QueueFullError, match=r"2 listeners .* --limit event_subscribers"):
            await subscriptions.subscribe(full, 100)
        await subscriptions.subscribe(other, 100)
        first.cancel()
        first.cancel()
        await subscriptions.subscribe(full, 100)
        with pytest.raises(QueueFullError):
            await subscriptions.subscribe(full, 100)

    run(work())


def test_leaving_is_told_to_the_session(server: FakeServer, session: Session) -> None:
    async def work() -> None:
        async with await server.state.subscriptions.subscribe(session, 100):
            assert len(server.state.subscriptions) == 1
        assert len(server.state.subscriptions) == 0
        assert await asyncio.wrap_future(session.post(lambda: session.subscribers._subscribers)) == []

    run(work())


def test_deletion_ends_subscriptions_and_nobody_subscribes_afterwards(server: FakeServer, session: Session) -> None:
    async def work() -> None:
        subscription = await server.state.subscriptions.subscribe(session, 100)
        await asyncio.wrap_future(server.sessions.delete(session.session_id))
        assert [each.type for each in await to_end(subscription)] == ["connected"]
        assert subscription.end is End.SESSION_DELETED
        with pytest.raises(NotFoundError):
            await server.state.subscriptions.subscribe(session, 100)
        assert len(server.state.subscriptions) == 0

    run(work())


def test_closing_ends_all_and_takes_no_more(server: FakeServer, session: Session) -> None:
    async def work() -> None:
        subscription = await server.state.subscriptions.subscribe(session, 100)
        server.state.subscriptions.close()
        assert [each.type for each in await to_end(subscription)] == ["connected"]
        assert subscription.end is End.SHUTDOWN
        with pytest.raises(ShuttingDownError):
            await server.state.subscriptions.subscribe(session, 100)

    run(work())


def test_a_subscriber_leaves_after_the_engine_has_stopped(server: FakeServer, session: Session) -> None:
    async def work() -> None:
        subscription = await server.state.subscriptions.subscribe(session, 100)
        await asyncio.wrap_future(server.sessions.delete(session.session_id))
        late = Subscription(1)
        await asyncio.to_thread(server.engine.stop)
        server.state.subscriptions._forget(session, late, print)
        subscription.cancel()
        with pytest.raises(ShuttingDownError):
            await server.state.subscriptions.subscribe(session, 100)
        assert len(server.state.subscriptions) == 0

    run(work())
