"""Everything that a machine with a GPU is there for, unattended: ``nox -s gpu``.

    python benchmarks/gpu_run.py [--backend cuda|rocm] [--again] [--results DIR] [STEP ...]

The conformance kit, then each precision of our weights, then ``transformers``, then the report. Every step is a process
of its own: one that fails, or takes the device down with it, ends with its reason in the summary and the others follow.
What a step gave is kept in RESULTS/gpu-parts, with all that it printed; a run that was interrupted goes on with the
steps that are not done. Ends with status 1 where a step failed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from gpu_report import ORDER, conformance_counts, conformance_line, write_report

HERE = Path(__file__).parent
HOURS = 3600
MAX_SECONDS = {"conformance": 2 * HOURS}
MAX_SECONDS_OF_A_SYSTEM = 1 * HOURS
"""A step that hangs is ended: kernels are compiled and measured many times over in less."""


@dataclass(frozen=True, slots=True)
class Run:
    """One go at everything.

    Attributes:
        parts: where each step leaves what it found.
        is_dry: nothing is measured; see ``gpu_speed.py``.
    """

    parts: Path
    backend: str | None
    is_dry: bool

    def is_done(self, step: str) -> bool:
        """Whether an earlier run finished it."""
        if step == "conformance":
            return self._conformance_failure() is None
        part = self.parts / f"{step}.json"
        return part.exists() and json.loads(part.read_text()).get("is_complete", False)

    def failure(self, step: str) -> str | None:
        """Run a step; why it failed, or None."""
        log = self.parts / f"{step}.log"
        limit_s = MAX_SECONDS.get(step, MAX_SECONDS_OF_A_SYSTEM)
        with log.open("w") as output:
            try:
                code = subprocess.run(
                    self._command(step), stdout=output, stderr=subprocess.STDOUT, check=False, timeout=limit_s
                ).returncode
            except subprocess.TimeoutExpired:
                return f"took more than {limit_s / HOURS:g} hours; see {log}"
        if step == "conformance":
            return self._conformance_failure()
        last_line = (log.read_text().splitlines() or [""])[-1]
        return None if code == 0 else f"status {code}: {last_line[:200]}; see {log}"

    def _command(self, step: str) -> list[str]:
        if step == "conformance":
            # A warning of torch's or Triton's is worth reading, and no reason to lose the run.
            options = ["-p", "no:cacheprovider", "-W", "default", "--timeout", "1200", "-rfE", "--tb", "short"]
            tests = HERE.parent / "tests" / "contract" / "test_gpu_backends.py"
            marker = ["-m", self.backend] if self.backend else []
            result = ["--junitxml", str(self.parts / "conformance.xml")]
            return [sys.executable, "-m", "pytest", *options, *marker, *result, str(tests)]
        part = ["--write", str(self.parts / f"{step}.json")]
        backend = ["--backend", self.backend] if self.backend else []
        dry = ["--dry-run"] if self.is_dry else []
        return [sys.executable, str(HERE / "gpu_speed.py"), step, *part, *backend, *dry]

    def _conformance_failure(self) -> str | None:
        """A kit of which nothing ran has proven nothing."""
        counts = conformance_counts(self.parts / "conformance.xml")
        is_proven = counts["tests"] > counts["skipped"] and counts["failures"] + counts["errors"] == 0
        return None if is_proven else f"{conformance_line(self.parts / 'conformance.xml')} See {self.parts}"


STEPS = ("conformance", *ORDER)


def main() -> int:
    """Run the steps, write the report, say what failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"only these of {', '.join(STEPS)}")
    parser.add_argument("--backend", choices=("cuda", "rocm"), help="without it, the one that can serve here")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--again", action="store_true", help="also what an earlier run has done")
    parser.add_argument("--dry-run", action="store_true", help="a tiny model on torch's CPU device")
    options = parser.parse_args()
    unknown = set(options.steps) - set(STEPS)
    if unknown:
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    run = Run(options.results / "gpu-parts", options.backend, options.dry_run)
    run.parts.mkdir(parents=True, exist_ok=True)
    failures: dict[str, str] = {}
    for step in options.steps or STEPS:
        if run.is_done(step) and not options.again:
            print(f"{step}: done before", flush=True)
            continue
        print(f"{step}: running, prints into {run.parts / step}.log", flush=True)
        why = run.failure(step)
        print(f"{step}: {why or 'done'}", flush=True)
        if why is not None:
            failures[step] = why
    try:
        print(f"report: {write_report(run.parts, options.results)}")
    except ValueError as error:
        failures["report"] = str(error)
    for step, why in failures.items():
        print(f"FAILED {step}: {why}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
