"""Writes what was measured of a GPU for people: ``python benchmarks/gpu_report.py PARTS RESULTS``.

PARTS is a folder with the files of ``gpu_speed.py`` and what the conformance kit said; the report and all of the parts
in one file go to RESULTS, named after the device and the day.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ORDER = ("bf16", "int8", "int4", "transformers")
TARGETS = {"bf16": 0.80, "int8": 0.65, "int4": 0.50}
"""Decode at batch 1, as a part of the copy rate."""


def write_report(parts_folder: Path, results: Path) -> Path:
    """The report, of what is there.

    Raises:
        ValueError: the parts are of different devices, or there are none.
    """
    parts = {
        name: json.loads((parts_folder / f"{name}.json").read_text())
        for name in ORDER
        if (parts_folder / f"{name}.json").exists()
    }
    devices = sorted({part["device"] for part in parts.values()})
    if len(devices) != 1:
        raise ValueError(f"{parts_folder} has parts of {len(devices)} devices: {'; '.join(devices) or 'none'}")
    first = next(iter(parts.values()))
    name = "-".join(["gpu", *re.findall(r"[a-z0-9]+", devices[0].lower())[:4], first["date"][:10]])
    results.mkdir(parents=True, exist_ok=True)
    report = results / f"{name}.md"
    report.write_text(as_markdown(parts, conformance_line(parts_folder / "conformance.xml")))
    (results / f"{name}.json").write_text(json.dumps(parts, indent=1) + "\n")
    return report


def conformance_counts(results: Path) -> dict[str, int]:
    """What ran of the conformance kit and how it ended; nothing ran where there is no file."""
    if not results.exists():
        return dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    [suite] = ElementTree.parse(results).getroot().iter("testsuite")
    return {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}


def conformance_line(results: Path) -> str:
    """The same, for people."""
    counts = conformance_counts(results)
    ran = counts["tests"] - counts["skipped"]
    if ran == 0:
        return "The conformance kit did not run on the device."
    broken = counts["failures"] + counts["errors"]
    skipped = counts["skipped"]
    return f"The conformance kit: {ran} tests ran on the device, {broken} of them failed; {skipped} did not apply."


def as_markdown(parts: dict[str, Any], conformance: str) -> str:
    """The report."""
    first = next(iter(parts.values()))
    lines = [f"# {first['device']}, {first['date']}", "", conformance, ""]
    lines += [f"- `{part['command']}`" for part in parts.values()]
    lines += [f"- {name} {number}" for name, number in first["versions"].items()]
    lines += [f"- {first[key]}" for key in ("host", "driver", "commit") if first[key]]
    lines += ["", "| part | copy, TB/s | bf16 product, TFLOP/s |", "|---|---|---|"]
    for name, part in parts.items():
        rates = part["rates_per_s"]
        lines.append(f"| {name} | {rates['copy'] / 1e12:.2f} | {rates['matrix'] / 1e12:.0f} |")
    lines += ["", "| system | weights | work | batch | context | ms | of the best rate | target |", "|" + "---|" * 8]
    lines += [_row(figure) for part in parts.values() for figure in part["figures"]]
    for name, part in parts.items():
        if part["profile"] is not None:
            lines += _profile(name, part["profile"], part["figures"])
    return "\n".join(lines) + "\n"


def _row(figure: dict[str, Any]) -> str:
    time = f"{figure['milliseconds']:.2f}" if figure["failure"] is None else figure["failure"].replace("|", "/")
    part = "" if figure["part"] is None else f"{figure['part']:.0%}"
    cells = [figure["system"], figure["weights"], figure["work"], figure["batch"], f"{figure['context']:,}"]
    return "| " + " | ".join(map(str, [*cells, time, part, _target(figure)])) + " |"


def _target(figure: dict[str, Any]) -> str:
    if figure["work"].startswith("query"):
        return "25 ms"
    if figure["work"].startswith("prefill"):
        return "60%"
    return f"{TARGETS[figure['weights']]:.0%}" if figure["batch"] == 1 else ""


def _profile(name: str, profile: dict[str, Any], figures: Sequence[dict[str, Any]]) -> list[str]:
    """Where a step's time goes: what the device needs at best, what its kernels take, and what passes between them."""
    decode = [figure for figure in figures if figure["work"] == "decode" and figure["batch"] == 1 and figure["part"]]
    best = f"{decode[-1]['milliseconds'] * decode[-1]['part']:.2f} ms at best, " if decode else ""
    gap = f"{best}{profile['kernels_ms']:.2f} ms in kernels, {profile['step_ms']:.2f} ms a step"
    return ["", f"## Decode over the longest context, {name}: {gap}", "", "```", profile["table"], "```"]


if __name__ == "__main__":
    print(write_report(Path(sys.argv[1]), Path(sys.argv[2])).read_text())
