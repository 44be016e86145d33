"""Bounds on the numbers of a model, far above any that exists.

They keep a hostile file from making us build large tables before its tensors refute it.
"""

from __future__ import annotations

from layerscale_core.formats.metadata import Metadata

MAX_LAYERS = 4_096
MAX_WIDTH = 2**20
MAX_HEAD_DIM = 2**14
MAX_EXPERTS = 4_096
MAX_EXPERTS_IN_ALL = 2**16
"""Of all layers together."""


def check_num_experts(metadata: Metadata, key: str, num_layers: int, num_experts: int) -> None:
    """Refuse more experts than there can be.

    Raises:
        ModelFileError: all layers together have too many.
    """
    if num_layers * num_experts > MAX_EXPERTS_IN_ALL:
        metadata.fail(key, f"{num_experts} experts in each of {num_layers} layers make no sense")
