"""Which of a repository's ONNX graphs to serve."""

from __future__ import annotations

from collections.abc import Collection

from layerscale_core.errors import ModelNotFoundError
from layerscale_core.formats.onnx.model import GRAPH_FILE, SUBFOLDER
from layerscale_server.hub.reference import ModelReference

SUFFIX = ".onnx"
_DATA_SUFFIXES = ("_data", ".data")
"""Of files of weights beside a graph, with a number behind them where there are several."""


def choose_graph(names: Collection[str], reference: ModelReference) -> tuple[str, tuple[str, ...]] | None:
    """The graph that is named, or else the one of the usual name, and the files of its weights; None: there is none.

    Raises:
        ModelNotFoundError: the named one is not there; the line lists the others.
    """
    usual = [name for name in (GRAPH_FILE, f"{SUBFOLDER}/{GRAPH_FILE}") if name in names]
    graph = reference.file or next(iter(usual), None)
    if graph is None:
        return None
    if graph not in names:
        graphs = sorted(name for name in names if name.endswith(SUFFIX))
        choices = f"name one of: {', '.join(graphs)}" if graphs else "it has no graph to serve"
        raise ModelNotFoundError(f"{reference.repo_id} has no file {graph!r}; {choices}")
    starts = tuple(graph + suffix for suffix in _DATA_SUFFIXES)
    return graph, tuple(sorted(name for name in names if name.startswith(starts)))
