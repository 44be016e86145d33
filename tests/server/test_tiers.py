"""What a tier grants is what the assembled server uses, no more and no less."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from layerscale_core.engine import FairPolicy, Request, SamplingParams
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import (
    FREE_TIER,
    PRO_TIER,
    RunningSequence,
    ScheduledTokens,
    SchedulerPolicy,
    Tier,
    TokenBudget,
    hookimpl,
)
from layerscale_server.assembly import Assembler, Assembly
from layerscale_server.metrics import Metrics
from layerscale_server.settings import Settings
from tests.support.recording_sink import RecordingSink

OWN_TIER = Tier("own", max_sessions=3, max_burst_slots=5, requires_auth=True)


class CountingPolicy:
    """A plugin and its policy: waits for the gate, and remembers how many sequences ran at once."""

    LAYERSCALE_SPEC_VERSION = 1

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.most_running = 0
        self._policy = FairPolicy()

    def plan(self, running: Sequence[RunningSequence], budget: TokenBudget) -> list[ScheduledTokens]:
        assert self.gate.wait(30), "the gate was never opened"
        self.most_running = max(self.most_running, len(running))
        return self._policy.plan(running, budget)

    @hookimpl
    def layerscale_make_scheduler_policy(self) -> SchedulerPolicy:
        return self


def assemble(tier: Tier, model: Path, policy: CountingPolicy, num_sessions: int = 1) -> Assembly:
    registry = PluginRegistry.discover()
    registry.register(policy, "counting", "test 1.0")
    settings = Settings(model=str(model), context=256, sessions=num_sessions)
    return Assembler(settings, registry, tier, Metrics()).assemble()


@pytest.mark.parametrize("tier", [FREE_TIER, PRO_TIER, OWN_TIER], ids=lambda tier: tier.name)
def test_as_many_requests_run_at_once_as_the_tier_says_and_one_more_waits(tier: Tier, tiny_model_path: Path) -> None:
    policy = CountingPolicy()
    assembly = assemble(tier, tiny_model_path, policy)
    try:
        sinks = [RecordingSink() for _ in range(tier.max_burst_slots + 1)]
        sampling = SamplingParams(max_tokens=8, ignore_eos=True)
        for index, sink in enumerate(sinks):
            assembly.engine.submit(Request(f"request-{index}", (1, 2, 3), sampling), sink)
        policy.gate.set()
        ends = [sink.wait() for sink in sinks]
    finally:
        policy.gate.set()
        assembly.close()
    assert all(type(end).__name__ == "Finished" for end in ends)
    assert policy.most_running == tier.max_burst_slots


@pytest.mark.parametrize(("tier", "num_sessions"), [(FREE_TIER, 8), (PRO_TIER, 65)], ids=["free", "pro"])
def test_more_sessions_than_the_tier_has_are_capped_with_one_warning(
    tier: Tier, num_sessions: int, tiny_model_path: Path, logs: io.StringIO
) -> None:
    assemble(tier, tiny_model_path, CountingPolicy(), num_sessions).close()
    messages = [event["message"] for event in map(json.loads, logs.getvalue().splitlines())]
    (capped,) = [message for message in messages if "tier's limit" in message]
    assert all(word in capped for word in (f"--sessions {num_sessions}", tier.name, str(tier.max_sessions)))
