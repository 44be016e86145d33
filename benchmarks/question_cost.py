"""What a question to a session costs as its data grows: the same question at 20 to 190 bars, without HTTP.

    python benchmarks/question_cost.py --model MODEL.gguf --bars GOOG.csv

Bars are computed as they come; then the question is asked again and again of the settled session. Printed are medians:
first token = submission to the first token, answer = submission to the last of six.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import threading
import time
from pathlib import Path

from layerscale_core.engine import Engine, EngineLimits, FairPolicy, PagedKVPool, SamplingParams, TokensGenerated
from layerscale_core.engine.request import Event, TerminalEvent
from layerscale_core.forward import make_executor
from layerscale_core.memory_plan import pages_of_session
from layerscale_core.plugins import PluginRegistry
from layerscale_core.sessions import NewSession, Session, SessionLimits, Sessions, TextPrompt, Turn
from layerscale_core.specs import BackendOptions, KVLayout
from layerscale_core.streams import OhlcvStream

CONTEXT_LEN = 8192
SIZES = (20, 60, 100, 155, 190)
NUM_QUESTIONS = 15
NUM_TOKENS = 6
PAGE_SIZE = 16


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="model to measure")
    parser.add_argument("--bars", type=Path, required=True, help="CSV file: date, open, high, low, close, volume")
    arguments = parser.parse_args()
    registry = PluginRegistry.discover()
    file = registry.open_model(arguments.model)
    tokenizer = file.make_tokenizer()
    num_pages = pages_of_session(CONTEXT_LEN, PAGE_SIZE)
    attention = file.spec.layers[0].attention
    layout = KVLayout(
        num_pages, PAGE_SIZE, len(file.spec.layers), attention.num_kv_heads, attention.head_dim, num_pages
    )
    device = registry.choose_backend(None).load(BackendOptions(None))
    executor = make_executor(device, file.spec, file.weights, layout)
    pool = PagedKVPool(num_pages, PAGE_SIZE, num_pages)
    engine = Engine(executor, tokenizer, pool, FairPolicy(), EngineLimits(CONTEXT_LEN, max_running=1))
    stream = OhlcvStream()
    limits = SessionLimits(max_sessions=1, max_context_len=CONTEXT_LEN)
    sessions = Sessions(engine, executor, pool, tokenizer, stream_types={stream.name: stream}, limits=limits)
    engine.start()
    sessions.start()
    session = sessions.create(NewSession(stream.name, tuple(tokenizer.encode("Daily bars.\n")))).result()
    question = TextPrompt(tuple(tokenizer.encode("Last: close ", add_special=False)))
    entries = read_bars(arguments.bars)
    for num_before, size in zip((0, *SIZES), SIZES, strict=False):
        sessions.push(session, [stream.validate(entry) for entry in entries[num_before:size]])
        while not session.ring.counts.is_settled:
            time.sleep(0.02)
        times = [ask(session, question) for _ in range(NUM_QUESTIONS)]
        first, answer = (statistics.median(each) * 1e3 for each in zip(*times, strict=True))
        print(f"{size:4} bars {session.view.num_tokens:6} tokens: first token {first:6.1f} ms, answer {answer:6.1f} ms")
    sessions.stop()
    engine.stop()


def read_bars(path: Path) -> list[dict[str, float]]:
    """The oldest bars, volumes in millions."""
    with path.open(newline="") as lines:
        rows = list(csv.reader(lines))[1 : 1 + max(SIZES)]
    return [
        {**dict(zip("ohlc", map(float, row[1:5]), strict=True)), "v": round(float(row[5]) / 1e6, 1)} for row in rows
    ]


def ask(session: Session, question: TextPrompt) -> tuple[float, float]:
    """Seconds to the first token, and to the last."""
    arrivals: list[float] = []
    has_ended = threading.Event()

    def receive(event: Event) -> None:
        if isinstance(event, TokensGenerated):
            arrivals.append(time.perf_counter())
        elif isinstance(event, TerminalEvent):
            has_ended.set()

    started = time.perf_counter()
    session.submit(Turn(f"question {started}", question, SamplingParams(NUM_TOKENS, ignore_eos=True), receive))
    assert has_ended.wait(60)
    return arrivals[0] - started, arrivals[-1] - started


if __name__ == "__main__":
    main()
