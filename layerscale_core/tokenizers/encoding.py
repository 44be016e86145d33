"""Encoding by the ``tokenizers`` library, whose Rust code panics on what it cannot do: that is no ``Exception``."""

from __future__ import annotations

from tokenizers import Tokenizer as Encoder

from layerscale_core.errors import InvalidRequestError


def is_of_library(error: BaseException) -> bool:
    """Whether this came from the library, which raises nothing narrower than ``Exception``, and panics with less."""
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"


def shortened(error: BaseException) -> str:
    """What the library says of a file, in one line of 200 characters at most."""
    return " ".join(str(error).split())[:200]


def encode(encoder: Encoder, text: str, *, add_special: bool) -> list[int]:
    """Token ids of a text, without holding the interpreter's lock.

    Raises:
        InvalidRequestError: the library fails on it: a pattern that backtracks too long, say. Its words may hold the
            text, and are not repeated.
    """
    try:
        # A batch of one, since only the batch call leaves the interpreter's lock and skips the unused offsets.
        ids: list[int] = encoder.encode_batch_fast([text], add_special_tokens=add_special)[0].ids
    except BaseException as error:
        if not is_of_library(error):
            raise
        raise InvalidRequestError("the model's tokenizer cannot read this text") from None
    return ids
