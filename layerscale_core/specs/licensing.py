"""Tiers and licences: what a licence key grants, and for how long."""

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
PRO_TIER = Tier(name="pro", max_sessions=64, max_burst_slots=32, requires_auth=True)


@dataclass(frozen=True, slots=True)
class License:
    """What a key grants.

    Attributes:
        expires_at: the first moment at which it grants nothing more, in Unix seconds; None = never.
    """

    tier: Tier
    expires_at: float | None = None

    def has_expired(self, now: float) -> bool:
        """Whether it is over at ``now``, in Unix seconds: the one question that wall time answers."""
        return self.expires_at is not None and now >= self.expires_at


FREE_LICENSE = License(FREE_TIER)


class LicenseVerifier(Protocol):
    """Turns a key into a licence."""

    def verify(self, key: str) -> License | None:
        """What a key grants, or None: not a key of this verifier's kind.

        Raises:
            LicenseError: its kind of key, and it grants nothing (wrong signature, expired …). Never shows the key.
        """
        ...
