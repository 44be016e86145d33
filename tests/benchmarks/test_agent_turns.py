"""An agent's conversation on the real model: what its turns cost, counted and not timed."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.documentation import ROOT
from tests.support.server_process import ServerProcess

pytestmark = [pytest.mark.slow, pytest.mark.model]

PAGE_SIZE = 16
NUM_TURNS = 10


@pytest.fixture
def turns(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The benchmark's module; its neighbours lie beside it, not in a package."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    known = set(sys.modules)
    import agent_turns  # noqa: PLC0415

    yield agent_turns
    for name in set(sys.modules) - known:
        if str(ROOT / "benchmarks") in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def test_a_turn_costs_what_is_new_in_a_session_and_without(real_model_path: Path, turns: Any) -> None:
    script = list(turns.conversation(NUM_TURNS))
    with ServerProcess(real_model_path, "--context", "4096") as server:
        address = server.wait_until_ready().address
        stateless = turns.converse(address, script)
        in_session = turns.converse_in_session(address, list(turns.conversation(NUM_TURNS, seed=1)))
    for run, most_again in ((stateless, 2 * PAGE_SIZE), (in_session, 4)):
        for before, turn in itertools.pairwise(run):
            num_new = turn.num_prompt_tokens - before.num_prompt_tokens
            assert num_new > 10
            assert turn.num_prefilled <= num_new + most_again
