"""From a GGUF file's metadata to the numbers that describe its model."""

from __future__ import annotations

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.formats.gguf.rope import RopeScaling, read_local_rope, read_rope, read_rope_scaling
from layerscale_core.formats.gguf.tensors import GgufTensors
from layerscale_core.formats.limits import MAX_EXPERTS, MAX_HEAD_DIM, MAX_LAYERS, MAX_WIDTH, check_num_experts
from layerscale_core.formats.metadata import Metadata, is_array
from layerscale_core.models import TemperatureSpec
from layerscale_core.models.describe import Experts, Numbers
from layerscale_core.models.families import BY_GGUF, Family

_SCALED_BY_WIDTH = {("gemma2", 46), ("gemma3", 62)}
"""Family and number of layers of the models whose scores are scaled by the width of a head that the hidden size gives,
not by that of their own; files do not say."""

_WITHOUT_QK_NORM = {("llama4", 128)}
"""Family and number of experts of the models that do not have the norms of their family; files do not say."""

_SOFTMAX, _SIGMOID = 1, 2
"""GGUF's numbers for the ways to weigh experts."""


def read_family(metadata: Metadata) -> Family:
    """The family of a file's model.

    Raises:
        UnsupportedModelError: an architecture that this build does not know.
    """
    name = metadata.text("general.architecture")
    if name not in BY_GGUF:
        known = ", ".join(sorted(BY_GGUF))
        raise UnsupportedModelError(f"{metadata.path}: the architecture {name[:64]!r} is not supported; known: {known}")
    return BY_GGUF[name]


def read_numbers(metadata: Metadata, tensors: GgufTensors, family: Family) -> Numbers:
    """The numbers of a file's model.

    Raises:
        ModelFileError: a key is missing or makes no sense.
        UnsupportedModelError: values of another width than keys, or a way to choose experts that is not known.
    """
    arch = family.gguf
    hidden_size = metadata.integer(f"{arch}.embedding_length", maximum=MAX_WIDTH)
    num_layers = metadata.integer(f"{arch}.block_count", maximum=MAX_LAYERS)
    num_heads = metadata.integer(f"{arch}.attention.head_count", maximum=MAX_WIDTH)
    head_dim = _head_dim(metadata, arch, hidden_size, num_heads)
    scaling = read_rope_scaling(metadata, f"{arch}")
    experts = _experts(metadata, family, num_layers)
    return Numbers(
        vocab_size=len(metadata.array("tokenizer.ggml.tokens")),
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=_num_kv_heads(metadata, arch, num_heads),
        head_dim=head_dim,
        intermediate_size=metadata.integer(f"{arch}.feed_forward_length", maximum=MAX_WIDTH),
        norm_eps=metadata.number(f"{arch}.attention.layer_norm_rms_epsilon"),
        max_context_len=scaling.max_context_len,
        tied_output="output.weight" not in tensors.infos,
        rope=read_rope(metadata, tensors, family, scaling, head_dim),
        local_rope=read_local_rope(metadata, family, head_dim),
        window=metadata.integer(f"{arch}.attention.sliding_window", default=family.window or 0, minimum=0) or None,
        windowed_layers=_windowed_layers(metadata, arch, num_layers),
        chunk=_chunk(metadata, family),
        scale=_scale(metadata, arch, num_layers, hidden_size / num_heads),
        score_softcap=_softcap(metadata, f"{arch}.attn_logit_softcapping", family.score_softcap),
        logit_softcap=_softcap(metadata, f"{arch}.final_logit_softcapping", family.logit_softcap),
        has_biases="blk.0.attn_q.bias" in tensors.infos,
        has_qk_norm=experts is None or (arch, experts.num_experts) not in _WITHOUT_QK_NORM,
        temperature=_temperature(metadata, family, scaling),
        embedding_scale=metadata.number(f"{arch}.embedding_scale", default=1.0),
        residual_scale=metadata.number(f"{arch}.residual_scale", default=1.0),
        logit_scale=1 / metadata.number(f"{arch}.logit_scale", default=1.0),
        experts=experts,
    )


def _num_kv_heads(metadata: Metadata, arch: str | None, num_heads: int) -> int:
    key = f"{arch}.attention.head_count_kv"
    num_kv_heads = metadata.integer(key, default=num_heads, maximum=num_heads)
    if num_heads % num_kv_heads:
        metadata.fail(key, f"{num_kv_heads} does not divide the {num_heads} query heads")
    return num_kv_heads


def _head_dim(metadata: Metadata, arch: str | None, hidden_size: int, num_heads: int) -> int:
    key = f"{arch}.attention.key_length"
    if key not in metadata and hidden_size % num_heads:
        metadata.fail(f"{arch}.attention.head_count", f"{num_heads} heads do not divide the width {hidden_size}")
    head_dim = metadata.integer(key, default=hidden_size // num_heads, maximum=MAX_HEAD_DIM)
    value_dim = metadata.integer(f"{arch}.attention.value_length", default=head_dim)
    if value_dim != head_dim:
        raise UnsupportedModelError(
            f"{metadata.path}: values of width {value_dim} beside keys of width {head_dim} cannot be run yet"
        )
    return head_dim


def _windowed_layers(metadata: Metadata, arch: str | None, num_layers: int) -> frozenset[int] | None:
    """From a pattern: every so-many-th layer sees the whole context, or for each layer whether it is windowed."""
    key = f"{arch}.attention.sliding_window_pattern"
    if key not in metadata:
        return None
    pattern = metadata.values[key]
    if not is_array(pattern):
        interval = metadata.integer(key)
        return frozenset(index for index in range(num_layers) if (index + 1) % interval)
    if len(pattern) != num_layers or not all(isinstance(is_windowed, bool) for is_windowed in pattern):
        metadata.fail(key, f"expected {num_layers} booleans")
    return frozenset(index for index, is_windowed in enumerate(pattern) if is_windowed)


def _chunk(metadata: Metadata, family: Family) -> int | None:
    if family.chunk is not None and metadata.values.get(f"{family.gguf}.attention.sliding_window") == 0:
        raise UnsupportedModelError(f"{metadata.path}: {family.name} models without chunks cannot be run yet")
    return family.chunk


def _scale(metadata: Metadata, arch: str | None, num_layers: int, width: float) -> float | None:
    """None: the usual one."""
    if (arch, num_layers) in _SCALED_BY_WIDTH:
        return float(width**-0.5)
    key = f"{arch}.attention.scale"
    return metadata.number(key) if key in metadata else None


def _temperature(metadata: Metadata, family: Family, scaling: RopeScaling) -> TemperatureSpec | None:
    """Llama 4's files leave it out; Ministral 3's give the slope."""
    if family.name == "llama4":
        return TemperatureSpec(8192, 0.1, offset=1)
    key = f"{family.gguf}.attention.temperature_scale"
    return TemperatureSpec(scaling.original_context_len, metadata.number(key)) if key in metadata else None


def _softcap(metadata: Metadata, key: str, default: float | None) -> float | None:
    return metadata.number(key) if key in metadata else default


def _experts(metadata: Metadata, family: Family, num_layers: int) -> Experts | None:
    arch = family.gguf
    key = f"{arch}.expert_count"
    num_experts = metadata.integer(key, default=0, minimum=0, maximum=MAX_EXPERTS)
    if num_experts == 0:
        return None
    check_num_experts(metadata, key, num_layers, num_experts)
    gating = _SIGMOID if family.has_sigmoid_experts else _SOFTMAX
    says = metadata.integer(f"{arch}.expert_gating_func", default=gating)
    if says != gating or f"{arch}.expert_weights_scale" in metadata:
        raise UnsupportedModelError(
            f"{metadata.path}: experts that are weighed in another way than their family's cannot be run yet"
        )
    width = metadata.integer(f"{arch}.feed_forward_length", maximum=MAX_WIDTH)
    interval = metadata.integer(f"{arch}.interleave_moe_layer_step", default=1)
    return Experts(
        num_experts,
        metadata.integer(f"{arch}.expert_used_count", maximum=num_experts),
        metadata.integer(f"{arch}.expert_feed_forward_length", default=width, maximum=MAX_WIDTH),
        dense_layers=frozenset(range(num_layers)) - frozenset(range(interval - 1, num_layers, interval)),
    )
