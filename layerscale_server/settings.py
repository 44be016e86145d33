"""The settings of a server process: rows from which the command line, its messages and the documentation are made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from layerscale_server.limits import Limits
from layerscale_server.rows import Row, row, rows_of, switch

LICENSE_KEY_VARIABLE = "LAYERSCALE_LICENSE_KEY"
"""The environment variable that holds the licence key: the only way to pass one."""

MIN_CONTEXT_LEN = 256
MAX_CONTEXT_LEN = 1_048_576


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for; a default of None is chosen at start."""

    model: str = row(
        "",
        kind=str,
        metavar="FILE",
        help="path of a model file or directory, or a Hugging Face repository id (required)",
    )
    context: int = row(
        0,
        kind=int,
        minimum=MIN_CONTEXT_LEN,
        maximum=MAX_CONTEXT_LEN,
        besides=0,
        help="context window in tokens, prompt and completion together; 0 = the length the model was trained on",
    )
    host: str = row("0.0.0.0", kind=str, metavar="HOST", help="address to listen on")  # noqa: S104 (the contract)
    port: int = row(
        8080, kind=int, metavar="PORT", minimum=0, maximum=65_535, help="port to listen on; 0 = any, logged at start"
    )
    cpu_offload_gb: float = row(
        0.0,
        kind=float,
        metavar="GB",
        minimum=0,
        help="GiB of model weights to keep in CPU memory; the rest stays on the GPU",
    )
    quantization: str = row(
        "none",
        kind=str,
        metavar="TYPE",
        choices=("none", "int8", "int4"),
        help="what weights that the file holds in floats become when they are loaded; none = they stay as they are",
    )
    kv_cache_type: str = row(
        "fp16",
        kind=str,
        metavar="TYPE",
        choices=("fp16", "int8", "int4"),
        help="precision of the KV cache; int8 takes about half the memory of fp16, int4 three tenths",
    )
    activation_type: str | None = row(
        None,
        kind=str,
        metavar="TYPE",
        choices=("int8", "int16"),
        help="what the CPU's kernels round activations to: int8 (the default) is faster, int16 loses nothing",
    )
    prefix_cache: str = switch(
        "on",
        help="reuse computed prompts that begin alike, as long as memory is free",
    )
    prompt_lookup: str = switch(
        "on",
        help="draft what the text so far suggests comes next, as long as that makes answers faster; never changes them",
    )
    response_cache_mib: int = row(
        0,
        kind=int,
        metavar="MIB",
        minimum=0,
        maximum=1 << 20,
        help="memory for answers to deterministic requests, which exact repeats are given again; 0 = none",
    )
    log_format: str = row(
        "text",
        kind=str,
        metavar="FORMAT",
        choices=("text", "json"),
        help="text for people, json = one object a line",
    )
    sessions: int = row(
        1,
        kind=int,
        minimum=0,
        maximum=10_000,
        help="persistent sessions to reserve memory for; 0 = none",
    )
    adopt_sessions: str = switch(
        "off",
        help="on: conversations whose requests name them in a header, as agents do, get a session each",
    )
    state_dir: str | None = row(
        None,
        kind=str,
        metavar="DIR",
        help="where sessions are saved at a graceful stop and restored from at start; without it they end there",
    )
    backend: str | None = row(
        None, kind=str, metavar="NAME", help="compute backend; without it the one that scores highest here"
    )
    threads: int | None = row(
        None, kind=int, minimum=1, maximum=1024, help="host threads that compute; without it the backend decides"
    )
    model_name: str | None = row(
        None, kind=str, metavar="ID", help="model id shown to clients; without it the repository id or file name"
    )
    log_level: str = row(
        "info",
        kind=str,
        metavar="LEVEL",
        choices=("debug", "info", "warning", "error"),
        help="least level that is logged",
    )
    drain_timeout: float = row(
        30.0,
        kind=float,
        metavar="SECONDS",
        minimum=0,
        maximum=86_400,
        help="how long running requests may finish after SIGTERM or SIGINT",
    )
    limits: Limits = field(default_factory=Limits)


SETTING_ROWS: tuple[Row, ...] = rows_of(Settings)
LIMIT_ROWS: tuple[Row, ...] = rows_of(Limits)


def parse_limits(assignments: Iterable[str]) -> Limits:
    """Limits from ``NAME=VALUE`` texts; later ones win.

    Raises:
        ValueError: an unknown name or a bad value; the message names both.
    """
    rows = {each.name: each for each in LIMIT_ROWS}
    changed = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or name not in rows:
            raise ValueError(f"must be NAME=VALUE with NAME one of {', '.join(rows)}, not {assignment!r}")
        try:
            changed[name] = rows[name].parse(text)
        except ValueError as error:
            raise ValueError(f"{name} {error}") from None
    return replace(Limits(), **changed)
