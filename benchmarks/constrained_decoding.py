"""What a constraint costs while decoding: an answer with it and one without, each alone in its batch, a step in turn.

    python benchmarks/constrained_decoding.py --model MODEL.gguf

The constraint is a list of strings that is too long to end. It is decoded greedily, by sampling from all tokens, and by
sampling from the nucleus. Two engines take steps in turn, so that what else the machine does falls on both, and each
step with the constraint is compared with the one beside it, at the same length of context. Printed are medians over all
steps: of the time, and of the processor time of the engine's own thread, which other work disturbs least.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from layerscale_core.constraints import ConstraintCompiler, Grammar
from layerscale_core.engine import Engine, EngineLimits, Event, FairPolicy, PagedKVPool, Request, SamplingParams
from layerscale_core.forward import make_executor
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import BackendOptions, Device, KVLayout, ModelFile

CONTEXT_LEN = 512
PAGE_SIZE = 16
NUM_TOKENS = 200
NUM_FIRST_STEPS = 10  # left out: the prompt's, and those in which the machine still settles
PROMPT = "The lines of a long poem, as JSON: "
TEXT = Grammar.json_schema({"type": "array", "items": {"type": "string"}, "minItems": 1000})
GREEDY = SamplingParams(NUM_TOKENS, ignore_eos=True)  # the constraint has no end, and without one there is none either
SAMPLED = replace(GREEDY, temperature=1.0)
KINDS = {"greedy": GREEDY, "temperature 1": SAMPLED, "with top-p 0.9": replace(SAMPLED, top_p=0.9)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model to measure")
    parser.add_argument("--rounds", type=int, default=5, help="answers of each kind (default: 5)")
    arguments = parser.parse_args()
    registry = PluginRegistry.discover()
    file = registry.open_model(arguments.model)
    tokenizer = file.make_tokenizer()
    compiler = ConstraintCompiler(tokenizer)
    indexing, _ = timed(compiler.prepare)
    compiling, _ = timed(lambda: compiler.compile(TEXT))
    print(f"index {tokenizer.vocab_size} tokens {indexing:.0f} ms, compile a schema {compiling:.2f} ms")
    device = registry.choose_backend(None).load(BackendOptions(None))
    free, bound = make_engine(device, file), make_engine(device, file)
    for name, sampling in KINDS.items():
        rounds = []
        for seed in range(arguments.rounds):
            request = Request("r", tuple(tokenizer.encode(PROMPT)), replace(sampling, seed=seed))
            rounds.append(decode_in_turn(free, bound, request, replace(request, constraint=compiler.compile(TEXT))))
        steps = np.concatenate(rounds)
        (wall, thread), extra = np.median(steps[:, 0], axis=0), np.median(steps[:, 1] - steps[:, 0], axis=0)
        print(
            f"{name:15} {wall:.3f} ms a step without, {1e3 * extra[0]:+4.0f} us with: {100 * extra[0] / wall:+.1f} %"
            f" (engine thread {thread:.3f} ms, {1e3 * extra[1]:+4.0f} us)"
        )


def make_engine(device: Device, file: ModelFile) -> Engine:
    """An engine for one request at a time."""
    attention, num_pages = file.spec.layers[0].attention, CONTEXT_LEN // PAGE_SIZE
    layout = KVLayout(num_pages, PAGE_SIZE, len(file.spec.layers), attention.num_kv_heads, attention.head_dim)
    executor, pool = make_executor(device, file.spec, file.weights, layout), PagedKVPool(num_pages, PAGE_SIZE)
    limits = EngineLimits(CONTEXT_LEN, 1)
    return Engine(executor, file.make_tokenizer(), pool, FairPolicy(), limits, shares_prefixes=False)


def decode_in_turn(free: Engine, bound: Engine, free_request: Request, bound_request: Request) -> NDArray[np.float64]:
    """Run both requests a step each until one ends, then both to their ends.

    Returns:
        Milliseconds on the clock and of the thread's processor time, [num_steps, 2, 2]: without the constraint, with.
    """
    events: list[Event] = []
    free.submit(free_request, events.append)
    bound.submit(bound_request, events.append)
    steps = []
    while free.stats().has_work and bound.stats().has_work:
        if len(steps) % 2:
            steps.append((timed(free.step), timed(bound.step)))
        else:  # whoever goes second finds the caches warmer or colder
            steps.append((timed(bound.step), timed(free.step))[::-1])
    while free.step() or bound.step():
        pass
    return np.array(steps[NUM_FIRST_STEPS:-1])


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds that a call takes: on the clock, and of its thread's processor time."""
    wall, thread = time.perf_counter(), time.thread_time()
    call()
    return (time.perf_counter() - wall) * 1e3, (time.thread_time() - thread) * 1e3


if __name__ == "__main__":
    main()
