"""The page on events says what subscribers are told."""

from __future__ import annotations

from layerscale_core.sessions import Connected, DataUpdated, FlashReady
from layerscale_server.event_messages import message_of
from tests.support.documentation import inline_code, read


def documented_fields() -> dict[str, list[str]]:
    """Fields by event, as the table says."""
    fields: dict[str, list[str]] = {}
    for line in read("docs/events.md").split("| event | field | is |")[1].split("\n\n")[0].splitlines()[2:]:
        event, names, _ = (cell.strip() for cell in line.strip("|").split(" | "))
        current = inline_code(event)[0] if event else next(reversed(fields))
        fields.setdefault(current, []).extend(inline_code(names))
    return fields


def test_the_table_has_every_event_with_its_fields() -> None:
    told = [Connected("s", 0, False, 0), DataUpdated(1, 1, 1), FlashReady(1, "q", "a", 1, 0.5, 1)]
    assert documented_fields() == {message.type: list(message.data) for message in map(message_of, told)}
