"""From a licence key to what it grants: the verifiers are asked in turn."""

from __future__ import annotations

from collections.abc import Sequence

from layerscale_core.errors import LicenseError, PluginError
from layerscale_core.specs.licensing import License, LicenseVerifier


def license_for_key(key: str, verifiers: Sequence[LicenseVerifier]) -> License:
    """What a key grants; never the free tier for a key that grants nothing.

    Raises:
        LicenseError: no verifier knows the key, or the one that does refuses it. The key is never shown.
        PluginError: a verifier is broken.
    """
    for verifier in verifiers:
        granted = _granted_by(verifier, key)
        if granted is not None:
            return granted
    raise LicenseError(
        "a licence key is set, but no installed plugin recognises it: it is malformed, or not for this product"
    )


def _granted_by(verifier: LicenseVerifier, key: str) -> License | None:
    """What one verifier says. A plugin's words may hold the key, and a traceback would show them."""
    try:
        return verifier.verify(key)
    except LicenseError as error:
        raise LicenseError(str(error).replace(key, "(the key)")) from None
    except Exception as error:
        name = f"{type(verifier).__module__}.{type(verifier).__qualname__}"
        raise PluginError(f"the licence verifier {name} is broken: it failed with {type(error).__name__}") from None
