"""The prefix cache: which pages hold the keys and values of which leading tokens."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from layerscale_core.specs.kv_pool import MissReason, PrefixMiss

_MAX_COMPARED = 256
"""Of so many cached continuations, the latest, a miss finds the closest: explaining must not cost more than missing."""

Edge = tuple[str | int, ...]
"""A page's token ids; at the root the namespace stands before them."""


@dataclass(eq=False, slots=True)
class _Node:
    """A page in the tree; its path from the root is the prefix that it ends.

    Attributes:
        page_id: None at the root.
        fingerprint: hash of the path, by which an evicted node is remembered.
    """

    page_id: int | None
    edge: Edge
    parent: _Node | None
    fingerprint: int
    children: dict[Edge, _Node] = field(default_factory=dict)


class PrefixCache:
    """A radix tree over token ids whose edges are whole pages (SGLang, arXiv:2312.07104). Thread: engine.

    A published page is a node: busy while a sequence refers to it, idle afterwards, until it is evicted. A sequence
    gives up its deepest page first, so that what has been idle for longest is a leaf, unless a sequence dropped its
    beginning. Whatever continues a page that goes cannot be found any more, and goes with it.

    Args:
        num_pages: how many evicted pages are remembered, to explain misses.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self._page_size = page_size
        self._root = _Node(None, (), None, 0)
        self._nodes: dict[int, _Node] = {}
        self._idle: OrderedDict[int, _Node] = OrderedDict()  # the first has been idle for longest
        self._evicted: OrderedDict[int, None] = OrderedDict()
        self._max_evicted = num_pages

    @property
    def num_idle(self) -> int:
        """Pages that could be evicted."""
        return len(self._idle)

    def __contains__(self, page_id: int) -> bool:
        return page_id in self._nodes

    @property
    def page_ids(self) -> Iterator[int]:
        """Every page in the tree."""
        return iter(self._nodes)

    @property
    def idle_page_ids(self) -> Iterator[int]:
        """Pages that could be evicted, the first to be evicted first."""
        return iter(self._idle)

    def find(self, token_ids: Sequence[int], namespace: str) -> tuple[list[int], PrefixMiss | None]:
        """The pages of the longest cached prefix that leaves the last token to be computed.

        Returns:
            The pages, and why they are not more; None where all the whole pages were found.
        """
        node = self._root
        page_ids: list[int] = []
        for edge in self._edges(token_ids[:-1], namespace):
            child = node.children.get(edge)
            if child is None:
                return page_ids, self._explain(node, edge, len(page_ids) * self._page_size)
            assert child.page_id is not None
            page_ids.append(child.page_id)
            node = child
        return page_ids, None if page_ids else PrefixMiss(0, MissReason.TOO_SHORT)

    def publish(self, token_ids: Sequence[int], namespace: str, page_ids: Sequence[int]) -> None:
        """Enter a sequence's pages, all busy; those that are in the tree already stay there.

        Where the tree has another page for the same tokens, the sequence's further pages stay its own.
        """
        node = self._root
        for edge, page_id in zip(self._edges(token_ids, namespace), page_ids, strict=False):
            child = node.children.get(edge)
            if child is None:
                assert page_id not in self._nodes, "a page under two prefixes"
                child = _Node(page_id, edge, node, hash((node.fingerprint, edge)))
                node.children[edge] = self._nodes[page_id] = child
                self._evicted.pop(child.fingerprint, None)
            elif child.page_id != page_id:
                return
            node = child

    def mark_busy(self, page_id: int) -> None:
        """A sequence refers to the page from now on."""
        self._idle.pop(page_id, None)

    def mark_idle(self, page_id: int) -> bool:
        """No sequence refers to the page any more; returns whether the tree keeps it."""
        node = self._nodes.get(page_id)
        if node is not None:
            self._idle[page_id] = node
        return node is not None

    def evict(self) -> list[int]:
        """Take the page that has been idle for longest out of the tree; returns the pages that became free."""
        page_id, node = next(iter(self._idle.items()))
        self._evicted[node.fingerprint] = None
        if len(self._evicted) > self._max_evicted:
            self._evicted.popitem(last=False)
        return self.withdraw(page_id)

    def withdraw(self, page_id: int) -> list[int]:
        """Take a page, if it is there, and all that continues it out of the tree; returns those that were idle."""
        idle: list[int] = []
        remaining = [self._nodes[page_id]] if page_id in self._nodes else []
        while remaining:
            node = remaining.pop()
            remaining += node.children.values()
            assert node.page_id is not None
            if self._idle.pop(node.page_id, None) is not None:
                idle.append(node.page_id)
            self._detach(node)
        return idle

    def check_tree(self) -> None:
        """Prove that the tree is whole. Slow: for tests.

        Raises:
            AssertionError: with what is wrong.
        """
        for page_id, node in self._nodes.items():
            parent = node.parent
            assert node.page_id == page_id
            assert parent is not None
            assert parent.children.get(node.edge) is node, "a node its parent does not know"
            assert len(node.edge) == self._page_size + (parent is self._root), "an edge that is not a whole page"
        assert self._idle.keys() <= self._nodes.keys(), "an idle page that is not in the tree"
        num_children = len(self._root.children) + sum(len(node.children) for node in self._nodes.values())
        assert num_children == len(self._nodes), "a node that was taken out is still reachable"

    def _edges(self, token_ids: Sequence[int], namespace: str) -> Iterator[Edge]:
        """The whole pages of a sequence."""
        size = self._page_size
        for start in range(0, len(token_ids) - size + 1, size):
            edge = tuple(token_ids[start : start + size])
            yield (namespace, *edge) if start == 0 else edge

    def _detach(self, node: _Node) -> None:
        assert node.parent is not None
        assert node.page_id is not None
        del node.parent.children[node.edge]
        del self._nodes[node.page_id]

    def _explain(self, node: _Node, edge: Edge, num_found: int) -> PrefixMiss:
        """Why ``edge`` does not continue ``node``."""
        if hash((node.fingerprint, edge)) in self._evicted:
            return PrefixMiss(num_found, MissReason.EVICTED)
        latest = itertools.islice(reversed(node.children), _MAX_COMPARED)
        num_equal = max((_num_equal(edge, other) for other in latest), default=0)
        if node is not self._root:
            reason = MissReason.DIVERGED if node.children else MissReason.NEVER_SEEN
            return PrefixMiss(num_found + num_equal, reason)
        if num_equal > 1:  # the namespace, and a token
            return PrefixMiss(num_equal - 1, MissReason.DIVERGED)
        latest = itertools.islice(reversed(node.children), _MAX_COMPARED)
        elsewhere = any(other[1:] == edge[1:] for other in latest)
        return PrefixMiss(0, MissReason.OTHER_NAMESPACE if elsewhere else MissReason.NEVER_SEEN)


def _num_equal(first: Edge, second: Edge) -> int:
    """Leading elements that two edges share."""
    return next((index for index, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), len(first))
