"""The prefix cache on the native kernels: what is reused gives the same tokens as what is computed."""

from __future__ import annotations

import random

import pytest

from layerscale_backend_cpu.native_executor import PAGE_SIZE, NativeExecutor, native_isa
from layerscale_core.conformance.random_model import RandomWeights, tiny_spec
from layerscale_core.engine import Engine, EngineLimits, FairPolicy, PagedKVPool, Request, SamplingParams
from layerscale_core.specs import KVLayout
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.recording_sink import RecordingSink

pytestmark = pytest.mark.skipif(native_isa() is None, reason="the native kernels are not compiled")

SPEC = tiny_spec(
    hidden_size=128, num_heads=8, num_kv_heads=2, intermediate_size=160, vocab_size=ByteTokenizer.vocab_size
)
LAYOUT = KVLayout(num_pages=60, page_size=PAGE_SIZE, num_layers=2, num_kv_heads=2, head_dim=16)


def answers(prompts: list[bytes], *, shares_prefixes: bool) -> tuple[list[list[int]], int]:
    """The greedy answers to prompts that come at once, and how many prompt tokens were cached."""
    executor = NativeExecutor(SPEC, RandomWeights(SPEC, "4-bit, groups of 32, mins"), LAYOUT, num_threads=2)
    pool = PagedKVPool(LAYOUT.num_pages, PAGE_SIZE)
    limits = EngineLimits(max_context_len=300, max_running=6, max_tokens_per_step=64)
    engine = Engine(executor, ByteTokenizer(), pool, FairPolicy(), limits, shares_prefixes=shares_prefixes)
    sinks = [RecordingSink() for _ in prompts]
    for number, (prompt, sink) in enumerate(zip(prompts, sinks, strict=True)):
        params = SamplingParams(20, temperature=0.0, ignore_eos=True)
        engine.submit(Request(str(number), tuple(prompt), params), sink)
    while engine.step():
        pool.check_integrity()
    executor.close()
    return [sink.token_ids for sink in sinks], engine.stats().num_cached_tokens


def test_greedy_tokens_are_the_same_with_the_cache_and_without() -> None:
    chance = random.Random(7)
    head = chance.randbytes(150)
    prompts = [head] * 6 + [head[:100] + chance.randbytes(30) for _ in range(6)] + [chance.randbytes(250), head]
    with_cache, num_cached = answers(prompts, shares_prefixes=True)
    without, none = answers(prompts, shares_prefixes=False)
    assert with_cache == without
    assert len({tuple(answer) for answer in without}) == 8, "the answers do not depend on the prompts"
    assert num_cached >= 6 * 144 + 5 * 96
    assert none == 0
