"""A layer's weights on a device, grouped as the operations of the kernel spec take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from layerscale_core.models import Matrix, MlpSpec, ModelSpec, MoeSpec
from layerscale_core.models import spec as names
from layerscale_core.specs.kernels import AttentionWeights, ExpertWeights, Kernels, MlpWeights
from layerscale_core.specs.model_format import WeightSource


@dataclass(frozen=True, slots=True)
class MixtureWeights:
    """What a layer's mixture of experts is, and handles of what it takes.

    Attributes:
        eps: of its norms.
        norm: of its inputs.
        shared: the expert that computes every token, over the same norm; None: there is none.
        post_norm: of its sum; None: the layer has none.
    """

    spec: MoeSpec
    eps: float
    norm: Any
    router: Any
    experts: tuple[ExpertWeights, ...]
    shared: MlpWeights | None
    post_norm: Any | None


class LayerLoader:
    """Takes one layer's weights onto the device that the kernels compute on.

    Its methods raise ``OutOfMemoryError`` where they do not fit; the kernels' ``release`` gives back what was taken.
    """

    def __init__(self, kernels: Kernels, weights: WeightSource, index: int, spec: ModelSpec) -> None:
        self._kernels = kernels
        self._weights = weights
        self._index = index
        self._layer = spec.layers[index]
        self._eps = spec.norm_eps

    def attention(self) -> AttentionWeights:
        """What attention takes."""
        spec = self._layer.attention
        return AttentionWeights(
            spec,
            self._eps,
            norm=self._vector(names.ATTENTION_NORM),
            qkv=self._stack(names.QUERY, names.KEY, names.VALUE),
            biases=self._biases() if spec.has_biases else None,
            query_norm=self._vector(names.QUERY_NORM) if spec.has_qk_norm else None,
            key_norm=self._vector(names.KEY_NORM) if spec.has_qk_norm else None,
            output=self._matrix(names.ATTENTION_OUTPUT),
            post_norm=self._vector(names.ATTENTION_POST_NORM) if self._layer.has_post_norms else None,
        )

    def mlp(self) -> MlpWeights | MixtureWeights:
        """What the second half of the layer takes."""
        spec, eps, norm = self._layer.mlp, self._eps, self._vector(names.MLP_NORM)
        post_norm = self._vector(names.MLP_POST_NORM) if self._layer.has_post_norms else None
        if isinstance(spec, MoeSpec):
            experts = tuple(self._expert(expert) for expert in range(spec.num_experts))
            shared = None if spec.shared is None else self._shared(spec.shared, norm)
            router = self._kernels.load_router(self._source(names.ROUTER))
            return MixtureWeights(spec, eps, norm, router, experts, shared, post_norm)
        return MlpWeights(spec, eps, norm, self._stack(names.GATE, names.UP), self._matrix(names.DOWN), post_norm)

    def _shared(self, spec: MlpSpec, norm: Any) -> MlpWeights:
        gate, up, down = (names.shared_weight(name) for name in (names.GATE, names.UP, names.DOWN))
        return MlpWeights(spec, self._eps, norm, self._stack(gate, up), self._matrix(down), None)

    def _expert(self, expert: int) -> ExpertWeights:
        gate, up, down = (names.expert_weight(expert, name) for name in (names.GATE, names.UP, names.DOWN))
        return ExpertWeights(self._matrix(gate), self._matrix(up), self._matrix(down))

    def _biases(self) -> tuple[Any, Any, Any]:
        return self._vector(names.QUERY_BIAS), self._vector(names.KEY_BIAS), self._vector(names.VALUE_BIAS)

    def _matrix(self, name: str) -> Any:
        return self._kernels.load_matrix(self._source(name))

    def _stack(self, *stacked: str) -> Any:
        return self._kernels.load_stack([self._source(name) for name in stacked])

    def _source(self, name: str) -> Matrix:
        return self._weights.matrix(names.layer_weight(self._index, name))

    def _vector(self, name: str) -> Any:
        return self._kernels.load_vector(self._weights.vector(names.layer_weight(self._index, name)))
