"""Tiny decoders as an export to ONNX leaves them: a graph beside the configuration and a tokenizer."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import Any

from tests.support.tiny_checkpoints import save_tiny_checkpoint
from tests.support.tiny_folder import byte_level, write_json
from tests.support.tiny_gguf import CHATML_TEMPLATE


def export(model: Any, path: Path) -> Path:
    """Write the graph of a ``transformers`` model, with its cache as inputs and outputs."""
    import torch  # noqa: PLC0415
    from transformers import DynamicCache  # noqa: PLC0415

    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    layers = range(config.num_hidden_layers)
    past_names = [f"past_key_values.{layer}.{kind}" for layer in layers for kind in ("key", "value")]
    present_names = [f"present.{layer}.{kind}" for layer in layers for kind in ("key", "value")]

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, tokens: Any, mask: Any, positions: Any, *past: Any) -> tuple[Any, ...]:
            cache = DynamicCache([(past[2 * layer], past[2 * layer + 1]) for layer in layers])
            output = self.model(
                input_ids=tokens, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
            )
            return output.logits, *(part for each in cache.layers for part in (each.keys, each.values))

    past = [torch.randn(1, config.num_key_value_heads, 5, head_dim, dtype=model.dtype) for _ in past_names]
    tokens, mask = torch.randint(0, config.vocab_size, (1, 4)), torch.ones(1, 9, dtype=torch.long)
    names = ["input_ids", "attention_mask", "position_ids"]
    axes = {name: {0: "batch", 1: "total" if name == "attention_mask" else "new"} for name in [*names, "logits"]}
    axes |= {name: {0: "batch", 2: "past"} for name in past_names}
    axes |= {name: {0: "batch", 2: "total"} for name in present_names}
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer says what it takes for constant, and that it is of the older kind
        torch.onnx.export(
            Decoder(),
            (tokens, mask, torch.arange(5, 9)[None], *past),
            str(path),
            input_names=[*names, *past_names],
            output_names=["logits", *present_names],
            dynamic_axes=axes,
            dynamo=False,
            opset_version=17,
        )
    return path


def save_onnx_folder(folder: Path, checkpoint: Path, model: Any, *, has_data_file: bool = False) -> Path:
    """Write a folder with the graph of a checkpoint's model, and a tokenizer.

    Args:
        has_data_file: the weights are in a file of their own, as those of large models are.
    """
    folder.mkdir(parents=True)
    shutil.copy(checkpoint / "config.json", folder)
    byte_level().save(str(folder / "tokenizer.json"))
    settings = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "chat_template": CHATML_TEMPLATE}
    write_json(folder / "tokenizer_config.json", settings)
    path = export(model, folder / "model.onnx")
    if has_data_file:
        move_weights_out(path)
    return folder


def move_weights_out(path: Path) -> None:
    """Put a graph's weights into ``model.onnx_data`` beside it."""
    import onnx  # noqa: PLC0415

    onnx.save_model(onnx.load(path), path, save_as_external_data=True, location=f"{path.name}_data", size_threshold=256)


def save_pair(folder: Path, family: str, **changes: Any) -> tuple[Path, Path]:
    """The same tiny model twice: as a folder of safetensors, and as one with a graph."""
    model = save_tiny_checkpoint(folder / "weights", family, **changes)
    return folder / "weights", save_onnx_folder(folder / "graph", folder / "weights", model)
