"""The memory plan's page: its figures are those of the planner."""

from __future__ import annotations

import re

from layerscale_core.conformance import tiny_spec
from layerscale_core.memory_plan import KV_SHARE, MemoryRequest, plan_memory
from tests.support.documentation import read

_EXAMPLE = re.compile(r"^\| (\d+) \| (\d+) \| [^|]+ \| (\d+) \| [^|]+ \| (\d+) \|$", re.MULTILINE)


def test_exact_figures_of_the_examples() -> None:
    spec = tiny_spec(num_layers=32, num_heads=32, num_kv_heads=8, head_dim=128)
    examples = [tuple(map(int, row)) for row in _EXAMPLE.findall(read("docs/memory-plan.md"))]
    assert len(examples) == 4
    for context_len, num_sessions, exact_context, exact_slots in examples:
        available = -(-28_000_000_000 * 10 // 9)
        assert int(KV_SHARE * available) == 28_000_000_000
        plan = plan_memory(spec, MemoryRequest(context_len, num_sessions, 32, 0, available, 16))
        assert (plan.context_len, plan.burst_slots) == (exact_context, exact_slots)
        if plan.is_clamped:
            assert f"{plan.burst_tokens:,} tokens are left" in read("docs/memory-plan.md")
