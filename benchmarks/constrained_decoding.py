"""What a constraint costs while decoding: the same tokens with and without one, at batch 1, turn about.

    python benchmarks/constrained_decoding.py --model MODEL.gguf

The constraint is a list of strings that is too long to end. It is decoded greedily, and by sampling at temperature 1,
which masks every token. Of each answer the 20th percentile of the times of its steps is taken, which other work on the
machine disturbs least; printed is the median over the answers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from loaded_model import LoadedModel, load_model

from layerscale_core.constraints import Constraint, ConstraintCompiler, Grammar
from layerscale_core.engine import Engine, Event, Request, SamplingParams

CONTEXT_LEN = 512
NUM_TOKENS = 200
NUM_ROUNDS = 5
PROMPT = "The lines of a long poem, as JSON: "
TEXT = {"type": "array", "items": {"type": "string"}, "minItems": 1000}


def main() -> None:
    """Load the model and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model to measure")
    arguments = parser.parse_args()
    with load_model(arguments.model, CONTEXT_LEN) as model:
        measure(model)


def measure(model: LoadedModel) -> None:
    """Measure and print."""
    engine = model.make_engine(looks_up_prompts=False)
    compiler = ConstraintCompiler(model.tokenizer)
    indexing = timed(compiler.prepare)
    compiling = timed(lambda: compiler.compile(Grammar.json_schema(TEXT)))
    print(
        f"index {model.tokenizer.vocab_size} tokens {indexing * 1e3:.0f} ms, compile a schema {compiling * 1e3:.2f} ms"
    )
    prompt_ids = tuple(model.tokenizer.encode(PROMPT))
    constraint = compiler.compile(Grammar.json_schema(TEXT))
    for name, temperature in (("greedy", 0.0), ("sampled", 1.0)):
        without, within = [], []
        for seed in range(NUM_ROUNDS):
            bias = dict.fromkeys(model.tokenizer.stop_ids, -100.0)
            sampling = SamplingParams(NUM_TOKENS, temperature=temperature, seed=seed, logit_bias=bias)
            without.append(decode(engine, prompt_ids, sampling, None))
            within.append(decode(engine, prompt_ids, sampling, constraint))
        free, bound = statistics.median(without) * 1e3, statistics.median(within) * 1e3
        print(f"{name:8} {free:.3f} ms a step without, {bound:.3f} ms with: {100 * (bound / free - 1):+.1f} %")


def decode(
    engine: Engine, prompt_ids: tuple[int, ...], sampling: SamplingParams, constraint: Constraint | None
) -> float:
    """The 20th percentile of the times of a request's steps, the first ones left out, in seconds."""
    events: list[Event] = []
    engine.submit(Request("r", prompt_ids, sampling, constraint=constraint), events.append)
    steps = []
    while (duration := timed(engine.step)) and len(steps) < 2 * NUM_TOKENS and engine.stats().has_work:
        steps.append(duration)
    engine.step()
    return statistics.quantiles(steps[10:], n=5)[0]


def timed(call: Callable[[], object]) -> float:
    """How long a call takes, in seconds."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
