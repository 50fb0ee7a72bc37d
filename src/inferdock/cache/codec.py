"""Entries and inserts as bytes, and back. Pure; bytes may come from anywhere and are believed in nothing.

The form is a version byte and one msgpack array; strict types, finite numbers, bounded size. Another version is read as
:class:`Damaged`, which all callers take for "not there".
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Protocol, TypeVar

import msgspec
from msgspec import Meta

from inferdock.cache.entry import Entry, StoredAnswer
from inferdock.cache.store import VECTOR_BYTES, Insert

MAX_BYTES: Final = 4 * 1024 * 1024
"""Largest encoded value; the settings' largest answer and prompt fit several times."""

_VERSION: Final = b"\x01"
_Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Count = Annotated[int, Meta(ge=0, le=2**53)]
_Moment = Annotated[float, Meta(ge=0, le=1e11)]
_Word = Annotated[str, Meta(max_length=64)]
_Name = Annotated[str, Meta(max_length=1024)]


class Damaged(ValueError):
    """Bytes that are not what they should be: cut, changed, of another version, or somebody else's."""


class Unstorable(ValueError):
    """A value that has no encoded form, for instance because it is too large."""


class Seal(Protocol):
    """Turns bytes into such as may lie in Redis, and back."""

    def seal(self, data: bytes, context: bytes) -> bytes:
        """Bytes that only open with the same context."""
        ...

    def open(self, data: bytes, context: bytes) -> bytes:
        """The bytes that were sealed.

        Raises:
            Damaged: they were not sealed by us for this context.
        """
        ...


class Plain:
    """No encryption: bytes are kept as they are."""

    def seal(self, data: bytes, context: bytes) -> bytes:
        return data

    def open(self, data: bytes, context: bytes) -> bytes:
        return data


class _Answer(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    kind: Literal["chat", "completion"]
    model: _Name
    text: str
    finish_reason: _Word
    prompt_tokens: _Count
    output_tokens: _Count
    reasoning: str | None
    reasoning_field: _Word
    stop_reason: str | int | None
    system_fingerprint: _Name | None


class _Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    key: _Digest
    partition: _Digest
    text: str | None
    answer: _Answer
    tenant: _Name
    model: _Name
    revision: _Name
    epoch: _Word
    created_at: _Moment
    expires_at: _Moment
    duration_s: _Moment


class _Insert(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    key: _Digest
    partition: _Digest
    text: str | None
    vector: Annotated[bytes, Meta(min_length=VECTOR_BYTES, max_length=VECTOR_BYTES)]
    tenant: _Name
    model: _Name
    epoch: _Word
    expires_at: _Moment


_Form = TypeVar("_Form", _Entry, _Insert)

_encode = msgspec.msgpack.Encoder().encode
_ENTRY: Final = msgspec.msgpack.Decoder(_Entry)
_INSERT: Final = msgspec.msgpack.Decoder(_Insert)


def encode_entry(entry: Entry) -> bytes:
    """An entry as bytes.

    Raises:
        Unstorable: it is too large, or holds text that is no Unicode or a number that is no amount.
    """
    answer = entry.answer
    return _encoded(
        _Entry(
            entry.key,
            entry.partition,
            entry.text,
            _Answer(
                answer.kind,
                answer.model,
                answer.text,
                answer.finish_reason,
                answer.prompt_tokens,
                answer.output_tokens,
                answer.reasoning,
                answer.reasoning_field,
                answer.stop_reason,
                answer.system_fingerprint,
            ),
            entry.tenant,
            entry.model,
            entry.revision,
            entry.epoch,
            entry.created_at,
            entry.expires_at,
            entry.duration_s,
        )
    )


def decode_entry(data: bytes) -> Entry:
    """The entry that these bytes are.

    Raises:
        Damaged: they are none.
    """
    form = _decoded(data, _ENTRY)
    answer = form.answer
    return Entry(
        key=form.key,
        partition=form.partition,
        text=form.text,
        answer=StoredAnswer(
            kind=answer.kind,
            model=answer.model,
            text=answer.text,
            finish_reason=answer.finish_reason,
            prompt_tokens=answer.prompt_tokens,
            output_tokens=answer.output_tokens,
            reasoning=answer.reasoning,
            reasoning_field=answer.reasoning_field,
            stop_reason=answer.stop_reason,
            system_fingerprint=answer.system_fingerprint,
        ),
        tenant=form.tenant,
        model=form.model,
        revision=form.revision,
        epoch=form.epoch,
        created_at=form.created_at,
        expires_at=form.expires_at,
        duration_s=form.duration_s,
    )


def encode_insert(entry: Entry, vector: bytes) -> bytes:
    """What others need to find an entry by meaning, as bytes.

    Raises:
        Unstorable: as :func:`encode_entry`, or the vector has another length.
    """
    if len(vector) != VECTOR_BYTES:
        raise Unstorable(f"a vector of {len(vector)} bytes")
    return _encoded(
        _Insert(
            entry.key,
            entry.partition,
            entry.text,
            vector,
            entry.tenant,
            entry.model,
            entry.epoch,
            entry.expires_at,
        )
    )


def decode_insert(data: bytes) -> Insert:
    """The insert that these bytes are.

    Raises:
        Damaged: they are none.
    """
    form = _decoded(data, _INSERT)
    return Insert(
        key=form.key,
        partition=form.partition,
        text=form.text,
        vector=form.vector,
        tenant=form.tenant,
        model=form.model,
        epoch=form.epoch,
        expires_at=form.expires_at,
    )


def _encoded(form: _Entry | _Insert) -> bytes:
    try:
        data = _VERSION + _encode(form)
    except (msgspec.MsgspecError, ValueError, TypeError, OverflowError) as exc:
        raise Unstorable(type(exc).__name__) from exc
    if len(data) > MAX_BYTES:
        raise Unstorable(f"{len(data)} bytes")
    return data


def _decoded(data: bytes, decoder: msgspec.msgpack.Decoder[_Form]) -> _Form:
    if not data.startswith(_VERSION) or len(data) > MAX_BYTES:
        raise Damaged("not a value of this version")
    try:
        return decoder.decode(memoryview(data)[1:])
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError, MemoryError) as exc:
        raise Damaged(type(exc).__name__) from exc
