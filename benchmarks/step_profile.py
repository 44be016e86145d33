"""What a step's time goes to, and how near it comes to its floor: decode and prefill of one sequence, under ``perf``.

    python benchmarks/step_profile.py --model MODEL.gguf [--activation-type int16] [--json FILE]

Prints the tables of docs/performance.md. On Linux, for the native CPU kernels; the model is loaded in this process as a
server would load it. The floor of decoding is what a step must read, at the bandwidth of reading; that of prefill is
the operations of the layers' matrices, at the rate of integer dot products with activations of that type. Both rates
are measured in the same run.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from perf_samples import PARTS, PerfError, Samples, sampled
from workloads import CONTEXT_LEN, Prompts

from layerscale_backend_cpu.native_executor import measure_dot_rate
from layerscale_core.engine import Request, SamplingParams
from layerscale_core.host import inspect_host
from layerscale_core.models import ModelSpec, MoeSpec
from layerscale_core.models.spec import layer_shapes
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import FREE_TIER, ActivationType
from layerscale_core.version import __version__
from layerscale_server.assembly import Assembler, Assembly
from layerscale_server.bench.memory_bandwidth import measure_read_bandwidth
from layerscale_server.bench.recording import Recording, record_all
from layerscale_server.bench.step_bytes import step_bytes
from layerscale_server.logging import configure_logging
from layerscale_server.metrics import Metrics
from layerscale_server.settings import Settings

DECODES = ((32, 256), (2000, 128))
"""Tokens of the context, and of the answer."""

PREFILLS = ((512, 4), (2000, 1))
"""Tokens of a prompt, and prompts one after the other."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the machine can do at best, all threads together.

    Attributes:
        bandwidth: of reading memory, bytes a second.
        dot_rate: multiplications and additions of integer dot products, a second.
    """

    bandwidth: float
    dot_rate: float

    @classmethod
    def measure(cls, num_threads: int, activation_type: ActivationType) -> Machine:
        """Take some seconds to find out.

        Raises:
            SystemExit: the native kernels are missing.
        """
        dot_rate = measure_dot_rate(num_threads, activation_type)
        if dot_rate is None:
            raise SystemExit("step_profile: the native kernels are not compiled, or switched off")
        return cls(measure_read_bandwidth(num_threads), dot_rate)

    def better(self, other: Machine) -> Machine:
        """The best of two measurements."""
        return Machine(max(self.bandwidth, other.bandwidth), max(self.dot_rate, other.dot_rate))


@dataclass(frozen=True, slots=True)
class Profile:
    """One workload.

    Attributes:
        seconds: of all its tokens.
        cpu_s: processor time of all threads meanwhile.
        num_bytes: that decoding must read for them; None for prefill, and where experts are chosen token by token.
        giga_ops: multiplications and additions of the layers' matrices for prefill; None for decoding, and the same.
    """

    name: str
    num_tokens: int
    seconds: float
    cpu_s: float
    num_bytes: int | None
    giga_ops: float | None
    samples: Samples

    def floor_s(self, machine: Machine) -> float | None:
        """The least time that the machine could take; None where it is not known."""
        if self.num_bytes is not None:
            return self.num_bytes / machine.bandwidth
        return None if self.giga_ops is None else self.giga_ops * 1e9 / machine.dot_rate

    def to_json(self) -> dict[str, Any]:
        """All of it, with the samples of each symbol."""
        symbols = [(*found, count) for found, count in self.samples.counts.most_common()]
        return asdict(replace(self, samples=Samples())) | {"shares": self.samples.shares(), "samples": symbols}


@dataclass(slots=True)
class _Watch:
    """What was seen from outside while something ran."""

    samples: Samples
    seconds: float = 0.0
    cpu_s: float = 0.0


class Profiler:
    """Runs a model that was loaded; one request at a time."""

    def __init__(self, assembly: Assembly, folder: Path) -> None:
        self._assembly, self._path = assembly, folder / "perf.data"
        self._prompts = Prompts(seed=0)

    def decode(self, context_len: int, num_tokens: int) -> Profile:
        """Continue a context that was computed before."""
        context = self._prompts.next(context_len)
        self._complete(context, 1)
        with self._watched() as watch:
            recording = self._complete([*context, *self._prompts.next(1)], num_tokens)
        num_steps, step = num_tokens - 1, self._step_bytes(context_len + num_tokens // 2)
        return Profile(
            name=f"decode after {context_len:,} tokens",
            num_tokens=num_steps,
            seconds=recording.last - recording.first,
            cpu_s=watch.cpu_s,
            num_bytes=None if step is None else num_steps * step,
            giga_ops=None,
            samples=watch.samples,
        )

    def prefill(self, prompt_len: int, num_prompts: int) -> Profile:
        """Compute new prompts."""
        prompts = [self._prompts.next(prompt_len) for _ in range(num_prompts)]
        with self._watched() as watch:
            for prompt in prompts:
                self._complete(prompt, 1)
        num_tokens = prompt_len * num_prompts
        operations = matrix_operations(self._assembly.model.spec)
        return Profile(
            name=f"prefill of {prompt_len:,} tokens",
            num_tokens=num_tokens,
            seconds=watch.seconds,
            cpu_s=watch.cpu_s,
            num_bytes=None,
            giga_ops=None if operations is None else operations * num_tokens / 1e9,
            samples=watch.samples,
        )

    @contextlib.contextmanager
    def _watched(self) -> Iterator[_Watch]:
        with sampled(self._path) as samples:
            watch = _Watch(samples)
            started, cpu_started = time.perf_counter(), time.process_time()
            yield watch
            watch.seconds, watch.cpu_s = time.perf_counter() - started, time.process_time() - cpu_started

    def _complete(self, prompt: Sequence[int], max_tokens: int) -> Recording:
        sampling = SamplingParams(max_tokens=max_tokens, ignore_eos=True)
        return record_all(self._assembly.engine, [Request("profile", tuple(prompt), sampling)])[0]

    def _step_bytes(self, context_len: int) -> int | None:
        plan, spec = self._assembly.model.plan, self._assembly.model.spec
        return step_bytes(spec, plan.request.weights_bytes, plan.layout.bytes_per_token, 1, context_len)


def matrix_operations(spec: ModelSpec) -> int | None:
    """Multiplications and additions of all layers' matrices for one token; None where experts are chosen."""
    if any(isinstance(layer.mlp, MoeSpec) for layer in spec.layers):
        return None
    shapes = [shape for index in range(len(spec.layers)) for shape in layer_shapes(spec, index).values()]
    return sum(2 * shape[0] * shape[1] for shape in shapes if len(shape) == 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a GGUF file")
    parser.add_argument(
        "--activation-type", type=ActivationType, default=ActivationType.INT8, help="int8 (the default) or int16"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write everything, each symbol's samples too, to FILE"
    )
    arguments = parser.parse_args()
    configure_logging("text", "warning")
    activation_type: ActivationType = arguments.activation_type
    settings = Settings(
        model=str(arguments.model),
        context=CONTEXT_LEN,
        sessions=0,
        prompt_lookup="off",
        activation_type=activation_type.value,
    )
    assembly = Assembler(settings, PluginRegistry.discover(), FREE_TIER, Metrics()).assemble()
    num_threads = inspect_host().num_usable_cpus
    machine = Machine.measure(num_threads, activation_type)
    try:
        with tempfile.TemporaryDirectory() as folder:
            profiler = Profiler(assembly, Path(folder))
            profiler.decode(*DECODES[0])  # not counted: the first steps find memory that was not touched yet
            profiles = [*(profiler.decode(*each) for each in DECODES), *(profiler.prefill(*each) for each in PREFILLS)]
    except PerfError as error:
        raise SystemExit(f"step_profile: {error}") from None
    finally:
        assembly.close()
    machine = machine.better(Machine.measure(num_threads, activation_type))
    setting = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": arguments.model.name,
        "LayerScale": __version__,
        "device": assembly.model.devices[0].description,
        "reading memory, GB/s": round(machine.bandwidth / 1e9, 1),
        "integer dot products, GOP/s": round(machine.dot_rate / 1e9),
    }
    for name, value in setting.items():
        print(f"{name}: {value}")
    print("", *_rate_lines(profiles, machine, num_threads), "", *_share_lines(profiles), sep="\n")
    if arguments.json is not None:
        report = {"setting": setting, "profiles": [profile.to_json() for profile in profiles]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


def _rate_lines(profiles: Sequence[Profile], machine: Machine, num_threads: int) -> Iterator[str]:
    yield "| | tokens/s | ms a token | floor, ms | of the floor's speed | GOP/s | cores busy |"
    yield "|---|---|---|---|---|---|---|"
    for each in profiles:
        floor_s = each.floor_s(machine)
        floor = (
            ["", ""] if floor_s is None else [f"{floor_s / each.num_tokens * 1e3:.2f}", f"{floor_s / each.seconds:.0%}"]
        )
        rate = "" if each.giga_ops is None else f"{each.giga_ops / each.seconds:.0f}"
        busy = f"{min(1.0, each.cpu_s / each.seconds / num_threads):.0%}"
        speed = [f"{each.num_tokens / each.seconds:.0f}", f"{each.seconds / each.num_tokens * 1e3:.2f}"]
        yield f"| {' | '.join([each.name, *speed, *floor, rate, busy])} |"


def _share_lines(profiles: Sequence[Profile]) -> Iterator[str]:
    yield f"| share of the processor time | {' | '.join(each.name for each in profiles)} |"
    yield f"|---|{'---|' * len(profiles)}"
    for part in PARTS:
        yield f"| {part} | {' | '.join(f'{each.samples.shares()[part]:.1%}' for each in profiles)} |"


if __name__ == "__main__":
    main()
