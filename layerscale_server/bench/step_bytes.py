"""What a step of decoding must read: the floor under its time."""

from __future__ import annotations

from layerscale_core.models import ModelSpec, MoeSpec


def step_bytes(
    spec: ModelSpec, weights_bytes: int, kv_bytes_per_token: int, batch_size: int, context_len: int
) -> int | None:
    """Bytes that one step reads: every weight once, and each sequence's keys and values.

    An embedding matrix that is not the head as well is left out, at the weights' mean size: a step reads a row of it.

    Args:
        weights_bytes: of all weights, as the device holds them.
        context_len: tokens that each of the sequences attends to; layers with a window see no more than that.

    Returns:
        None for a mixture of experts: a step reads those that its tokens choose.
    """
    if any(isinstance(layer.mlp, MoeSpec) for layer in spec.layers):
        return None
    embedding = 0 if spec.tied_output else spec.vocab_size * spec.hidden_size
    read_weights = weights_bytes * (spec.num_parameters - embedding) // spec.num_parameters
    seen = sum(min(context_len, layer.attention.window or context_len) for layer in spec.layers)
    return read_weights + batch_size * seen * kv_bytes_per_token // len(spec.layers)
