"""What releases call their own objects in a cluster: labels, annotations, names, field managers."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import Final

from inferdock.kube.naming import label_value

MODEL: Final = "inferdock.io/model"
"""Label: which model, as :func:`inferdock.kube.naming.label_value` spells it. On everything here."""
REVISION: Final = "inferdock.io/revision"
"""Label and, verbatim, annotation: which revision."""
REFERENCE: Final = "inferdock.io/reference"
"""Annotation: ``name@version``."""
TEMPLATE: Final = "inferdock.io/template"
"""Label of the ConfigMap with the objects that one revision of a model needs."""
RETIRED: Final = "inferdock.io/retired-at"
"""Annotation of a Deployment: since when its revision is retired."""
REPLICAS: Final = "inferdock.io/replicas"
"""Annotation of a Deployment beside the main one: how many replicas it has when its revision runs."""
OWN_BOUNDS: Final = "inferdock.io/own-bounds"
"""Annotation of an autoscaler: its own least and most, while a release has set others."""
AUTOSCALED: Final = "inferdock.io/autoscaled"
"""Annotation of a Deployment: an autoscaler of ours has set its replicas, so they are ours to set."""
RELEASE: Final = "inferdock.io/release"
"""Label of the parts of a journal: the release's id."""
PART: Final = "inferdock.io/part"
"""Label of the parts of a journal: their number, from 1."""
BESIDE: Final = "inferdock.io/beside-release"
"""Label of what is kept beside a journal: the release's id."""
HELM: Final = "meta.helm.sh/release-name"
"""Annotation by which Helm knows its own objects."""

MANAGER: Final = "inferdock-release"
"""Field manager of releases; each concern has its own, made of this: what one applies no longer is taken away."""
MAX_NAME: Final = 30


def object_name(model: str) -> str:
    """A model's name as part of names of objects: lower case, for DNS."""
    made = re.sub(r"[^a-z0-9]+", "-", model.lower()).strip("-")[:40].strip("-")
    return made if made and made == model else f"{made}-{_digest(model, 8)}".lstrip("-")


def revision_name(revision: str) -> str:
    """A revision as part of names of objects: its version made short, and 12 digits of its digest."""
    version, _, digits = revision.rpartition("-")
    if not re.fullmatch(r"[0-9a-f]{12}", digits):
        version, digits = revision, _digest(revision, 12)
    stem = re.sub(r"[^a-z0-9]+", "-", version.lower())[: MAX_NAME - 13].strip("-")
    return f"{stem}-{digits}".lstrip("-")


def journal_name(release: str, part: int = 1) -> str:
    """The ConfigMap of a journal's part."""
    return f"{MANAGER}-{release}" + (f".{part}" if part > 1 else "")


def beside_name(release: str, what: str) -> str:
    """The ConfigMap of something that is kept beside a journal."""
    return f"{MANAGER}-{release}.{what}"


def lease_name(model: str) -> str:
    """The Lease of a model's releases."""
    return f"{MANAGER}-{object_name(model)}"


def traffic_manager(model: str) -> str:
    """The field manager of a model's weights."""
    return f"{MANAGER}-traffic-{label_value(model)}"


def _digest(text: str, digits: int) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:digits]
