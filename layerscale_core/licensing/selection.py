"""From a licence key to what it grants: the verifiers are asked in turn."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.errors import LicenseError
from layerscale_core.specs.licensing import License, LicenseVerifier


def license_for_key(key: str, verifiers: Sequence[LicenseVerifier]) -> License:
    """What a key grants; never the free tier for a key that grants nothing.

    Raises:
        LicenseError: no verifier knows the key, or the one that does refuses it. The key is never shown.
    """
    for verifier in verifiers:
        granted = verifier.verify(key)
        if granted is not None:
            return granted
    raise LicenseError(
        "a licence key is set, but no installed plugin recognises it: it is malformed, or not for this product"
    )
