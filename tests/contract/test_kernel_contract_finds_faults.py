"""The contract of kernels: each promise finds the fault that it is there to find."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import KernelsContract
from layerscale_core.conformance.side_by_side import SideBySide
from layerscale_core.gpu.logits import TorchLogits
from layerscale_core.models import Activation, AttentionSpec, Matrix, MoeSpec, QuantizedMatrix, RopeSpec
from layerscale_core.reference import ReferenceKernels
from layerscale_core.reference.kernels import Step
from layerscale_core.reference.kv_cache import PagedKV
from layerscale_core.specs import AttentionWeights, Capabilities, ExpertWeights, KVLayout, KVType, MlpWeights

TOLERANCE = 0.01
PAGE_SIZE = 16
CONTRACT = KernelsContract()
BACKEND = SimpleNamespace(name="faulty", capabilities=Capabilities())

Floats = np.ndarray


class NormsTheWholeRow(ReferenceKernels):
    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        return super().rms_norm(x, np.tile(weight, x.shape[1] // weight.size), eps)


class NormsInPlace(ReferenceKernels):
    def rms_norm(self, x: Floats, weight: Floats, eps: float) -> Floats:
        x[:] = super().rms_norm(x, weight, eps)
        return x


class ForgetsMinima(ReferenceKernels):
    def load_matrix(self, matrix: Matrix) -> Floats:
        has_mins = isinstance(matrix, QuantizedMatrix) and matrix.mins is not None
        return super().load_matrix(replace(matrix, mins=None) if has_mins else matrix)


class ForgetsTheLastTile(ReferenceKernels):
    """Computes whole tiles of eight rows, and the rest as far as it is one."""

    def linear(self, x: Floats, matrix: Floats) -> Floats:
        y = super().linear(x, matrix)
        if len(x) > 8:
            y[len(x) // 8 * 8 + 1 :] = 0
        return y


class SumsByShape(ReferenceKernels):
    def linear(self, x: Floats, matrix: Floats) -> Floats:
        half = matrix.shape[1] // 2 if len(x) == 1 else matrix.shape[1] // 4
        return x[:, :half] @ matrix[:, :half].T + x[:, half:] @ matrix[:, half:].T


class TakesAnglesInHalfPrecision(ReferenceKernels):
    def rope(self, x: Floats, step: Step, num_heads: int, head_dim: int, rope: RopeSpec) -> Floats:
        positions = step.batch.positions.astype(np.float16).astype(np.int64)
        rounded = Step(replace(step.batch, positions=positions), step.page_ranges)
        return super().rope(x, rounded, num_heads, head_dim, rope)


class RotatesTheWholeHead(ReferenceKernels):
    def rope(self, x: Floats, step: Step, num_heads: int, head_dim: int, rope: RopeSpec) -> Floats:
        whole = replace(rope, inv_freq=tuple(rope.inv_freq) + (0.5,) * (head_dim // 2 - len(rope.inv_freq)))
        return super().rope(x, step, num_heads, head_dim, whole)


class Overflows(ReferenceKernels):
    def gated_activation(self, gate: Floats, up: Floats, activation: Activation) -> Floats:
        with np.errstate(all="ignore"):
            return super().gated_activation(gate, up, activation) * (np.exp(gate) / np.exp(gate))


class AddsTheBiasOnce(ReferenceKernels):
    def add(self, x: Floats, y: Floats) -> Floats:
        if y.ndim == 1:
            x[0] += y
            return x
        return super().add(x, y)


class LetsTheLastExpertWin(ReferenceKernels):
    def mixture(self, x: Floats, router: Floats, experts: Sequence[ExpertWeights], spec: MoeSpec) -> Floats:
        return super().mixture(x, router[::-1], experts[::-1], spec)


class ScoresInHalfPrecision(ReferenceKernels):
    def load_router(self, matrix: Matrix) -> Floats:
        return super().load_router(matrix).astype(np.float16).astype(np.float32)


class NormalisesAlways(ReferenceKernels):
    def mixture(self, x: Floats, router: Floats, experts: Sequence[ExpertWeights], spec: MoeSpec) -> Floats:
        return super().mixture(x, router, experts, replace(spec, is_normalized=True))


class KeepsLogits(ReferenceKernels):
    """Finds likeliest tokens, and gives rows, as if it had a device."""

    def step_logits(self, x: Floats) -> TorchLogits:
        values = torch.from_numpy(x)
        return TorchLogits(values, torch.empty_like(values), [self.likeliest(row) for row in x])

    def likeliest(self, row: Floats) -> int | None:
        raise NotImplementedError


class TakesTheLastOfEquals(KeepsLogits):
    def likeliest(self, row: Floats) -> int | None:
        return row.size - 1 - int(row[::-1].argmax()) if np.isfinite(row).all() else None


class OverlooksMinusInfinity(KeepsLogits):
    def likeliest(self, row: Floats) -> int | None:
        return int(row.argmax()) if np.isfinite(row.max()) else None


class SelectsTheFirst(ReferenceKernels):
    def select(self, x: Floats, step: Step) -> Floats:
        return x[: len(step.batch.logits_indices)]


class ChangesAttention(ReferenceKernels):
    """Forgets, or changes, a part of what an attention is."""

    def change(self, spec: AttentionSpec) -> AttentionSpec:
        raise NotImplementedError

    def attention(self, query: Floats, kv: PagedKV, layer: int, step: Step, spec: AttentionSpec) -> Floats:
        return super().attention(query, kv, layer, step, self.change(spec))


class SeesOneKeyTooMany(ChangesAttention):
    def change(self, spec: AttentionSpec) -> AttentionSpec:
        return spec if spec.window is None else replace(spec, window=spec.window + 1)


class ForgetsTheSoftcap(ChangesAttention):
    def change(self, spec: AttentionSpec) -> AttentionSpec:
        return replace(spec, softcap=None)


class ScalesAsUsual(ChangesAttention):
    def change(self, spec: AttentionSpec) -> AttentionSpec:
        return replace(spec, scale=spec.head_dim**-0.5)


class SeesDroppedSlots(ReferenceKernels):
    def begin_step(self, batch: Any) -> Step:
        step = super().begin_step(batch)
        for ranges in step.page_ranges:
            ranges[:, 1] = 0
        return step


class StoresInTheFirstLayer(ReferenceKernels):
    def store_kv(self, key: Floats, value: Floats, kv: PagedKV, layer: int, step: Step) -> None:
        super().store_kv(key, value, kv, 0, step)


class LeavesTheCacheAsItFindsIt(ReferenceKernels):
    def allocate_kv(self, layout: KVLayout) -> PagedKV:
        kv = super().allocate_kv(layout)
        kv.keys[:] = 7
        return kv


class CopiesKeysAlone(ReferenceKernels):
    def copy_pages(self, kv: PagedKV, source_ids: Floats, target_ids: Floats) -> None:
        super().copy_pages(replace(kv, values=kv.values.copy()), source_ids, target_ids)


class TurnsTheOtherWay(ReferenceKernels):
    def shift_positions(self, kv: PagedKV, layer: int, page_ids: Floats, delta: int, rope: RopeSpec) -> None:
        super().shift_positions(kv, layer, page_ids, -delta, rope)


class TurnsEveryLayer(ReferenceKernels):
    def shift_positions(self, kv: PagedKV, layer: int, page_ids: Floats, delta: int, rope: RopeSpec) -> None:
        for each in range(len(kv.keys)):
            super().shift_positions(kv, each, page_ids, delta, rope)


class ReturnsInOrder(ReferenceKernels):
    """Takes the pages it was given for ascending."""

    def write_pages(self, kv: PagedKV, page_ids: Floats, data: Floats) -> None:
        super().write_pages(kv, np.sort(page_ids), data)


class WritesWhatFits(ReferenceKernels):
    def write_pages(self, kv: PagedKV, page_ids: Floats, data: Floats) -> None:
        size = self.read_pages(kv, page_ids[:1]).size
        content = np.resize(data, (len(page_ids), size))
        super().write_pages(kv, page_ids, content)
        if data.shape != content.shape:
            raise ValueError("too late")


class KeepsKeysUnrotated(ReferenceKernels):
    def project_qkv(self, x: Floats, weights: AttentionWeights, kv: PagedKV, layer: int, step: Step) -> Floats:
        query = super().project_qkv(x, weights, kv, layer, step)
        unrotated = replace(weights, spec=replace(weights.spec, rope=RopeSpec(())))
        super().project_qkv(x, unrotated, kv, layer, step)
        return query


class NormalisesHeadsAfterRotation(ReferenceKernels):
    def project_qkv(self, x: Floats, weights: AttentionWeights, kv: PagedKV, layer: int, step: Step) -> Floats:
        query = super().project_qkv(x, replace(weights, query_norm=None), kv, layer, step)
        return query if weights.query_norm is None else self.rms_norm(query, weights.query_norm, weights.eps)


class SwapsGateAndUp(ReferenceKernels):
    def gated_linear(self, x: Floats, weights: MlpWeights) -> Floats:
        return super().gated_linear(x, replace(weights, gate_up=weights.gate_up[::-1]))


class NormalisesTheSum(ReferenceKernels):
    def add_linear(self, x: Floats, y: Floats, matrix: Floats, post_norm: Floats | None, eps: float) -> Floats:
        total = super().add_linear(x, y, matrix, None, eps)
        return total if post_norm is None else self.rms_norm(total, post_norm, eps)


@pytest.mark.parametrize(
    ("kernels", "promise"),
    [
        (NormsTheWholeRow, lambda both: CONTRACT.test_rms_norm(both, 3, 3)),
        (NormsInPlace, lambda both: CONTRACT.test_rms_norm(both, 3, 1)),
        (ForgetsMinima, lambda both: CONTRACT.test_embed(both, "4-bit, groups of 16, mins")),
        (ForgetsMinima, lambda both: CONTRACT.test_linear_in_every_layout(both, "6-bit, groups of 32, mins", 3)),
        (ForgetsTheLastTile, lambda both: CONTRACT.test_linear_in_every_layout(both, "f32", 17 + 1)),
        (SumsByShape, lambda both: CONTRACT.test_a_row_of_a_product_does_not_depend_on_its_neighbours(both, "f32")),
        (TakesAnglesInHalfPrecision, lambda both: CONTRACT.test_rope(both, "narrow", 2_049)),
        (RotatesTheWholeHead, lambda both: CONTRACT.test_rope(both, "partial", 0)),
        (Overflows, lambda both: CONTRACT.test_gated_activation(both, Activation.SILU)),
        (AddsTheBiasOnce, CONTRACT.test_add),
        (LetsTheLastExpertWin, CONTRACT.test_of_equal_scores_the_first_experts_win),
        (ScoresInHalfPrecision, CONTRACT.test_experts_that_score_nearly_alike_are_told_apart),
        (NormalisesAlways, lambda both: CONTRACT.test_mixture(both, num_tokens=9, is_normalized=False)),
        (TakesTheLastOfEquals, CONTRACT.test_logits_read_as_an_array_wherever_they_stay),
        (OverlooksMinusInfinity, CONTRACT.test_logits_read_as_an_array_wherever_they_stay),
        (SelectsTheFirst, CONTRACT.test_select),
        (SeesOneKeyTooMany, lambda both: CONTRACT.test_attention_in_every_variant(both, "window", PAGE_SIZE)),
        (ForgetsTheSoftcap, lambda both: CONTRACT.test_attention_in_every_variant(both, "soft cap", PAGE_SIZE)),
        (ScalesAsUsual, lambda both: CONTRACT.test_attention_in_every_variant(both, "another scale", PAGE_SIZE)),
        (
            SeesDroppedSlots,
            lambda both: CONTRACT.test_attention_to_valid_slots_alone(both, KVType.INT8, PAGE_SIZE),
        ),
        (
            StoresInTheFirstLayer,
            lambda both: CONTRACT.test_attention_at_every_precision(both, "wide", KVType.FP16, PAGE_SIZE),
        ),
        (LeavesTheCacheAsItFindsIt, lambda both: CONTRACT.test_a_fresh_cache_is_empty(both, KVType.FP16, PAGE_SIZE)),
        (
            CopiesKeysAlone,
            lambda both: CONTRACT.test_a_copied_page_is_the_same_and_its_own(both, KVType.INT4, PAGE_SIZE),
        ),
        (TurnsTheOtherWay, lambda both: CONTRACT.test_rotated_keys(both, "interleaved", KVType.FP16, PAGE_SIZE)),
        (
            TurnsEveryLayer,
            lambda both: CONTRACT.test_other_layers_and_values_are_not_rotated(both, KVType.FP16, PAGE_SIZE),
        ),
        (ReturnsInOrder, lambda both: CONTRACT.test_pages_leave_and_return(both, KVType.INT8, PAGE_SIZE)),
        (WritesWhatFits, lambda both: CONTRACT.test_content_of_another_size_is_refused(both, KVType.FP16, PAGE_SIZE)),
        (KeepsKeysUnrotated, lambda both: project(both, has_qk_norm=False)),
        (NormalisesHeadsAfterRotation, lambda both: project(both, has_qk_norm=True)),
        (SwapsGateAndUp, lambda both: CONTRACT.test_gated_linear(both, "f16")),
        (NormalisesTheSum, lambda both: CONTRACT.test_add_linear(both, "f32", has_post_norm=True)),
    ],
)
def test_a_wrong_kernel_is_found(kernels: type[ReferenceKernels], promise: Callable[[SideBySide], None]) -> None:
    promise(SideBySide(make(ReferenceKernels), TOLERANCE))
    with pytest.raises(AssertionError):
        promise(SideBySide(make(kernels), TOLERANCE))


def make(kernels: type[ReferenceKernels]) -> Any:
    return kernels(CountingAllocator(2**40, "the test's memory"))


def project(both: SideBySide, *, has_qk_norm: bool) -> None:
    CONTRACT.test_project_qkv(both, ("f32",) * 3, has_qk_norm, has_biases=False)


class ReplaysTheFirstTokens(ReferenceKernels):
    """Records what a shape of step gave, instead of how."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._recorded: dict[int, Floats] = {}

    def run_step(self, step: Step, compute: Callable[[Step], Floats]) -> Floats:
        return self._recorded.setdefault(step.batch.num_seqs, compute(step))


class ReplaysTheFirstPages(ReferenceKernels):
    """Records the lengths of the contexts with the shape of the step."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._recorded: dict[int, tuple[Floats, ...]] = {}

    def run_step(self, step: Step, compute: Callable[[Step], Floats]) -> Floats:
        ranges = self._recorded.setdefault(step.batch.num_seqs, step.page_ranges)
        return compute(Step(step.batch, ranges))


def device_over(kernels: type[ReferenceKernels]) -> Any:
    allocator = CountingAllocator(2**30, "the test's memory")
    return SimpleNamespace(allocator=allocator, make_kernels=lambda: kernels(allocator))


@pytest.mark.parametrize("kernels", [ReplaysTheFirstTokens, ReplaysTheFirstPages])
def test_a_wrong_replay_is_found(kernels: type[ReferenceKernels]) -> None:
    CONTRACT.test_a_replayed_step_is_the_step(BACKEND, device_over(ReferenceKernels))
    with pytest.raises(AssertionError):
        CONTRACT.test_a_replayed_step_is_the_step(BACKEND, device_over(kernels))


def test_a_cache_that_takes_more_than_planned_is_found() -> None:
    class TakesOneMorePage(ReferenceKernels):
        def allocate_kv(self, layout: KVLayout) -> PagedKV:
            return super().allocate_kv(replace(layout, num_pages=layout.num_pages + 1))

    device = device_over(TakesOneMorePage)
    with pytest.raises(AssertionError):
        CONTRACT.test_the_cache_takes_what_its_layout_says(device, device.make_kernels())
