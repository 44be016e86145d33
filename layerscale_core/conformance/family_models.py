"""A tiny model of every family that some format reads."""

from __future__ import annotations

from layerscale_core.models import ModelSpec, RopeSpec
from layerscale_core.models.describe import Experts, Numbers, describe
from layerscale_core.models.families import FAMILIES

HEAD_DIM, NUM_LAYERS, WINDOW, CHUNK = 16, 7, 12, 10
"""So many layers that a family's pattern begins anew, and windows and chunks shorter than the suite's prompt."""

_MIXTURES = ("mixtral", "qwen3moe", "llama4")


def family_specs() -> dict[str, ModelSpec]:
    """By the family's name."""
    specs = {}
    for family in FAMILIES:
        is_windowed = (family.full_every is not None and family.chunk is None) or family.name == "mistral"
        numbers = Numbers(
            vocab_size=131,
            hidden_size=64,
            num_layers=NUM_LAYERS,
            num_heads=4,
            num_kv_heads=2,
            head_dim=HEAD_DIM,
            intermediate_size=96,
            norm_eps=1e-5,
            max_context_len=4096,
            tied_output=family.has_tied_output,
            rope=_rope(500_000.0),
            local_rope=None if family.local_rope_base is None else _rope(family.local_rope_base),
            window=WINDOW if is_windowed else None,
            chunk=CHUNK if family.chunk is not None else None,
            score_softcap=family.score_softcap,
            logit_softcap=family.logit_softcap,
            experts=Experts(4, 2, 48) if family.name in _MIXTURES else None,
        )
        specs[family.name] = describe(family, numbers)
    return specs


def _rope(base: float) -> RopeSpec:
    return RopeSpec(tuple(base ** (-2 * pair / HEAD_DIM) for pair in range(HEAD_DIM // 2)))
