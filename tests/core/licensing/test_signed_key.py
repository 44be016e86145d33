"""The text form of a key: one spelling, and nothing secret in what is shown."""

from __future__ import annotations

import base64
import random
from datetime import date

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from layerscale_core.errors import LicenseError
from layerscale_core.licensing import LicenseClaims, SignedKey
from layerscale_core.licensing.signed_key import MAX_HOLDER_BYTES, MAX_KEY_LEN, PREFIX
from tests.support.license_authority import LicenseAuthority

KEY_ID = "0123456789abcdef"
CLAIMS = LicenseClaims(KEY_ID, "pro", date(2026, 1, 2), date(2027, 1, 1), "Zoë & Sons")

DATES = st.dates(max_value=date(9999, 12, 30))
HOLDERS = st.text(min_size=1, max_size=64).filter(str.isprintable)


def spelt(payload: bytes, signature: bytes = bytes(64)) -> str:
    return PREFIX + ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (payload, signature))


@given(
    claims=st.builds(
        lambda first, last, holder: LicenseClaims(KEY_ID, "pro", min(first, last), max(first, last), holder),
        DATES,
        DATES,
        HOLDERS,
    ),
    signature=st.binary(min_size=64, max_size=64),
)
@settings(max_examples=100, deadline=None)
def test_a_key_is_read_as_it_was_written(claims: LicenseClaims, signature: bytes) -> None:
    key = SignedKey(claims, signature)
    assert SignedKey.parse(key.text()) == key


@given(key=st.text(max_size=60).map(lambda text: PREFIX + text) | st.binary(max_size=200).map(spelt))
@settings(max_examples=200, deadline=None)
def test_anything_else_is_refused(key: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (whatever is wrong with it)
        SignedKey.parse(key)


def test_ten_thousand_bit_flips_are_all_refused(authority: LicenseAuthority) -> None:
    """Every bit of the text once, then pairs of bits, drawn with a seed."""
    raw = authority.issue(holder="A holder with a rather long name, so that the key is long as well").encode()
    verifier = authority.verifier()
    assert verifier.verify(raw.decode()) is not None
    randomness = random.Random(20_261)
    every_bit = [(position,) for position in range(len(raw) * 8)]
    pairs = [tuple(randomness.sample(range(len(raw) * 8), 2)) for _ in range(10_000 - len(every_bit))]
    for flips in [*every_bit, *pairs]:
        changed = bytearray(raw)
        for bit in flips:
            changed[bit // 8] ^= 1 << bit % 8
        try:
            granted = verifier.verify(changed.decode("utf-8", "surrogateescape"))
        except LicenseError:
            granted = None
        assert granted is None, flips


@pytest.mark.parametrize("position", range(40))
def test_bit_flips_of_the_signed_bytes_are_refused_by_the_signature(authority: LicenseAuthority, position: int) -> None:
    signed = SignedKey.parse(authority.issue())
    signature = bytearray(signed.signature)
    signature[position % 64] ^= 1 << position % 8
    with pytest.raises(LicenseError, match="wrongly signed"):
        authority.verifier().verify(SignedKey(signed.claims, bytes(signature)).text())


def test_the_group_order_added_to_a_signature_makes_no_second_spelling(authority: LicenseAuthority) -> None:
    """RFC 8032 section 5.1.7: S must be below the order, or every signature would have a twin."""
    order = 2**252 + 27742317777372353535851937790883648493
    signed = SignedKey.parse(authority.issue())
    scalar = int.from_bytes(signed.signature[32:], "little") + order
    twin = SignedKey(signed.claims, signed.signature[:32] + scalar.to_bytes(32, "little"))
    with pytest.raises(LicenseError, match="wrongly signed"):
        authority.verifier().verify(twin.text())


@pytest.mark.parametrize(
    "respell",
    [
        lambda key: key + "=",
        lambda key: key + "A",
        lambda key: key + "\n",
        lambda key: key.replace(PREFIX, PREFIX + " "),
        lambda key: key[:20] + "\n" + key[20:],
        lambda key: key.replace("-", "+"),
        lambda key: PREFIX + key.removeprefix(PREFIX).replace("_", "/"),
        lambda key: key.replace(".", "=."),
        lambda key: key.replace(".", ".."),
        lambda key: key.replace(".", ""),
        lambda key: key[:-1] + chr(ord(key[-1]) + 1),
    ],
)
def test_other_spellings_of_a_key_are_refused(respell: object) -> None:
    # These bytes give both letters that the two alphabets spell differently; 64 of them leave stray bits at the end.
    key = SignedKey(CLAIMS, b"\xfb\xff" * 32).text()
    assert set("-_") <= set(key.removeprefix(PREFIX))
    assert SignedKey.parse(key).claims == CLAIMS
    changed = respell(key)  # type: ignore[operator]
    assert changed != key
    with pytest.raises(ValueError):  # noqa: PT011
        SignedKey.parse(changed)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        CLAIMS.encode() + b"\n",
        CLAIMS.encode().replace(b"2026-01-02", b"20260102"),
        CLAIMS.encode().replace(b"2026-01-02", b"2026-W01-5"),
        CLAIMS.encode().replace(b"2026-01-02", "2026-01-0２".encode()),
        CLAIMS.encode().replace(b"2026-01-02", b"2026-02-30"),
        CLAIMS.encode().replace(b"2026-01-02", b"2028-01-02"),
        CLAIMS.encode().replace(b"2027-01-01", b"9999-12-31"),
        CLAIMS.encode().replace(KEY_ID.encode(), KEY_ID.upper().encode()),
        CLAIMS.encode().replace(b"pro", b"Pro"),
        CLAIMS.encode().replace(b"pro", b""),
        CLAIMS.encode().replace("Zoë & Sons".encode(), b""),
        CLAIMS.encode().replace("Zoë".encode(), b"Zo\xff"),
        CLAIMS.encode().replace("Zoë".encode(), b"\x1b[31m"),
        CLAIMS.encode().replace(b"\n", b"\r\n"),
    ],
)
def test_payloads_that_are_none_are_refused(payload: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        SignedKey.parse(spelt(payload))


def test_a_holder_may_fill_its_limit_and_not_pass_it(authority: LicenseAuthority) -> None:
    key = authority.issue(holder="é" * (MAX_HOLDER_BYTES // 2), tier="t" * 32)
    assert len(key) <= MAX_KEY_LEN
    assert SignedKey.parse(key).claims.holder == "é" * (MAX_HOLDER_BYTES // 2)
    with pytest.raises(ValueError, match="holder"):
        authority.issue(holder="é" * (MAX_HOLDER_BYTES // 2) + "x")


def test_repr_shows_no_signature() -> None:
    key = SignedKey(CLAIMS, b"s" * 64)
    assert "ssss" not in repr(key)
    assert "Zoë" in repr(key)
