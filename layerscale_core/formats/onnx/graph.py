"""What an ONNX file says before anything runs it: inputs, outputs, and where every tensor lies.

A runtime would follow a path to anywhere and believe any size, so both are checked here, in every graph within the
graph too. Source: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from layerscale_core.errors import UnsupportedModelError
from layerscale_core.formats.onnx.protobuf import Fields, Span

MAX_DIMS = 8
MAX_DIM = 2**40

DOMAINS = frozenset({"", "ai.onnx", "com.microsoft"})
"""Where operators may come from: the standard, and the runtime's own."""

_REFUSED_OPERATORS = frozenset({"EPContext"})
"""Operators that load a file which a path in the graph names."""

_BITS = (
    dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8)
    | dict.fromkeys((4, 5, 10, 16), 16)
    | dict.fromkeys((1, 6, 12), 32)
    | dict.fromkeys((7, 11, 13, 14), 64)
    | dict.fromkeys((21, 22, 23), 4)
    | {15: 128}
)
"""Of an element, by the number of its type."""

_DTYPES = {1: "float32", 7: "int64", 10: "float16"}
_EXTERNAL = 1
_TYPED_CONTENT = (4, 5, 7, 10, 11)


@dataclass(frozen=True, slots=True)
class Port:
    """An input or an output.

    Attributes:
        dtype: None where it is none that a decoder's ports have here.
        shape: None for a dimension that is free.
    """

    name: str
    dtype: np.dtype[np.generic] | None
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor's content lies.

    Attributes:
        file: the name of a file beside the graph's own; None: within the graph's.
    """

    name: str
    file: str | None
    offset: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Graph:
    """A model's outside, and its tensors."""

    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]
    tensors: tuple[StoredTensor, ...]


def read_graph(root: Span) -> Graph:
    """The graph of a model file.

    Raises:
        ModelFileError: corrupt, or it names files outside of its folder or sizes that its content does not have.
        UnsupportedModelError: operators of another origin, or tensors of a type that is not known.
    """
    model = root.fields()
    graphs = model.spans(7)
    if len(graphs) != 1:
        root.fail("not an ONNX model: it has no graph")
    graph = graphs[0].fields()
    tensors = [*_tensors_of_graph(graph)]
    for function in model.spans(25):
        tensors += _tensors_of_nodes(function.fields(), 7)
    own = {tensor.name for tensor in tensors}
    inputs = {port.name: port for port in map(_port, graph.spans(11)) if port.name not in own}
    outputs = {port.name: port for port in map(_port, graph.spans(12))}
    return Graph(inputs, outputs, tuple(tensors))


def _tensors_of_graph(graph: Fields) -> Iterator[StoredTensor]:
    for tensor in graph.spans(5):
        yield _tensor(tensor)
    for sparse in graph.spans(15):
        yield from _tensors_of_sparse(sparse.fields())
    yield from _tensors_of_nodes(graph, 1)


def _tensors_of_nodes(owner: Fields, number: int) -> Iterator[StoredTensor]:
    for span in owner.spans(number):
        node = span.fields()
        operator, domain = node.text(4), node.text(7)
        if domain not in DOMAINS or operator in _REFUSED_OPERATORS:
            name = f"{domain}.{operator}" if domain else operator
            raise UnsupportedModelError(f"{span.file.path}: the operator {name[:80]!r} is not run")
        for attribute in node.spans(5):
            yield from _tensors_of_attribute(attribute.fields())


def _tensors_of_attribute(attribute: Fields) -> Iterator[StoredTensor]:
    for tensor in (*attribute.spans(5), *attribute.spans(10)):
        yield _tensor(tensor)
    for graph in (*attribute.spans(6), *attribute.spans(11)):
        yield from _tensors_of_graph(graph.fields())
    for sparse in (*attribute.spans(22), *attribute.spans(23)):
        yield from _tensors_of_sparse(sparse.fields())


def _tensors_of_sparse(sparse: Fields) -> Iterator[StoredTensor]:
    for tensor in (*sparse.spans(1), *sparse.spans(2)):
        yield _tensor(tensor)


def _tensor(span: Span) -> StoredTensor:
    fields = span.fields()
    name, data_type = fields.text(8), fields.integer(2)
    if data_type not in _BITS:
        raise UnsupportedModelError(f"{span.file.path}: tensor {name[:80]!r} is of the unknown type {data_type}")
    dims = fields.integers(1)
    if len(dims) > MAX_DIMS or any(dim > MAX_DIM for dim in dims):
        span.fail("its dimensions make no sense", name[:80])
    num_bytes = -(-math.prod(dims) * _BITS[data_type] // 8)
    if fields.integer(14) == _EXTERNAL or fields.spans(13):
        return _external_tensor(span, fields, name, num_bytes)
    content = fields.values.get(9) or [value for number in _TYPED_CONTENT for value in fields.values.get(number, ())]
    found = sum(1 if isinstance(each, int) else each.num_bytes for each in content)
    # Raw content has just its size; elsewhere a number takes a byte or more, and may hold two elements of 4 bits.
    if found != num_bytes if 9 in fields.values else math.prod(dims) > 2 * found:
        span.fail(f"its dimensions ask for {num_bytes:,} bytes, there are {found:,}", name[:80])
    first = next((each.start for each in content if isinstance(each, Span)), span.start)
    return StoredTensor(name, None, first, found)


def _external_tensor(span: Span, fields: Fields, name: str, num_bytes: int) -> StoredTensor:
    entries = {entry.text(1): entry.text(2) for entry in (each.fields() for each in fields.spans(13))}
    location = entries.get("location", "")
    if Path(location).name != location or location in ("", "..") or "\0" in location or "\\" in location:
        span.fail("its content is not in a file of this folder", name[:80])
    offset, length = entries.get("offset", "0"), entries.get("length", str(num_bytes))
    if not all(number.isascii() and number.isdecimal() and len(number) < 19 for number in (offset, length)):
        span.fail("the place of its content is not a number", name[:80])
    if int(length) != num_bytes:
        span.fail(f"its dimensions ask for {num_bytes:,} bytes, it is said to have {int(length):,}", name[:80])
    return StoredTensor(name, location, int(offset), num_bytes)


def _port(span: Span) -> Port:
    fields = span.fields()
    dtype: str | None = None
    shape: tuple[int | None, ...] = ()
    for type_span in fields.spans(2):
        for tensor_span in type_span.fields().spans(1):
            tensor = tensor_span.fields()
            dtype = _DTYPES.get(tensor.integer(1))
            shape = tuple(_dim(dim.fields()) for each in tensor.spans(2) for dim in each.fields().spans(1))
    return Port(fields.text(1), None if dtype is None else np.dtype(dtype), shape)


def _dim(dim: Fields) -> int | None:
    return dim.integer(1) if 1 in dim.values else None
