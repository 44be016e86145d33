"""``/tokenize`` and ``/detokenize``."""

from __future__ import annotations

from tests.server.conftest import FakeServer, chat_prompt


def test_tokenizes_text(server: FakeServer) -> None:
    body = server.post("/tokenize", {"prompt": "hi<eos>"}).json()
    assert body == {"count": 4, "max_model_len": 256, "tokens": [256, 104, 105, 257], "token_strs": None}
    assert server.post("/tokenize", {"prompt": "hi", "add_special_tokens": False}).json()["tokens"] == [104, 105]


def test_shows_the_tokens_texts_when_asked(server: FakeServer) -> None:
    body = server.post("/tokenize", {"prompt": "é", "return_token_strs": True}).json()
    assert body["token_strs"] == ["<bos>", "bytes:\\xc3", "bytes:\\xa9"]


def test_tokenizes_a_conversation_as_chat_does(server: FakeServer) -> None:
    messages = [{"role": "user", "content": "hi"}]
    expected = chat_prompt(("user", "hi"))
    assert server.post("/tokenize", {"messages": messages}).json()["tokens"] == expected
    without = server.post("/tokenize", {"messages": messages, "add_generation_prompt": False}).json()["tokens"]
    assert without == expected[: -len("assistant:")]


def test_counts_what_chat_would_compute(server: FakeServer) -> None:
    function = {"name": "add", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    fields = {
        "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "He"}],
        "tools": [{"type": "function", "function": function}],
        "continue_final_message": True,
    }
    counted = server.post("/tokenize", fields).json()["count"]
    chat = server.post("/v1/chat/completions", fields | {"max_tokens": 1}).json()
    assert counted == chat["usage"]["prompt_tokens"] > len(chat_prompt(("user", "hi")))


def test_detokenizes_what_tokenize_gave(server: FakeServer) -> None:
    for text in ("", "hi", "é €", "a\nb"):
        tokens = server.post("/tokenize", {"prompt": text, "add_special_tokens": False}).json()["tokens"]
        assert server.post("/detokenize", {"tokens": tokens}).json() == {"prompt": text}
    assert server.post("/detokenize", {"tokens": [256, 104, 257]}).json() == {"prompt": "<bos>h<eos>"}


def test_works_while_draining(server: FakeServer) -> None:
    server.state.is_draining = True
    assert server.post("/tokenize", {"prompt": "hi"}).status_code == 200
