"""A model's tokens, what each is, and which of them end generation."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from layerscale_core.texts import Texts

IdOf = Callable[[str], int | None]
"""The id of a token's text; None: there is no such token."""


class TokenKind(enum.IntEnum):
    """What a token is; the numbers are GGUF's ``tokenizer.ggml.token_type``."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Everything about the tokens that does not depend on how text is cut.

    Attributes:
        tokens: text by id, as the file spells it; an empty text is a hole in the vocabulary.
        kinds: the ``TokenKind`` of each token, a byte each.
        add_bos, add_eos: whether ``encode`` adds them; the id is then not None.
    """

    tokens: Texts
    kinds: bytes
    bos_id: int | None
    eos_id: int | None
    stop_ids: frozenset[int]
    add_bos: bool
    add_eos: bool

    def ids(self) -> dict[str, int]:
        """Token text to id, holes left out."""
        return {text: token_id for token_id, text in enumerate(self.tokens) if text}

    def ids_of(self, *kinds: TokenKind) -> dict[str, int]:
        """Token text to id, holes left out, of the tokens of some kinds."""
        is_of_kind = np.isin(np.frombuffer(self.kinds, np.uint8), kinds)
        rows = ((self.tokens[token_id], token_id) for token_id in np.flatnonzero(is_of_kind).tolist())
        return {text: token_id for text, token_id in rows if text}

    def with_ends(self, ids: list[int]) -> list[int]:
        """A text's ids with those that the model wants before and behind them."""
        start = [self.bos_id] if self.add_bos and self.bos_id is not None else []
        end = [self.eos_id] if self.add_eos and self.eos_id is not None else []
        return [*start, *ids, *end]


def _texts(spaced: str) -> frozenset[str]:
    return frozenset(spaced.split())


# Files do not mark the tokens that end a turn; every engine knows them by their text. The texts, and the rules below,
# are those of llama.cpp, so that generation ends where it does there.
_STOP_TEXTS = _texts(
    "<|endoftext|> <|end_of_text|> <|eot_id|> <|eom_id|> <|im_end|> <|end|> <|return|> <|call|> <|calls|> <|flush|>"
    " <end_of_turn> <end_of_utterance> <turn|> <|tool_response> </s> <eos> [EOS] <EOT> _<EOT> [EOT] [e~["
    " <｜end▁of▁sentence｜>"
)

# Tokens of fill-in-the-middle training, by the role the metadata may name them for; without that, by text.
_FIM_STOP_TEXTS = {
    "fim_pad": _texts("<|fim_pad|> <fim-pad> <fim_pad> <PAD> [PAD]"),
    "fim_rep": _texts("<|fim_repo|> <|repo_name|> <fim-repo> <REPO> <reponame>"),
    "fim_sep": _texts("<|file_sep|>"),
}
_FIM_TEXTS = _FIM_STOP_TEXTS | {
    "fim_pre": _texts(
        "<|fim_prefix|> <fim-prefix> <fim_prefix> <｜fim▁begin｜> <PRE> ▁<PRE> <|code_prefix|> <|prefix|>"
    ),
    "fim_suf": _texts(
        "<|fim_suffix|> <fim-suffix> <fim_suffix> <｜fim▁hole｜> <SUF> ▁<SUF> <|code_suffix|> <|suffix|>"
    ),
    "fim_mid": _texts("<|fim_middle|> <fim-middle> <fim_middle> <｜fim▁end｜> <MID> ▁<MID> <|code_middle|> <|middle|>"),
}

STOP_ROLES = ("eos", "eot", "eom", *_FIM_STOP_TEXTS)
"""Roles whose token, where the metadata names it (``tokenizer.ggml.<role>_token_id``), ends generation."""
ROLES = ("bos", "eos", "eot", "eom", *_FIM_TEXTS)
"""Every role read from the metadata."""


def mark_control_tokens(kinds: bytes, id_of: IdOf, roles: Mapping[str, int]) -> bytes:
    """The kinds, with every token that has a control token's text made one: files mistype many of them."""
    marked = bytearray(kinds)
    for token_id in _known_tokens(id_of, _FIM_TEXTS, roles).values():
        marked[token_id] = TokenKind.CONTROL
    return bytes(marked)


def find_stop_ids(id_of: IdOf, roles: Mapping[str, int]) -> frozenset[int]:
    """Every id that ends generation: those of the stop roles, and those known by text."""
    by_text = _known_tokens(id_of, _FIM_STOP_TEXTS, roles)
    ids = {roles[role] for role in STOP_ROLES if role in roles} | set(by_text.values())
    if "<|end|>" in by_text and _has_messages_within_a_turn(by_text):
        ids.discard(by_text["<|end|>"])
    return frozenset(ids)


def _known_tokens(id_of: IdOf, fim_texts: Mapping[str, frozenset[str]], roles: Mapping[str, int]) -> Mapping[str, int]:
    """The tokens that end a turn, and those of fill-in-the-middle that the metadata does not name: text to id."""
    texts = _STOP_TEXTS.union(*(texts for role, texts in fim_texts.items() if role not in roles))
    return {text: token_id for text in texts if (token_id := id_of(text)) is not None}


def _has_messages_within_a_turn(by_text: Mapping[str, int]) -> bool:
    """Whether ``<|end|>`` ends only a message (harmony and its like), and a call or a return ends the turn."""
    has_call = "<|call|>" in by_text or "<|calls|>" in by_text
    return has_call and ("<|return|>" in by_text or "<|flush|>" in by_text)
