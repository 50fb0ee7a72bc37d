"""Encryption of what lies in Redis: AES-256-GCM, so that a value is secret, unchanged, and where we put it.

The context (what the value is for, and its key) is authenticated too: a value that is moved to another key does not
open. A key of 32 bytes may seal some 2**32 values before its random nonces might meet; then a new one is due.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from inferdock.cache.codec import Damaged
from inferdock.domain.errors import ConfigError

KEY_BYTES: Final = 32
_MARK: Final = b"\xa1"  # no version of the plain form begins with it
_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_HEAD: Final = len(_MARK) + _ID_BYTES
_MAX_FILE_BYTES: Final = 4096
_HEX: Final = re.compile(rb"[0-9a-fA-F]{64}")
_CURE: Final = "Make one with `openssl rand -hex 32`, readable by the gateway only."


class Sealer:
    """Seals with the first of its keys, opens with all: a new key goes in front, the old ones leave after a TTL."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise ValueError(f"a sealer needs keys of {KEY_BYTES} bytes")
        self._ciphers = {_id(key): AESGCM(key) for key in keys}
        self._head = _MARK + _id(keys[0])
        self._first = self._ciphers[_id(keys[0])]

    def seal(self, data: bytes, context: bytes) -> bytes:
        """Mark, id of the key, nonce and ciphertext: 33 bytes more than the data."""
        nonce = os.urandom(_NONCE_BYTES)
        return self._head + nonce + self._first.encrypt(nonce, data, context)

    def open(self, data: bytes, context: bytes) -> bytes:
        """The bytes that were sealed.

        Raises:
            Damaged: not sealed, sealed by a key that we have not, changed, or for another context.
        """
        cipher = self._ciphers.get(bytes(data[len(_MARK) : _HEAD]))
        if cipher is None or not data.startswith(_MARK):
            raise Damaged("not sealed by a key that is known here")
        nonce, sealed = data[_HEAD : _HEAD + _NONCE_BYTES], data[_HEAD + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, sealed, context)
        except (InvalidTag, ValueError, OverflowError) as exc:
            raise Damaged("the seal is broken") from exc


def sealer_from_files(files: Sequence[Path]) -> Sealer:
    """A sealer with the keys in these files, the first of which seals.

    Raises:
        ConfigError: a file cannot be read or holds no key; it is named, its content never.
    """
    return Sealer([_read_key(path) for path in files])


def _id(key: bytes) -> bytes:
    """Tells keys apart and says nothing about them."""
    return hashlib.sha256(b"inferdock.cache/1 key id" + key).digest()[:_ID_BYTES]


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES)
    except OSError as exc:
        raise ConfigError(
            f"Cannot read the encryption key {path}: {exc.strerror}.",
            cure="Let this user read it, or name another in `cache.redis.encryption_key_files`.",
        ) from exc
    key = _key(data)
    if key is None:
        raise ConfigError(f"{path} holds no key: 32 bytes are wanted, raw, as 64 hex digits or as base64.", cure=_CURE)
    return key


def _key(data: bytes) -> bytes | None:
    if len(data) == KEY_BYTES:
        return data
    text = data.strip()
    if _HEX.fullmatch(text):
        return bytes.fromhex(text.decode())
    try:
        key = base64.b64decode(text.replace(b"-", b"+").replace(b"_", b"/"), validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None
