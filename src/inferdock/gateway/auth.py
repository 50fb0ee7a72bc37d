"""Who sends a request: the API key, and nothing else, says so. The pipeline asks before it reads the body.

A key comes as ``Authorization: Bearer idk_…`` (OpenAI's clients) or ``x-api-key: idk_…`` (Anthropic's). Pure: the
caller passes headers and time, and :meth:`Authenticator.refresh` reads the key file when told to.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from typing import Final, Literal, Protocol

from inferdock.domain.errors import ConfigError, RequestError
from inferdock.keys.key import ANONYMOUS, KEY_TEXT, Key, digest_of
from inferdock.wire.http1 import Header

CHALLENGE: Final[Header] = (b"www-authenticate", b"Bearer")
"""Belongs on every 401 (RFC 9110, 15.5.2)."""

MAX_REMEMBERED: Final = 4096
"""Header values remembered with their keys, at most 0.2 KB each; when full, all are forgotten and checked anew."""

MAX_REMEMBERED_BYTES: Final = 128
"""Longest header value remembered (as clients spell it, it has 63): white space around a key must not fill memory."""

_NOBODY = digest_of(b"")
"""Compared with when no key has the id, so that a wrong id costs what a wrong secret does."""


class Stamped(Protocol):
    """A source of keys that tells when it changed (``keys.store.KeyFile``)."""

    def stamp(self) -> object: ...
    def read(self) -> Iterable[Key]: ...


class Authenticator:
    """Finds the key behind a request.

    Attributes:
        enabled: keys are checked. Once on it stays on while the process lives, so losing or emptying the key file
            lets nobody in.
    """

    __slots__ = ("_bare", "_bearer", "_check", "_keys", "_stamp", "enabled")

    def __init__(self, keys: Iterable[Key] = (), *, check: Literal["auto", "always", "never"] = "auto") -> None:
        """``check`` is the setting ``keys.check``; with ``auto``, one key in the set switches checking on."""
        self._check = check
        self._stamp: object = None
        self.enabled = check == "always"
        self.reload(keys)

    def reload(self, keys: Iterable[Key]) -> None:
        """Replace the whole set and forget what was remembered."""
        self._keys = {key.id.encode(): key for key in keys}
        self.enabled = self.enabled or (self._check == "auto" and bool(self._keys))
        self._bearer: dict[bytes | None, Key] = {}
        self._bare: dict[bytes | None, Key] = {}

    def refresh(self, source: Stamped) -> bool:
        """Reload if the source has changed since the last time; a few µs when it has not.

        Raises:
            ConfigError: the source is damaged or cannot be read. The old set stays, and the next call tries again.
        """
        stamp = source.stamp()
        if stamp == self._stamp:
            return False
        self.reload(source.read())
        self._stamp = stamp
        return True

    def authenticate(self, authorization: bytes | None, x_api_key: bytes | None, now: float) -> Key:
        """The key of a request; :data:`~inferdock.keys.key.ANONYMOUS` while keys are not checked.

        Args:
            authorization, x_api_key: values of these headers; the second counts only without the first.
            now: seconds since 1970.

        Raises:
            RequestError: 401 ``invalid_api_key``; answer it with :data:`CHALLENGE`.
        """
        if not self.enabled:
            return ANONYMOUS
        # Looking a secret up by its own text gives no timing away: the table's hash is keyed with random bits.
        key = self._bearer.get(authorization) if authorization is not None else self._bare.get(x_api_key)
        if key is not None and now < key.expires_at:  # revoked ones are never remembered: see reload
            return key
        return self._verified(authorization, x_api_key, now)

    def _verified(self, authorization: bytes | None, x_api_key: bytes | None, now: float) -> Key:
        if authorization is not None:
            scheme, _, text = authorization.partition(b" ")
            text = text.strip() if scheme.lower() == b"bearer" else b""
            remembered, header = self._bearer, authorization
        elif x_api_key is not None:
            text = x_api_key
            remembered, header = self._bare, x_api_key
        else:
            raise _refused("You did not provide an API key; send it as `Authorization: Bearer KEY`.")
        key = self._find(text)
        if key is None:
            raise _refused("Incorrect API key provided.")
        state = key.state(now)
        if state != "live":
            raise _refused(f"This API key is {state}.")
        if len(header) <= MAX_REMEMBERED_BYTES:
            if len(remembered) >= MAX_REMEMBERED:
                remembered.clear()
            remembered[header] = key
        return key

    def _find(self, text: bytes) -> Key | None:
        """The key whose text this is, live or not."""
        parts = KEY_TEXT.fullmatch(text)
        if parts is None:
            return None
        key = self._keys.get(parts[1])
        matches = hmac.compare_digest(digest_of(text), _NOBODY if key is None else key.digest)
        return key if matches else None


def _refused(message: str) -> RequestError:
    return RequestError(401, message, code="invalid_api_key")


def model_not_found(model: str) -> RequestError:
    """The 404 for a model that is not here or not for this key: one answer for both, so that names do not leak."""
    return RequestError(
        404,
        f"The model `{model[:200]}` does not exist or you do not have access to it.",
        param="model",
        code="model_not_found",
    )


def check_model(key: Key, model: str) -> None:
    """Let a key ask only for its models.

    Raises:
        RequestError: :func:`model_not_found`.
    """
    if key.models and model not in key.models:
        raise model_not_found(model)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a listening address. Names other than ``localhost`` are taken to be public."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, *, keys_enabled: bool, allow_unauthenticated: bool) -> None:
    """Refuse to serve everybody by accident; called before the gateway listens.

    Args:
        host: the setting ``gateway.host``.
        keys_enabled: :attr:`Authenticator.enabled`.
        allow_unauthenticated: the setting ``keys.allow_unauthenticated``.

    Raises:
        ConfigError: other machines reach the address, no key is checked, and nobody said that this is meant.
    """
    if keys_enabled or allow_unauthenticated or is_loopback(host):
        return
    raise ConfigError(
        f"The gateway would serve anybody who reaches {host or 'this machine'}: no API keys are checked.",
        cure="Make one with `inferdock keys create --name NAME`, listen on 127.0.0.1, or set "
        "`keys.allow_unauthenticated: true` (INFERDOCK_KEYS__ALLOW_UNAUTHENTICATED=true).",
    )
