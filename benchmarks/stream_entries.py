"""What an entry of each stream type costs, and why bars are spelled as they are.

    python benchmarks/stream_entries.py --model MODEL.gguf [--ask]

For each type: the tokens of an entry (with its line break), the time to validate and render one, the time of the
statistics of 10,000, and a line as the model reads it. Then the tokens of other spellings of a bar and of its time;
with ``--ask`` also how often the model finds a value of the last of three bars in each spelling.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from figures import Spread
from layerscale_engine import LayerScaleEngine

from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import StreamType, Tokenizer
from layerscale_core.streams.line import number_text, time_text

Entry = Mapping[str, Any]

NUM_ENTRIES = 1000
WINDOW_SIZE = 10_000
START = 1704205800  # Jan 2 2024 14:30 UTC

_FIELDS = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume"}
_CHAT = "<|im_start|>user\n{bars}\nWhat is the last {field}?<|im_end|>\n<|im_start|>assistant\nThe last {field} is "
_NUM_QUESTIONS = 100


def bars(rng: random.Random) -> Iterator[Entry]:
    """Five-minute bars of a stock at about 185."""
    close, timestamp = 185.0, START
    while True:
        opening, close = close, close + rng.gauss(0, 0.6)
        low, high = min(opening, close) - rng.expovariate(4), max(opening, close) + rng.expovariate(4)
        prices = {"o": round(opening, 2), "h": round(high, 2), "l": round(low, 2), "c": round(close, 2)}
        yield {**prices, "v": rng.randint(20_000, 900_000), "sym": "ACME", "timestamp": timestamp}
        timestamp += 300


def readings(rng: random.Random) -> Iterator[Entry]:
    """Nine boilers, a reading every ten seconds, to a tenth of a degree."""
    timestamp = START
    while True:
        value = round(rng.gauss(70, 8), 1)
        yield {"sid": f"boiler-{rng.randint(1, 9)}", "val": value, "lo": 20, "hi": 80, "timestamp": timestamp}
        timestamp += 10


def fixes(rng: random.Random) -> Iterator[Entry]:
    """A vehicle within 50 m, a fix every second, to a centimetre."""
    timestamp = START
    while True:
        place = {
            "x": round(rng.uniform(-50, 50), 2),
            "y": round(rng.uniform(-50, 50), 2),
            "z": round(rng.uniform(0, 9), 2),
        }
        yield {**place, "spd": round(rng.uniform(0, 25), 1), "hdg": rng.randint(0, 359), "timestamp": timestamp}
        timestamp += 1


def events(rng: random.Random) -> Iterator[Entry]:
    """Counts of log messages, every minute."""
    timestamp = START
    while True:
        source = rng.choice(["api-gateway", "db-primary", "auth", "worker-7"])
        category = rng.choice(["timeout", "login_failed", "disk_full", "restart"])
        yield {
            "src": source,
            "sev": rng.randint(1, 5),
            "cat": category,
            "cnt": rng.randint(1, 40),
            "timestamp": timestamp,
        }
        timestamp += 60


def vital_signs(rng: random.Random) -> Iterator[Entry]:
    """A monitored patient, every minute."""
    timestamp = START
    while True:
        pressures = {"bp_s": rng.randint(100, 140), "bp_d": rng.randint(60, 90)}
        temperature = round(rng.gauss(37, 0.5), 1)
        rate, saturation = rng.randint(55, 110), rng.randint(88, 99)
        yield {"hr": rate, **pressures, "spo2": saturation, "temp": temperature, "timestamp": timestamp}
        timestamp += 60


FEEDS = {"ohlcv": bars, "iot": readings, "spatial": fixes, "event": events, "vitals": vital_signs}


def _labelled(label: Callable[[str], str]) -> Callable[[Entry], str]:
    """A bar's values, each after its label."""
    return lambda bar: " ".join(["ACME", *(label(field) + number_text(bar[field]) for field in _FIELDS)])


BAR_SPELLINGS = {
    "open 185": _labelled(lambda field: f"{_FIELDS[field]} "),
    "o=185": _labelled(lambda field: f"{field}="),
    "open=185": _labelled(lambda field: f"{_FIELDS[field]}="),
    "O185": _labelled(lambda field: field.upper()),
    "185": _labelled(lambda _: ""),
}

TIME_SPELLINGS: dict[str, Callable[[int], str]] = {
    "Jan 2 14:30": lambda timestamp: time_text({"timestamp": timestamp}),
    "1704205800": str,
    "01-02 14:30": lambda timestamp: time.strftime("%m-%d %H:%M", time.gmtime(timestamp)),
    "2024-01-02 14:30": lambda timestamp: time.strftime("%Y-%m-%d %H:%M", time.gmtime(timestamp)),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file; only its tokenizer without --ask")
    parser.add_argument("--ask", action="store_true", help="also ask the model about bars in each spelling")
    arguments = parser.parse_args()
    registry = PluginRegistry.discover()
    model = registry.open_model(arguments.model)
    tokenizer = model.make_tokenizer()
    model.close()

    print("| type | tokens an entry | validate and render, µs | statistics of 10,000, ms | a line |")
    print("|---|---|---|---|---|")
    stream_types = registry.stream_types()
    for name, feed in FEEDS.items():
        print(_row(stream_types[name], feed(random.Random(0)), tokenizer))

    entries = _take(bars(random.Random(0)), NUM_ENTRIES)
    answers = _ask_in_every_spelling(arguments.model, tokenizer) if arguments.ask else {}
    print("\n| a bar's values | tokens |", "found |" if answers else "")
    for spelling, spell in BAR_SPELLINGS.items():
        print(f"| {spelling} | {_mean_len(tokenizer, map(spell, entries)):.1f} |", answers.get(spelling, ""))
    print("\n| its time | tokens |")
    for spelling, spell_time in TIME_SPELLINGS.items():
        print(f"| {spelling} | {_mean_len(tokenizer, (spell_time(entry['timestamp']) for entry in entries)):.1f} |")


def _row(stream_type: StreamType, feed: Iterator[Entry], tokenizer: Tokenizer) -> str:
    raw = _take(feed, WINDOW_SIZE)
    started = time.perf_counter()
    window = [stream_type.validate(entry) for entry in raw]
    lines = [stream_type.render(entry) for entry in window]
    entry_us = (time.perf_counter() - started) / WINDOW_SIZE * 1e6
    statistics_ms = Spread.of([_timed_ms(lambda: stream_type.statistics(window)) for _ in range(9)]).median
    num_tokens = _mean_len(tokenizer, lines[:NUM_ENTRIES])
    return f"| {stream_type.name} | {num_tokens:.1f} | {entry_us:.1f} | {statistics_ms:.1f} | {lines[1]} |"


def _timed_ms(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def _take(feed: Iterator[Entry], count: int) -> Sequence[Entry]:
    return [next(feed) for _ in range(count)]


def _mean_len(tokenizer: Tokenizer, lines: Iterator[str] | Sequence[str]) -> float:
    lengths = [len(tokenizer.encode(f"{line}\n", add_special=False)) for line in lines]
    return sum(lengths) / len(lengths)


def _ask_in_every_spelling(model_path: Path, tokenizer: Tokenizer) -> dict[str, str]:
    with LayerScaleEngine(model_path, context_len=512, backend=None, num_threads=None) as engine:
        return {name: _num_found(engine, tokenizer, spell) for name, spell in BAR_SPELLINGS.items()}


def _num_found(engine: LayerScaleEngine, tokenizer: Tokenizer, spell: Callable[[Entry], str]) -> str:
    """How many of the questions for a value of the last of three bars the model answers exactly."""
    feed = bars(random.Random(1))
    num_found = 0
    for index in range(_NUM_QUESTIONS):
        three = _take(feed, 3)
        field = list(_FIELDS)[index % len(_FIELDS)]
        lines = "\n".join(spell(bar) for bar in three)
        prompt = tokenizer.encode(_CHAT.format(bars=lines, field=_FIELDS[field]), parse_special=True)
        answer = tokenizer.encode(number_text(three[-1][field]), add_special=False)
        num_found += engine.complete(prompt, len(answer)).token_ids == answer
    return f"{num_found} of {_NUM_QUESTIONS} |"


if __name__ == "__main__":
    main()
