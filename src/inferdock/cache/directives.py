"""What a client says about the cache: ``Cache-Control``, ``Pragma`` and fields of the body. Pure.

Header: the request directives of RFC 9111, section 5.2.1. Body: as users of LiteLLM know them,
``{"cache": {"no-cache": true, "no-store": true, "ttl": 60, "s-maxage": 30}}``, and in short ``no_cache``,
``no_store``, ``max_age`` or ``"cache": false``. Each of them may only restrict what the others allow. What cannot be
read in a header counts as ``no-cache``, the careful side; a field of the body is ours, so a wrong one is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from inferdock.cache.canonical import ALIASES
from inferdock.domain.errors import RequestError

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVE = re.compile(rb"[ \t]*(" + _TOKEN + rb")(?:=(?:\"((?:[^\"\\]|\\.)*)\"|(" + _TOKEN + rb")))?[ \t]*(?:,|\Z)")
_NOTHING = re.compile(rb"[ \t]*(?:,|\Z)")
_SECONDS = re.compile(rb"[0-9]+\Z")
_LONGEST_S: Final = 2_147_483_648
"""What RFC 9111 (1.2.2) makes of numbers that are too large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Directives:
    """What one request allows.

    Attributes:
        no_cache: serve it nothing from the cache; its answer may be stored.
        no_store: do not store its answer.
        max_age_s: oldest answer that it takes, in seconds; None for any.
        min_fresh_s: how much longer that answer must still be valid.
        ttl_s: longest life of the answer that is stored for it; None for the usual one.
        only_if_cached: it wants an answer from the cache or none (RFC 9111: else 504).
        reason: what said ``no_cache`` or ``no_store`` first: ``cache-control``, ``pragma``, ``body`` or "".
    """

    no_cache: bool = False
    no_store: bool = False
    max_age_s: float | None = None
    min_fresh_s: float = 0.0
    ttl_s: float | None = None
    only_if_cached: bool = False
    reason: str = ""

    def may_serve(self, *, created_at: float, expires_at: float, now: float) -> bool:
        """Whether an entry is such as the request takes; times in seconds since 1970."""
        if self.no_cache or now + self.min_fresh_s >= expires_at:
            return False
        return self.max_age_s is None or now - created_at <= self.max_age_s


NO_DIRECTIVES: Final = Directives()


@dataclass(slots=True)
class _Wishes:
    """Directives in the making."""

    no_cache: bool = False
    no_store: bool = False
    max_age_s: float | None = None
    min_fresh_s: float = 0.0
    ttl_s: float | None = None
    only_if_cached: bool = False
    reason: str = ""

    def refuse(self, source: str, *, cache: bool = False, store: bool = False) -> None:
        if not (cache or store):
            return
        self.no_cache |= cache
        self.no_store |= store
        self.reason = self.reason or source

    def limit_age(self, source: str, seconds: float) -> None:
        """No age at all is less than 0: with ``max-age=0`` nothing is served, not even what is a moment old."""
        self.refuse(source, cache=seconds <= 0)
        self.max_age_s = seconds if self.max_age_s is None else min(self.max_age_s, seconds)


def opted_out(cache_control: bytes | None, pragma: bytes | None, body: Mapping[str, Any]) -> Directives:
    """Read all that a request says about the cache.

    Args:
        cache_control: value of the header; several of them joined by commas; None where there is none.
        pragma: likewise; looked at only where there is no ``Cache-Control``, as RFC 9111 has it.
        body: the decoded body.

    Raises:
        RequestError: 400, a field of the body that is for the cache is not as it should be.
    """
    if cache_control is None and pragma is None and ALIASES.isdisjoint(body):
        return NO_DIRECTIVES
    wishes = _Wishes()
    if cache_control is not None:
        _read_header(cache_control, wishes)
    elif pragma is not None and b"no-cache" in [part.strip().lower() for part in pragma.split(b",")]:
        wishes.refuse("pragma", cache=True)
    _read_body(body, wishes)
    return Directives(
        no_cache=wishes.no_cache,
        no_store=wishes.no_store,
        max_age_s=wishes.max_age_s,
        min_fresh_s=wishes.min_fresh_s,
        ttl_s=wishes.ttl_s,
        only_if_cached=wishes.only_if_cached,
        reason=wishes.reason,
    )


# -- Header ------------------------------------------------------------------------------------------------------


def _read_header(value: bytes, wishes: _Wishes) -> None:
    place = 0
    while place < len(value):
        found = _DIRECTIVE.match(value, place)
        if found is not None:
            _take_directive(found[1].lower(), found[3] if found[2] is None else found[2], wishes)
            place = found.end()
            continue
        empty = _NOTHING.match(value, place)
        if empty is None:
            wishes.refuse("cache-control", cache=True)
        comma = value.find(b",", place)
        place = comma + 1 if comma >= 0 else len(value)


def _take_directive(name: bytes, argument: bytes | None, wishes: _Wishes) -> None:
    if name == b"no-cache":
        wishes.refuse("cache-control", cache=True)
    elif name == b"no-store":
        wishes.refuse("cache-control", cache=True, store=True)
    elif name == b"only-if-cached":
        wishes.only_if_cached = True
    elif name in (b"max-age", b"min-fresh"):
        seconds = _seconds(argument)
        if seconds is None:
            wishes.refuse("cache-control", cache=True)
        elif name == b"max-age":
            wishes.limit_age("cache-control", seconds)
        else:
            wishes.min_fresh_s = max(wishes.min_fresh_s, seconds)


def _seconds(argument: bytes | None) -> float | None:
    if argument is None or _SECONDS.match(argument) is None:
        return None
    digits = argument.lstrip(b"0")
    return float(_LONGEST_S if len(digits) > 10 else min(int(digits or b"0"), _LONGEST_S))


_SHOWN: Final = 40
"""Characters of an unknown key that an error repeats."""

# -- Body --------------------------------------------------------------------------------------------------------


def _read_body(body: Mapping[str, Any], wishes: _Wishes) -> None:
    for name in sorted(ALIASES & body.keys()):
        value = body[name]
        if value is None:
            continue
        if name == "cache":
            _read_cache_object(value, wishes)
        elif name == "max_age":
            wishes.limit_age("body", _duration(name, value))
        else:
            _switch(name, value, wishes, store=name == "no_store")


def _read_cache_object(value: object, wishes: _Wishes) -> None:
    if type(value) is bool:
        wishes.refuse("body", cache=not value, store=not value)
        return
    if type(value) is not dict:
        raise _wrong("cache", "must be an object, true or false")
    for key, setting in value.items():
        name = f"cache.{key[:_SHOWN]}"
        match key.replace("_", "-"):
            case "no-cache" | "no-store" as switch:
                _switch(name, setting, wishes, store=switch == "no-store")
            case "s-maxage" | "max-age":
                wishes.limit_age("body", _duration(name, setting))
            case "ttl":
                ttl = _duration(name, setting)
                wishes.refuse("body", store=ttl <= 0)
                wishes.ttl_s = ttl if wishes.ttl_s is None else min(wishes.ttl_s, ttl)
            case _:
                raise _wrong(name, "is unknown; known are no-cache, no-store, s-maxage, max-age and ttl")


def _switch(name: str, value: object, wishes: _Wishes, *, store: bool) -> None:
    if type(value) is not bool:
        raise _wrong(name, "must be true or false")
    wishes.refuse("body", cache=value, store=value and store)


def _duration(name: str, value: Any) -> float:
    if type(value) not in (int, float) or not value >= 0:
        raise _wrong(name, "must be a number of seconds, 0 or more")
    return float(min(value, _LONGEST_S))


def _wrong(name: str, what: str) -> RequestError:
    return RequestError(400, f"The field '{name}' {what}.", param=name)


# -- What the engine gets ------------------------------------------------------------------------------------------

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODE = msgspec.json.Encoder().encode


def without_aliases(body: bytes) -> bytes:
    """The body without the fields that are for the cache; the values of all others stay byte for byte.

    Needed only where :attr:`CanonicalRequest.aliased` says so. Of repeated keys the last stays, which is the one that
    counts.

    Raises:
        RequestError: 400, the body is no JSON object.
    """
    try:
        members = _MEMBERS.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as exc:
        raise RequestError(400, f"The request body is not a JSON object: {exc}.", code="invalid_json") from exc
    return _ENCODE({name: value for name, value in members.items() if name not in ALIASES})
