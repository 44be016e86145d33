"""Licence keys: what grants a tier. A signed key is verified offline; plugins bring other kinds and further tiers."""

from layerscale_core.licensing.selection import license_for_key
from layerscale_core.licensing.signed_key import LicenseClaims, SignedKey
from layerscale_core.licensing.verifier import AUTHORITIES_VARIABLE, SignedKeyVerifier, authority_folders

__all__ = [
    "AUTHORITIES_VARIABLE",
    "LicenseClaims",
    "SignedKey",
    "SignedKeyVerifier",
    "authority_folders",
    "license_for_key",
]
