"""The inbox between the engine's thread and the event loop."""

from __future__ import annotations

from collections.abc import Callable

from layerscale_server.inbox import Inbox


class Loop:
    """Keeps what it is to call."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], None]] = []

    def call_soon_threadsafe(self, call: Callable[[], None]) -> None:
        self.calls.append(call)


def test_many_events_wake_the_loop_once_and_come_in_order() -> None:
    delivered: list[tuple[str, int]] = []
    loop = Loop()
    inbox = Inbox[str, int](lambda receiver, event: delivered.append((receiver, event)))
    sent = [("one" if number % 3 else "other", number) for number in range(50)]
    for receiver, event in sent:
        inbox.put(loop, receiver, event)  # type: ignore[arg-type]
    assert delivered == []
    (look,) = loop.calls
    look()
    assert delivered == sent
    inbox.put(loop, "one", 50)  # type: ignore[arg-type]
    assert len(loop.calls) == 2
    loop.calls[-1]()
    assert delivered == [*sent, ("one", 50)]


def test_what_arrives_while_the_loop_looks_is_delivered() -> None:
    delivered: list[int] = []
    loop = Loop()

    def deliver(receiver: str, event: int) -> None:
        delivered.append(event)
        if event < 3:
            inbox.put(loop, receiver, event + 1)  # type: ignore[arg-type]

    inbox = Inbox[str, int](deliver)
    inbox.put(loop, "one", 0)  # type: ignore[arg-type]
    loop.calls[0]()
    assert delivered == [0, 1, 2, 3]
