"""What the checks look at, as the command was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from inferdock.kube.objects_api import KubeObjects


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A running platform, and what stands beside it. What is None is among what the run lacks.

    Attributes:
        url: of the gateway, without a slash at the end.
        admin_url: of its admin port; None: not known.
        model: name to ask for.
        http: session that carries the key, when the target asks for one.
        state: state file of `inferdock up` that runs it; None: something else runs it.
        checkout: root of a checkout with chart, terraform and tests; None: there is none.
        users: of the load.
        load_s: how long the load runs, in seconds.
        cost_per_hour: dollars per hour of all that serves; None: not known.
        api_key: key of a client; None: the target asks for none.
        cluster: the API of the cluster that it runs in; None: it runs in none, or it cannot be reached.
        namespace, release: where the chart was installed there, and under which name.
        candidate: NAME@VERSION of the registry that may be released and taken back; None: nothing may.
        measured: what one check measured for those that follow, by name.
    """

    url: str
    model: str
    http: aiohttp.ClientSession
    admin_url: str | None = None
    state: Path | None = None
    checkout: Path | None = None
    users: int = 50
    load_s: float = 30.0
    cost_per_hour: float | None = None
    api_key: str | None = None
    cluster: KubeObjects | None = None
    namespace: str = "default"
    release: str = "llm-inference"
    candidate: str | None = None
    measured: dict[str, Any] = field(default_factory=dict)
