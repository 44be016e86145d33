"""Questions to a session: what is answered, what is computed, and the bytes of its stream."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from layerscale_core.errors import StepError
from tests.server.conftest import FakeServer, Gate, MakeServer, chat_prompt, greedy_text
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.session_api import LINE, READING, answered, create, error, ok, push, settle

BOS = ByteTokenizer.BOS_ID


@pytest.fixture
def sessions(make_server: MakeServer) -> FakeServer:
    """A server with room for two sessions."""
    return make_server(num_sessions=2, context_len=1024)


def answer_to(text: str, num_tokens: int) -> str:
    """What the fake model says after BOS and a text."""
    return greedy_text([BOS, *text.encode()], num_tokens)


def text_of(server: FakeServer, path: str) -> str:
    """What a session holds."""
    text: str = ok(server.get(f"{path}/state"))["context_text"]
    return text.removeprefix("<bos>")


def frames(body: bytes) -> list[dict[str, Any]]:
    """The chunks of a stream, whose bytes must be as the dialect says."""
    assert body.endswith(b"\n\n")
    lines = body.removesuffix(b"\n\n").split(b"\n\n")
    assert all(line.startswith(b"data: {") and b"\n" not in line for line in lines), lines
    return [json.loads(line.removeprefix(b"data: ")) for line in lines]


def test_a_question_follows_the_prompt(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    result = ok(sessions.post(f"{path}/generate", {"prompt": " def", "max_tokens": 5}))
    assert result == {
        "text": answer_to("abc def", 5),
        "n_tokens": 5,
        "total_tokens": 13,
        "pos_max": 12,
        "finish_reason": "length",
        "data_version": 0,
        "n_prefilled": result["n_prefilled"],
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 5,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


def test_without_data_questions_and_answers_build_a_transcript(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    transcript = "abc"
    for question in (" def", " ghi"):
        transcript += question
        result = ok(sessions.post(f"{path}/generate", {"prompt": question, "max_tokens": 5}))
        assert result["text"] == answer_to(transcript, 5)
        transcript += result["text"]
    assert ok(sessions.post(f"{path}/generate", {"max_tokens": 3}))["text"] == answer_to(transcript, 3)
    assert text_of(sessions, path) == transcript + answer_to(transcript, 3)


def test_with_data_every_question_is_asked_over_the_data_alone(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    push(sessions, path, READING, READING)
    for _ in range(2):
        result = ok(sessions.post(f"{path}/generate", {"prompt": " def", "max_tokens": 5}))
        assert result["text"] == answer_to("abc\n" + 2 * LINE + " def", 5)
        assert (result["n_prefilled"], result["data_version"]) == (4, 1)


def test_a_question_costs_its_own_tokens_however_much_is_held(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    held = "abc\n"
    for _ in range(10):
        push(sessions, path, READING)
        held += LINE
        result = ok(sessions.post(f"{path}/generate", {"prompt": "And now?", "max_tokens": 2}))
        assert (result["n_prefilled"], result["text"]) == (len("And now?"), answer_to(held + "And now?", 2))


def test_nothing_to_go_on_from(make_server: MakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ByteTokenizer, "encode", lambda _self, text, **_: list(text.encode()))  # a model without BOS
    server = make_server(num_sessions=1)
    path = create(server)
    assert ok(server.get("/v1/sessions"))["sessions"][0]["n_tokens"] == 0
    state = ok(server.get(f"{path}/state"))
    assert (state["pos_min"], state["pos_max"], state["pos_next"]) == (-1, -1, 0)
    assert error(server.post(f"{path}/generate", {}), 400)["param"] == "prompt"
    assert ok(server.post(f"{path}/generate", {"prompt": "a", "max_tokens": 2}))["text"] == greedy_text(b"a", 2)


def test_a_conversation_computes_only_what_is_new(sessions: FakeServer) -> None:
    path = create(sessions)
    messages = [{"role": "user", "content": "hi"}]
    first = ok(sessions.post(f"{path}/generate", {"messages": messages, "max_tokens": 4}))
    ids = chat_prompt(("user", "hi"))
    assert first["text"] == greedy_text(ids, 4)
    assert first["usage"]["prompt_tokens"] == len(ids)
    assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
    messages += [{"role": "assistant", "content": first["text"]}, {"role": "user", "content": "and?"}]
    second = ok(sessions.post(f"{path}/generate", {"messages": messages, "max_tokens": 4}))
    ids = chat_prompt(("user", "hi"), ("assistant", first["text"]), ("user", "and?"))
    assert second["text"] == greedy_text(ids, 4)
    new = len(";user:and?;assistant:")
    assert second["usage"]["prompt_tokens_details"] == {"cached_tokens": len(ids) - new}
    assert second["n_prefilled"] == new + 1  # the last token of an answer is computed with what follows it


def test_a_conversation_on_top_of_data_comes_after_it_without_a_second_bos(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    push(sessions, path, READING)
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
    result = ok(sessions.post(f"{path}/generate", body))
    assert result["text"] == answer_to("abc\n" + LINE + "user:hi;assistant:", 4)
    assert result["usage"]["prompt_tokens"] == len(chat_prompt(("user", "hi")))


def test_a_question_can_leave_the_session_as_it_was(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    body = {"prompt": " def", "max_tokens": 5}
    assert ok(sessions.post(f"{path}/generate", body | {"clear_after": 1}))["total_tokens"] == 4
    assert text_of(sessions, path) == "abc"
    assert ok(sessions.post(f"{path}/generate", body | {"clear_after": 0}))["total_tokens"] == 13


def test_an_answer_ends_with_the_context_and_the_next_question_still_works(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc", context=256)
    push(sessions, path, READING)
    held = 4 + 1 + len(LINE)
    result = ok(sessions.post(f"{path}/generate", {"prompt": "d", "max_tokens": 10_000, "ignore_eos": True}))
    assert (result["finish_reason"], result["total_tokens"]) == ("length", 256)
    assert result["n_tokens"] == 256 - held - 1
    assert ok(sessions.post(f"{path}/generate", {"prompt": "d", "max_tokens": 2}))["total_tokens"] == held + 3


def test_a_question_too_long_for_the_context_changes_nothing(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc", context=256)
    for body, param in (
        ({"prompt": "x" * 256}, "prompt"),
        ({"messages": [{"role": "user", "content": "x" * 256}]}, "messages"),
    ):
        for stream in (False, True):
            refused = error(sessions.post(f"{path}/generate", body | {"stream": stream}), 400)
            assert (refused["code"], refused["param"]) == ("context_length_exceeded", param)
    assert text_of(sessions, path) == "abc"


def test_stop_texts_end_an_answer(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    whole = answer_to("abc", 8)
    result = ok(sessions.post(f"{path}/generate", {"max_tokens": 8, "stop": [whole[4:6]]}))
    assert (result["text"], result["finish_reason"]) == (whole[:4], "stop")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": 1}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "hi"}]}, "prompt"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": "refuse me"}]}, "messages"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "max_tokens": 2.5}, "max_tokens"),
        ({"prompt": "a", "temperature": 2.1}, "temperature"),
        ({"prompt": "a", "top_p": 0}, "top_p"),
        ({"prompt": "a", "stop": 1}, "stop"),
        ({"prompt": "a", "stop": [""]}, "stop"),
        ({"prompt": "a", "fast_answer": 1}, "fast_answer"),
        ({"prompt": "a", "clear_after": "1"}, "clear_after"),
        ({"prompt": "a", "stop_token_ids": [100_000]}, "stop_token_ids"),
        ({"prompt": "a", "tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
)
def test_bad_questions_are_refused(sessions: FakeServer, body: dict[str, Any], param: str) -> None:
    path = create(sessions, prompt="abc")
    assert error(sessions.post(f"{path}/generate", body), 400)["param"] == param
    assert text_of(sessions, path) == "abc"


def test_the_bytes_of_a_stream(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    response = sessions.post(f"{path}/generate", {"prompt": " def", "max_tokens": 3, "stream": True})
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-cache"
    text = answer_to("abc def", 3)
    tokens = [
        f'data: {{"token":{json.dumps(piece)},"pos":{8 + index},"done":false}}' for index, piece in enumerate(text)
    ]
    *head, last, rest = response.text.split("\n\n")
    assert (head, rest) == (tokens, "")
    final = json.loads(last.removeprefix("data: "))
    assert final.pop("done") is True
    assert (
        ok(sessions.post(f"{create(sessions, prompt='abc')}/generate", {"prompt": " def", "max_tokens": 3})).keys()
        == final.keys()
    )
    assert (final["text"], final["n_tokens"], final["finish_reason"], final["pos_max"]) == (text, 3, "length", 10)
    assert "[DONE]" not in response.text


def test_a_stream_holds_characters_back_until_they_are_whole_and_escapes_them(make_server: MakeServer) -> None:
    letter = "\u2028".encode()
    server = make_server(num_sessions=1, alphabet=(*letter, ByteTokenizer.EOS_ID))
    path = create(server, prompt="abc")
    response = server.post(f"{path}/generate", {"max_tokens": 20, "stream": True})
    *tokens, final = frames(response.content)
    assert "".join(chunk["token"] for chunk in tokens) == final["text"]
    assert all(chunk["token"] for chunk in tokens)
    assert "\u2028" not in response.text


def test_an_error_in_a_stream_is_a_frame_and_the_last(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    ok(sessions.post(f"{path}/mark_prefix", {}))
    num_before = len(sessions.executor.batches)

    def fail(_batch: object) -> None:
        if len(sessions.executor.batches) == num_before + 3:
            raise StepError("broken")

    sessions.executor.before_step = fail
    response = sessions.post(f"{path}/generate", {"prompt": "d", "max_tokens": 9, "stream": True})
    *tokens, last = frames(response.content)
    assert len(tokens) == 3
    assert last["error"]["type"] == "server_error"
    sessions.executor.before_step = lambda _batch: None
    assert ok(sessions.post(f"{path}/generate", {"prompt": "d", "max_tokens": 9}))["text"] == answer_to("abcd", 9)


def test_a_client_that_leaves_ends_its_question_and_leaves_no_trace(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    ok(sessions.post(f"{path}/mark_prefix", {}))
    gate = Gate(sessions.executor)
    num_messages = 0

    async def leave() -> None:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            nonlocal num_messages
            num_messages += 1
            if num_messages == 1:
                return {"type": "http.request", "body": json.dumps({"prompt": "d", "max_tokens": 500}).encode()}
            await asyncio.to_thread(gate.wait_until_reached)
            asyncio.get_running_loop().call_later(0.02, gate.open)
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": f"{path}/generate",
            "query_string": b"",
            "headers": [],
            "client": None,
        }
        await sessions.app(scope, receive, send)
        assert sent == []

    asyncio.run(leave())
    assert text_of(sessions, path) == "abc"


def test_questions_to_one_session_come_one_after_the_other_and_other_sessions_beside_them(
    sessions: FakeServer,
) -> None:
    paths = [create(sessions, prompt="abc"), create(sessions, prompt="xyz")]
    for path in paths:
        ok(sessions.post(f"{path}/mark_prefix", {}))
    gate = Gate(sessions.executor)

    async def work(client: Any) -> list[str]:
        async def ask(path: str, prompt: str) -> str:
            text: str = ok(await client.post(f"{path}/generate", json={"prompt": prompt, "max_tokens": 6}))["text"]
            return text

        first = asyncio.create_task(ask(paths[0], "1"))
        await asyncio.to_thread(gate.wait_until_reached)
        others = [asyncio.create_task(ask(path, prompt)) for path, prompt in ((paths[0], "2"), (paths[1], "3"))]
        await asyncio.sleep(0.05)
        in_use = [each["in_use"] for each in ok(await client.get("/v1/sessions"))["sessions"]]
        assert in_use[0] is True
        gate.open()
        return [await first, *[await each for each in others]]

    first, second, other = sessions.run(work)
    assert first == answer_to("abc1", 6)
    assert second == answer_to("abc1" + first + "2", 6)
    assert other == answer_to("xyz3", 6)
    assert any(len(batch) == 2 for batch in sessions.executor.batches), "two sessions in one step"


def test_too_many_questions_to_one_session_are_refused_until_there_is_room(make_server: MakeServer) -> None:
    server = make_server(num_sessions=1, max_waiting=1)
    path = create(server, prompt="abc")
    ok(server.post(f"{path}/mark_prefix", {}))
    gate = Gate(server.executor)

    async def work(client: Any) -> list[Any]:
        def ask() -> asyncio.Task[Any]:
            return asyncio.create_task(client.post(f"{path}/generate", json={"prompt": "d", "max_tokens": 2}))

        running = ask()
        await asyncio.to_thread(gate.wait_until_reached)
        others = [ask(), ask()]
        while len(server.engine._intake._posted) < 2:
            await asyncio.sleep(0.001)
        gate.open()
        responses = sorted([await task for task in others], key=lambda response: response.status_code)
        return [await running, *responses, await ask()]

    running, waited, refused, later = server.run(work)
    assert error(refused, 429)["code"] == "queue_full"
    assert refused.headers["retry-after"] == "1"
    assert [ok(response)["n_tokens"] for response in (running, waited, later)] == [2, 2, 2]


@pytest.mark.parametrize("stream", [False, True])
def test_a_registered_question_is_answered_from_the_store(sessions: FakeServer, stream: bool) -> None:
    path = create(sessions, prompt="abc", flash=[{"query": " Up?", "max_tokens": 3}])
    push(sessions, path, READING)
    (query,) = answered(sessions, path)
    value = answer_to("abc\n" + LINE + " Up?", 3)
    assert (query["has_answer"], query["value"], query["confidence"]) == (True, value, 0.5)
    before = ok(sessions.get(f"{path}/state"))
    num_steps = len(sessions.executor.batches)
    response = sessions.post(f"{path}/generate", {"prompt": "Up? ", "stream": stream})
    held = before["n_tokens"]
    expected = {
        "text": value,
        "n_tokens": 3,
        "total_tokens": held,
        "pos_max": held - 1,
        "finish_reason": "stop",
        "data_version": 1,
        "n_prefilled": 0,
        "usage": {
            "prompt_tokens": 4,
            "completion_tokens": 3,
            "total_tokens": 7,
            "prompt_tokens_details": {"cached_tokens": 4},
        },
        "flash": True,
        "flash_id": 1,
        "confidence": 0.5,
    }
    if stream:
        token = {"token": value, "pos": held + 4, "done": False}
        assert response.headers["content-type"] == "text/event-stream"
        assert frames(response.content) == [token, {"done": True} | expected]
    else:
        assert ok(response) == expected
    assert len(sessions.executor.batches) == num_steps
    assert ok(sessions.get(f"{path}/state"))["context_text"] == before["context_text"]
    assert "layerscale_flash_hits_total 1.0" in sessions.get("/metrics").text
    assert "layerscale_flash_evaluations_total 1.0" in sessions.get("/metrics").text


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": "Down?"},
        {"temperature": 0.5},
        {"stop": ["never said"]},
        {"repetition_penalty": 1.1},
        {"prompt": None, "messages": [{"role": "user", "content": "Up?"}]},
    ],
)
def test_another_question_is_not_answered_from_the_store(sessions: FakeServer, other: dict[str, Any]) -> None:
    path = create(sessions, prompt="abc", flash=[{"query": "Up?", "max_tokens": 3}])
    push(sessions, path, READING)
    answered(sessions, path)
    result = ok(sessions.post(f"{path}/generate", {"prompt": "Up?", "max_tokens": 2} | other))
    assert "flash" not in result
    assert result["n_prefilled"] > 0


def test_a_stale_answer_is_not_given(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc", flash=[{"query": "Up?", "max_tokens": 3}])
    push(sessions, path, READING)
    answered(sessions, path)
    ok(sessions.post(f"{path}/append", {"text": "News!"}))
    gate = Gate(sessions.executor)

    async def work(client: Any) -> dict[str, Any]:
        task = asyncio.create_task(client.post(f"{path}/generate", json={"prompt": "Up?", "max_tokens": 3}))
        await asyncio.to_thread(gate.wait_until_reached)
        gate.open()
        return ok(await task)

    ok(sessions.post(f"{path}/append", {"text": "!"}))
    result = sessions.run(work)
    assert result["text"] == answer_to("abc\n" + LINE + "News!!Up?", 3)


def test_a_fast_answer_is_the_first_token_of_the_whole_one(make_server: MakeServer) -> None:
    server = make_server(num_sessions=1)
    sure = {"prompt": "d", "max_tokens": 5, "fast_answer": True, "clear_after": 1}
    path = create(server, prompt="abc")
    unsure = ok(server.post(f"{path}/generate", sure))
    assert unsure["n_tokens"] == 5
    assert "speculative" not in unsure

    def widen(_batch: object, logits: Any) -> None:
        logits *= 10

    server.executor.after_step = widen
    result = ok(server.post(f"{path}/generate", sure))
    assert (result["text"], result["n_tokens"], result["finish_reason"]) == (unsure["text"][0], 1, "stop")
    assert (result["speculative"], result["logit_gap"]) == (True, 5.0)
    *tokens, final = frames(server.post(f"{path}/generate", sure | {"stream": True}).content)
    assert [chunk["token"] for chunk in tokens] == [unsure["text"][0]]
    assert (final["speculative"], final["logit_gap"]) == (True, 5.0)
    assert "speculative" not in ok(server.post(f"{path}/generate", sure | {"temperature": 0.1}))
    assert "speculative" not in ok(server.post(f"{path}/generate", sure | {"fast_answer": False}))


def test_chat_in_a_session_has_the_shape_of_chat_and_pays_for_what_is_new(sessions: FakeServer) -> None:
    path = create(sessions)
    session_id = path.removeprefix("/v1/sessions/")
    messages = [{"role": "user", "content": "hi"}]
    body = {"session_id": session_id, "temperature": 0, "max_tokens": 4}
    first = ok(sessions.post("/v1/chat/completions", body | {"messages": messages}))
    alone = ok(sessions.post("/v1/chat/completions", {"temperature": 0, "max_tokens": 4, "messages": messages}))
    assert first.keys() == alone.keys()
    assert first["choices"] == alone["choices"]
    said = first["choices"][0]["message"]["content"]
    messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "and?"}]
    second = ok(sessions.post("/v1/chat/completions", body | {"messages": messages}))
    ids = chat_prompt(("user", "hi"), ("assistant", said), ("user", "and?"))
    assert second["choices"][0]["message"]["content"] == greedy_text(ids, 4)
    usage = second["usage"]
    assert usage["prompt_tokens"] == len(ids)
    assert usage["prompt_tokens_details"]["cached_tokens"] == len(ids) - len(";user:and?;assistant:")
    chunks = sessions.chunks("/v1/chat/completions", body | {"messages": messages})
    assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks) == greedy_text(ids, 4)


def test_chat_in_an_unknown_session(sessions: FakeServer) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "session_id": "sess_000000000000"}
    assert error(sessions.post("/v1/chat/completions", body), 404)["code"] == "session_not_found"


def test_a_question_waits_for_no_batch_that_is_not_begun(sessions: FakeServer) -> None:
    path = create(sessions, prompt="abc")
    push(sessions, path, READING)
    ok(sessions.post(f"{path}/stream/push", {"data": [READING] * 3}))
    result = ok(sessions.post(f"{path}/generate", {"prompt": "d", "max_tokens": 2}))
    held = "abc\n" + LINE * {1: 1, 2: 4}[result["data_version"]]
    assert result["text"] == answer_to(held + "d", 2)
    settle(sessions, path)
