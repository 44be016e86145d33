"""What is measured of a GPU, on what, and how a measurement is kept."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gpu_model import EIGHT_B, TINY

from layerscale_core.models import AttentionSpec, ModelSpec
from layerscale_core.specs import KVLayout

PAGE_SIZE = 16
QUERY_TOKENS, ANSWER_TOKENS = 20, 4


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured on what.

    Attributes:
        prefill_tokens: of a step of prefill, shared among its sequences; each has them at the end of its context.
    """

    spec: ModelSpec
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    prefill_tokens: int
    copied_bytes: int
    matrix_size: int
    repetitions: int

    @property
    def attention(self) -> AttentionSpec:
        """Every layer's."""
        return self.spec.layers[0].attention

    def layout(self, num_pages: int) -> KVLayout:
        """A cache for the model."""
        return KVLayout(
            num_pages, PAGE_SIZE, len(self.spec.layers), self.attention.num_kv_heads, self.attention.head_dim
        )

    def prefill_len(self, batch: int, context: int) -> int:
        """New tokens of each sequence."""
        return min(context, self.prefill_tokens // batch)

    def prefill_operations(self, batch: int, context: int) -> int:
        """Two a weight and token, and what attention takes: each token over the keys up to its own."""
        spec, new = self.spec, self.prefill_len(batch, context)
        weights = spec.num_parameters - spec.vocab_size * spec.hidden_size * (1 if spec.tied_output else 2)
        keys = new * context - new * (new - 1) // 2
        attention = 4 * len(spec.layers) * self.attention.num_heads * self.attention.head_dim * keys
        return batch * (2 * weights * new + attention)


FULL = Plan(EIGHT_B, (1, 8, 32), (512, 8192, 19000), 4096, 1 << 30, 8192, 30)
DRY = Plan(TINY, (1, 3), (17, 40), 24, 1 << 20, 64, 2)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement.

    Attributes:
        part: of the best rate that was reached: copy for decode, matrix product for prefill.
        failure: why there is no time.
    """

    system: str
    weights: str
    work: str
    batch: int
    context: int
    milliseconds: float | None = None
    part: float | None = None
    failure: str | None = None

    def timed(self, seconds: float, floor: float | None = None) -> Figure:
        """With what was measured, beside the seconds that the device needs at best."""
        return replace(self, milliseconds=1e3 * seconds, part=None if floor is None else floor / seconds)

    def failed(self, why: object) -> Figure:
        """Without a time."""
        return replace(self, failure=" ".join(str(why).split())[:300])
