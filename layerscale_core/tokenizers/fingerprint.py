"""What identifies a tokenizer: what its ids stand for, and how it cuts a text."""

from __future__ import annotations

import hashlib

from layerscale_core.specs.tokenizer import Tokenizer

_PROBE = "It's 12,345.67 °C\tin München — über 90% of\n\n  the time, d'accord? 東京は晴れ 🚀 ```x += 1```"
"""Words, numbers, spaces and scripts that tokenizers cut differently."""


def tokenizer_fingerprint(tokenizer: Tokenizer) -> str:
    """A digest of every id's text, of the special ids, and of a text as it is cut."""
    digest = hashlib.blake2b(digest_size=16)
    special = (tokenizer.vocab_size, tokenizer.bos_id, tokenizer.eos_id, sorted(tokenizer.stop_ids))
    digest.update(repr((special, tokenizer.encode(_PROBE))).encode())
    for token_id in range(tokenizer.vocab_size):
        digest.update(repr(tokenizer.token_text(token_id)).encode())
    return digest.hexdigest()
