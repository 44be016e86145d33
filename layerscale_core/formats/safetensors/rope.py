"""The rotation that a ``config.json`` describes, in the older way and the newer.

Source: https://github.com/huggingface/transformers/blob/main/src/transformers/modeling_rope_utils.py
"""

from __future__ import annotations

import numpy as np

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.formats.metadata import MAX_INTEGER, Metadata
from layerscale_core.formats.rope import (
    Frequencies,
    llama3_frequencies,
    longrope_magnitude,
    rope_frequencies,
    yarn_frequencies,
    yarn_magnitude,
)
from layerscale_core.models import RopeSpec
from layerscale_core.models.families import Family

KINDS = ("default", "dynamic", "linear", "llama3", "longrope", "yarn")
"""``dynamic`` changes nothing up to ``max_position_embeddings``, which is as far as a model is served."""
_OLD_NAMES = {"su": "longrope"}
_SECTIONS = ("rope_parameters.full_attention", "rope_parameters", "rope_scaling")


class RopeConfig:
    """The keys about rotation, wherever they stand.

    Args:
        head_dim: width of a head.
        family: says what the file may leave out.

    Raises:
        ModelFileError: a key makes no sense.
        UnsupportedModelError: another kind of scaling.
    """

    def __init__(self, config: Metadata, head_dim: int, family: Family) -> None:
        self._config = config
        self._section = next((name for name in _SECTIONS if f"{name}.rope_type" in config), "rope_scaling")
        self._base = self._number("rope_theta", default=10_000.0, above=1)
        kind = self._text("rope_type", self._text("type", "default"))
        self._kind = _OLD_NAMES.get(kind, kind)
        if self._kind not in KINDS:
            raise UnsupportedModelError(
                f"{config.path}: RoPE scaling {kind[:64]!r} is not supported; known: {', '.join(KINDS)}"
            )
        self._is_interleaved = family.has_interleaved_folders
        self._rotary_dim = int(head_dim * self._number("partial_rotary_factor", default=family.rotated_share))
        if self._rotary_dim % 2 or not 0 < self._rotary_dim <= head_dim:
            config.fail("partial_rotary_factor", f"{self._rotary_dim} of {head_dim} elements cannot be rotated")
        self._max_position = config.integer("max_position_embeddings")
        self._original = self._integer("original_max_position_embeddings", default=self._max_position)
        self._factor = self._number("factor", default=self._max_position / self._original)

    @property
    def max_context_len(self) -> int:
        """The context that the model serves: what the file says, or what YaRN stretches the original one to."""
        stretched = round(self._factor * self._original) if self._kind == "yarn" else 0
        if stretched > MAX_INTEGER:
            self._config.fail("rope_scaling.factor", f"a context of {stretched} tokens makes no sense")
        return max(self._max_position, stretched)

    def rope(self) -> RopeSpec:
        """The rotation of the layers that see the whole context."""
        frequencies, magnitude = rope_frequencies(self._rotary_dim, self._base), 1.0
        match self._kind:
            case "linear":
                frequencies /= self._factor
            case "llama3":
                frequencies = llama3_frequencies(
                    frequencies,
                    factor=self._factor,
                    low_freq_factor=self._number("low_freq_factor", default=1.0),
                    high_freq_factor=self._number("high_freq_factor", default=4.0),
                    original_context_len=self._original,
                )
            case "longrope":
                frequencies /= self._divisors()
                magnitude = longrope_magnitude(self._factor, self._original)
            case "yarn":
                frequencies = yarn_frequencies(
                    frequencies,
                    base=self._base,
                    factor=self._factor,
                    original_context_len=self._original,
                    beta_fast=self._number("beta_fast", default=32.0),
                    beta_slow=self._number("beta_slow", default=1.0),
                )
                magnitude = self._yarn_magnitude()
        magnitude = self._number("attention_factor", default=magnitude)
        return RopeSpec(tuple(frequencies.tolist()), magnitude, self._is_interleaved)

    def local_rope(self, default_base: float) -> RopeSpec:
        """The rotation of windowed layers, which no scaling stretches."""
        old = self._config.number("rope_local_base_freq", default=default_base, above=1)
        base = self._config.number("rope_parameters.sliding_attention.rope_theta", default=old, above=1)
        return RopeSpec(tuple(rope_frequencies(self._rotary_dim, base).tolist()))

    def _yarn_magnitude(self) -> float:
        if self._has("mscale") and self._has("mscale_all_dim"):
            slopes = self._number("mscale"), self._number("mscale_all_dim")
            return yarn_magnitude(self._factor, slopes[0]) / yarn_magnitude(self._factor, slopes[1])
        return yarn_magnitude(self._factor)

    def _divisors(self) -> Frequencies:
        """For contexts within the original one or beyond; the trained context decides, as for any format."""
        name = "long_factor" if self._max_position > self._original else "short_factor"
        key = f"{self._section}.{name}"
        values = self._config.array(key)
        if len(values) != self._rotary_dim // 2 or not all(type(value) in (int, float) for value in values):
            self._config.fail(key, f"expected {self._rotary_dim // 2} numbers")
        divisors = np.array(values, np.float64)
        if not (np.isfinite(divisors).all() and (divisors > 0).all()):
            self._config.fail(key, "a divisor is not a positive number")
        return divisors

    def _key(self, name: str) -> str:
        """A key of the section, or the one of the same name outside it."""
        inside = f"{self._section}.{name}"
        return inside if inside in self._config else name

    def _has(self, name: str) -> bool:
        return self._key(name) in self._config

    def _number(self, name: str, default: float | None = None, above: float = 0.0) -> float:
        return self._config.number(self._key(name), default=default, above=above)

    def _integer(self, name: str, default: int) -> int:
        return self._config.integer(self._key(name), default=default)

    def _text(self, name: str, default: str) -> str:
        return self._config.text(f"{self._section}.{name}", default=default)
