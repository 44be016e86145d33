"""What a signed key grants, and the one line that says why it grants nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from layerscale_core.errors import LicenseError
from layerscale_core.licensing import SignedKey, SignedKeyVerifier, authority_folders, license_for_key
from layerscale_core.licensing.authorities import load_authorities
from layerscale_core.licensing.verifier import AUTHORITIES_VARIABLE
from layerscale_core.plugins import PluginRegistry
from layerscale_core.specs import FREE_LICENSE, PRO_TIER, License, LicenseVerifier, Tier, hookimpl
from tests.support.license_authority import LicenseAuthority

FIRST, LAST = date(2026, 3, 1), date(2026, 3, 31)
DURING = datetime(2026, 3, 15, tzinfo=UTC)


def refusal(verifier: LicenseVerifier, key: str) -> str:
    """The one line, which shows no part of the key."""
    with pytest.raises(LicenseError) as caught:
        verifier.verify(key)
    line = str(caught.value)
    assert "\n" not in line
    assert not any(key[start : start + 12] in line for start in range(len(key) - 11))
    return line


def test_pro_is_as_the_table_of_tiers_says(authority: LicenseAuthority) -> None:
    granted = authority.verifier(DURING).verify(authority.issue(issued=FIRST, expires=LAST))
    assert granted == License(PRO_TIER, datetime(2026, 4, 1, tzinfo=UTC).timestamp())
    assert (PRO_TIER.max_sessions, PRO_TIER.max_burst_slots, PRO_TIER.requires_auth) == (64, 32, True)
    free = FREE_LICENSE.tier
    assert (free.max_sessions, free.max_burst_slots, free.requires_auth) == (1, 2, False)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (datetime(2026, 2, 28, 23, 59, 59, tzinfo=UTC), "not yet valid"),
        (datetime(2026, 3, 1, tzinfo=UTC), None),
        (datetime(2026, 3, 31, 23, 59, 59, tzinfo=UTC), None),
        (datetime(2026, 4, 1, tzinfo=UTC), "expired"),
    ],
)
def test_valid_from_the_first_day_to_the_last(authority: LicenseAuthority, now: datetime, words: str | None) -> None:
    key = authority.issue(issued=FIRST, expires=LAST)
    verifier = authority.verifier(now)
    if words is None:
        granted = verifier.verify(key)
        assert granted is not None
        assert not granted.has_expired(now.timestamp())
    else:
        line = refusal(verifier, key)
        assert words in line
        assert str(now.date()) in line


def test_a_licence_ends_when_its_key_would_be_refused(authority: LicenseAuthority) -> None:
    granted = authority.verifier(DURING).verify(authority.issue(issued=FIRST, expires=LAST))
    assert granted is not None
    end = datetime(2026, 4, 1, tzinfo=UTC).timestamp()
    assert not granted.has_expired(end - 1)
    assert granted.has_expired(end)
    assert not FREE_LICENSE.has_expired(end)


def test_a_key_cut_short_is_malformed(authority: LicenseAuthority) -> None:
    key = authority.issue()
    for cut in (key[:-1], key[:-20], key[:20], "lsk1_", "lsk1_.", key + key, "lsk1_" + "A" * 2000):
        assert "malformed" in refusal(authority.verifier(), cut)


def test_claims_under_another_key_s_signature_are_wrongly_signed(authority: LicenseAuthority) -> None:
    short, long = SignedKey.parse(authority.issue(holder="a")), SignedKey.parse(authority.issue(holder="b"))
    assert "wrongly signed" in refusal(authority.verifier(), SignedKey(long.claims, short.signature).text())


def test_the_key_of_an_unknown_authority_names_it_and_what_to_do(authority: LicenseAuthority, tmp_path: Path) -> None:
    stranger = LicenseAuthority(tmp_path / "stranger")
    line = refusal(authority.verifier(), stranger.issue())
    assert all(word in line for word in ("unknown authority", stranger.key_id, authority.key_id, AUTHORITIES_VARIABLE))
    assert "(known: none)" in refusal(SignedKeyVerifier(()), stranger.issue())


def test_the_signature_is_asked_before_the_dates(authority: LicenseAuthority) -> None:
    expired, other = authority.issue(issued=FIRST, expires=LAST), authority.issue()
    forged = SignedKey(SignedKey.parse(expired).claims, SignedKey.parse(other).signature).text()
    assert "wrongly signed" in refusal(authority.verifier(), forged)


def test_a_key_of_another_kind_is_left_to_others(authority: LicenseAuthority) -> None:
    assert authority.verifier().verify("something-else") is None


def test_an_unknown_tier_is_named(authority: LicenseAuthority) -> None:
    assert "the tier galactic" in refusal(authority.verifier(), authority.issue(tier="galactic"))


def test_further_tiers_come_from_a_plugin(authority: LicenseAuthority, monkeypatch: pytest.MonkeyPatch) -> None:
    enterprise = Tier("enterprise", max_sessions=1000, max_burst_slots=256, requires_auth=True)

    class EnterpriseVerifier:
        def verify(self, key: str) -> License | None:
            claims = SignedKeyVerifier(authority_folders()).claims(key)
            return claims.license(enterprise) if claims and claims.tier == "enterprise" else None

    class EnterprisePlugin:
        LAYERSCALE_SPEC_VERSION = 1

        @hookimpl
        def layerscale_license_verifiers(self) -> Sequence[LicenseVerifier]:
            return (EnterpriseVerifier(),)

    monkeypatch.setenv(AUTHORITIES_VARIABLE, str(authority.folder))
    registry = PluginRegistry.discover()
    registry.register(EnterprisePlugin(), name="enterprise", distribution="acme 1.0")
    verifiers = registry.license_verifiers()
    assert license_for_key(authority.issue(tier="enterprise"), verifiers).tier is enterprise
    assert license_for_key(authority.issue(), verifiers).tier is PRO_TIER


def test_the_packaged_authorities_are_public_keys_and_nothing_more() -> None:
    """A build may bring any number; what lies there is readable, or no key could be verified at all."""
    (packaged,) = authority_folders()
    load_authorities([packaged])
    assert not [path for path in packaged.iterdir() if b"PRIVATE" in path.read_bytes()]


@pytest.mark.parametrize(
    ("content", "words"), [(b"nonsense", "no public key in PEM form"), (b"", "no public key"), (None, "cannot read")]
)
def test_a_broken_public_key_file_is_named(authority: LicenseAuthority, content: bytes | None, words: str) -> None:
    path = authority.folder / "broken.pem"
    path.mkdir() if content is None else path.write_bytes(content)
    line = refusal(authority.verifier(), authority.issue())
    assert words in line
    assert str(path) in line


def test_a_key_of_another_algorithm_is_named(authority: LicenseAuthority) -> None:
    path = authority.folder / "exchange.pem"
    public = X25519PrivateKey.generate().public_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    assert re.search("no Ed25519 public key, but one of another kind", refusal(authority.verifier(), authority.issue()))


def test_a_missing_folder_of_authorities_is_named(authority: LicenseAuthority, tmp_path: Path) -> None:
    line = refusal(SignedKeyVerifier((tmp_path / "nowhere",)), authority.issue())
    assert str(tmp_path / "nowhere") in line
