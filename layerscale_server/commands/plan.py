"""``layerscale plan``: where every byte would go, without loading one."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import click

from layerscale_core.licensing.selection import license_for_key
from layerscale_core.models.quantize import Quantization
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import FREE_TIER, BackendOptions, Tier
from layerscale_server.hub import resolve_headers
from layerscale_server.key_protection import take_from_environment
from layerscale_server.options import MODEL_IS_MISSING, option_of
from layerscale_server.placement import Site
from layerscale_server.plan_report import plan_fields, plan_lines, plan_warnings
from layerscale_server.planning import StartPlan, notices, plan_start
from layerscale_server.settings import LICENSE_KEY_VARIABLE, SETTING_ROWS, Settings
from layerscale_server.sizes import parse_size
from layerscale_server.text import printable

_FLAGS = ("model", "context", "sessions", "cpu_offload_gb", "quantization", "kv_cache_type", "backend", "threads")
"""The settings that a plan may depend on."""


@click.pass_context
def _plan(ctx: click.Context, /, gpu_memory: int | None, cpu_memory: int | None, as_json: bool, **values: Any) -> None:
    """Show where every byte of memory would go, without loading the model.

    Reads the model's metadata alone: weights may end after their headers, and of a repository of the hub only these
    are fetched. Exits 1, with the numbers and what would help, if the model does not fit.
    """
    if not values["model"]:
        raise click.UsageError(MODEL_IS_MISSING, ctx)
    planned = _planned(Settings(**values), gpu_memory, cpu_memory)
    for line in (*notices(planned.settings, planned.tier), *plan_warnings(planned)):
        click.echo(f"note: {printable(line)}", err=True)
    click.echo(json.dumps(plan_fields(planned)) if as_json else "\n".join(plan_lines(planned)))


def _planned(settings: Settings, gpu_memory: int | None, cpu_memory: int | None) -> StartPlan:
    registry = PluginRegistry.discover()
    tier = _tier(registry)
    quantization = Quantization(settings.quantization)
    with (
        resolve_headers(settings.model) as path,
        closing(registry.open_model(path, metadata_only=True, quantization=quantization)) as file,
    ):
        chosen = registry.choose_backend(settings.backend, file)
        device_memory = cpu_memory if gpu_memory is None and chosen.backend.capabilities.is_host else gpu_memory
        site = Site(chosen.backend, chosen.load(BackendOptions(settings.threads)), device_memory)
        return plan_start(settings, tier, file, site, registry, assumed_host_bytes=cpu_memory)


def _tier(registry: PluginRegistry) -> Tier:
    key = take_from_environment(LICENSE_KEY_VARIABLE)
    return license_for_key(key, registry.license_verifiers()).tier if key else FREE_TIER


def _size(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return parse_size(value)
    except ValueError as error:
        raise click.UsageError(f"{param.opts[0]} {error}", ctx) from None


plan = click.Command(
    "plan",
    callback=_plan,
    params=[
        *(option_of(each) for each in SETTING_ROWS if each.name in _FLAGS),
        click.Option(
            ["--gpu-memory"],
            callback=_size,
            metavar="SIZE",
            help="plan as if the device had this much memory available, e.g. 48GiB",
        ),
        click.Option(
            ["--cpu-memory"],
            callback=_size,
            metavar="SIZE",
            help="plan as if this much CPU memory were available, for layers that stay there or for the CPU backend",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="print one JSON object instead of a table"),
    ],
    help=_plan.__doc__,
)
