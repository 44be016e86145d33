"""A plan that fits never fails at run time: every promise is called in, all at once, to the last token."""

from __future__ import annotations

import random

import pytest

from layerscale_core.conformance import tiny_spec
from layerscale_core.engine import Finished, PagedKVPool
from layerscale_core.memory_plan import MemoryPlan, MemoryRequest, pages_of_session, plan_memory
from tests.support.engine_harness import PAGE_SIZE, make_harness
from tests.support.fake_executor import greedy_answer
from tests.support.session_harness import make_session_harness

SPEC = tiny_spec()
BYTES_PER_TOKEN = 2 * 2 * 2 * 16 * 2  # layers, keys and values, heads, width, bytes


def random_plan(seed: int) -> MemoryPlan:
    """A plan for anything from a few contexts of the shortest length to more than all can use."""
    chance = random.Random(seed)
    request = MemoryRequest(
        context_len=chance.randint(256, 900),
        num_sessions=chance.randint(0, 5),
        max_burst_slots=chance.randint(1, 5),
        weights_bytes=chance.randint(0, 10_000),
        available_bytes=chance.randint(256 * 7, 5000) * BYTES_PER_TOKEN,
        page_size=PAGE_SIZE,
        workspace_bytes=chance.randint(0, 10_000),
    )
    return plan_memory(SPEC, request)


@pytest.mark.parametrize("seed", range(20))
def test_every_session_and_burst_slot_fills_at_once(seed: int) -> None:
    plan = random_plan(seed)
    num_sequences = plan.request.num_sessions + plan.burst_slots
    harness = make_harness(
        num_pages=plan.layout.num_pages,
        max_context_len=plan.context_len,
        max_running=num_sequences,
        max_tokens_per_step=512,
        max_logits_per_step=128,
    )
    prompts = [bytes([65 + index]) * (plan.context_len - 20 - index) for index in range(num_sequences)]
    for index, prompt in enumerate(prompts):
        harness.submit(str(index), prompt, plan.context_len - len(prompt), ignore_eos=True)
    harness.engine.step()
    assert harness.engine.stats().num_waiting == 0, "all were admitted at once"
    harness.run()
    for index, prompt in enumerate(prompts):
        sink = harness.sinks[str(index)]
        assert isinstance(sink.end, Finished)
        assert sink.token_ids == greedy_answer(prompt, plan.context_len - len(prompt))
    harness.check_at_rest()


@pytest.mark.parametrize("seed", range(20))
def test_stateless_requests_at_their_most_leave_every_session_its_pages(seed: int) -> None:
    plan = random_plan(seed)
    layout = plan.layout
    pool = PagedKVPool(layout.num_pages, layout.page_size, layout.num_session_pages)
    for _ in range(plan.burst_slots):
        pool.append(pool.admit(plan.context_len), plan.context_len)
    rest = plan.burst_tokens - plan.burst_slots * -(-plan.context_len // PAGE_SIZE) * PAGE_SIZE
    if rest:
        pool.append(pool.admit(rest), rest)
    assert not pool.can_admit(1)
    assert pool.stats().free_pages == layout.num_session_pages
    for _ in range(plan.request.num_sessions):
        pool.reserve(pages_of_session(plan.context_len, PAGE_SIZE))
    assert not pool.can_reserve(1)
    pool.check_integrity()


@pytest.mark.parametrize("seed", range(20))
def test_sessions_and_stateless_requests_fill_to_their_last_token_together(seed: int) -> None:
    """Windows that have slid, prefixes that end within a page, Flash Queries beside: the plan has pages for all."""
    plan, chance = random_plan(seed), random.Random(seed)
    harness = make_session_harness(plan=plan, batch_tokens=128, max_tokens_per_step=512, max_logits_per_step=128)
    sessions = [
        harness.create(b"P" * chance.randint(1, 60), window_size=chance.randint(1, 50), flash=[b"up?", b"down?"])
        for _ in range(plan.request.num_sessions)
    ]
    for session in sessions:
        harness.push(session, *("x" * chance.randint(1, 30) for _ in range(chance.randint(1, 80))))
    harness.run()
    for session in sessions:
        harness.push(session, "the last one")  # evaluations begin, and are in the way
        harness.ask(session, b"?", plan.context_len)
    for _ in range(plan.burst_slots):
        harness.submit(b"S", plan.context_len - 1)
    for _ in range(chance.randint(1, 4)):
        harness.sessions.prepare()
        harness.step()
    harness.run(max_steps=20_000)
    assert all(isinstance(sink.end, Finished) for sink in harness.sinks.values())
    for session in sessions:
        harness.ask(session, None, plan.context_len)
    harness.run(max_steps=20_000)
    for session in sessions:
        assert session.view.num_tokens == plan.context_len
    harness.check_at_rest()
