"""The contracts themselves: each finds the fault it is there to find."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance import (
    BackendContract,
    KVPoolContract,
    SchedulerPolicyContract,
    StreamTypeContract,
    tiny_spec,
)
from layerscale_core.conformance.executor_under_test import PROMPT
from layerscale_core.conformance.executors import cut, kv_layout, open_executor
from layerscale_core.conformance.kv_pool_under_test import PROMPT as SHARED_PROMPT
from layerscale_core.conformance.paging import ROPES
from layerscale_core.engine.kv_pool import PagedKVPool
from layerscale_core.models import RopeSpec
from layerscale_core.reference import ReferenceKernels
from layerscale_core.reference.kernels import Step
from layerscale_core.reference.kv_cache import PagedKV
from layerscale_core.specs import Capabilities, KVType, PageTable, PrefixMiss, ScheduledTokens, TokenBudget
from layerscale_core.streams import IotStream

BACKEND = SimpleNamespace(name="faulty", capabilities=Capabilities())
KV = kv_layout(tiny_spec(), 16)
ALLOCATOR = CountingAllocator(2**30, "the test's memory")


class AttendsToWholePages(ReferenceKernels):
    """Takes every slot of a page up to its end for valid."""

    def begin_step(self, batch: object) -> Step:
        step = super().begin_step(batch)
        for ranges in step.page_ranges:
            ranges[:, 1] = 0
        return step


class RotatesFromZero(ReferenceKernels):
    """Takes a token's place in the batch for its position."""

    def rope(self, x: np.ndarray, step: Step, *rest: object) -> np.ndarray:
        step.batch.positions[:] = np.arange(len(x))
        return super().rope(x, step, *rest)


class MultipliesInOneGo(ReferenceKernels):
    """Lets the shape of the batch choose the order of summation."""

    def linear(self, x: np.ndarray, matrix: np.ndarray) -> np.ndarray:
        halves = matrix.shape[1] // (2 if len(x) == 1 else 4)
        parts = [x[:, i : i + halves] @ matrix[:, i : i + halves].T for i in range(0, matrix.shape[1], halves)]
        return np.sum(parts, axis=0, dtype=np.float32)


class CopiesOneLayer(ReferenceKernels):
    """Forgets that a page has all layers."""

    def copy_pages(self, kv: PagedKV, source_ids: np.ndarray, target_ids: np.ndarray) -> None:
        super().copy_pages(replace(kv, keys=kv.keys[:1], values=kv.values[:1]), source_ids, target_ids)


class ShiftsTheFirstLayer(ReferenceKernels):
    """Leaves the other layers' keys where they were."""

    def shift_positions(self, kv: PagedKV, layer: int, *rest: object) -> None:
        if layer == 0:
            super().shift_positions(kv, layer, *rest)


class ShiftsWithMagnitude(ReferenceKernels):
    """Scales the keys once more."""

    def shift_positions(self, kv: PagedKV, layer: int, page_ids: np.ndarray, delta: int, rope: RopeSpec) -> None:
        super().shift_positions(kv, layer, page_ids, delta, rope)
        keys, _ = kv.pages()
        scaled = kv.key_codec.decode(keys[layer, page_ids]) * np.float32(rope.magnitude)
        keys[layer, page_ids] = kv.key_codec.encode(scaled)


class ForgetsTheValues(ReferenceKernels):
    """Takes a page's keys for the whole page."""

    def write_pages(self, kv: PagedKV, page_ids: np.ndarray, data: np.ndarray) -> None:
        super().write_pages(replace(kv, values=kv.values.copy()), page_ids, data)


class ShiftsEverything(ReferenceKernels):
    """Takes the pages it was given for all."""

    def shift_positions(self, kv: PagedKV, layer: int, page_ids: np.ndarray, delta: int, rope: RopeSpec) -> None:
        super().shift_positions(kv, layer, np.arange(KV.num_pages), delta, rope)


class LosesWhatCrosses(ReferenceKernels):
    """Takes activations from the host with their columns in the wrong order."""

    def from_host(self, x: np.ndarray) -> np.ndarray:
        return x[:, ::-1]


class IsSlightlyWrong(ReferenceKernels):
    """Computes the wrong activation, a little."""

    def gated_activation(self, gate: np.ndarray, up: np.ndarray, activation: object) -> np.ndarray:
        return super().gated_activation(gate * 1.2, up, activation)


def device_over(kernels: type[ReferenceKernels]) -> SimpleNamespace:
    return SimpleNamespace(
        allocator=ALLOCATOR, make_kernels=lambda: kernels(ALLOCATOR), make_executor=lambda spec, weights, kv: None
    )


def whole_first_page(pages: list) -> list:
    pages[0].start = 5
    return pages


CONTRACT = BackendContract()
KV_POOL = KVPoolContract()


@pytest.mark.parametrize(
    ("kernels", "promise"),
    [
        (AttendsToWholePages, lambda device: CONTRACT.test_attends_to_valid_slots_only(device, KV, whole_first_page)),
        (RotatesFromZero, lambda device: CONTRACT.test_rotates_to_the_positions_of_the_batch(BACKEND, device)),
        (LosesWhatCrosses, lambda device: CONTRACT.test_layers_may_stay_on_the_host(BACKEND, device, (0,))),
        (
            IsSlightlyWrong,
            lambda device: CONTRACT.test_equals_the_reference_on_every_weight_layout(BACKEND, device, "f32"),
        ),
    ],
)
def test_a_wrong_kernel_is_found(kernels: type[ReferenceKernels], promise: Callable[[object], None]) -> None:
    promise(device_over(ReferenceKernels))
    with pytest.raises(AssertionError):
        promise(device_over(kernels))


@pytest.mark.parametrize(
    ("kernels", "promise"),
    [
        (
            MultipliesInOneGo,
            lambda executor: CONTRACT.test_does_not_depend_on_how_a_prompt_is_cut(executor, KV, cut(PROMPT, 36)),
        ),
        (MultipliesInOneGo, lambda executor: CONTRACT.test_does_not_depend_on_neighbours(executor, KV)),
        (CopiesOneLayer, lambda executor: CONTRACT.test_a_copied_page_holds_the_same_and_is_its_own(executor, KV)),
    ],
)
def test_a_wrong_batch_is_found(kernels: type[ReferenceKernels], promise: Callable[[object], None]) -> None:
    with open_executor(device_over(ReferenceKernels), tiny_spec(), KV) as executor:
        promise(executor)
    with open_executor(device_over(kernels), tiny_spec(), KV) as executor, pytest.raises(AssertionError):
        promise(executor)


@pytest.mark.parametrize(
    ("kernels", "ropes"),
    [
        (ShiftsTheFirstLayer, "interleaved"),
        (ShiftsWithMagnitude, "with magnitude"),
        (ShiftsEverything, "split halves"),
    ],
)
def test_a_wrong_shift_is_found(kernels: type[ReferenceKernels], ropes: str) -> None:
    promise = CONTRACT.test_shifted_keys_are_those_of_the_shifted_positions
    promise(BACKEND, device_over(ReferenceKernels), ROPES[ropes], KVType.FP16)
    with pytest.raises(AssertionError):
        promise(BACKEND, device_over(kernels), ROPES[ropes], KVType.FP16)


def test_a_page_that_returns_in_part_is_found() -> None:
    promise = CONTRACT.test_pages_that_left_and_returned_hold_the_same
    for kernels, outcome in ((ReferenceKernels, nullcontext()), (ForgetsTheValues, pytest.raises(AssertionError))):
        device = device_over(kernels)
        with open_executor(device, tiny_spec(), KV) as executor, outcome:
            promise(executor, device, KV, "f32")


def test_a_leaking_executor_is_found() -> None:
    class KeepsItsMemory(ReferenceKernels):
        def release(self) -> None:
            pass

    with pytest.raises(AssertionError):
        CONTRACT.test_an_executor_is_counted_and_gives_everything_back(BACKEND, device_over(KeepsItsMemory))


def test_a_pool_that_promises_the_same_pages_twice_is_found() -> None:
    class Overbooks(PagedKVPool):
        def can_admit(self, max_tokens: int) -> bool:
            return self.fits_ever(max_tokens)

    contract = KVPoolContract()
    with pytest.raises(AssertionError):
        contract.test_whoever_is_admitted_can_grow_and_nobody_shares_a_slot(Overbooks(12, 4), seed=0)


class ForgetsTheCopy(PagedKVPool):
    """Promises a fork its own pages, and not the copy of the page it shares."""

    def can_fork(self, table: PageTable, max_tokens: int) -> bool:
        return self.can_admit(max(0, max_tokens - self.page_size))


class SharesWithEverybody(PagedKVPool):
    """Looks for prefixes in one namespace only."""

    def publish(self, table: PageTable, token_ids: Sequence[int], namespace: str) -> None:
        super().publish(table, token_ids, "")

    def reuse_prefix(self, table: PageTable, token_ids: Sequence[int], namespace: str) -> PrefixMiss | None:
        return super().reuse_prefix(table, token_ids, "")


class ReusesTheLastToken(PagedKVPool):
    """Leaves nothing to be computed."""

    def reuse_prefix(self, table: PageTable, token_ids: Sequence[int], namespace: str) -> PrefixMiss | None:
        return super().reuse_prefix(table, [*token_ids, 0], namespace)


class KeepsWhatFailed(PagedKVPool):
    """Withdraws nothing."""

    def withdraw(self, table: PageTable) -> None:
        pass


@pytest.mark.parametrize(
    ("pool", "promise"),
    [
        (ForgetsTheCopy, KV_POOL.test_a_fork_that_could_run_out_is_refused),
        (SharesWithEverybody, KV_POOL.test_namespaces_are_apart),
        (KeepsWhatFailed, KV_POOL.test_what_was_withdrawn_is_not_found),
        (ReusesTheLastToken, lambda pool: KV_POOL.test_a_miss_says_where_and_why(pool, SHARED_PROMPT[:8], 4, None)),
    ],
)
def test_a_pool_that_shares_wrongly_is_found(pool: type[PagedKVPool], promise: Callable[[PagedKVPool], None]) -> None:
    promise(PagedKVPool(12, 4))
    with pytest.raises(AssertionError):
        promise(pool(12, 4))


def test_a_policy_that_starves_is_found() -> None:
    policy = SimpleNamespace(
        plan=lambda running, budget: (
            [ScheduledTokens(s.sequence_id, 1) for s in running if s.is_decoding][:1]
            or [ScheduledTokens(running[0].sequence_id, 1)]
        )
    )
    with pytest.raises(AssertionError):
        SchedulerPolicyContract().test_nobody_starves_while_others_keep_arriving(policy, TokenBudget(4, 4), seed=0)


def test_a_policy_that_overspends_is_found() -> None:
    policy = SimpleNamespace(
        plan=lambda running, budget: [ScheduledTokens(s.sequence_id, s.num_uncomputed) for s in running]
    )
    with pytest.raises(AssertionError):
        SchedulerPolicyContract().test_every_decision_is_within_bounds(policy, TokenBudget(16, 2), seed=0)


class IotContract(StreamTypeContract):
    entries = (
        {"sid": "boiler", "val": 91.5, "lo": 20.0, "hi": 80.0, "timestamp": 1704205800},
        {"sid": "pump", "val": 50.0, "lo": 20.0, "hi": 80.0},
    )
    required = ("sid", "val", "lo", "hi")


class WritesNamesAsTheyCome(IotStream):
    """Lets whoever names a sensor write lines of their own."""

    def render(self, entry: Mapping[str, Any]) -> str:
        return f"{entry['sid']} {entry['val']}"


class TakesHalfPairs(IotStream):
    """Accepts texts that UTF-8 cannot carry."""

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        return {**super().validate({**entry, "sid": "boiler"}), "sid": entry["sid"]}


class ConvertsOnEveryValidation(IotStream):
    """Stores another unit than it takes, and converts again when it restores."""

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        validated = super().validate(entry)
        return {**validated, "timestamp": 1000 * validated.get("timestamp", 0)}


class KeepsTheClientsObject(IotStream):
    """Checks an entry and hands back the same object."""

    def validate(self, entry: Mapping[str, Any]) -> Mapping[str, Any]:
        super().validate(entry)
        return entry


class SumsToInfinity(IotStream):
    """Forgets that sums of finite numbers need not be."""

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        return {**super().statistics(entries), "total": sum((each["val"] for each in entries), 0.0)}


class CountsInFloats(IotStream):
    """Says 0 of an empty window and 0.0 of others."""

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        answer = dict(super().statistics(entries))
        return answer | {"threshold_breaches": float(answer["threshold_breaches"]) if entries else 0}


class SharesItsZeros(IotStream):
    """Hands out one object to everybody."""

    def __init__(self) -> None:
        self._zeros = super().statistics([])

    def statistics(self, entries: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        return super().statistics(entries) if entries else self._zeros


IOT = IotContract()


@pytest.mark.parametrize(
    ("stream_type", "promise"),
    [
        (WritesNamesAsTheyCome, lambda iot: IOT.test_texts_in_an_entry_cannot_break_its_line(iot, "\u2028")),
        (TakesHalfPairs, lambda iot: IOT.test_texts_in_an_entry_cannot_break_its_line(iot, "\ud800")),
        (ConvertsOnEveryValidation, IOT.test_a_validated_entry_can_be_saved_and_restored),
        (KeepsTheClientsObject, IOT.test_a_valid_entry_is_returned_and_not_changed),
        (SumsToInfinity, IOT.test_statistics_are_finite_even_of_extreme_numbers),
        (CountsInFloats, IOT.test_statistics_have_the_same_fields_for_any_window),
        (SharesItsZeros, IOT.test_statistics_leave_the_window_as_it_is_and_share_nothing),
    ],
)
def test_a_wrong_stream_type_is_found(stream_type: type[IotStream], promise: Callable[[IotStream], None]) -> None:
    promise(IotStream())
    with pytest.raises((AssertionError, ValueError)):  # JSON's encoder refuses with the second
        promise(stream_type())
