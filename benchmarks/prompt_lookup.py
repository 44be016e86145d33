"""What prompt lookup gains and costs while decoding: the same answers with and without it, at batch 1, turn about.

    python benchmarks/prompt_lookup.py --model MODEL.gguf

Three kinds of answers: an edit, which copies most of its prompt; free text, decoded greedily; and free text sampled at
temperature 1, which hardly ever repeats itself. Each round takes another prompt. Printed are medians over the rounds of
tokens per second from the first token to the last, and how drafts fared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from loaded_model import LoadedModel, load_model

from layerscale_core.engine import Engine, EngineStats, Event, FairPolicy, Request, SamplingParams, TokensGenerated
from layerscale_core.specs import Tokenizer

CONTEXT_LEN = 1024
NUM_TOKENS = 120
TOWNS = ("Oldwick", "Brennholm", "Marrow Bay", "Saint Ives", "Kilmore", "Vestad", "Lower Tarn", "Port Ashby")
TEXT = (
    "The harbour of {town} was built in {year} by the engineer Martha Quell. It has two piers, one of granite and one"
    " of oak, and between them lies a basin of nine metres. In winter the fishing boats stay in the basin, while the"
    " ferries to the islands use the granite pier. The harbour master lives in the yellow house at the end of the oak"
    " pier, and keeps the book in which every ship is written down. In 1912 a storm broke the oak pier in the middle,"
    " and it took four years to mend it."
)
EDIT = """First draft:

{before}

Second draft, in which only the year was corrected to {year}:

The harbour of"""
STORY = "It was an ordinary morning in {town}, and"


def main() -> None:
    """Load the model and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model to measure")
    parser.add_argument("--rounds", type=int, default=16, help="prompts of each kind")
    arguments = parser.parse_args()
    with load_model(arguments.model, CONTEXT_LEN) as model:
        measure(model, arguments.rounds)


def measure(model: LoadedModel, num_rounds: int) -> None:
    """Measure and print."""
    plain, drafting = (model.make_engine(FairPolicy(), looks_up_prompts=is_on) for is_on in (False, True))
    numbers = range(num_rounds)
    edits = [edit(TOWNS[number % len(TOWNS)], 1840 + number) for number in numbers]
    stories = [STORY.format(town=TOWNS[number % len(TOWNS)]) for number in numbers]
    for name, prompts, temperature in (("edit", edits, 0.0), ("greedy", stories, 0.0), ("sampled", stories, 1.0)):
        without, within = [], []
        before = drafting.stats()
        for seed, prompt in enumerate(prompts):
            sampling = SamplingParams(NUM_TOKENS, temperature=temperature, seed=seed, ignore_eos=True)
            answers = {}
            for engine, rates in ((plain, without), (drafting, within))[:: 1 if seed % 2 else -1]:
                answers[engine], rate = decode(engine, model.tokenizer, prompt, sampling)
                rates.append(rate)
            assert answers[plain] == answers[drafting], "drafts changed an answer"
        report(name, without, within, before, drafting.stats())


def edit(town: str, year: int) -> str:
    """A prompt whose answer repeats most of it."""
    return EDIT.format(before=TEXT.format(town=town, year=year), year=year + 7)


def decode(engine: Engine, tokenizer: Tokenizer, prompt: str, sampling: SamplingParams) -> tuple[list[int], float]:
    """An answer, and its tokens per second after the first one."""
    arrivals: list[tuple[float, Event]] = []
    request = Request("r", tuple(tokenizer.encode(prompt)), sampling)
    engine.submit(request, lambda event: arrivals.append((time.perf_counter(), event)))
    while engine.step():
        pass
    pieces = [(moment, event) for moment, event in arrivals if isinstance(event, TokensGenerated)]
    token_ids = [token_id for _, piece in pieces for token_id in piece.token_ids]
    return token_ids, (len(token_ids) - 1) / (pieces[-1][0] - pieces[0][0])


def report(name: str, without: list[float], within: list[float], before: EngineStats, after: EngineStats) -> None:
    """One line."""
    gain = statistics.median(fast / slow for slow, fast in zip(without, within, strict=True))
    num_drafted = after.num_drafted_tokens - before.num_drafted_tokens
    num_accepted = after.num_accepted_tokens - before.num_accepted_tokens
    rates = f"{statistics.median(without):6.1f} tokens/s without, {statistics.median(within):6.1f} with"
    print(f"{name:8} {rates}: {100 * (gain - 1):+6.1f} %; {num_accepted} of {num_drafted} drafted tokens came true")


if __name__ == "__main__":
    main()
