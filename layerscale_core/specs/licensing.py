"""Tiers: what a licence key grants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Tier:
    """What the server may use.

    Attributes:
        name: ``free``, ``pro`` or a plugin's own.
        max_sessions: most persistent sessions.
        max_burst_slots: most stateless requests that run at once.
        requires_auth: every route but health and metrics needs the key.
    """

    name: str
    max_sessions: int
    max_burst_slots: int
    requires_auth: bool


FREE_TIER = Tier(name="free", max_sessions=1, max_burst_slots=2, requires_auth=False)


class LicenseVerifier(Protocol):
    """Turns a key into a tier."""

    def verify(self, key: str) -> Tier | None:
        """The tier a key grants, or None: not a key of this verifier's kind.

        Raises:
            LicenseError: its kind of key, and it grants nothing (wrong signature, expired …). Never shows the key.
        """
        ...
