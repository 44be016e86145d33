"""From a licence key to a tier."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.errors import LicenseError
from layerscale_core.specs.licensing import FREE_TIER, LicenseVerifier, Tier


def tier_for_key(key: str | None, verifiers: Sequence[LicenseVerifier]) -> Tier:
    """The tier that a key grants; the free one without a key, and never the free one with a key that grants nothing.

    Raises:
        LicenseError: no verifier knows the key, or the one that does refuses it. The key is never shown.
    """
    if key is None:
        return FREE_TIER
    for verifier in verifiers:
        tier = verifier.verify(key)
        if tier is not None:
            return tier
    raise LicenseError(
        "a licence key is set, but no installed plugin recognises it: it is malformed, or not for this product"
    )
