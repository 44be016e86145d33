"""``transformers`` on the same device: a model of the same shape with random weights in bfloat16."""

from __future__ import annotations

import torch
from gpu_device import median_seconds
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from layerscale_core.models import MlpSpec, ModelSpec


class TransformersPeer:
    """Decodes and prefills as a user of the library would have it."""

    def __init__(self, spec: ModelSpec, device: torch.device) -> None:
        layer = spec.layers[0]
        assert isinstance(layer.mlp, MlpSpec), "the peer's model has no experts"
        self._config = LlamaConfig(
            vocab_size=spec.vocab_size,
            hidden_size=spec.hidden_size,
            intermediate_size=layer.mlp.intermediate_size,
            num_hidden_layers=len(spec.layers),
            num_attention_heads=layer.attention.num_heads,
            num_key_value_heads=layer.attention.num_kv_heads,
            head_dim=layer.attention.head_dim,
            max_position_embeddings=32768,
            tie_word_embeddings=spec.tied_output,
            attn_implementation="sdpa",
        )
        self._device = device
        torch.set_default_dtype(torch.bfloat16)  # in float32 first, an 8B model would take twice the memory
        with device:
            self._model = LlamaForCausalLM(self._config).eval()
        torch.set_default_dtype(torch.float32)

    @torch.inference_mode()
    def decode_seconds(self, num_seqs: int, context: int, repetitions: int) -> float:
        """One token for each sequence, behind a context of zeros."""
        cache = self._cache(num_seqs, context)
        tokens = torch.zeros(num_seqs, 1, dtype=torch.int64, device=self._device)

        def step() -> None:
            self._model(tokens, past_key_values=cache, use_cache=True).logits.cpu()

        return median_seconds(self._device, step, repetitions)

    @torch.inference_mode()
    def prefill_seconds(self, num_seqs: int, cached: int, new: int, repetitions: int) -> float:
        """Tokens of each sequence behind a context of zeros."""
        tokens = torch.zeros(num_seqs, new, dtype=torch.int64, device=self._device)
        cache = self._cache(num_seqs, cached)

        def prefill() -> None:
            self._model(tokens, past_key_values=cache, use_cache=True, logits_to_keep=1).logits.cpu()
            cache.crop(-new)

        return median_seconds(self._device, prefill, repetitions)

    def _cache(self, num_seqs: int, context: int) -> DynamicCache:
        cache = DynamicCache(config=self._config)
        shape = (num_seqs, self._config.num_key_value_heads, context, self._config.head_dim)
        for layer in range(self._config.num_hidden_layers):
            zeros = torch.zeros(shape, dtype=torch.bfloat16, device=self._device)
            cache.update(zeros, zeros.clone(), layer)
        return cache
