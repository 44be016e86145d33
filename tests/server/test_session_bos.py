"""A conversation in a session that holds something already: BOS goes, a token that opens turns stays."""

from __future__ import annotations

import pytest

from tests.server.conftest import MakeServer
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.session_api import create, ok


class TurnMarkerTokenizer(ByteTokenizer):
    """BOS is what every turn begins with, and is added nowhere."""

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        return super().encode(text, add_special=False, parse_special=parse_special)


TURNS = "{% for each in messages %}<bos>{{ each.role }}:{{ each.content }};{% endfor %}<bos>assistant:"


@pytest.mark.parametrize(
    ("tokenizer", "template", "first"),
    [
        (TurnMarkerTokenizer(), TURNS, "<bos>user:"),
        (ByteTokenizer(), TURNS.replace("<bos>", ""), "user:"),
        (TurnMarkerTokenizer(), "{{ bos_token or '<bos>' }}" + TURNS.replace("<bos>", ""), "user:"),
    ],
    ids=["opens turns", "added by the tokenizer", "written by the template"],
)
def test_a_conversation_that_follows_text_loses_bos_unless_it_opens_turns(
    make_server: MakeServer, tokenizer: ByteTokenizer, template: str, first: str
) -> None:
    server = make_server(num_sessions=1, context_len=1024, tokenizer=tokenizer, template=template)
    path = create(server, prompt="Rules.")
    messages = [{"role": "user", "content": "hi"}]
    ok(server.post(f"{path}/generate", {"messages": messages, "max_tokens": 1}))
    held = ok(server.get(f"{path}/state"))["context_text"].removeprefix("<bos>")
    assert held.startswith(f"Rules.{first}hi;")
