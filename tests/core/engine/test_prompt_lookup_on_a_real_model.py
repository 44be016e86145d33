"""A real model that repeats what it was given: the same tokens with drafts, in far fewer steps."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from layerscale_core.engine import Event, TokensGenerated
from tests.support.real_engine import RealEngine, real_engine

COPY = """First draft:

The harbour of Oldwick was built in 1843 by the engineer Martha Quell. It has two piers, one of granite and one of oak.

Second draft, in which only the year was corrected to 1850:

The harbour of Oldwick was built in 1850 by"""
TALE = "Once upon a time"


def tokens(events: list[Event]) -> list[int]:
    return [token_id for event in events if isinstance(event, TokensGenerated) for token_id in event.token_ids]


def answers(real: RealEngine, temperature: float) -> list[list[int]]:
    sampling = {"max_tokens": 60, "temperature": temperature, "seed": 1, "ignore_eos": True}
    return [tokens(real.run([prompt], [None], **sampling)[0]) for prompt in (COPY, TALE)]


@pytest.mark.model
def test_drafts_change_no_answer_and_save_steps(real_model_path: Path) -> None:
    told, num_steps = [], []
    for looks_up_prompts in (False, True):
        # Drafts are made while they pay, by the clock: here every step takes as long, on a busy machine too.
        clock = map(float, itertools.count()).__next__
        with real_engine(real_model_path, max_running=1, looks_up_prompts=looks_up_prompts, clock=clock) as real:
            told.append([answers(real, 0.0), answers(real, 0.8)])
            copied = real.engine.stats()
            real.run([COPY], [None], max_tokens=30, ignore_eos=True)
            num_steps.append(real.engine.stats().num_steps - copied.num_steps)
    assert told[0] == told[1]
    assert num_steps[0] == 30
    assert num_steps[1] <= 20
