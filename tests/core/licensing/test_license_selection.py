"""Which verifier decides what a key grants."""

from __future__ import annotations

import pytest

from layerscale_core.errors import LicenseError, PluginError
from layerscale_core.licensing import license_for_key
from layerscale_core.specs import PRO_TIER, License

PRO = License(PRO_TIER)


class PrefixVerifier:
    """Knows keys by their first characters."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def verify(self, key: str) -> License | None:
        if not key.startswith(self.prefix):
            return None
        if key.endswith("expired"):
            raise LicenseError("the licence has expired")
        return PRO


def test_the_first_verifier_that_knows_the_key_decides() -> None:
    assert license_for_key("b-secret", [PrefixVerifier("a-"), PrefixVerifier("b-")]) is PRO


@pytest.mark.parametrize("key", ["b-secret", ""])
def test_a_key_that_nobody_knows_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(LicenseError, match="no installed plugin recognises it") as refusal:
        license_for_key(key, [PrefixVerifier("a-")])
    assert "secret" not in str(refusal.value)


def test_a_verifier_refusing_its_own_key_is_final() -> None:
    with pytest.raises(LicenseError, match="expired"):
        license_for_key("a-expired", [PrefixVerifier("a-"), PrefixVerifier("")])


class TellingVerifier:
    """Fails, and tells the key."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def verify(self, key: str) -> License | None:
        raise self.error


@pytest.mark.parametrize(
    ("error", "refusal", "words"),
    [
        (LicenseError("a-secret has expired"), LicenseError, "(the key) has expired"),
        (RuntimeError("cannot ask https://licences.test/a-secret"), PluginError, "TellingVerifier is broken"),
    ],
    ids=["refuses", "is broken"],
)
def test_a_verifier_that_would_tell_the_key_does_not(error: Exception, refusal: type[Exception], words: str) -> None:
    with pytest.raises(refusal) as raised:
        license_for_key("a-secret", [TellingVerifier(error)])
    assert words in str(raised.value)
    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__, "a traceback would show the verifier's own words"
