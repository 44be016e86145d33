"""A tokenizer without a vocabulary file: a token is a byte."""

from __future__ import annotations

from collections.abc import Sequence


class ByteTokenizer:
    """Ids 0 to 255 are bytes, then come ``<bos>``, ``<eos>`` and other control tokens; a ``specs.Tokenizer``."""

    BOS_ID = 256
    EOS_ID = 257

    vocab_size = 258
    bos_id: int | None = BOS_ID
    eos_id: int | None = EOS_ID
    stop_ids = frozenset({EOS_ID})

    def __init__(self, *control_tokens: str) -> None:
        names = ("<bos>", "<eos>", *control_tokens)
        self._ids = {name.encode(): 256 + index for index, name in enumerate(names)}
        self._names = {token_id: name.decode() for name, token_id in self._ids.items()}
        self.vocab_size = 256 + len(names)

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        data = text.encode()
        token_ids = [self.BOS_ID] if add_special else []
        while data:
            special = next((name for name in self._ids if parse_special and data.startswith(name)), None)
            token_ids.append(data[0] if special is None else self._ids[special])
            data = data[1 if special is None else len(special) :]
        return token_ids

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id]) if token_id < 256 else b""

    def token_text(self, token_id: int) -> str:
        return self._names[token_id] if token_id in self._names else bytes([token_id]).decode(errors="replace")

    def decode(self, token_ids: Sequence[int], *, skip_special: bool = True) -> str:
        kept = (token_id for token_id in token_ids if token_id < 256 or not skip_special)
        data = b"".join(
            bytes([token_id]) if token_id < 256 else self.token_text(token_id).encode() for token_id in kept
        )
        return data.decode(errors="replace")
