"""GGUF's RoPE keys and factor tensors, folded into one table of frequencies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from layerscale_core.errors import ModelFileError, UnsupportedModelError
from layerscale_core.formats.gguf.tensors import GgufTensors
from layerscale_core.formats.metadata import MAX_INTEGER, Metadata
from layerscale_core.formats.rope import Frequencies, rope_frequencies, yarn_frequencies, yarn_magnitude
from layerscale_core.models import RopeSpec
from layerscale_core.models.families import Family

FACTORS = "rope_freqs.weight"
FACTORS_LONG = "rope_factors_long.weight"
FACTORS_SHORT = "rope_factors_short.weight"
ROPE_TENSORS = frozenset({FACTORS, FACTORS_LONG, FACTORS_SHORT})


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How a model stretches the context it was first trained for.

    Attributes:
        kind: ``none``, ``linear``, ``yarn`` or ``longrope``. Llama 3's has no name here: such a file holds a tensor of
            divisors, one per pair, which go with any kind.
        factor: 1 for ``none`` and ``longrope``.
        trained_context_len: the file's ``context_length``.
        original_context_len: before stretching; the trained one where the file does not say.
        attention_factor: on cosine and sine, beside YaRN's own.
    """

    kind: str
    factor: float
    trained_context_len: int
    original_context_len: int
    attention_factor: float

    @property
    def max_context_len(self) -> int:
        """The context that the model serves.

        The trained context of a file with divisors is the stretched one. Where a plain factor stretches, it counts from
        the original context; files that do not give one keep it in ``context_length``.
        """
        return round(self.factor * self.original_context_len) if self.factor > 1 else self.trained_context_len


def read_rope_scaling(metadata: Metadata, architecture: str) -> RopeScaling:
    """Read the keys below ``<architecture>.rope.scaling``.

    Raises:
        ModelFileError: a key makes no sense.
        UnsupportedModelError: another kind of scaling.
    """
    prefix = f"{architecture}.rope.scaling"
    kind = metadata.text(f"{prefix}.type", default="linear")
    if kind not in {"none", "linear", "yarn", "longrope"}:
        raise UnsupportedModelError(
            f"{metadata.path}: RoPE scaling {kind[:64]!r} is not supported; known: none, linear, yarn, longrope"
        )
    trained_context_len = metadata.integer(f"{architecture}.context_length")
    factor = metadata.number(
        f"{prefix}.factor", default=metadata.number(f"{architecture}.rope.scale_linear", default=1)
    )
    scaling = RopeScaling(
        kind=kind,
        factor=factor if kind in {"linear", "yarn"} else 1.0,
        trained_context_len=trained_context_len,
        original_context_len=metadata.integer(f"{prefix}.original_context_length", default=trained_context_len),
        attention_factor=metadata.number(f"{prefix}.attn_factor", default=1),
    )
    if scaling.max_context_len > MAX_INTEGER:
        metadata.fail(f"{prefix}.factor", f"a context of {scaling.max_context_len} tokens makes no sense")
    return scaling


def read_rope(
    metadata: Metadata, tensors: GgufTensors, family: Family, scaling: RopeScaling, head_dim: int
) -> RopeSpec:
    """The rotation of the layers that see the whole context.

    Raises:
        ModelFileError: a key or a tensor of divisors makes no sense.
    """
    architecture = family.gguf
    rotary_dim = _rotary_dim(metadata, architecture, head_dim)
    base = metadata.number(f"{architecture}.rope.freq_base", default=10_000, above=1)
    frequencies = rope_frequencies(rotary_dim, base) / _read_divisors(tensors, scaling, rotary_dim // 2, metadata.path)
    magnitude = scaling.attention_factor
    if scaling.kind == "linear":
        frequencies /= scaling.factor
    elif scaling.kind == "yarn":
        prefix = f"{architecture}.rope.scaling"
        frequencies = yarn_frequencies(
            frequencies,
            base=base,
            factor=scaling.factor,
            original_context_len=scaling.original_context_len,
            beta_fast=metadata.number(f"{prefix}.yarn_beta_fast", default=32),
            beta_slow=metadata.number(f"{prefix}.yarn_beta_slow", default=1),
        )
        magnitude *= yarn_magnitude(scaling.factor)
        slope = metadata.number(f"{prefix}.yarn_log_multiplier", default=0.0, above=-1.0)
        magnitude /= yarn_magnitude(scaling.factor, slope)
    return RopeSpec(tuple(frequencies.tolist()), magnitude, family.is_interleaved)


def read_local_rope(metadata: Metadata, family: Family, head_dim: int) -> RopeSpec | None:
    """The rotation of windowed layers, which no scaling stretches; None: it is that of the others."""
    if family.local_rope_base is None:
        return None
    base = metadata.number(f"{family.gguf}.rope.freq_base_swa", default=family.local_rope_base, above=1)
    frequencies = rope_frequencies(_rotary_dim(metadata, family.gguf, head_dim), base)
    return RopeSpec(tuple(frequencies.tolist()), interleaved=family.is_interleaved)


def _rotary_dim(metadata: Metadata, architecture: str | None, head_dim: int) -> int:
    key = f"{architecture}.rope.dimension_count"
    rotary_dim = metadata.integer(key, default=head_dim, maximum=head_dim)
    if rotary_dim % 2:
        metadata.fail(key, f"must be even, found {rotary_dim}")
    return rotary_dim


def _read_divisors(tensors: GgufTensors, scaling: RopeScaling, num_pairs: int, path: str) -> Frequencies:
    """What each pair's frequency is divided by: [num_pairs], ones where the file holds no such tensor.

    LongRoPE files (arXiv:2402.13753) hold two tensors, for contexts within the original one and beyond; not all name
    their kind of scaling. The trained context decides, so that a sequence's cached keys stay valid as it grows past the
    original one.
    """
    name = FACTORS
    if scaling.kind == "longrope" or FACTORS_LONG in tensors.infos:
        name = FACTORS_LONG if scaling.trained_context_len > scaling.original_context_len else FACTORS_SHORT
        if name not in tensors.infos:
            raise ModelFileError(path, "the tensor is missing", field=name)
    if name not in tensors.infos:
        return np.ones(num_pairs)
    info = tensors.infos[name]
    if info.shape != (num_pairs,):
        reason = f"the tensor has the shape {list(info.shape)}, the metadata asks for {[num_pairs]}"
        raise ModelFileError(path, reason, field=name, offset=info.offset)
    if not tensors.is_present(name):  # read for its metadata only: what is planned does not depend on the angles
        return np.ones(num_pairs)
    divisors = tensors.vector(name).astype(np.float64)
    if not (np.isfinite(divisors).all() and (divisors > 0).all()):
        raise ModelFileError(path, "a divisor is not a positive number", field=name, offset=info.offset)
    return divisors
