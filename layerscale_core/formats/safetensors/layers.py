"""What a ``config.json`` says of single layers: which have windows, rotation or experts."""

from __future__ import annotations

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.formats.limits import MAX_EXPERTS, MAX_WIDTH, check_num_experts
from layerscale_core.formats.metadata import Metadata
from layerscale_core.models import TemperatureSpec
from layerscale_core.models.describe import Experts
from layerscale_core.models.families import Family

_LOCAL = {"sliding_attention", "chunked_attention"}


def read_windowed_layers(config: Metadata, num_layers: int) -> frozenset[int] | None:
    """Those that see a window or a chunk; None: the file does not say.

    Raises:
        UnsupportedModelError: layers of another kind.
    """
    if "layer_types" in config:
        kinds = config.array("layer_types")
        if len(kinds) != num_layers:
            config.fail("layer_types", f"expected {num_layers} entries, found {len(kinds)}")
        for kind in kinds:
            if kind not in ("full_attention", *_LOCAL):
                raise UnsupportedModelError(f"{config.path}: layers of type {str(kind)[:64]!r} cannot be run yet")
        return frozenset(index for index, kind in enumerate(kinds) if kind in _LOCAL)
    if "sliding_window_pattern" in config:
        interval = config.integer("sliding_window_pattern")
        return frozenset(index for index in range(num_layers) if (index + 1) % interval)
    if "max_window_layers" in config:
        return frozenset(range(config.integer("max_window_layers", minimum=0), num_layers))
    return None


def read_unrotated_layers(config: Metadata, num_layers: int) -> frozenset[int] | None:
    """From a list with 1 for every layer that is rotated, and 0 for the others; an empty one says nothing."""
    if not config.values.get("no_rope_layers"):
        return None
    rotated = config.array("no_rope_layers")
    if len(rotated) != num_layers or not all(type(flag) is int and flag in (0, 1) for flag in rotated):
        config.fail("no_rope_layers", f"expected {num_layers} times 0 or 1")
    return frozenset(index for index, flag in enumerate(rotated) if flag == 0)


def read_temperature(config: Metadata) -> TemperatureSpec | None:
    """How queries grow with their position: as Llama 4 says it, or as Ministral 3; None: they do not."""
    if "floor_scale" in config:
        is_on = config.values.get("attn_temperature_tuning")
        if is_on is not None and not isinstance(is_on, int):  # Llama 4 Scout says 4
            config.fail("attn_temperature_tuning", "expected a boolean or a whole number")
        interval, slope = config.integer("floor_scale"), config.number("attn_scale")
        return TemperatureSpec(interval, slope, offset=1) if is_on or is_on is None else None
    if "rope_parameters.llama_4_scaling_beta" in config:
        interval = config.integer("rope_parameters.original_max_position_embeddings")
        return TemperatureSpec(interval, config.number("rope_parameters.llama_4_scaling_beta"))
    return None


def read_experts(config: Metadata, family: Family, num_layers: int) -> Experts | None:
    """None: the model has none."""
    key = next((key for key in ("num_local_experts", "num_experts") if key in config), None)
    if key is None:
        return None
    num_experts = config.integer(key, maximum=MAX_EXPERTS)
    check_num_experts(config, key, num_layers, num_experts)
    width = config.integer("intermediate_size", maximum=MAX_WIDTH)
    return Experts(
        num_experts,
        config.integer("num_experts_per_tok", maximum=num_experts),
        config.integer("moe_intermediate_size", default=width, maximum=MAX_WIDTH),
        config.flag("norm_topk_prob", default=family.name == "mixtral"),
        _dense_layers(config, num_layers),
    )


def _dense_layers(config: Metadata, num_layers: int) -> frozenset[int]:
    interval = config.integer("decoder_sparse_step", default=config.integer("interleave_moe_layer_step", default=1))
    sparse = _indices(config, "moe_layers") or frozenset(range(interval - 1, num_layers, interval))
    return frozenset(range(num_layers)) - (sparse - _indices(config, "mlp_only_layers"))


def _indices(config: Metadata, key: str) -> frozenset[int]:
    named = config.values.get(key) or []
    if not isinstance(named, list) or not all(type(index) is int for index in named):
        config.fail(key, "expected whole numbers")
    return frozenset(named)
