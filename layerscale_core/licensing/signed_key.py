"""The text form of a signed licence key: what it claims, and an authority's signature over that.

A key is ``lsk1_PAYLOAD.SIGNATURE``, both in base64url without padding, the latter 64 bytes of Ed25519 (RFC 8032). The
payload is five lines of UTF-8: key id, tier, first day, last day, holder. Every key has exactly one spelling: what
would be read as the same key but is written otherwise is refused.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Self

from layerscale_core.specs.licensing import License, Tier

PREFIX = "lsk1_"
MAX_KEY_LEN = 1024
"""A key is a bearer token too, and no server reads longer ones."""

MAX_HOLDER_BYTES = 256
_SIGNATURE_BYTES = 64
_KEY_ID = re.compile(r"[0-9a-f]{16}")
_TIER = re.compile(r"[a-z][a-z0-9-]{0,31}")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class LicenseClaims:
    """What a key says. Nothing of it is secret: the signature alone is.

    Attributes:
        key_id: names the authority, see ``Authority``.
        tier: the name of a tier.
        issued, expires: first and last day on which the key is valid, by UTC.
        holder: whom it was issued to.

    Raises:
        ValueError: a field is not what it must be; the message names it.
    """

    key_id: str
    tier: str
    issued: date
    expires: date
    holder: str

    def __post_init__(self) -> None:
        if not _KEY_ID.fullmatch(self.key_id):
            raise ValueError("the key id must be 16 hexadecimal digits")
        if not _TIER.fullmatch(self.tier):
            raise ValueError("the tier must be a name of at most 32 small letters, digits and hyphens")
        if self.expires < self.issued:
            raise ValueError("the last day lies before the first")
        if self.expires == date.max:
            raise ValueError("the last day is past the end of the calendar")
        if not self.holder.isprintable() or not 1 <= len(self.holder.encode()) <= MAX_HOLDER_BYTES:
            raise ValueError(f"the holder must be 1 to {MAX_HOLDER_BYTES} bytes of printable text")

    def encode(self) -> bytes:
        """The payload."""
        lines = (self.key_id, self.tier, self.issued.isoformat(), self.expires.isoformat(), self.holder)
        return "\n".join(lines).encode()

    @classmethod
    def decode(cls, payload: bytes) -> Self:
        """Read a payload.

        Raises:
            ValueError: it is not one, or not spelt as ``encode`` spells it.
        """
        key_id, tier, issued, expires, holder = payload.decode().split("\n")
        claims = cls(key_id, tier, date.fromisoformat(issued), date.fromisoformat(expires), holder)
        if claims.encode() != payload:
            raise ValueError("another spelling of the same payload")
        return claims

    def license(self, tier: Tier) -> License:
        """The licence that the key is, once somebody says what its tier grants."""
        first_day_after = datetime.combine(self.expires + timedelta(days=1), time.min, UTC)
        return License(tier, first_day_after.timestamp())


@dataclass(frozen=True, slots=True)
class SignedKey:
    """A key in its parts. ``repr`` leaves out the signature."""

    claims: LicenseClaims
    signature: bytes

    def __repr__(self) -> str:
        return f"SignedKey({self.claims!r})"

    def text(self) -> str:
        """The key as it is handed out."""
        return f"{PREFIX}{_to_base64url(self.claims.encode())}.{_to_base64url(self.signature)}"

    @classmethod
    def parse(cls, key: str) -> Self:
        """Take a key apart. Its signature is not checked.

        Raises:
            ValueError: it is not a key, or another spelling of one. Never shows the key.
        """
        if len(key) > MAX_KEY_LEN or not key.startswith(PREFIX):
            raise ValueError("not a signed key")
        payload, signature = (_from_base64url(part) for part in key.removeprefix(PREFIX).split("."))
        if len(signature) != _SIGNATURE_BYTES:
            raise ValueError("the signature is not of the length that signatures have")
        return cls(LicenseClaims.decode(payload), signature)


def _to_base64url(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes:
    """Decode the one spelling that ``_to_base64url`` gives; Python's decoder skips foreign letters and stray bits."""
    if not _BASE64URL.fullmatch(text):
        raise ValueError("not base64url")
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if _to_base64url(raw) != text:
        raise ValueError("another spelling of the same bytes")
    return raw


def signed_message(claims: LicenseClaims) -> bytes:
    """What the signature is over: the payload after the prefix, so that it is good for nothing but a key."""
    return PREFIX.encode() + claims.encode()
