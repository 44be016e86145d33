"""The built-in verifier: reads signed keys offline, by the public keys of the authorities it knows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from layerscale_core.errors import LicenseError
from layerscale_core.licensing.signed_key import PREFIX, LicenseClaims, SignedKey
from layerscale_core.specs.licensing import PRO_TIER, License

AUTHORITIES_VARIABLE = "LAYERSCALE_LICENSE_AUTHORITIES"
"""The environment variable that names a folder of further authorities."""

_PACKAGED_FOLDER = Path(__file__).parent / "public_keys"


def authority_folders() -> tuple[Path, ...]:
    """Where the public keys of authorities lie: what comes with the package, and what the environment names."""
    packaged = (_PACKAGED_FOLDER,) if _PACKAGED_FOLDER.is_dir() else ()
    own = os.environ.get(AUTHORITIES_VARIABLE, "")
    return (*packaged, Path(own)) if own else packaged


@dataclass(frozen=True, slots=True)
class SignedKeyVerifier:
    """Grants Pro.

    Attributes:
        folders: of public keys.
        clock: Unix seconds.
    """

    folders: Sequence[Path]
    clock: Callable[[], float] = time.time

    def verify(self, key: str) -> License | None:
        """What a key grants, or None: it does not begin as a signed key does.

        Raises:
            LicenseError: it grants nothing.
        """
        claims = self.claims(key)
        if claims is None:
            return None
        if claims.tier != PRO_TIER.name:
            raise LicenseError(f"the licence key grants the tier {claims.tier}, which no installed plugin brings")
        return claims.license(PRO_TIER)

    def claims(self, key: str) -> LicenseClaims | None:
        """What a key says, now that it is known to be true: for plugins that bring tiers of their own.

        Raises:
            LicenseError: malformed, of an unknown authority, wrongly signed, not yet valid, or expired.
        """
        if not key.startswith(PREFIX):
            return None
        try:
            signed = SignedKey.parse(key)
        except ValueError:
            raise LicenseError(
                "the licence key is malformed: a part is missing or was changed; set it exactly as it was issued"
            ) from None
        self._check_signature(signed)
        self._check_dates(signed.claims)
        return signed.claims

    def _check_signature(self, signed: SignedKey) -> None:
        from layerscale_core.licensing.authorities import load_authorities  # noqa: PLC0415 (no key, no cryptography)

        known = load_authorities(self.folders)
        authority = known.get(signed.claims.key_id)
        if authority is None:
            raise LicenseError(
                f"the licence key was issued by an unknown authority, {signed.claims.key_id} (known: "
                f"{', '.join(known) or 'none'}); put its public key into the folder that {AUTHORITIES_VARIABLE} names"
            )
        if not authority.has_signed(signed):
            raise LicenseError(
                "the licence key is wrongly signed: it was changed after it was issued, or forged; "
                "set it exactly as it was issued"
            )

    def _check_dates(self, claims: LicenseClaims) -> None:
        today = datetime.fromtimestamp(self.clock(), UTC).date()
        if today < claims.issued:
            raise LicenseError(f"the licence key is not yet valid: its first day is {claims.issued}, today is {today}")
        if today > claims.expires:
            raise LicenseError(f"the licence key has expired: its last day was {claims.expires}, today is {today}")
