"""onnxruntime as the backend of one model: the graph that it opens is the only one it computes."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, NoReturn

from layerscale_core.errors import BackendError, ModelFileError, UnsupportedModelError
from layerscale_core.formats.onnx.executor import OnnxExecutor
from layerscale_core.formats.onnx.model import OnnxModelFile
from layerscale_core.host import inspect_host
from layerscale_core.host_device import HostDevice
from layerscale_core.models import ModelSpec
from layerscale_core.specs.backend import BackendOptions, Capabilities, Probe
from layerscale_core.specs.executor import KVLayout, KVType
from layerscale_core.specs.memory import MemoryNeeds, StepLimits
from layerscale_core.specs.model_format import WeightSource

MAX_TOKENS_PER_STEP = 256
"""A graph computes the logits of every token it is given, and one step's are held at once."""

_INSTALL = "pip install 'layerscale-engine[onnx]', or [onnx-gpu] for NVIDIA GPUs"
_CUDA, _CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


class OnnxBackend:
    """``layerscale_core.specs.Backend`` that runs one model's graph."""

    name = "onnxruntime"
    # The cache is in host memory even where the graph runs elsewhere, and there is nothing to offload.
    capabilities = Capabilities(
        page_sizes=(16,), kv_types=(KVType.FP16,), max_tokens_per_step=MAX_TOKENS_PER_STEP, is_host=True
    )

    def __init__(self, model: OnnxModelFile) -> None:
        self._model = model

    def probe(self) -> Probe:
        """Whether onnxruntime is installed."""
        if importlib.util.find_spec("onnxruntime") is None:
            return Probe(0, f"onnxruntime is not installed: {_INSTALL}")
        return Probe(10, "onnxruntime")

    def load(self, options: BackendOptions) -> OnnxDevice:
        """Import onnxruntime."""
        try:
            runtime = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise BackendError(f"an ONNX model needs onnxruntime ({error}): {_INSTALL}") from error
        return OnnxDevice(runtime, self._model, options)


class OnnxDevice(HostDevice):
    """``layerscale_core.specs.Device``: the host, whose memory holds the cache, and the GPU if onnxruntime brings one.

    Args:
        runtime: the module ``onnxruntime``.
    """

    def __init__(self, runtime: Any, model: OnnxModelFile, options: BackendOptions) -> None:
        self._runtime = runtime
        self._model = model
        self._num_threads = options.num_threads
        self._provider = next((name for name in runtime.get_available_providers() if name == _CUDA), _CPU)
        host = inspect_host()
        super().__init__(
            host,
            name="onnxruntime",
            description=f"onnxruntime {runtime.__version__}, {self._provider}, {host.cpu_name}",
            is_accelerator=self._provider != _CPU,
        )

    @property
    def notices(self) -> tuple[str, ...]:
        """That a GPU's memory is not planned."""
        if self._provider == _CPU:
            return ()
        return ("onnxruntime takes GPU memory as it needs it; the memory plan is of host memory alone",)

    def memory_needs(self, spec: ModelSpec, weights: WeightSource, limits: StepLimits) -> MemoryNeeds:  # noqa: ARG002
        """The graph's tensors in one piece, and the largest run."""
        itemsize = self._model.decoder.dtype.itemsize
        attention = spec.layers[0].attention
        kv_size = attention.num_kv_heads * attention.head_dim
        context = limits.max_context_len
        # Keys and values of all layers: gathered, given back, and a third time where runs of rising length leave gaps.
        cache = 3 * itemsize * len(spec.layers) * 2 * kv_size * context
        # One layer's scores in up to five arrays (measured), its keys and values repeated for every query head.
        scores = 4 * attention.num_heads * context * (5 * limits.max_tokens + 2 * attention.head_dim)
        logits = 4 * 2 * limits.max_tokens * spec.vocab_size
        return MemoryNeeds({"graph": self._weights_bytes}, cache + max(scores, logits))

    def make_executor(self, spec: ModelSpec, weights: WeightSource, kv: KVLayout) -> OnnxExecutor:  # noqa: ARG002
        """Open the graph and commit the cache.

        Raises:
            ModelFileError: onnxruntime refuses the graph.
            BackendError: it does not take the GPU that it brings.
        """
        path = str(self._model.graph_path)
        try:
            session = self._runtime.InferenceSession(path, self._session_options(), [self._provider])
        except Exception as error:
            reason = " ".join(str(error).split())
            raise ModelFileError(path, f"onnxruntime refuses it: {reason[:300]}") from error
        if session.get_providers()[0] != self._provider:
            raise BackendError(
                f"onnxruntime cannot use its {self._provider} here; install plain onnxruntime for the CPU"
            )
        try:
            return OnnxExecutor(
                session, self._model.decoder, spec, kv, self._allocator, weights_bytes=self._weights_bytes
            )
        except UnsupportedModelError as error:
            raise UnsupportedModelError(f"{path}: {error}") from error

    def make_kernels(self) -> NoReturn:
        """A graph is computed whole.

        Raises:
            BackendError: always.
        """
        raise BackendError("an ONNX model cannot be divided between devices")

    @property
    def _weights_bytes(self) -> int:
        """Of host memory."""
        return self._model.weights_bytes if self._provider == _CPU else 0

    def _session_options(self) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = 4  # what is wrong comes as an exception
        options.intra_op_num_threads = self._num_threads or 0
        options.enable_mem_pattern = False  # plans for shapes that come again, which contexts do not
        return options
