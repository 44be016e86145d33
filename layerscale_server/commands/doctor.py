"""``layerscale doctor``: what this machine has, and how LayerScale would run on it."""

from __future__ import annotations

import dataclasses
import json
import platform
import sys
from dataclasses import dataclass

import click
from rich.console import Console

from layerscale_core.errors import StartupError
from layerscale_core.host import Host, inspect_host
from layerscale_core.plugins import ChosenBackend, Plugin, PluginRegistry
from layerscale_core.specs import BackendOptions, Device, DeviceInfo
from layerscale_core.version import __version__
from layerscale_server.commands.plugins import print_plugins
from layerscale_server.commands.tables import print_table
from layerscale_server.sizes import readable
from layerscale_server.text import printable


@dataclass(frozen=True, slots=True)
class BackendVerdict:
    """One backend: whether it is the one that serves, and why or why not."""

    name: str
    plugin: str
    is_chosen: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All that the command shows.

    Attributes:
        problem: why no server would start here, or None.
    """

    layerscale_version: str
    python_version: str
    system: str
    host: Host
    plugins: tuple[Plugin, ...]
    backends: tuple[BackendVerdict, ...]
    devices: tuple[DeviceInfo, ...]
    notices: tuple[str, ...]
    problem: str | None


@click.command()
@click.option("--backend", metavar="NAME", help="look at this backend instead of the one that scores highest")
@click.option("--json", "as_json", is_flag=True, help="print one JSON object instead of tables")
def doctor(backend: str | None, as_json: bool) -> None:
    """Show what was found on this machine, which backend is chosen, and why not the others.

    Loads the chosen backend, so that what could go wrong at start goes wrong here; exits 1 if it does.
    """
    diagnosis = diagnose(backend)
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(diagnosis)))
    else:
        _print(Console(), diagnosis)
    sys.exit(0 if diagnosis.problem is None else 1)


def diagnose(backend_name: str | None) -> Diagnosis:
    """Choose and load a backend as a server would."""
    registry = PluginRegistry.discover()
    chosen: ChosenBackend | None = None
    device: Device | None = None
    problem = None
    try:
        chosen = registry.choose_backend(backend_name)
        device = chosen.load(BackendOptions())
    except StartupError as error:
        problem = str(error)
    return Diagnosis(
        layerscale_version=__version__,
        python_version=platform.python_version(),
        system=platform.platform(),
        host=inspect_host(),
        plugins=tuple(registry.plugins()),
        backends=_verdicts(chosen) if chosen else (),
        devices=device.infos if device else (),
        notices=(*registry.notices(), *(device.notices if device else ())),
        problem=problem,
    )


def _verdicts(chosen: ChosenBackend) -> tuple[BackendVerdict, ...]:
    reason = f"scores {chosen.probe.score}: {chosen.probe.reason}"
    return (
        BackendVerdict(chosen.backend.name, str(chosen.plugin), is_chosen=True, reason=reason),
        *(
            BackendVerdict(rejected.name, str(rejected.plugin), is_chosen=False, reason=rejected.reason)
            for rejected in chosen.rejected
        ),
    )


def _print(console: Console, diagnosis: Diagnosis) -> None:
    print_table(console, "Machine", ("", ""), _machine_rows(diagnosis))
    print_plugins(console, diagnosis.plugins)
    print_table(
        console,
        "Backends",
        ("name", "plugin", "chosen", "why"),
        [
            (verdict.name, verdict.plugin, "yes" if verdict.is_chosen else "no", verdict.reason)
            for verdict in diagnosis.backends
        ],
    )
    print_table(
        console,
        "Devices",
        ("name", "description", "memory", "free"),
        [
            (info.name, info.description, readable(info.total_memory_bytes), readable(info.free_memory_bytes))
            for info in diagnosis.devices
        ],
    )
    for notice in diagnosis.notices:
        console.print(f"notice: {printable(notice)}", markup=False, highlight=False)
    if diagnosis.problem is not None:
        console.print(f"problem: {printable(diagnosis.problem)}", markup=False, highlight=False)


def _machine_rows(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    host = diagnosis.host
    memory_limit, cpu_limit = host.memory_limit_bytes, host.cpu_limit
    return [
        ("LayerScale", diagnosis.layerscale_version),
        ("Python", diagnosis.python_version),
        ("system", diagnosis.system),
        ("processor", f"{host.cpu_name} ({host.architecture})"),
        ("cores", f"{host.num_usable_cpus} usable, {host.num_logical_cpus} hardware threads"),
        ("memory", f"{readable(host.available_memory_bytes)} available of {readable(host.total_memory_bytes)}"),
        (
            "control group",
            f"memory {readable(memory_limit) if memory_limit is not None else 'unlimited'}, "
            f"cores {cpu_limit if cpu_limit is not None else 'unlimited'}",
        ),
    ]
