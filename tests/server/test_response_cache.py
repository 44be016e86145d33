"""``--response-cache-mib``: exact repeats of deterministic requests get their answer again, and nothing else does."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import defaultdict
from collections.abc import Hashable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.constraints import ConstraintCompiler, Grammar
from layerscale_core.engine import (
    Cancelled,
    Event,
    Failed,
    Finished,
    FinishReason,
    PromptScored,
    Request,
    SamplingParams,
    TokenLogprob,
    TokensGenerated,
    Usage,
)
from layerscale_core.errors import StepError
from layerscale_core.specs import Priority
from layerscale_server.generation import AsyncEngine, Batch
from layerscale_server.response_cache import ResponseCache, response_key
from tests.server.conftest import FakeServer, Gate, MakeServer
from tests.server.test_generation import ScriptedEngine, collect
from tests.server.test_metrics import samples
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.session_api import ok

MIB = 1 << 20
TEXT = "what is to be said?"
GREEDY = SamplingParams(8)
REQUEST = Request("r", (1, 2, 3), GREEDY)
END = Finished(FinishReason.STOP, Usage(3, 2, 1), text="!")


@pytest.fixture
def server(make_server: MakeServer) -> FakeServer:
    return make_server(response_cache_bytes=MIB, context_len=1024)


def keep(cache: ResponseCache, key: Hashable, *events: Event) -> list[Event]:
    """Give an answer through the cache; what reached the client."""
    delivered: list[Event] = []
    record = cache.recording(key, delivered.append)
    for event in events:
        record(event)
    return delivered


# What is alike.

OTHERS: dict[str, Any] = {
    "max_tokens": 9,
    "temperature": 0.5,
    "top_p": 0.9,
    "top_k": 4,
    "min_p": 0.1,
    "presence_penalty": 1.0,
    "frequency_penalty": 1.0,
    "repetition_penalty": 1.1,
    "logit_bias": {5: 1.0},
    "seed": 8,
    "stop": ("x",),
    "shown_token_ids": frozenset({1}),
    "stop_token_ids": frozenset({1}),
    "ignore_eos": True,
    "min_tokens": 1,
    "logprobs": 0,
    "prompt_logprobs": 0,
    "logit_gap": True,
    "early_gap": 1.0,
}


@pytest.mark.parametrize("name", [each.name for each in fields(SamplingParams)])
def test_every_parameter_tells_requests_apart(name: str) -> None:
    seeded = replace(GREEDY, seed=7)
    other = replace(seeded, **{name: OTHERS[name]})
    assert response_key(replace(REQUEST, sampling=seeded)) != response_key(replace(REQUEST, sampling=other))


def test_so_do_the_prompt_the_grammar_and_the_client_but_not_the_id() -> None:
    compiler = ConstraintCompiler(ByteTokenizer(), max_kept=1)
    grammars = [Grammar.regex("a|b"), Grammar.regex('["a","b"]'), Grammar.choice(["a", "b"])]
    constraints = [compiler.compile(grammar) for grammar in grammars]
    asked = [
        REQUEST,
        replace(REQUEST, prompt_ids=(1, 2)),
        replace(REQUEST, prompt_ids=(1, 2, 4)),
        replace(REQUEST, cache_key="other"),
        *(replace(REQUEST, constraint=each) for each in constraints),
    ]
    keys = [response_key(request) for request in asked]
    assert len(set(keys)) == len(asked)
    assert response_key(replace(REQUEST, request_id="q")) == keys[0]
    again = compiler.compile(Grammar.regex("a|b"))
    assert again is not constraints[0], "it was forgotten and compiled once more"
    assert response_key(replace(REQUEST, constraint=again)) == keys[4]


def test_what_chance_decides_or_nobody_asks_for_has_no_key() -> None:
    assert response_key(replace(REQUEST, sampling=replace(GREEDY, temperature=0.7))) is None
    assert response_key(replace(REQUEST, sampling=replace(GREEDY, temperature=0.7, seed=0))) is not None
    assert response_key(replace(REQUEST, priority=Priority.FLASH)) is None


# What is kept.


def test_a_repeat_is_the_answer_in_one_piece_with_its_whole_prompt_cached() -> None:
    cache = ResponseCache(MIB)
    logprobs = [TokenLogprob(token_id, -0.5, ((token_id, -0.5),)) for token_id in (7, 8)]
    scored = PromptScored((None, logprobs[0]))
    events = [scored, TokensGenerated("a", (7,), (logprobs[0],), 3), TokensGenerated("b", (8,), (logprobs[1],), 4), END]
    assert cache.find("key") is None
    assert keep(cache, "key", *events) == events
    whole = TokensGenerated("ab", (7, 8), tuple(logprobs), 3)
    assert cache.find("key") == (scored, whole, replace(END, usage=Usage(3, 2, 3)))
    assert (cache.stats().num_hits, cache.stats().num_misses) == (1, 1)


@pytest.mark.parametrize("end", [Cancelled(), Failed(StepError("no"))])
def test_only_answers_that_ended_as_they_should_are_kept(end: Event) -> None:
    cache = ResponseCache(MIB)
    assert keep(cache, "key", TokensGenerated("a", (7,)), end) == [TokensGenerated("a", (7,)), end]
    assert cache.find("key") is None
    assert cache.stats().num_bytes == 0


def test_those_that_were_not_used_for_longest_make_room() -> None:
    cache = ResponseCache(1 << 14)
    for number in range(3):
        keep(cache, number, TokensGenerated("x" * 3000, (1,)), END)
    assert cache.find(0) is not None
    for number in range(3, 5):
        keep(cache, number, TokensGenerated("x" * 3000, (1,)), END)
    assert [number for number in range(5) if cache.find(number) is not None] == [0, 3, 4]
    held = cache.stats().num_bytes
    keep(cache, "too large", TokensGenerated("x" * (1 << 14), (1,)), END)
    assert cache.stats().num_bytes == held, "it makes nobody go"
    keep(cache, 4, TokensGenerated("y", (1,)), END)
    assert cache.stats().num_bytes == held


def memory_of(value: object, seen: set[int]) -> int:
    """What an object and all it is made of take."""
    if id(value) in seen:
        return 0
    seen.add(id(value))
    parts: list[object] = []
    if is_dataclass(value):
        parts = [getattr(value, each.name) for each in fields(value)]
    elif isinstance(value, tuple | frozenset):
        parts = list(value)
    return sys.getsizeof(value) + sum(memory_of(part, seen) for part in parts)


@given(
    st.integers(0, 400),
    st.integers(0, 30),
    st.integers(0, 2000),
    st.dictionaries(st.integers(300, 999), st.floats(0, 9)),
)
@settings(max_examples=40, deadline=None)
def test_the_memory_that_is_counted_is_not_less_than_what_is_taken(
    num_tokens: int, num_top: int, prompt_len: int, bias: dict[int, float]
) -> None:
    def logprob(token_id: int) -> TokenLogprob:
        return TokenLogprob(token_id, token_id / 3, tuple((each + 1000, each / 7) for each in range(num_top)))

    cache = ResponseCache(1 << 30)
    key = response_key(Request("r", tuple(range(1000, 1000 + prompt_len)), replace(GREEDY, logit_bias=bias)))
    steps = [TokensGenerated("é", (token_id,), (logprob(token_id),)) for token_id in range(1000, 1000 + num_tokens)]
    keep(cache, key, PromptScored((None, *map(logprob, range(5000, 5050)))), *steps, END)
    taken = memory_of(cache.find(key), set()) + memory_of(key, set())
    assert taken <= cache.stats().num_bytes <= 2 * taken + 2000


# Over HTTP.

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": TEXT}], "max_tokens": 12, "temperature": 0}
ROUTES: dict[str, dict[str, Any]] = {
    "/v1/completions": {
        "prompt": [TEXT, "and", "more"],
        "max_tokens": 12,
        "temperature": 0,
        "logprobs": 3,
        "echo": True,
    },
    "/v1/chat/completions": {**CHAT, "logprobs": True, "top_logprobs": 2},
    "/v1/messages": CHAT,
    "/v1/responses": {"input": TEXT, "max_output_tokens": 12, "temperature": 0, "store": False},
}


def without_names(value: Any) -> Any:
    """An answer without what differs between any two: ids, times, and the count of cached tokens."""
    if isinstance(value, dict):
        names = ("id", "item_id", "created", "created_at", "completed_at", "usage")
        return {name: without_names(each) for name, each in value.items() if name not in names}
    return [without_names(each) for each in value] if isinstance(value, list) else value


def streamed_texts(response: httpx.Response) -> dict[int, str]:
    """What was streamed, by choice."""
    texts = defaultdict[int, str](str)
    for line in response.text.splitlines():
        frame = json.loads(line.removeprefix("data: ")) if line.startswith("data: {") else {}
        for choice in frame.get("choices", ()):
            texts[choice["index"]] += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
        if frame.get("type") == "content_block_delta":
            texts[0] += frame["delta"]["text"]
        if frame.get("type") == "response.output_text.delta":
            texts[0] += frame["delta"]
    assert texts
    return texts


@pytest.mark.parametrize("route", ROUTES)
def test_a_repeat_is_the_same_answer_and_computes_nothing(server: FakeServer, route: str) -> None:
    body = ROUTES[route]
    first = ok(server.post(route, body))
    num_steps = len(server.executor.batches)
    again = ok(server.post(route, body))
    assert without_names(again) == without_names(first)
    assert len(server.executor.batches) == num_steps
    assert num_uncached(again["usage"]) == 0 < num_uncached(first["usage"])


def num_uncached(usage: dict[str, Any]) -> int:
    """Tokens of the prompt that were computed."""
    kind = "prompt" if "prompt_tokens" in usage else "input"
    details = usage.get(f"{kind}_tokens_details", {"cached_tokens": usage.get("cache_read_input_tokens", 0)})
    return int(usage[f"{kind}_tokens"] - details["cached_tokens"])


@pytest.mark.parametrize("route", ROUTES)
def test_streamed_or_not_is_the_same_answer(server: FakeServer, route: str) -> None:
    body = ROUTES[route]
    first = streamed_texts(server.post(route, body | {"stream": True}))
    num_steps = len(server.executor.batches)
    assert streamed_texts(server.post(route, body | {"stream": True})) == first
    ok(server.post(route, body))
    assert len(server.executor.batches) == num_steps
    found = samples(server)
    num_asked = 3 if route == "/v1/completions" else 1
    assert found["layerscale_response_cache_misses_total", ()] == num_asked
    assert found["layerscale_response_cache_hits_total", ()] == 2 * num_asked
    assert 0 < found["layerscale_response_cache_bytes", ()] < MIB


def test_without_the_flag_everything_is_computed(make_server: MakeServer) -> None:
    server = make_server()
    body = {"prompt": "hi", "max_tokens": 4, "temperature": 0}
    ok(server.post("/v1/completions", body))
    num_steps = len(server.executor.batches)
    ok(server.post("/v1/completions", body))
    assert len(server.executor.batches) == 2 * num_steps
    assert "response_cache" not in server.get("/metrics").text


@pytest.mark.parametrize(("seed", "is_repeated"), [({"seed": 5}, True), ({}, False)])
def test_sampled_answers_are_repeated_where_a_seed_is_given(
    server: FakeServer, seed: dict[str, int], is_repeated: bool
) -> None:
    body = {"prompt": "hi", "max_tokens": 4, "temperature": 1} | seed
    ok(server.post("/v1/completions", body))
    num_steps = len(server.executor.batches)
    ok(server.post("/v1/completions", body))
    assert (len(server.executor.batches) == num_steps) is is_repeated


def test_what_is_computed_ahead_is_computed_every_time(server: FakeServer) -> None:
    for _ in range(2):
        num_steps = len(server.executor.batches)
        ok(server.post("/v1/chat/completions", CHAT | {"warm_up": True}))
        assert len(server.executor.batches) > num_steps


def test_two_that_are_alike_at_once_are_both_computed(server: FakeServer) -> None:
    gate = Gate(server.executor)
    body = {"prompt": "hi", "max_tokens": 4, "temperature": 0}

    async def work(client: httpx.AsyncClient) -> list[httpx.Response]:
        both = [asyncio.create_task(client.post("/v1/completions", json=body)) for _ in range(2)]
        await asyncio.to_thread(gate.wait_until_reached)
        while samples_of(await client.get("/metrics")) < 2:
            await asyncio.sleep(0.001)
        gate.open()
        return list(await asyncio.gather(*both))

    first, second = server.run(work)
    assert without_names(ok(first)) == without_names(ok(second))


def samples_of(response: httpx.Response) -> float:
    name = "layerscale_response_cache_misses_total "
    return next(float(line.removeprefix(name)) for line in response.text.splitlines() if line.startswith(name))


def test_many_repeats_at_once_are_no_slow_reader() -> None:
    async def work() -> None:
        scripted = ScriptedEngine()
        engine = AsyncEngine(scripted, 4, ResponseCache(MIB))  # type: ignore[arg-type]  # the part of an engine used here
        first, generated = engine.submit([REQUEST]), TokensGenerated("a", (7,))
        await scripted.say((0, generated), (0, END))
        await collect(first, [])
        other = replace(REQUEST, prompt_ids=(9,))
        generation = engine.submit([*[REQUEST] * 5, other])
        assert len(scripted.sinks) == 2
        await scripted.say((1, generated), (1, generated), (1, END))
        batches: list[Batch] = []
        await collect(generation, batches)
        [batch] = batches
        assert [index for index, _ in batch] == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 5]

    asyncio.run(work())
