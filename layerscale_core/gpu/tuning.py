"""What a device's kernels are tuned by, as data that vendor packages hand in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Launch:
    """How the compiler lays a program out.

    Attributes:
        num_warps: groups of threads a program.
        num_stages: tiles in flight in loops over memory.
        options: further options of a vendor's compiler, by name.
    """

    num_warps: int = 4
    num_stages: int = 2
    options: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ProductTile:
    """A tile of a matrix product, for steps of up to some number of tokens. Sizes are powers of two, at least 16."""

    max_tokens: int
    tokens: int
    launch: Launch = Launch()


@dataclass(frozen=True, slots=True)
class AttentionTile:
    """Queries that a program takes at once, tokens times heads of a group, for sequences of up to some new tokens."""

    max_tokens: int
    queries: int
    launch: Launch = Launch()


@dataclass(frozen=True, slots=True)
class Tuning:
    """Sizes that decide a device's speed.

    Those marked (*) also decide the order of sums. They are the same for every batch, so that a token's result does not
    depend on what else is in it.

    Attributes:
        rows: weight rows in a tile of a product (*).
        columns: columns that a product's tile takes at a time (*); a multiple of 32.
        stretch: columns that a product sums at a stretch (*), and the most that a program does of a split tile.
        products: tiles by number of tokens, ascending; the last serves all larger steps.
        keys: places of the KV cache that attention reads at a time (*), for heads up to 128 wide; wider ones take half.
        partition: places whose softmax is taken by itself (*), and the most that a program does of a split tile; a
            multiple of ``keys``.
        attention: tiles by the longest run of new tokens of a sequence, ascending.
        target_programs: programs that fill the device; tiles are split while there are fewer.
        sharing: attention's programs where it is split, in units of those that fill the device; with more than one unit
            unequal contexts even out.
    """

    rows: int = 64
    columns: int = 64
    stretch: int = 1024
    products: tuple[ProductTile, ...] = (
        ProductTile(16, 16),
        ProductTile(2**31, 64, Launch(num_warps=8)),
    )
    keys: int = 64
    partition: int = 512
    attention: tuple[AttentionTile, ...] = (AttentionTile(1, 16), AttentionTile(2**31, 32))
    target_programs: int = 264
    sharing: int = 4

    def product_tile(self, num_tokens: int) -> ProductTile:
        """The tile for a step of so many tokens."""
        return next((tile for tile in self.products if num_tokens <= tile.max_tokens), self.products[-1])

    def attention_tile(self, num_tokens: int) -> AttentionTile:
        """The tile for sequences of at most so many new tokens."""
        return next((tile for tile in self.attention if num_tokens <= tile.max_tokens), self.attention[-1])

    def keys_at_a_time(self, width: int) -> int:
        """Places that attention reads at a time for heads of a width."""
        return self.keys if width <= 128 else self.keys // 2


PORTABLE = Tuning()
"""Fits every device that the kernels are compiled for, and is the best of none."""
