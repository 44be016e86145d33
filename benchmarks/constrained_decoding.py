"""What a constraint costs while decoding: an answer with it and one without, each alone in its steps, turn about.

    python benchmarks/constrained_decoding.py --model MODEL.gguf

The constraint is a list of strings that is too long to end. It is decoded greedily, by sampling from all tokens, and by
sampling from the nucleus. One engine lets the two answers advance in turn, a step each, so that what else the machine
does falls on both, and each step with the constraint is compared with the one before it, at the same length of context.
Printed are medians over all steps: of the time, and of the processor time of the engine's own thread, which other work
disturbs least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from loaded_model import LoadedModel, load_model
from numpy.typing import NDArray

from layerscale_core.constraints import ConstraintCompiler, Grammar
from layerscale_core.engine import Engine, Event, Request, SamplingParams
from layerscale_core.specs import RunningSequence, ScheduledTokens, TokenBudget

CONTEXT_LEN = 512
NUM_TOKENS = 200
NUM_FIRST_STEPS = 10  # left out: the prompt's, and those in which the machine still settles
PROMPT = "The lines of a long poem, as JSON: "
TEXT = Grammar.json_schema({"type": "array", "items": {"type": "string"}, "minItems": 1000})
GREEDY = SamplingParams(NUM_TOKENS, ignore_eos=True)  # the constraint has no end, and without it there is none either
SAMPLED = replace(GREEDY, temperature=1.0)
KINDS = {"greedy": GREEDY, "temperature 1": SAMPLED, "with top-p 0.9": replace(SAMPLED, top_p=0.9)}


class TurnAbout:
    """A scheduler policy for which each step is one sequence's, the one's that has waited longest."""

    def plan(self, running: Sequence[RunningSequence], _budget: TokenBudget) -> list[ScheduledTokens]:
        """Let it compute all that it can."""
        longest = max(running, key=lambda sequence: sequence.steps_waited)
        return [ScheduledTokens(longest.sequence_id, longest.num_uncomputed)]


def main() -> None:
    """Load the model and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model to measure")
    parser.add_argument("--threads", type=int, help="host threads; without it the backend decides")
    parser.add_argument("--rounds", type=int, default=5, help="answers of each kind (default: 5)")
    arguments = parser.parse_args()
    with load_model(arguments.model, CONTEXT_LEN, max_running=2, num_threads=arguments.threads) as model:
        measure(model, arguments.rounds)


def measure(model: LoadedModel, num_rounds: int) -> None:
    """Measure and print."""
    compiler = ConstraintCompiler(model.tokenizer)
    indexing, _ = timed(compiler.prepare)
    compiling, _ = timed(lambda: compiler.compile(TEXT))
    print(f"index {model.tokenizer.vocab_size} tokens {indexing:.0f} ms, compile a schema {compiling:.2f} ms")
    engine = model.make_engine(TurnAbout(), looks_up_prompts=False)
    prompt_ids = tuple(model.tokenizer.encode(PROMPT))
    for name, sampling in KINDS.items():
        rounds = []
        for seed in range(num_rounds):
            free = Request("free", prompt_ids, replace(sampling, seed=seed))
            bound = replace(free, request_id="bound", constraint=compiler.compile(TEXT))
            rounds.append(decode_in_turn(engine, free, bound))
        steps = np.concatenate(rounds)
        (wall, thread), extra = np.median(steps[:, 0], axis=0), np.median(steps[:, 1] - steps[:, 0], axis=0)
        print(
            f"{name:15} {wall:.3f} ms a step without, {1e3 * extra[0]:+4.0f} us with: {100 * extra[0] / wall:+.1f} %"
            f" (engine thread {thread:.3f} ms, {1e3 * extra[1]:+4.0f} us)"
        )


def decode_in_turn(engine: Engine, free: Request, bound: Request) -> NDArray[np.float64]:
    """Run both requests to their ends.

    Returns:
        Milliseconds on the clock and of the thread's processor time, [num_steps, 2, 2]: without the constraint, with;
        as long as both ran.
    """
    events: list[Event] = []
    engine.submit(free, events.append)
    engine.submit(bound, events.append)
    steps = []
    while not steps or engine.stats().num_running == len((free, bound)):
        steps.append((timed(engine.step), timed(engine.step)))
    while engine.step():
        pass
    return np.array(steps[NUM_FIRST_STEPS:-1])


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that a call takes: on the clock, and of its thread's processor time."""
    wall, thread = time.perf_counter(), time.thread_time()
    call()
    return (time.perf_counter() - wall) * 1e3, (time.thread_time() - thread) * 1e3


if __name__ == "__main__":
    main()
