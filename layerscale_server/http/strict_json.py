"""Strict JSON for bodies from outside: bounded before it is parsed, and only one way to read it.

UTF-8 only; no NaN, no infinity, no duplicate keys, no lone surrogates; nesting, sizes and counts within limits.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Never

import numpy as np
from numpy.typing import NDArray

from layerscale_core.errors import InvalidRequestError
from layerscale_server.limits import Limits

_SCAN_BYTES = 1 << 16
"""Bytes looked at together: temporary arrays stay small, and other threads run in between."""

_BACKSLASH, _QUOTE, _COMMA = b'\\",'

_Bytes = NDArray[np.uint8]


@dataclass(slots=True)
class _Outline:
    """What a body holds outside its strings, and where the scan stands between two pieces of it."""

    depth: int = 0
    max_depth: int = 0
    containers: int = 0
    separators: int = 0
    in_string: bool = False
    escaping: bool = False


def parse_object(body: bytes, limits: Limits) -> dict[str, Any]:
    """The JSON object a body holds.

    Raises:
        InvalidRequestError: it is not one, or breaks a rule above; the body is never quoted.
    """
    if not body.strip():
        raise InvalidRequestError("the request body is empty: send a JSON object")
    _check_outline(_outline(body), limits)
    try:
        value = json.loads(
            body.decode(), parse_constant=_refuse_constant, parse_float=_finite, object_pairs_hook=_object_hook(limits)
        )
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        raise InvalidRequestError("the request body is not valid UTF-8 text") from None
    except UnicodeEncodeError:
        raise InvalidRequestError("a string in the request body has half of a surrogate pair") from None
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise InvalidRequestError(f"the request body is not valid JSON: {place}") from None
    except ValueError:
        raise InvalidRequestError("a number in the request body is too large") from None
    if not isinstance(value, dict):
        raise InvalidRequestError("the request body must be a JSON object")
    return value


def _outline(body: bytes) -> _Outline:
    """Find the structure of a body without parsing it: which quotes are real, hence what lies outside strings.

    Vectorised as in the first stage of simdjson (arXiv:1902.08318). Text that is not JSON gives some outline and is
    refused by the parser.
    """
    outline = _Outline()
    for start in range(0, len(body), _SCAN_BYTES):
        _scan(np.frombuffer(body, np.uint8, min(_SCAN_BYTES, len(body) - start), start), outline)
    return outline


def _scan(piece: _Bytes, outline: _Outline) -> None:
    quotes = piece == _QUOTE
    quotes[_escaped(piece, outline)] = False
    inside = (np.cumsum(quotes) + outline.in_string) & 1 == 1
    folded = np.where(inside, 0, piece | 0x20)  # 0x20 is the difference between '[' and '{', and between ']' and '}'
    opens, closes = folded == ord("{"), folded == ord("}")
    depths = outline.depth + np.cumsum(opens.astype(np.int8) - closes.astype(np.int8), dtype=np.int64)
    outline.depth = int(depths[-1])
    outline.max_depth = max(outline.max_depth, int(depths.max()))
    outline.containers += int(opens.sum())
    outline.separators += int(((piece == _COMMA) & ~inside).sum())
    outline.in_string = bool(inside[-1])


def _escaped(piece: _Bytes, outline: _Outline) -> NDArray[np.int64]:
    """Indices of the bytes that follow an odd run of backslashes."""
    carried, outline.escaping = outline.escaping, False
    slashes = np.flatnonzero(piece == _BACKSLASH)
    if carried:  # the first byte is escaped, so it begins no run
        slashes = slashes[slashes > 0]
    if slashes.size == 0:
        return np.zeros(int(carried), np.int64)
    run_starts = np.flatnonzero(np.diff(slashes, prepend=-2) > 1)
    run_lengths = np.diff(run_starts, append=slashes.size)
    run_ends = (slashes[run_starts] + run_lengths)[run_lengths % 2 == 1]
    outline.escaping = bool(run_ends.size) and int(run_ends[-1]) == piece.size
    escaped = run_ends[run_ends < piece.size]
    return np.append(escaped, 0) if carried else escaped


def _check_outline(outline: _Outline, limits: Limits) -> None:
    if outline.max_depth > limits.json_depth:
        raise InvalidRequestError(f"the request body is nested deeper than {limits.json_depth} levels")
    if outline.containers > limits.json_containers:
        raise InvalidRequestError(f"the request body has more than {limits.json_containers} objects and arrays")
    if outline.separators >= limits.json_values:
        raise InvalidRequestError(f"the request body has more than {limits.json_values} values")


def _object_hook(limits: Limits) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(pairs) > limits.json_keys:
            raise InvalidRequestError(f"an object in the request body has more than {limits.json_keys} keys")
        built = dict(pairs)
        if len(built) != len(pairs):
            raise InvalidRequestError("an object in the request body has a duplicate key")
        return built

    return build


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _refuse_constant(_name: str) -> Never:
    raise InvalidRequestError("the request body has NaN or Infinity in it, which are no JSON numbers")
