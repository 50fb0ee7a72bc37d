"""Where Redis is, and clients for it. The password is in neither ``repr``, logs nor errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from redis.asyncio.connection import BlockingConnectionPool, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from inferdock.cache.redis_client import RedisClient
from inferdock.domain.errors import ConfigError

_CURE: Final = "Write it as redis://HOST:PORT/DB, rediss://HOST:PORT/DB (TLS) or unix:///PATH in `cache.redis.url`."
_TLS_FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS_OPTIONS: Final = (*_TLS_FILES, "ssl_cert_reqs", "ssl_check_hostname")
_CONNECTIONS: Final[dict[str, type[Any]]] = {
    "redis": Connection,
    "rediss": SSLConnection,
    "unix": UnixDomainSocketConnection,
}


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A Redis server, checked for form but not for being there.

    Attributes:
        shown: the URL as it may be shown.
    """

    shown: str
    scheme: str = field(repr=False)
    options: Mapping[str, Any] = field(repr=False)

    def client(self, *, connections: int, timeout_s: float) -> RedisClient:
        """A client; connects when first used.

        Args:
            connections: open at most; more commands at once wait for one.
            timeout_s: longest time of a command, with the wait for a connection and for all of its replies.
        """
        pool = BlockingConnectionPool(
            max_connections=connections,
            timeout=None,
            connection_class=_CONNECTIONS[self.scheme],
            socket_timeout=None,
            socket_connect_timeout=None,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,  # CLIENT SETINFO is unknown to Redis 7.0
            **self.options,
        )
        return RedisClient(pool, timeout_s)


def redis_address(url: str, password: str | None = None) -> RedisAddress:
    """The server that a URL names.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; with TLS also ``?ssl_ca_certs=FILE``, ``ssl_certfile``,
            ``ssl_keyfile``, ``ssl_cert_reqs=none``, ``ssl_check_hostname=false``.
        password: from elsewhere; the URL must then hold none.

    Raises:
        ConfigError: it names none, or a file in it is missing.
    """
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname
    except ValueError:
        parts = None
    # What is wrong is said without the URL's own words: what looks like a port may be half a password.
    if parts is None:
        raise ConfigError("The URL of Redis has no valid host and port.", cure=_CURE) from None
    if parts.scheme not in _CONNECTIONS:
        raise ConfigError("The URL of Redis is of a kind that is not supported.", cure=_CURE)
    if parts.fragment:
        raise ConfigError("The URL of Redis holds a `#`; in a password it is written %23.", cure=_CURE)
    if parts.password and password is not None:
        raise ConfigError("There is a password in the URL of Redis and another in a file.", cure="Leave one out.")
    options: dict[str, Any] = {"db": _database(parts.path, parts.scheme)}
    if parts.scheme == "unix":
        options["path"] = unquote(parts.path)
        where = parts.path
    else:
        options |= {"host": host or "localhost", "port": port or 6379, "socket_keepalive": True}
        where = f"{options['host']}:{options['port']}/{options['db']}"
    options |= _extras(parts.query, parts.scheme)
    secret = password if password is not None else unquote(parts.password or "")
    if parts.username:
        options["username"] = unquote(parts.username)
    if secret:
        options["password"] = secret
    return RedisAddress(f"{parts.scheme}://{':***@' if secret else ''}{where}", parts.scheme, options)


def _database(path: str, scheme: str) -> int:
    number = path.strip("/")
    if scheme == "unix" or not number:
        return 0
    if not number.isascii() or not number.isdigit() or len(number) > 6:
        raise ConfigError("The database in the URL of Redis is no number.", cure=_CURE)
    return int(number)


def _extras(query: str, scheme: str) -> dict[str, Any]:
    allowed = {"rediss": _TLS_OPTIONS, "unix": ("db",)}.get(scheme, ())
    extras: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in allowed:
            raise ConfigError(
                "The URL of Redis has an option that is not supported.",
                cure=f"Known for this kind: {', '.join(allowed) or 'none'}.",
            )
        if name in _TLS_FILES and not Path(value).is_file():
            raise ConfigError(f"`{name}` in the URL of Redis names no file.", cure="Name a PEM file.")
        if name == "ssl_cert_reqs" and value not in ("none", "required"):
            raise ConfigError("`ssl_cert_reqs` in the URL of Redis is neither none nor required.", cure=_CURE)
        extras[name] = _database(value, "redis") if name == "db" else value
    if "ssl_check_hostname" in extras:
        extras["ssl_check_hostname"] = extras["ssl_check_hostname"].lower() not in ("false", "0", "no")
    if extras.get("ssl_cert_reqs") == "none":
        extras["ssl_check_hostname"] = False
    return extras
