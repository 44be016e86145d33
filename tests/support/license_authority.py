"""An authority made for one test: nobody else's servers know it."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from layerscale_core.licensing.authorities import Issuer
from layerscale_core.licensing.verifier import AUTHORITIES_VARIABLE, SignedKeyVerifier

TODAY = datetime.now(UTC).date()
"""Keys are issued around today, because in a server process its own clock decides."""


class LicenseAuthority:
    """Issues keys; its public key lies alone in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.issuer = Issuer.generate()
        folder.mkdir(parents=True, exist_ok=True)
        self.public_key_path = folder / "authority.pem"
        self.public_key_path.write_bytes(self.issuer.authority.pem())

    @property
    def key_id(self) -> str:
        return self.issuer.authority.key_id

    @property
    def environment(self) -> dict[str, str]:
        """What makes a server trust this authority."""
        return {AUTHORITIES_VARIABLE: str(self.folder)}

    def issue(
        self,
        *,
        tier: str = "pro",
        holder: str = "Acme",
        issued: date = TODAY - timedelta(days=1),
        expires: date = TODAY + timedelta(days=365),
    ) -> str:
        return self.issuer.issue(tier=tier, holder=holder, issued=issued, expires=expires)

    def verifier(self, now: datetime | None = None) -> SignedKeyVerifier:
        """One that knows this authority alone, at a given time or now."""
        if now is None:
            return SignedKeyVerifier((self.folder,))
        return SignedKeyVerifier((self.folder,), clock=now.timestamp)
