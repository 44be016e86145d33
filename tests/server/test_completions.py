"""``POST /v1/completions``: shapes, several prompts, scoring."""

from __future__ import annotations

import math

import pytest

from tests.server.conftest import MODEL_ID, FakeServer, greedy_text, text_of
from tests.support.fake_executor import greedy_answer

COMPLETIONS = "/v1/completions"
BOS = 256
HI = [BOS, *b"hi"]


def usage(prompt_tokens: int, completion_tokens: int, cached_tokens: int = 0) -> dict[str, object]:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached_tokens},
    }


def test_usage_counts_the_cached_tokens_of_all_prompts(server: FakeServer) -> None:
    long = "a prompt of more than two pages, each of them sixteen tokens"
    asked = {"prompt": [long, "short", long], "max_tokens": 1, "temperature": 0}
    server.post(COMPLETIONS, asked)
    num_prompt_tokens = 2 * (1 + len(long)) + 1 + len("short")
    assert server.post(COMPLETIONS, asked).json()["usage"] == usage(num_prompt_tokens, 3, 2 * (len(long) // 16 * 16))


def test_answers_in_openai_shape(server: FakeServer) -> None:
    body = server.post(COMPLETIONS, {"prompt": "hi", "temperature": 0, "max_tokens": 4}).json()
    assert body.pop("id").startswith("cmpl-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "object": "text_completion",
        "model": MODEL_ID,
        "choices": [{"text": greedy_text(HI, 4), "index": 0, "logprobs": None, "finish_reason": "length"}],
        "usage": usage(3, 4),
    }


def test_streams_text_then_reason_then_usage(server: FakeServer) -> None:
    asked = {"prompt": "hi", "temperature": 0, "max_tokens": 4, "stream_options": {"include_usage": True}}
    chunks = server.chunks(COMPLETIONS, asked)
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    text = "".join(chunk["choices"][0]["text"] for chunk in chunks[:-2])
    assert text == greedy_text(HI, 4)
    assert all(chunk["choices"][0]["finish_reason"] is None for chunk in chunks[:-2])
    assert chunks[-2]["choices"] == [{"text": "", "index": 0, "logprobs": None, "finish_reason": "length"}]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == usage(3, 4)


@pytest.mark.parametrize(
    ("prompt", "token_ids"),
    [
        ("hi", [HI]),
        (["hi"], [HI]),
        ([104, 105], [[104, 105]]),
        (["hi", "yo"], [HI, [BOS, *b"yo"]]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        (["<bos>hi", [7]], [[BOS, BOS, *b"hi"], [7]]),
    ],
)
def test_takes_one_or_many_prompts_as_text_or_ids(
    server: FakeServer, prompt: object, token_ids: list[list[int]]
) -> None:
    asked = {"prompt": prompt, "temperature": 0, "max_tokens": 3}
    expected = [greedy_text(ids, 3) for ids in token_ids]
    body = server.post(COMPLETIONS, asked).json()
    assert [choice["text"] for choice in body["choices"]] == expected
    assert [choice["index"] for choice in body["choices"]] == list(range(len(expected)))
    assert body["usage"]["prompt_tokens"] == sum(map(len, token_ids))
    assert body["usage"]["completion_tokens"] == 3 * len(expected)
    streamed = [""] * len(expected)
    for chunk in server.chunks(COMPLETIONS, asked):
        (choice,) = chunk["choices"]
        streamed[choice["index"]] += choice["text"]
    assert streamed == expected


def test_stop_is_ignored(server: FakeServer) -> None:
    whole = greedy_text(HI, 6)
    body = server.post(COMPLETIONS, {"prompt": "hi", "temperature": 0, "max_tokens": 6, "stop": whole[2]}).json()
    assert body["choices"][0]["text"] == whole


def test_echo_begins_with_the_prompt(server: FakeServer) -> None:
    asked = {"prompt": "hi", "temperature": 0, "max_tokens": 3, "echo": True}
    expected = "hi" + greedy_text(HI, 3)
    assert server.post(COMPLETIONS, asked).json()["choices"][0]["text"] == expected
    assert "".join(chunk["choices"][0]["text"] for chunk in server.chunks(COMPLETIONS, asked)) == expected


def test_echo_of_token_ids_spells_out_control_tokens(server: FakeServer) -> None:
    body = server.post(COMPLETIONS, {"prompt": HI, "temperature": 0, "max_tokens": 1, "echo": True}).json()
    assert body["choices"][0]["text"] == "<bos>hi" + greedy_text(HI, 1)


def test_logprobs_of_generated_tokens(server: FakeServer) -> None:
    asked = {"prompt": "hi", "temperature": 0, "max_tokens": 3, "logprobs": 2}
    logprobs = server.post(COMPLETIONS, asked).json()["choices"][0]["logprobs"]
    answer = greedy_text(HI, 3)
    assert logprobs["tokens"] == list(answer)
    assert logprobs["text_offset"] == [0, 1, 2]
    for token, value, top in zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True):
        assert len(top) == 2
        assert max(top, key=top.__getitem__) == token
        assert top[token] == value < 0
        best, second = sorted(top.values(), reverse=True)
        assert math.isclose(best - second, 0.5, abs_tol=1e-4)  # the fake model's logits are 0.5 apart


def test_chosen_token_is_always_among_its_alternatives(server: FakeServer) -> None:
    asked = {"prompt": "hi", "temperature": 2, "seed": 3, "max_tokens": 20, "logprobs": 1}
    logprobs = server.post(COMPLETIONS, asked).json()["choices"][0]["logprobs"]
    assert all(token in top for token, top in zip(logprobs["tokens"], logprobs["top_logprobs"], strict=True))
    assert {len(top) for top in logprobs["top_logprobs"]} == {1, 2}


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_scores_given_text_in_one_call(server: FakeServer, max_tokens: int) -> None:
    asked = {"prompt": [HI, [1, 2]], "max_tokens": max_tokens, "temperature": 0, "logprobs": 1, "echo": True}
    body = server.post(COMPLETIONS, asked).json()
    first, second = (choice["logprobs"] for choice in body["choices"])
    assert first["tokens"][:3] == ["<bos>", "h", "i"]
    assert first["token_logprobs"][0] is None
    assert first["top_logprobs"][0] is None
    assert first["text_offset"][:3] == [0, 5, 6]
    for place in (1, 2):
        (likeliest,) = greedy_answer(HI[:place], 1)
        top = first["top_logprobs"][place]
        assert max(top, key=top.__getitem__) == text_of([likeliest])
        assert first["token_logprobs"][place] == top[first["tokens"][place]]
    assert len(first["tokens"]) == 3 + max_tokens
    assert len(second["tokens"]) == 2 + max_tokens
    assert body["choices"][0]["text"] == "<bos>hi" + greedy_text(HI, max_tokens)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"] == usage(5, 2 * max_tokens)


def test_streamed_scores_are_the_whole_ones_in_pieces(server: FakeServer) -> None:
    asked = {"prompt": "hi", "max_tokens": 3, "temperature": 0, "logprobs": 1, "echo": True}
    whole = server.post(COMPLETIONS, asked).json()["choices"][0]
    chunks = [chunk["choices"][0] for chunk in server.chunks(COMPLETIONS, asked)]
    assert "".join(chunk["text"] for chunk in chunks) == whole["text"]
    for name, values in whole["logprobs"].items():
        assert [value for chunk in chunks for value in (chunk["logprobs"] or {name: []})[name]] == values


def test_automatic_bos_takes_no_place_in_echoed_text(server: FakeServer) -> None:
    asked = {"prompt": "hé", "max_tokens": 1, "temperature": 0, "logprobs": 0, "echo": True}
    logprobs = server.post(COMPLETIONS, asked).json()["choices"][0]["logprobs"]
    assert logprobs["tokens"][:4] == ["<bos>", "h", "bytes:\\xc3", "bytes:\\xa9"]
    assert logprobs["text_offset"] == [0, 0, 1, 1, 2]


def test_scoring_needs_echo_and_logprobs(server: FakeServer) -> None:
    for incomplete in ({}, {"echo": True}, {"logprobs": 1}):
        response = server.post(COMPLETIONS, {"prompt": "hi", "max_tokens": 0} | incomplete)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == "max_tokens"


def test_one_bad_prompt_refuses_all(server: FakeServer) -> None:
    response = server.post(COMPLETIONS, {"prompt": [[1], [2], [1] * 300], "max_tokens": 1})
    assert response.status_code == 400
    error = response.json()["error"]
    assert (error["code"], error["param"]) == ("context_length_exceeded", "prompt")
