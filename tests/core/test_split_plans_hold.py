"""A plan with layers on the host holds on both sides: memories of just the planned size, filled to the last token."""

from __future__ import annotations

import random

import pytest

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import RandomWeights, tiny_spec
from layerscale_core.engine import Engine, EngineLimits, FairPolicy, Finished, PagedKVPool, Request, SamplingParams
from layerscale_core.forward import HostLayers, KernelExecutor
from layerscale_core.memory_plan import KV_SHARE, MemoryPlan, MemoryRequest, MemoryShare, plan_memory
from layerscale_core.models.spec import layer_shapes
from layerscale_core.reference import ReferenceKernels, reference_memory_needs
from layerscale_core.specs import StepLimits
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.recording_sink import RecordingSink

SPEC = tiny_spec(num_layers=4, vocab_size=ByteTokenizer().vocab_size)
LIMITS = StepLimits(max_tokens=256, max_logits=16, max_context_len=300)
NEEDS = reference_memory_needs(SPEC, LIMITS)
LAYER_BYTES = sum(NEEDS.weights[name] for name in layer_shapes(SPEC, 0))
KV_BYTES_PER_LAYER = 2 * 2 * 16 * 2  # of a token: keys and values, heads, width, bytes


def random_plan(chance: random.Random) -> MemoryPlan:
    """Any number of layers on the host, and on each side room for a few contexts, of which one is the tighter."""
    num_host_layers = chance.randint(1, 4)
    host_bytes, device_bytes = num_host_layers * LAYER_BYTES, NEEDS.weights_bytes - num_host_layers * LAYER_BYTES
    host_room, device_room = (
        int(chance.randint(3 * 256, 6 * 300) * KV_BYTES_PER_LAYER * layers / KV_SHARE) + 1000
        for layers in (num_host_layers, 4 - num_host_layers)
    )
    request = MemoryRequest(
        context_len=chance.randint(256, 300),
        num_sessions=chance.randint(0, 2),
        max_burst_slots=chance.randint(1, 3),
        weights_bytes=device_bytes,
        available_bytes=device_bytes + NEEDS.workspace_bytes + device_room,
        page_size=16,
        workspace_bytes=NEEDS.workspace_bytes,
        num_host_layers=num_host_layers,
        host=MemoryShare(host_bytes + NEEDS.workspace_bytes + host_room, host_bytes, NEEDS.workspace_bytes),
    )
    return plan_memory(SPEC, request)


def memory_of(share: MemoryShare) -> CountingAllocator:
    """As large as it was when the plan was made, with the workspace taken."""
    allocator = CountingAllocator(share.available_bytes, "the test's memory")
    allocator.reserve(share.workspace_bytes, "workspace")
    return allocator


@pytest.mark.parametrize("seed", range(20))
def test_every_session_and_burst_slot_fills_at_once_on_both_sides(seed: int) -> None:
    chance = random.Random(seed)
    plan = random_plan(chance)
    assert plan.request.host is not None
    device, host = memory_of(plan.request.device), memory_of(plan.request.host)
    on_host = tuple(sorted(chance.sample(range(4), plan.request.num_host_layers)))
    executor = KernelExecutor(
        ReferenceKernels(device), SPEC, RandomWeights(SPEC), plan.layout, HostLayers(on_host, ReferenceKernels(host))
    )
    assert device.stats().free_bytes >= plan.request.device.headroom_bytes
    assert host.stats().free_bytes >= plan.request.host.headroom_bytes

    num_sequences = plan.request.num_sessions + plan.burst_slots
    engine = Engine(
        executor,
        ByteTokenizer(),
        PagedKVPool(plan.layout.num_pages, plan.layout.page_size),
        FairPolicy(),
        EngineLimits(plan.context_len, num_sequences, max_tokens_per_step=256, max_logits_per_step=16),
    )
    sinks = [RecordingSink() for _ in range(num_sequences)]
    for index, sink in enumerate(sinks):
        prompt = tuple((index + token) % SPEC.vocab_size for token in range(plan.context_len - 6))
        engine.submit(Request(str(index), prompt, SamplingParams(6, temperature=0.0, ignore_eos=True)), sink)
    engine.step()
    assert engine.stats().num_waiting == 0, "all were admitted at once"
    while engine.step():
        pass
    assert all(isinstance(sink.end, Finished) and len(sink.token_ids) == 6 for sink in sinks)
    executor.close()
