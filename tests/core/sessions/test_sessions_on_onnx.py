"""Sessions over an ONNX graph live as those over the reference do, on the same weights."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from layerscale_core.conformance.executors import kv_layout, reference_kernels
from layerscale_core.formats import OnnxFormat, SafetensorsFormat
from layerscale_core.formats.onnx import OnnxBackend, OnnxModelFile
from layerscale_core.forward import KernelExecutor
from layerscale_core.specs import BackendOptions, Executor
from tests.support.fake_tokenizer import ByteTokenizer
from tests.support.session_harness import PAGE_SIZE, SessionHarness, make_session_harness
from tests.support.tiny_onnx import save_pair

pytestmark = pytest.mark.xdist_group("transformers")

CONTEXT_LEN = 64


@pytest.fixture(scope="module")
def executors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Executor]]:
    folder = tmp_path_factory.mktemp("pairs") / "llama"
    paths = save_pair(folder, "llama", vocab_size=ByteTokenizer.vocab_size)
    weights, model = SafetensorsFormat().open(paths[0]), OnnxFormat().open(paths[1])
    assert isinstance(model, OnnxModelFile)
    kv = kv_layout(model.spec, PAGE_SIZE, num_pages=2 * (CONTEXT_LEN // PAGE_SIZE + 2) + 32)
    graph = OnnxBackend(model).load(BackendOptions(num_threads=1)).make_executor(model.spec, model.weights, kv)
    reference = KernelExecutor(reference_kernels(), weights.spec, weights.weights, kv)
    yield [graph, reference]
    for opened in (graph, reference, weights, model):
        opened.close()


def live(harness: SessionHarness) -> list[list[int]]:
    """A session whose data outgrow its context, asked and watched by a flash query; requests that share a prompt."""
    session = harness.create(b"Watch the notes.\n", window_size=6, flash=[b"up?"])
    for number in range(24):
        harness.push(session, f"note {number:02}")
        if number % 8 == 3:
            harness.ask(session, b"so?", 4, clears_after=number > 10)
        harness.run()
    for tail in (b"one", b"two", b"one"):
        harness.submit(b"A prompt that several requests share " + tail, 5)
        harness.run()
    assert len(harness.now(session.describe())[1]) < CONTEXT_LEN < 24 * len(b"note 00\n"), "the data must outgrow it"
    answers = [sink.token_ids for sink in harness.sinks.values()]
    [query] = session.flash.queries
    assert query.answer is not None
    harness.check_at_rest()
    return [*answers, list(query.answer.value.encode())]


def test_sessions_forks_shared_prefixes_and_eviction(executors: list[Executor]) -> None:
    graph, reference = (make_session_harness(context_len=CONTEXT_LEN, executor=executor) for executor in executors)
    answers = live(graph)
    assert answers == live(reference)
    assert len(set(map(tuple, answers))) > 3, "the answers must tell questions apart"
    assert graph.num_steps == reference.num_steps
