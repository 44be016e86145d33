"""Exported decoders compute, over our pages, what the reference computes from the same weights."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from layerscale_core.conformance import PageBook, Span
from layerscale_core.conformance.executors import (
    cut,
    kv_layout,
    logits_in_chunks,
    random_tokens,
    reference_kernels,
    relative_error,
)
from layerscale_core.errors import BackendError, StepError, UnsupportedModelError
from layerscale_core.formats import OnnxFormat, SafetensorsFormat
from layerscale_core.formats.onnx import OnnxBackend, OnnxModelFile
from layerscale_core.formats.onnx.backend import OnnxDevice
from layerscale_core.forward import KernelExecutor
from layerscale_core.models import ModelSpec
from layerscale_core.specs import BackendOptions, Device, Executor, KVLayout, PageRange, StepLimits
from tests.support.tiny_folder import write_json
from tests.support.tiny_onnx import save_pair

pytestmark = pytest.mark.xdist_group("transformers")

TOLERANCE = 2e-3
"""Both caches hold 16 bits; the graph sees a chunk's own keys before they are rounded, the reference after."""

PAGE_SIZE = 16


@dataclass(frozen=True)
class Pair:
    """One model, by its graph and by its weights."""

    spec: ModelSpec
    kv: KVLayout
    device: Device
    executor: Executor
    truth: Executor

    def compare(self, logits_of: Callable[[Executor], np.ndarray], tolerance: float = TOLERANCE) -> None:
        assert relative_error(logits_of(self.executor), logits_of(self.truth)) <= tolerance


def open_graph(folder: Path) -> OnnxModelFile:
    model = OnnxFormat().open(folder)
    assert isinstance(model, OnnxModelFile)
    return model


@pytest.fixture(scope="module", params=["llama", "mistral", "qwen3"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_pair(tmp_path_factory.mktemp("pairs") / request.param, request.param)


@pytest.fixture(scope="module")
def pair(folders: tuple[Path, Path]) -> Iterator[Pair]:
    weights, model = SafetensorsFormat().open(folders[0]), open_graph(folders[1])
    assert model.spec == weights.spec
    kv = kv_layout(model.spec, PAGE_SIZE)
    device = OnnxBackend(model).load(BackendOptions(num_threads=2))
    truth = KernelExecutor(reference_kernels(), weights.spec, weights.weights, kv)
    executor = device.make_executor(model.spec, model.weights, kv)
    yield Pair(model.spec, kv, device, executor, truth)
    executor.close()
    executor.close()
    assert device.allocator.stats().used_bytes == 0
    model.close()
    weights.close()


@pytest.fixture
def prompt(pair: Pair) -> list[int]:
    return random_tokens(pair.spec, 53)


@pytest.mark.parametrize("sizes", [(), (20, 17), (1,) * 20, (16, 16), (52,)], ids=str)
def test_equals_the_reference_in_any_chunks(pair: Pair, prompt: list[int], sizes: tuple[int, ...]) -> None:
    pair.compare(lambda executor: logits_in_chunks(executor, pair.kv, cut(prompt, *sizes)))


def test_positions_are_those_of_the_batch(pair: Pair, prompt: list[int]) -> None:
    chunks = cut(prompt, 20, 30)
    near, far = (logits_in_chunks(pair.executor, pair.kv, chunks, position_gap=gap) for gap in (0, 100))
    assert relative_error(far, near) > 10 * TOLERANCE
    pair.compare(lambda executor: logits_in_chunks(executor, pair.kv, chunks, position_gap=100))


def test_neighbours_change_nothing(pair: Pair, prompt: list[int]) -> None:
    chunks = cut(prompt, 20, 1, 1, 3)
    alone = logits_in_chunks(pair.executor, pair.kv, chunks)
    book = PageBook(pair.kv, seed=1)
    sequence, neighbours = book.sequence(), [book.sequence() for _ in range(3)]
    rows = []
    for index, chunk in enumerate(chunks):
        spans = [Span(each, random_tokens(pair.spec, 1 + number)) for number, each in enumerate(neighbours)]
        spans.insert(index % 3, Span(sequence, chunk, all_logits=True))
        logits = pair.executor.step(book.batch(spans))
        rows.append(logits[index % 3 :][: len(chunk)].copy())
    np.testing.assert_array_equal(np.concatenate(rows), alone)


def test_where_no_logits_are_wanted_keys_are_written_all_the_same(pair: Pair, prompt: list[int]) -> None:
    book = PageBook(pair.kv)
    sequence = book.sequence()
    assert pair.executor.step(book.batch([Span(sequence, prompt[:30])], wanted=[])).shape == (0, pair.spec.vocab_size)
    logits = pair.executor.step(book.batch([Span(sequence, prompt[30:])], wanted=[0, 2]))
    np.testing.assert_array_equal(logits, logits_in_chunks(pair.executor, pair.kv, cut(prompt, 30))[[30, 32]])


def test_dropped_tokens_are_not_seen(pair: Pair, prompt: list[int]) -> None:
    def logits_of(executor: Executor) -> np.ndarray:
        book = PageBook(pair.kv)
        sequence = book.sequence()
        executor.step(book.batch([Span(sequence, prompt)]))
        first, second, *rest = sequence.pages
        sequence.pages = [PageRange(first.page_id, 5, first.stop), PageRange(second.page_id, 0, 9), *rest]
        return executor.step(book.batch([Span(sequence, [7, 8, 9], True)])).copy()

    pair.compare(logits_of)


def test_a_fork_is_its_own(pair: Pair, prompt: list[int]) -> None:
    book = PageBook(pair.kv)
    original = book.sequence()
    pair.executor.step(book.batch([Span(original, prompt)]))
    fork = replace(original, pages=[replace(page, page_id=book.take_page()) for page in original.pages])
    ids, copies = (np.array([page.page_id for page in each.pages], np.int32) for each in (original, fork))
    pair.executor.copy_pages(ids, copies)
    np.testing.assert_array_equal(pair.executor.read_pages(copies), pair.executor.read_pages(ids))
    pair.executor.step(book.batch([Span(fork, [5])]))
    logits = pair.executor.step(book.batch([Span(original, [6])]))
    np.testing.assert_array_equal(logits, logits_in_chunks(pair.executor, pair.kv, [prompt, [6]])[-1:])


def test_shifted_keys_are_those_of_the_shifted_positions(pair: Pair, prompt: list[int]) -> None:
    def logits_of(executor: Executor, delta: int, further: int = 0) -> np.ndarray:
        book = PageBook(pair.kv)
        sequence = book.sequence()
        sequence.next_position = 200 + further
        executor.step(book.batch([Span(sequence, prompt)]))
        executor.shift_positions(np.array([page.page_id for page in sequence.pages], np.int32), delta)
        sequence.next_position += delta
        return executor.step(book.batch([Span(sequence, [7, 8, 9], True)])).copy()

    assert relative_error(logits_of(pair.executor, -150), logits_of(pair.truth, 0, -150)) <= TOLERANCE


def test_pages_leave_and_return(pair: Pair, prompt: list[int]) -> None:
    book = PageBook(pair.kv)
    sequence = book.sequence()
    pair.executor.step(book.batch([Span(sequence, prompt)]))
    ids = np.array([page.page_id for page in sequence.pages], np.int32)
    content = pair.executor.read_pages(ids)
    pair.executor.write_pages(ids, np.zeros_like(content))
    assert not pair.executor.read_pages(ids).any()
    pair.executor.write_pages(ids, content)
    with pytest.raises(ValueError, match="bytes are not the content"):
        pair.executor.write_pages(ids, content[:, 1:])
    logits = pair.executor.step(book.batch([Span(sequence, [6])]))
    np.testing.assert_array_equal(logits, logits_in_chunks(pair.executor, pair.kv, [prompt, [6]])[-1:])
    assert "16 tokens" in pair.executor.kv_fingerprint
    assert pair.executor.kv_fingerprint.startswith("onnx 1")


def test_what_it_holds_is_planned(pair: Pair) -> None:
    held = pair.device.allocator.stats().used_bytes
    model = pair.device.memory_needs(pair.spec, None, StepLimits(64, 4, 256))  # type: ignore[arg-type]
    assert held == model.weights_bytes + pair.kv.total_bytes
    assert model.workspace_bytes > 0


def test_a_failed_run_is_a_step_error(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no more memory")

    monkeypatch.setattr(pair.executor, "_run", fail)
    book = PageBook(pair.kv)
    with pytest.raises(StepError, match="no more memory"):
        pair.executor.step(book.batch([Span(book.sequence(), [1])]))


def test_keys_that_turn_in_another_way_than_described_are_refused(folders: tuple[Path, Path]) -> None:
    config = folders[1] / "config.json"
    text = config.read_text()
    try:
        write_json(config, {**json.loads(text), "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}})
        model = open_graph(folders[1])
        device = OnnxBackend(model).load(BackendOptions())
        with pytest.raises(UnsupportedModelError, match="does not keep its keys rotated"):
            device.make_executor(model.spec, model.weights, kv_layout(model.spec, PAGE_SIZE))
        assert device.allocator.stats().used_bytes == 0
        model.close()
    finally:
        config.write_text(text)


class PretendsToHaveCuda:
    """onnxruntime with a provider that it cannot load after all, as without the right drivers."""

    __version__ = "0"

    def __init__(self, runtime: object) -> None:
        self._runtime = runtime

    def __getattr__(self, name: str) -> object:
        return getattr(self._runtime, name)

    def get_available_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def InferenceSession(self, path: str, options: object, providers: list[str]) -> object:
        assert providers == ["CUDAExecutionProvider"]
        return self._runtime.InferenceSession(path, options, ["CPUExecutionProvider"])  # type: ignore[attr-defined]


def test_a_gpu_that_cannot_be_used_is_an_error_and_no_silent_fallback(folders: tuple[Path, Path]) -> None:
    import onnxruntime  # noqa: PLC0415

    model = open_graph(folders[1])
    device = OnnxDevice(PretendsToHaveCuda(onnxruntime), model, BackendOptions())
    assert device.infos[0].is_accelerator
    assert "GPU memory" in device.notices[0]
    with pytest.raises(BackendError, match="cannot use its CUDAExecutionProvider"):
        device.make_executor(model.spec, model.weights, kv_layout(model.spec, PAGE_SIZE))
    with pytest.raises(BackendError, match="cannot be divided"):
        device.make_kernels()
    model.close()
