"""``logprobs`` on chat."""

from __future__ import annotations

from tests.server.conftest import FakeServer, MakeServer, chat_prompt, greedy_text

CHAT = "/v1/chat/completions"
HI = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_tokens": 3, "logprobs": True}
ANSWER = greedy_text(chat_prompt(("user", "hi")), 3)


def test_whole_answer_has_an_entry_per_token(server: FakeServer) -> None:
    logprobs = server.post(CHAT, HI | {"top_logprobs": 2}).json()["choices"][0]["logprobs"]
    assert logprobs["refusal"] is None
    assert [entry["token"] for entry in logprobs["content"]] == list(ANSWER)
    for entry in logprobs["content"]:
        assert entry["bytes"] == list(entry["token"].encode())
        assert len(entry["top_logprobs"]) == 2
        best = entry["top_logprobs"][0]
        assert {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry["bytes"]} == best
        assert best["logprob"] > entry["top_logprobs"][1]["logprob"]


def test_alternatives_only_when_asked(server: FakeServer) -> None:
    logprobs = server.post(CHAT, HI).json()["choices"][0]["logprobs"]
    assert [entry["top_logprobs"] for entry in logprobs["content"]] == [[], [], []]


def test_chunks_carry_the_entries_of_their_tokens(server: FakeServer) -> None:
    chunks = server.chunks(CHAT, HI | {"top_logprobs": 1})
    entries = [entry for chunk in chunks for entry in chunk["choices"][0].get("logprobs", {"content": []})["content"]]
    assert [entry["token"] for entry in entries] == list(ANSWER)


def test_part_of_a_character_is_shown_as_bytes(make_server: MakeServer) -> None:
    server = make_server(alphabet=(0xC3, 0xA9))
    logprobs = server.post(CHAT, HI).json()["choices"][0]["logprobs"]
    assert {entry["token"] for entry in logprobs["content"]} <= {"bytes:\\xc3", "bytes:\\xa9"}
    assert {tuple(entry["bytes"]) for entry in logprobs["content"]} <= {(0xC3,), (0xA9,)}
