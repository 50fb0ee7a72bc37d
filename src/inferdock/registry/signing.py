"""Signatures of manifests: Ed25519 (RFC 8032) over the exact bytes of ``MANIFEST.json``.

A manifest names its model and version, so its signature cannot be moved to another one; it holds every file's digest,
so the signature covers every byte. Keys are PEM files as `openssl genpkey -algorithm ed25519` makes them;
docs/registry.md shows how to check a signature with openssl alone.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from msgspec import Meta

from inferdock.domain.errors import ConfigError, IntegrityError
from inferdock.registry.canonical import canonical

MAX_SIGNATURES_BYTES: Final = 64 * 1024
MAX_KEY_BYTES: Final = 64 * 1024
_MAKE: Final = "Make one with `openssl genpkey -algorithm ed25519 -out signing.pem`."


class _Signature(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    key: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    signature: Annotated[str, Meta(max_length=100)]
    algorithm: Literal["ed25519"] = "ed25519"


class _Signatures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: Literal["inferdock.signatures/1"]
    signatures: Annotated[tuple[_Signature, ...], Meta(max_length=100)]


class Signer:
    """Holds a private key.

    Raises:
        ConfigError: the file holds no Ed25519 key that can be read without a passphrase.
    """

    def __init__(self, file: Path) -> None:
        try:
            key = load_pem_private_key(_read(file), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
            encrypted = isinstance(exc, TypeError)
            reason = "asks for a passphrase" if encrypted else "holds no private key in PEM form"
            raise ConfigError(f"{file} {reason}.", cure=_MAKE) from exc
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{file} is no Ed25519 key.", cure=_MAKE)
        self._key = key
        self.fingerprint = fingerprint(key.public_key())

    def sign(self, manifest: bytes) -> bytes:
        """The bytes of ``MANIFEST.sig`` for a manifest."""
        entry = _Signature(self.fingerprint, base64.b64encode(self._key.sign(manifest)).decode())
        return canonical(msgspec.to_builtins(_Signatures("inferdock.signatures/1", (entry,))))


class TrustedKeys:
    """The public keys whose signatures count.

    Raises:
        ConfigError: a file holds no Ed25519 public key.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        keys = [_public_key(file) for file in files]
        self._keys = {fingerprint(key): key for key in keys}

    def check(self, manifest: bytes, signatures: bytes | None, *, what: str) -> tuple[str, ...]:
        """Fingerprints of the trusted keys that signed a manifest.

        Args:
            manifest: the exact bytes of ``MANIFEST.json``.
            signatures: those of ``MANIFEST.sig``, None when there is none.
            what: how an error calls it, for instance ``demo@1.0.0``.

        Raises:
            IntegrityError: none of them did.
        """
        cure = "Do not use it; or push it with a key whose public half is in registry.trusted_key_files."
        if signatures is None:
            raise IntegrityError(f"{what} is not signed, and registry.trusted_key_files asks for it.", cure=cure)
        good = tuple(entry.key for entry in _decode(signatures, what) if self._holds(entry, manifest))
        if not good:
            raise IntegrityError(f"MANIFEST.sig of {what} holds no valid signature by a trusted key.", cure=cure)
        return good

    def _holds(self, entry: _Signature, manifest: bytes) -> bool:
        key = self._keys.get(entry.key)
        if key is None:
            return False
        try:
            key.verify(base64.b64decode(entry.signature, validate=True), manifest)
        except (InvalidSignature, ValueError):
            return False
        return True


def fingerprint(key: Ed25519PublicKey) -> str:
    """SHA-256 of the raw public key, 64 hex digits."""
    return hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()


def _decode(data: bytes, what: str) -> tuple[_Signature, ...]:
    try:
        if len(data) > MAX_SIGNATURES_BYTES:
            raise ValueError("it is too long")
        return msgspec.json.decode(data, type=_Signatures).signatures
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise IntegrityError(f"MANIFEST.sig of {what} is malformed: {exc}.", cure="Do not use it; push again.") from exc


def _public_key(file: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(_read(file))
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        cure = "Make it with `openssl pkey -in signing.pem -pubout -out signing.pub`."
        raise ConfigError(f"{file} holds no public key in PEM form.", cure=cure) from exc
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigError(f"{file} is no Ed25519 public key.", cure=_MAKE)
    return key


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(MAX_KEY_BYTES)
    except OSError as exc:
        raise ConfigError(f"The key file {file} cannot be read: {exc.strerror}.", cure="Check its path.") from exc
