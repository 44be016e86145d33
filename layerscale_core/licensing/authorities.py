"""Who may issue licence keys: an authority is an Ed25519 key pair, and its public half a PEM file in a folder."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Self

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from layerscale_core.errors import LicenseError
from layerscale_core.licensing.signed_key import LicenseClaims, SignedKey, signed_message


@dataclass(frozen=True, slots=True)
class Authority:
    """The public half: knows its own signatures."""

    public_key: Ed25519PublicKey

    @property
    def key_id(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the raw public key."""
        return hashlib.sha256(self.public_key.public_bytes_raw()).hexdigest()[:16]

    def has_signed(self, key: SignedKey) -> bool:
        """Whether the key is this authority's, unchanged."""
        try:
            self.public_key.verify(key.signature, signed_message(key.claims))
        except InvalidSignature:
            return False
        return True

    def pem(self) -> bytes:
        """The file that servers need."""
        return self.public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a public key.

        Raises:
            LicenseError: it cannot be read, or is none.
        """
        public_key = _load_pem(load_pem_public_key, path, "public")
        if not isinstance(public_key, Ed25519PublicKey):
            raise LicenseError(f"{path} holds no Ed25519 public key, but one of another kind")
        return cls(public_key)


@dataclass(frozen=True, slots=True)
class Issuer:
    """The private half: makes keys."""

    private_key: Ed25519PrivateKey

    @classmethod
    def generate(cls) -> Self:
        """A new authority."""
        return cls(Ed25519PrivateKey.generate())

    @property
    def authority(self) -> Authority:
        """The public half."""
        return Authority(self.private_key.public_key())

    def issue(self, *, tier: str, holder: str, issued: date, expires: date) -> str:
        """A key, valid from the first day to the last, by UTC.

        Raises:
            ValueError: a claim is not what it must be.
        """
        claims = LicenseClaims(self.authority.key_id, tier, issued, expires, holder)
        return SignedKey(claims, self.private_key.sign(signed_message(claims))).text()

    def write(self, path: Path) -> None:
        """Write the private key, readable for its owner alone.

        Raises:
            FileExistsError: nothing is ever overwritten.
        """
        pem = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(pem)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a private key.

        Raises:
            LicenseError: it cannot be read, or is none. What the file holds is never shown.
        """
        private_key = _load_pem(lambda pem: load_pem_private_key(pem, password=None), path, "private")
        if not isinstance(private_key, Ed25519PrivateKey):
            raise LicenseError(f"{path} holds no Ed25519 private key, but one of another kind")
        return cls(private_key)


def load_authorities(folders: Iterable[Path]) -> dict[str, Authority]:
    """The authorities whose public keys, ``*.pem``, lie in these folders, by key id.

    Raises:
        LicenseError: a folder is missing, or a file is no public key.
    """
    found = [Authority.read(path) for folder in folders for path in _pem_files(folder)]
    return {authority.key_id: authority for authority in found}


def _pem_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise LicenseError(f"the folder of licence authorities {folder} does not exist")
    return sorted(folder.glob("*.pem"))


def _load_pem(load: Callable[[bytes], object], path: Path, kind: str) -> object:
    try:
        return load(path.read_bytes())
    except OSError as error:
        raise LicenseError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise LicenseError(f"{path} is no {kind} key in PEM form") from None
