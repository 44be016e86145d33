"""Tokenizers: a model's vocabulary and rules, run by the ``tokenizers`` library."""

from layerscale_core.tokenizers.gguf import tokenizer_from_gguf

__all__ = ["tokenizer_from_gguf"]
