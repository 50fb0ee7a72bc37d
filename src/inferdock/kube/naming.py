"""Names that Kubernetes takes, made of names that it may not take: labels, keys of ConfigMaps, DNS labels."""

from __future__ import annotations

import re
from hashlib import sha256

MAX_LABEL_CHARS = 63
MAX_STEM_CHARS = 200
"""Of a ConfigMap's key; Kubernetes takes 253 characters."""
_LABEL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")


def label_value(text: str) -> str:
    """The text itself where a label can hold it; else a form that fits, with 8 hex digits of its SHA-256."""
    if len(text) <= MAX_LABEL_CHARS and _LABEL.fullmatch(text):
        return text
    stem = _stem(text)[: MAX_LABEL_CHARS - 9]
    return f"{stem}-{_digest(text)}" if stem else _digest(text)


def traffic_key(model: str) -> str:
    """Key of a model's weights in the traffic ConfigMap; no two models share one."""
    stem = _stem(model)[:MAX_STEM_CHARS]
    return f"{stem}-{_digest(model)}.json" if stem else f"{_digest(model)}.json"


def _stem(text: str) -> str:
    return re.sub(r"[^-._A-Za-z0-9]+", "-", text).strip("-._")


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
