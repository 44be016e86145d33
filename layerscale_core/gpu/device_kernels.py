"""What all kernels on torch tensors share: memory that is counted, the way to the host, and mixtures of experts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from layerscale_core.elementary import ElementaryKernels
from layerscale_core.errors import OutOfMemoryError
from layerscale_core.gpu.logits import TorchLogits
from layerscale_core.gpu.transfer import Staging, to_device
from layerscale_core.models import Activation, MoeSpec, TemperatureSpec
from layerscale_core.specs.kernels import ExpertWeights
from layerscale_core.specs.memory import Allocator


class DeviceKernels(ElementaryKernels):
    """The part of ``layerscale_core.specs.Kernels`` that does not depend on how weights and cache are laid out.

    Args:
        device: where everything lives.
        allocator: counts every weight and the KV cache.
        dtype: of activations.
    """

    def __init__(self, device: torch.device, allocator: Allocator, dtype: torch.dtype) -> None:
        self._device = device
        self._allocator = allocator
        self._dtype = dtype
        self._held: list[tuple[int, str]] = []
        self._carried = Staging(device)
        self._logits = Staging(device)

    def linear(self, x: Tensor, matrix: Any) -> Tensor:
        """``x @ matrix.T``; what mixtures are made of."""
        raise NotImplementedError

    def gated_activation(self, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        """``activation(gate) * up``."""
        match activation:
            case Activation.SILU:
                return torch.nn.functional.silu(gate) * up
            case Activation.GELU_TANH:
                return torch.nn.functional.gelu(gate, approximate="tanh") * up

    def mixture(self, x: Tensor, router: Tensor, experts: Sequence[ExpertWeights], spec: MoeSpec) -> Tensor:
        """Each expert computes the tokens that chose it; a token's sum runs over its experts in ascending order."""
        scores = self.linear(x.float(), router)
        chosen = scores.sort(dim=-1, descending=True, stable=True).indices[:, : spec.num_active]
        weights = _sigmoid(scores) if spec.is_sigmoid else scores.softmax(-1)
        if spec.is_normalized:
            weights = weights / weights.gather(-1, chosen).sum(-1, keepdim=True)
        output = torch.zeros_like(x)
        choices = chosen.cpu().numpy()  # the only wait for the device
        indices = np.unique(choices).tolist()
        takers = to_device([np.flatnonzero((choices == index).any(-1)) for index in indices], self._device)
        for index, tokens in zip(indices, takers, strict=True):
            expert = experts[index]
            weight = weights[tokens, index, None].to(self._dtype)
            taken = x[tokens] * weight if spec.is_sigmoid else x[tokens]
            gate, up = self.linear(taken, expert.gate), self.linear(taken, expert.up)
            given = self.linear(self.gated_activation(gate, up, spec.expert.activation), expert.down)
            output[tokens] += given if spec.is_sigmoid else given * weight
        return output

    def scaled_by_position(self, x: Tensor, positions: Tensor, temperature: TemperatureSpec) -> Tensor:
        """See ``Kernels.scale_by_position``."""
        intervals = (positions + temperature.offset) // temperature.interval
        factors = 1 + temperature.slope * intervals.double().log1p()
        return x * factors.to(x.dtype)[:, None]

    def to_host(self, x: Tensor) -> NDArray[np.float32]:
        """Wait for the device, and copy; what is returned holds until the next call."""
        host: NDArray[np.float32] = self._carried.take(x.shape).copy_(x).numpy()
        return host

    def step_logits(self, x: Tensor) -> TorchLogits:
        """Wait for the device; rows stay there until they are asked for."""
        likeliest = [token_id if is_finite else None for token_id, is_finite in self.find_likeliest(x).tolist()]
        return TorchLogits(x, self._logits.take(x.shape), likeliest)

    def find_likeliest(self, logits: Tensor) -> Tensor:
        """Each row's likeliest token, of equals the first, and whether all of the row is finite: [rows, 2]."""
        return torch.stack([logits.argmax(-1), logits.isfinite().all(-1).long()], -1)

    def from_host(self, x: NDArray[np.float32]) -> Tensor:
        """Copy."""
        return torch.from_numpy(x).to(self._device, self._dtype)

    def release(self) -> None:
        """Give everything back to the allocator. The tensors live as long as their handles."""
        while self._held:
            self._allocator.release(*self._held.pop())

    @contextmanager
    def _reserved(self, num_bytes: int, label: str) -> Iterator[None]:
        """Count what the body allocates.

        Raises:
            OutOfMemoryError: it is not there, be it by our count or by the device's.
        """
        self._allocator.reserve(num_bytes, label)
        self._held.append((num_bytes, label))
        try:
            yield
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(f"{self._device} refused {num_bytes:,} bytes for {label}: {error}") from error


def _sigmoid(scores: Tensor) -> Tensor:
    """As the softmax of a score and 0: torch's own rounds an element by its place among all, and so by the batch."""
    return torch.stack([scores, torch.zeros_like(scores)], -1).softmax(-1)[..., 0]
