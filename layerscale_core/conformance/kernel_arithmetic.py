"""The kernels that compute on activations and weights, one by one, against the reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from layerscale_core.conformance.random_model import LAYOUTS
from layerscale_core.conformance.side_by_side import MANY_TOKENS, Floats, SideBySide, matrix_batch, take
from layerscale_core.models import Activation, DenseMatrix, Matrix, MlpSpec, MoeSpec, RopeSpec
from layerscale_core.specs import ExpertWeights, Kernels

SHAPES = ((5, 32), (3, 64), (131, 96), (64, 160), (40, 576))
"""Rows and columns of matrices: columns are whole groups, as every quantised format has them."""

ODD_SHAPES = ((5, 40), (131, 56), (17, 20))
"""For unquantised weights, whose columns are no groups."""

ROPES: dict[str, tuple[int, RopeSpec]] = {
    "narrow": (16, RopeSpec(tuple(10_000.0 ** (-pair / 8) for pair in range(8)))),
    "odd width": (20, RopeSpec(tuple(10_000.0 ** (-pair / 10) for pair in range(10)))),
    "wide": (128, RopeSpec(tuple(500_000.0 ** (-pair / 64) for pair in range(64)))),
    "interleaved": (16, RopeSpec(tuple(10_000.0 ** (-pair / 8) for pair in range(8)), interleaved=True)),
    "partial": (16, RopeSpec((1.0, 0.1, 0.01))),
    "partial, interleaved, with magnitude": (16, RopeSpec((1.0, 0.1, 0.01), magnitude=1.2, interleaved=True)),
    "none": (16, RopeSpec(())),
}
"""Width of a head, and its rotation."""


def random_matrix(layout: str, rows: int, cols: int, seed: int = 0) -> Matrix:
    """Weights of a layout that keep activations near 1."""
    return LAYOUTS[layout].random(np.random.default_rng(seed), (rows, cols), cols**-0.5)


def load(kernels: Kernels, vector: Floats) -> Any:
    """A vector on the device."""
    return kernels.load_vector(vector.copy())


class ArithmeticContract:
    """Each operation equals the reference, at shapes below, at and beyond a tile, and in every layout of weights."""

    @pytest.mark.parametrize("num_tokens", MANY_TOKENS)
    def test_activations_cross_to_the_host_and_back(self, both: SideBySide, num_tokens: int) -> None:
        """``from_host`` and ``to_host``: the same numbers, as float32, up to the compute dtype's rounding."""
        x = np.random.default_rng(0).standard_normal((num_tokens, 48), np.float32)
        both.compare(lambda kernels: kernels.from_host(x.copy()))
        np.testing.assert_array_equal(both.run(lambda kernels: kernels.from_host(both.random(3, 5))), both.random(3, 5))

    @pytest.mark.parametrize("layout", LAYOUTS)
    def test_embed(self, both: SideBySide, layout: str) -> None:
        """``embed``: the rows of the step's tokens, in their order."""
        matrix, batch = random_matrix(layout, 97, 96), matrix_batch(17)
        both.compare(lambda kernels: kernels.embed(kernels.load_matrix(matrix), kernels.begin_step(batch)))

    @pytest.mark.parametrize("num_tokens", MANY_TOKENS)
    @pytest.mark.parametrize("parts", [1, 3])
    def test_rms_norm(self, both: SideBySide, num_tokens: int, parts: int) -> None:
        """``rms_norm``: each part as wide as the weight for itself; x stays as it was."""
        x, weight = both.random(num_tokens, 40 * parts), both.random(40, seed=1)
        given: list[Any] = []

        def norm(kernels: Kernels) -> Any:
            given[:] = [take(kernels, x)]
            return kernels.rms_norm(given[0], load(kernels, weight), 1e-5)

        both.compare(norm)
        np.testing.assert_array_equal(both.kernels.to_host(given[0]), x)

    @pytest.mark.parametrize("layout", LAYOUTS)
    @pytest.mark.parametrize("num_tokens", [1, 3, 17])
    def test_linear_in_every_layout(self, both: SideBySide, layout: str, num_tokens: int) -> None:
        """``linear``: on the dequantised weights."""
        matrix = random_matrix(layout, 131, 96)
        x = both.random(num_tokens, 96, seed=1)
        both.compare(lambda kernels: kernels.linear(take(kernels, x), kernels.load_matrix(matrix)))

    @pytest.mark.parametrize("num_tokens", MANY_TOKENS)
    @pytest.mark.parametrize("shape", SHAPES, ids=str)
    @pytest.mark.parametrize("layout", ["f32", "bf16", "8-bit, groups of 32", "4-bit, groups of 32, mins"])
    def test_linear_in_every_shape(
        self, both: SideBySide, layout: str, shape: tuple[int, int], num_tokens: int
    ) -> None:
        """``linear``: few rows, odd numbers of them, more columns than a tile."""
        matrix, x = random_matrix(layout, *shape), both.random(num_tokens, shape[1], seed=1)
        both.compare(lambda kernels: kernels.linear(take(kernels, x), kernels.load_matrix(matrix)))

    @pytest.mark.parametrize("shape", ODD_SHAPES, ids=str)
    def test_linear_in_odd_shapes(self, both: SideBySide, shape: tuple[int, int]) -> None:
        """``linear``: columns that no group divides, where weights are not quantised."""
        matrix, x = random_matrix("f32", *shape), both.random(9, shape[1], seed=1)
        both.compare(lambda kernels: kernels.linear(take(kernels, x), kernels.load_matrix(matrix)))

    @pytest.mark.parametrize("layout", ["f32", "8-bit, groups of 32", "4-bit, groups of 32"])
    def test_a_row_of_a_product_does_not_depend_on_its_neighbours(self, both: SideBySide, layout: str) -> None:
        """``Executor.step``: logits do not depend on neighbours, so that no kernel may let a row."""
        matrix = both.kernels.load_matrix(random_matrix(layout, 131, 160))
        x = both.random(19, 160)
        together = both.run(lambda kernels: kernels.linear(take(kernels, x), matrix))
        for row in (0, 1, 7, 18):
            alone = both.kernels.linear(take(both.kernels, x[row : row + 1]), matrix)
            np.testing.assert_array_equal(both.kernels.to_host(alone)[0], together[row])

    @pytest.mark.parametrize("rope", ROPES)
    @pytest.mark.parametrize("first_position", [0, 100_000])
    def test_rope(self, both: SideBySide, rope: str, first_position: int) -> None:
        """``rope``: near position 0 and far from it, where a float32 angle would be wrong already."""
        (head_dim, spec), batch = ROPES[rope], matrix_batch(9, first_position=first_position)
        x = both.random(9, 3 * head_dim)
        both.compare(lambda kernels: kernels.rope(take(kernels, x), kernels.begin_step(batch), 3, head_dim, spec))

    @pytest.mark.parametrize("activation", Activation)
    def test_gated_activation(self, both: SideBySide, activation: Activation) -> None:
        """``gated_activation``: also where the activation saturates."""
        gate, up = both.random(9, 56, deviation=3.0), both.random(9, 56, seed=1)
        both.compare(lambda kernels: kernels.gated_activation(take(kernels, gate), take(kernels, up), activation))
        far = np.array([[-1e4, -100, 0, 100, 1e4]], np.float32)
        gated = both.run(
            lambda kernels: kernels.gated_activation(take(kernels, far), take(kernels, np.ones_like(far)), activation)
        )
        np.testing.assert_allclose(gated, [[0, 0, 0, 100, 1e4]], rtol=both.max_relative_error, atol=1e-3)

    def test_add(self, both: SideBySide) -> None:
        """``add``: a matrix, or a vector to every row."""
        x, y, bias = both.random(9, 56), both.random(9, 56, seed=1), both.random(56, seed=2)
        both.compare(lambda kernels: kernels.add(take(kernels, x), take(kernels, y)))
        both.compare(lambda kernels: kernels.add(take(kernels, x), load(kernels, bias)))

    def test_scale_and_softcap(self, both: SideBySide) -> None:
        """``scale`` and ``softcap``."""
        x = both.random(9, 56)
        both.compare(lambda kernels: kernels.scale(take(kernels, x), 8.5))
        both.compare(lambda kernels: kernels.softcap(take(kernels, x), 0.7))

    @pytest.mark.parametrize("is_normalized", [True, False])
    @pytest.mark.parametrize("num_tokens", [1, 9])
    def test_mixture(self, both: SideBySide, is_normalized: bool, num_tokens: int) -> None:
        """``mixture``: the sum of the best experts' outputs by their weights."""
        spec = MoeSpec(5, 2, MlpSpec(48), is_normalized)
        x, router = both.random(num_tokens, 64), random_matrix("f32", 5, 64, seed=9)
        both.compare(lambda kernels: _mixture(kernels, x, router, spec))

    def test_of_equal_scores_the_first_experts_win(self, both: SideBySide) -> None:
        """``mixture``: whatever the order in which a kernel looks at them."""
        spec = MoeSpec(5, 2, MlpSpec(48), is_normalized=True)
        router = DenseMatrix(np.zeros((5, 64), np.float32))
        both.compare(lambda kernels: _mixture(kernels, both.random(3, 64), router, spec))

    def test_experts_that_score_nearly_alike_are_told_apart(self, both: SideBySide) -> None:
        """``load_router``: scores are float32 where products are not; rounded to 16 bits these are equal."""
        factors = np.array([[1], [1 + 2**-11], [1 + 2**-12]], np.float32)
        router = DenseMatrix(np.broadcast_to(factors, (3, 64)).copy())
        x = np.abs(both.random(3, 64))  # a sum without cancellation
        both.compare(lambda kernels: _mixture(kernels, x, router, MoeSpec(3, 1, MlpSpec(48), is_normalized=True)))

    def test_logits_read_as_an_array_wherever_they_stay(self, both: SideBySide) -> None:
        """``step_logits``: of each row the first of the largest and whether it is finite, and rows when asked."""
        values = both.random(6, 301)
        values[0, [7, 9, 300]] = 100
        values[2, 300], values[3, 0], values[4, 150] = np.nan, np.inf, -np.inf
        logits = both.kernels.step_logits(take(both.kernels, values))
        if not isinstance(logits, np.ndarray):
            assert logits.likeliest == [7, int(values[1].argmax()), None, None, None, int(values[5].argmax())]
        assert logits.shape == values.shape
        np.testing.assert_array_equal(logits[1], values[1])
        np.testing.assert_array_equal(logits.copy(), values)

    def test_select(self, both: SideBySide) -> None:
        """``select``: the wanted rows in order."""
        x, batch = both.random(9, 40), replace(matrix_batch(9), logits_indices=np.array([0, 3, 8], np.int32))
        np.testing.assert_array_equal(
            both.run(lambda kernels: kernels.select(take(kernels, x), kernels.begin_step(batch))), x[[0, 3, 8]]
        )


def _mixture(kernels: Kernels, x: Floats, router: Matrix, spec: MoeSpec) -> Any:
    size, hidden = spec.expert.intermediate_size, x.shape[1]
    experts = [
        ExpertWeights(
            *(
                kernels.load_matrix(random_matrix("f32", *shape, seed=3 * expert + part))
                for part, shape in enumerate([(size, hidden), (size, hidden), (hidden, size)])
            )
        )
        for expert in range(spec.num_experts)
    ]
    return kernels.mixture(take(kernels, x), kernels.load_router(router), experts, spec)
