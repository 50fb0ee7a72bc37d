"""Who may get whose answer: the keys of the cache. Equality of these 32 bytes decides, never similarity.

Each key is SHA-256 over a label and length-prefixed parts, so that no choice of tenant, model or text can make the
parts of one key look like those of another. The tenant comes from the API key, never from the client's word.
"""

from __future__ import annotations

import hashlib
from typing import Final

from inferdock.cache.canonical import CanonicalRequest

KEY_BYTES: Final = 32

_EXACT: Final = b"inferdock.cache/1 exact"
_PARTITION: Final = b"inferdock.cache/1 partition"
_ALONE: Final = b"inferdock.cache/1 alone"
_SURFACE: Final = b"inferdock.cache/1 surface"


def exact_key(tenant: str, revision: str, request: CanonicalRequest) -> bytes:
    """Key of the answers to this very request.

    Args:
        tenant: whose answer.
        revision: digest of the model's weights, tokenizer, chat template and engine arguments.
        request: see :func:`inferdock.cache.canonical.read`.
    """
    return _digest(_EXACT, _bytes(tenant), _bytes(revision), request.kind.encode(), request.exact)


def partition(tenant: str, revision: str, request: CanonicalRequest, embedder: str) -> bytes:
    """Key of all requests that differ from this one in their last user text at most.

    ``embedder`` is the fingerprint of the embedding model and of its runtime: their vectors compare with no others.
    A request without such a text is alone in its partition.
    """
    label, body = (_ALONE, request.exact) if request.rest is None else (_PARTITION, request.rest)
    return _digest(label, _bytes(tenant), _bytes(revision), _bytes(embedder), request.kind.encode(), body)


def surface_key(partition_key: bytes, form: str) -> bytes:
    """Key of the requests of one partition whose texts have the same normal form."""
    return _digest(_SURFACE, partition_key, _bytes(form))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _digest(label: bytes, *parts: bytes) -> bytes:
    digest = hashlib.sha256(label)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
