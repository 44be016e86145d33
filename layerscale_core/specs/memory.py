"""Memory: what is counted, and what a model will take."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MemoryStats:
    """Bytes of one device as its allocator counts them."""

    total_bytes: int
    used_bytes: int

    @property
    def free_bytes(self) -> int:
        """What can still be allocated."""
        return self.total_bytes - self.used_bytes


@dataclass(frozen=True, slots=True)
class StepLimits:
    """The largest step that a plan makes room for.

    Attributes:
        max_tokens: most tokens it computes.
        max_logits: most rows of logits it returns.
        max_context_len: most tokens that one of its sequences attends to.
    """

    max_tokens: int
    max_logits: int
    max_context_len: int


@dataclass(frozen=True, slots=True)
class MemoryNeeds:
    """What a model takes of a device beside its KV cache.

    Attributes:
        weights: bytes of each weight as the device holds it, by canonical name.
        workspace_bytes: intermediate results of the largest step.
    """

    weights: Mapping[str, int]
    workspace_bytes: int

    @property
    def weights_bytes(self) -> int:
        """Bytes of all weights."""
        return sum(self.weights.values())


class Allocator(Protocol):
    """The device's memory. Everything a backend keeps on the device is counted here."""

    def reserve(self, num_bytes: int, label: str) -> None:
        """Count ``num_bytes`` as used by ``label``.

        Raises:
            OutOfMemoryError: it does not fit; names the label and both numbers. Nothing is reserved then.
        """
        ...

    def release(self, num_bytes: int, label: str) -> None:
        """Give back what was reserved under ``label``."""
        ...

    def stats(self) -> MemoryStats:
        """The counts now."""
        ...
