"""A tokenizer without a vocabulary file: a token is a byte."""

from __future__ import annotations

from collections.abc import Sequence


class ByteTokenizer:
    """Ids 0 to 255 are bytes, then come ``<bos>`` and ``<eos>``. Implements ``specs.Tokenizer``."""

    BOS_ID = 256
    EOS_ID = 257

    vocab_size = 258
    bos_id: int | None = BOS_ID
    eos_id: int | None = EOS_ID
    stop_ids = frozenset({EOS_ID})

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        data = text.encode()
        token_ids = [self.BOS_ID] if add_special else []
        while data:
            special = next((name for name in _SPECIALS if parse_special and data.startswith(name)), None)
            token_ids.append(data[0] if special is None else _SPECIALS[special])
            data = data[1 if special is None else len(special) :]
        return token_ids

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""

    def token_text(self, token_id: int) -> str:
        names = {special_id: name.decode() for name, special_id in _SPECIALS.items()}
        return names[token_id] if token_id in names else bytes([token_id]).decode(errors="replace")

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        kept = (token_id for token_id in token_ids if token_id < 256 or not skip_special)
        data = b"".join(
            bytes([token_id]) if token_id < 256 else self.token_text(token_id).encode() for token_id in kept
        )
        return data.decode(errors="replace")


_SPECIALS = {b"<bos>": ByteTokenizer.BOS_ID, b"<eos>": ByteTokenizer.EOS_ID}
