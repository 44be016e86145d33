"""What our reference and llama.cpp say of the token after a prompt, on the same GGUF file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from layerscale_core.allocator import CountingAllocator
from layerscale_core.conformance.executors import kv_layout, logits_in_chunks
from layerscale_core.formats import GgufFormat, open_model
from layerscale_core.forward import KernelExecutor
from layerscale_core.reference import ReferenceKernels


def reference_logprobs(path: Path, token_ids: list[int]) -> NDArray[np.float64]:
    """What our float32 reference says of the token after the prompt: [vocab_size]."""
    model = open_model(path, [GgufFormat()])
    kv = kv_layout(model.spec, page_size=16)
    kernels = ReferenceKernels(CountingAllocator(2**30, "the test"), kv_dtype=np.float32)
    executor = KernelExecutor(kernels, model.spec, model.weights, kv)
    logits = logits_in_chunks(executor, kv, [token_ids])[-1].astype(np.float64)
    executor.close()
    model.close()
    return logits - np.logaddexp.reduce(logits)


def llama_cpp_logprobs(path: Path, token_ids: list[int]) -> dict[int, float]:
    """The 20 likeliest tokens after the prompt."""
    xllamacpp = pytest.importorskip("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = 512
    params.n_parallel = 1
    params.cpuparams.n_threads = 1
    params.warmup = False
    params.port = 0
    server = xllamacpp.Server(params)
    # Half a character or an end of sequence would come without probabilities. The bias makes it say an exclamation mark
    # and leaves the reported probabilities as they are.
    bias = [["!", 100.0]]
    request = {"prompt": token_ids, "max_tokens": 1, "temperature": 0, "logprobs": 20, "logit_bias": bias}
    [first] = server.handle_completions(request)["choices"][0]["logprobs"]["content"]
    return {token["id"]: token["logprob"] for token in first["top_logprobs"]}
