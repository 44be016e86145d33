"""What Python takes between two native steps, part by part: one sequence that decodes, and eight, without HTTP.

    python benchmarks/step_gap.py --model MODEL.gguf

A gap lasts from the return of one native step to the call of the next; it is the time in which no kernel computes. The
parts are timed by themselves, and what lies between them is the rest. Medians, in microseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from layerscale_engine import LayerScaleEngine
from workloads import Prompts

from layerscale_core.engine import loop
from layerscale_core.engine.roster import Roster
from layerscale_core.engine.sequence import LiveSequence
from layerscale_core.engine.speculation import Speculation
from layerscale_core.engine.step_builder import StepBuilder
from layerscale_core.specs import Executor, StepBatch
from layerscale_core.specs.executor import StepLogits

CONTEXT_LEN = 4096
PROMPT_LEN = 32
NUM_TOKENS = 300

PARTS: dict[str, tuple[object, str]] = {
    "plan": (loop, "plan_step"),
    "look for drafts": (Speculation, "add_drafts"),
    "copy shared pages": (loop, "copy_shared_pages"),
    "build the batch": (StepBuilder, "build"),
    "find the likeliest tokens": (loop, "find_likeliest"),
    "sample, detokenise": (LiveSequence, "advance"),
    "publish": (Roster, "tell"),
}


class GapClock:
    """Times gaps between decode steps; stands before an executor as that executor.

    Attributes:
        gaps: of each gap the nanoseconds by part, the whole under "".
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._returned = 0
        self._parts: defaultdict[str, int] = defaultdict(int)
        self.gaps: list[dict[str, int]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._executor, name)

    def step(self, batch: StepBatch) -> StepLogits:
        """Compute a batch; the gap before it counts if it is one of decoding."""
        if batch.num_tokens == batch.num_seqs and self._returned:
            self.gaps.append({"": time.perf_counter_ns() - self._returned, **self._parts})
        self._parts.clear()
        logits = self._executor.step(batch)
        self._returned = time.perf_counter_ns()
        return logits

    @contextlib.contextmanager
    def watching_parts(self) -> Iterator[None]:
        """Time the parts too, which makes the whole a little longer."""
        with contextlib.ExitStack() as stack:
            for name, (owner, function) in PARTS.items():
                stack.enter_context(patch.object(owner, function, self._timed(name, getattr(owner, function))))
            yield

    def _timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = time.perf_counter_ns()
            result = call(*args, **kwargs)
            self._parts[part] += time.perf_counter_ns() - started
            return result

        return timed


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    arguments = parser.parse_args()
    columns = {num_seqs: measure(arguments.model, num_seqs) for num_seqs in (1, 8)}
    print(f"| | {' | '.join(f'{num_seqs} decoding' for num_seqs in columns)} |")
    print(f"|---|{'---|' * len(columns)}")
    for part in ["", *PARTS, "the rest"]:
        print(f"| {part or 'all'} | {' | '.join(f'{column[part]:.0f}' for column in columns.values())} |")


def measure(model: Path, num_seqs: int) -> dict[str, float]:
    """Median microseconds by part; the whole, under "", from a run in which the parts were not timed."""
    clocks: list[GapClock] = []

    def with_clock(executor: Executor) -> Executor:
        clocks.append(GapClock(executor))
        return cast("Executor", clocks[-1])

    prompts = Prompts(seed=0)
    with LayerScaleEngine(model, CONTEXT_LEN, max_running=num_seqs, watch=with_clock) as engine:
        (clock,) = clocks

        def decode() -> list[dict[str, int]]:
            clock.gaps = []
            engine.complete_at_once([prompts.next(PROMPT_LEN) for _ in range(num_seqs)], NUM_TOKENS)
            return clock.gaps

        decode()  # not counted: the first steps find memory that was not touched yet
        whole = decode()
        with clock.watching_parts():
            apart = decode()
    medians = {part: _median_us(apart, part) for part in PARTS}
    medians[""] = _median_us(whole, "")
    medians["the rest"] = medians[""] - sum(medians[part] for part in PARTS)
    return medians


def _median_us(gaps: list[dict[str, int]], part: str) -> float:
    return statistics.median(gap.get(part, 0) for gap in gaps) / 1e3


if __name__ == "__main__":
    main()
