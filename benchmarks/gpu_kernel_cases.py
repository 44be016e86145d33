"""Launches of every GPU kernel as an 8B-shaped model makes them: heads of 128 in groups of four, bfloat16.

Beside them heads of 256, with norms of their own, which take the most of a device.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from layerscale_core.conformance.random_model import LAYOUTS
from layerscale_core.conformance.step_batches import PageBook, Span
from layerscale_core.gpu import elementwise, kv_cache, sampling
from layerscale_core.gpu.attention import attention, tokens_per_tile
from layerscale_core.gpu.heads import HeadProjection, project_heads
from layerscale_core.gpu.linear import Norm, gate_up, linear
from layerscale_core.gpu.matrix import DeviceMatrix, pack
from layerscale_core.gpu.rope import DeviceRope
from layerscale_core.gpu.step import StepTensors, make_step
from layerscale_core.gpu.tuning import Tuning
from layerscale_core.gpu.workspace import Workspace, allocate_workspace
from layerscale_core.models import Activation, AttentionSpec, RopeSpec
from layerscale_core.specs import KVLayout, KVType

DTYPE = torch.bfloat16
HIDDEN = 4096
PREFILL = 256
WEIGHTS = {16: "bf16", 8: "8-bit, groups of 32", 4: "4-bit, groups of 32"}
OTHER_WEIGHTS = ("4-bit, groups of 32, mins", "6-bit, groups of 16", "codebook, groups of 32")
KV_TYPES = {16: KVType.FP16, 8: KVType.INT8, 4: KVType.INT4}
WIDE = 256
"""The width of Gemma's heads."""


def cases(tuning: Tuning) -> dict[str, Callable[[], None]]:
    """Each by what it computes, for how many tokens, on which weights and cache."""
    named: dict[str, Callable[[], None]] = {}
    for tokens, step, all_bits in ((1, "decode", (16, 8, 4)), (PREFILL, "prefill", (16, 4))):
        for bits in all_bits:
            named[f"linear, {step}, {bits}-bit weights"] = partial(_linear, tuning, tokens, WEIGHTS[bits])
            named[f"gate_up, {step}, {bits}-bit weights"] = partial(_gate_up, tuning, tokens, bits)
            named[f"project_heads, {step}, {bits}-bit weights and cache"] = partial(
                _project_heads, tuning, tokens, bits
            )
        for layout in OTHER_WEIGHTS:
            named[f"linear, {step}, {layout}"] = partial(_linear, tuning, tokens, layout)
        named[f"linear, {step}, a router's weights"] = partial(_route, tuning, tokens)
        for bits in KV_TYPES:
            named[f"attention, {step}, {bits}-bit cache"] = partial(_attention, tuning, tokens, bits)
        for bits in (16, 8):
            wide = f"{step}, heads of {WIDE}, {bits}-bit"
            named[f"project_heads, {wide} weights and cache"] = partial(_project_heads, tuning, tokens, bits, WIDE)
            named[f"attention, {wide} cache"] = partial(_attention, tuning, tokens, bits, WIDE)
    for bits in KV_TYPES:
        named[f"store, {bits}-bit cache"] = partial(_store, bits)
        named[f"shift_positions, {bits}-bit cache"] = partial(_shift_positions, bits)
    named["rotate_heads"] = _rotate_heads
    named["embed, 4-bit weights"] = _embed
    named["rms_norm"] = _rms_norm
    named["rope_heads"] = _rope_heads
    named["gated_activation"] = _gated_activation
    named["argmax"] = partial(_sample, False)
    named["sample"] = partial(_sample, True)
    return named


def _matrix(bits: int, rows: int) -> DeviceMatrix:
    return _random_matrix(WEIGHTS[bits], rows, DTYPE)


def _random_matrix(layout: str, rows: int, dtype: torch.dtype) -> DeviceMatrix:
    return pack(LAYOUTS[layout].random(np.random.default_rng(0), (rows, HIDDEN), 0.1), "cpu", dtype)


def _norm() -> Norm:
    return Norm(torch.empty(HIDDEN), 1e-5)


def _workspace(tokens: int) -> Workspace:
    """Decode splits its tiles, prefill does not."""
    return allocate_workspace("cpu", 2**22, 2**10) if tokens == 1 else allocate_workspace("cpu", 0, 0)


def _spec(head_dim: int) -> AttentionSpec:
    return AttentionSpec(4, 1, head_dim, head_dim**-0.5, RopeSpec((0.0,) * (head_dim // 2)))


def _rope(head_dim: int) -> DeviceRope:
    return DeviceRope(torch.zeros(head_dim // 2, dtype=torch.float64), 1.0, False)


def _step(tuning: Tuning, tokens: int, spec: AttentionSpec) -> StepTensors:
    """The last tokens of a context of several partitions."""
    book = PageBook(KVLayout(80, 16, 1, 1, 128))
    sequence = book.sequence()
    book.batch([Span(sequence, [0] * 1000)])
    return make_step(
        book.batch([Span(sequence, [0] * tokens)]), torch.device("cpu"), tokens_per_tile(spec, tokens, tuning)
    )


def _cache(bits: int, head_dim: int = 128) -> kv_cache.KVCache:
    return kv_cache.allocate_cache(KVLayout(80, 16, 1, 1, head_dim, kv_type=KV_TYPES[bits]), "cpu")


def _linear(tuning: Tuning, tokens: int, layout: str) -> None:
    x, out = torch.empty(tokens, HIDDEN, dtype=DTYPE), torch.empty(tokens, 256)
    linear(x, _random_matrix(layout, 256, DTYPE), out, _workspace(tokens), tuning, residual=out)


def _route(tuning: Tuning, tokens: int) -> None:
    """Of 128 experts, in float32."""
    router = _random_matrix("f32", 128, torch.float32)
    linear(torch.empty(tokens, HIDDEN), router, torch.empty(tokens, 128), _workspace(tokens), tuning)


def _gate_up(tuning: Tuning, tokens: int, bits: int) -> None:
    x, out, matrix = torch.empty(tokens, HIDDEN), torch.empty(tokens, 256, dtype=DTYPE), _matrix(bits, 256)
    gate_up(x, matrix, matrix, Activation.SILU, out, tuning=tuning, norm=_norm())


def _project_heads(tuning: Tuning, tokens: int, bits: int, head_dim: int = 128) -> None:
    spec, head_norm = _spec(head_dim), torch.empty(head_dim) if head_dim == WIDE else None
    project_heads(
        torch.empty(tokens, HIDDEN), HeadProjection(_matrix(bits, 6 * head_dim)), _step(tuning, tokens, spec),
        _cache(bits, head_dim), 0, norm=_norm(), rope=_rope(head_dim), spec=spec,
        query_out=torch.empty(tokens, 4 * head_dim, dtype=DTYPE), workspace=_workspace(tokens), tuning=tuning,
        query_norm=head_norm, key_norm=head_norm,
    )  # fmt: skip


def _attention(tuning: Tuning, tokens: int, bits: int, head_dim: int = 128) -> None:
    query, spec = torch.empty(tokens, 4 * head_dim, dtype=DTYPE), _spec(head_dim)
    attention(
        query, _cache(bits, head_dim), 0, _step(tuning, tokens, spec), spec, out=torch.empty_like(query),
        workspace=_workspace(tokens), tuning=tuning,
    )  # fmt: skip


def _store(bits: int) -> None:
    key = torch.empty(1, 128, dtype=DTYPE)
    kv_cache.store(key, key, _cache(bits), 0, torch.zeros(1, dtype=torch.int64))


def _shift_positions(bits: int) -> None:
    kv_cache.shift_positions(_cache(bits), 0, torch.zeros(2, dtype=torch.int32), -1000, _rope(128))


def _rotate_heads() -> None:
    query = torch.empty(2, 512, dtype=DTYPE)
    kv_cache.rotate_heads(query, _cache(8), query)


def _embed() -> None:
    elementwise.embed(torch.zeros(2, dtype=torch.int32), _matrix(4, 64), torch.empty(2, HIDDEN))


def _rms_norm() -> None:
    x = torch.empty(2, HIDDEN)
    elementwise.rms_norm(x, torch.empty(HIDDEN), 1e-5, x, rows=torch.zeros(2, dtype=torch.int32), residual=x)


def _rope_heads() -> None:
    query = torch.empty(2, 512, dtype=DTYPE)
    elementwise.rope_heads(query, torch.zeros(2, dtype=torch.int32), 128, _rope(128), query)


def _gated_activation() -> None:
    gate = torch.empty(2, HIDDEN, dtype=DTYPE)
    elementwise.gated_activation(gate, gate, Activation.SILU, gate)


def _sample(is_random: bool) -> None:
    logits, found = torch.empty(2, 128_256), torch.empty(2, 2, dtype=torch.int32)
    if is_random:
        sampling.sample(logits, torch.empty(2), torch.empty(2, dtype=torch.int64), found, _workspace(1))
    else:
        sampling.argmax(logits, found, _workspace(1))
