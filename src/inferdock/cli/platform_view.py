"""Draws a running platform: tables for ``status``, a live picture or plain lines for ``up``."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from inferdock.supervisor.replica import Replica, ReplicaState
from inferdock.supervisor.supervisor import View

STATE_STYLE = {
    "ready": "green",
    "starting": "yellow",
    "waiting": "red",
    "stopped": "dim",
    "unready": "red",
    "draining": "yellow",
}


def load_line(gateway: Mapping[str, Any] | None) -> str:
    """One line of figures from ``/admin/status``."""
    if gateway is None:
        return "the gateway does not answer"
    p95 = gateway.get("ttft_p95_s")
    return (
        f"{gateway['in_flight']} in flight · {gateway['requests_per_s']:.1f} requests/s · "
        f"{gateway['output_tokens_per_s']:.0f} tokens/s · TTFT p95 "
        + (f"{p95 * 1e3:.0f} ms" if p95 is not None else "–")
    )


def worker_lines(gateway: Mapping[str, Any] | None) -> list[str]:
    """One line per gateway worker, where there are several."""
    workers = (gateway or {}).get("workers", [])
    if len(workers) < 2:
        return []
    return [
        f"worker {row['worker']}: {row['state']}, pid {row['pid']}, {row['in_flight']} in flight, "
        f"{row['connections']} connections" + (f", died {row['deaths']} times" if row["deaths"] else "")
        for row in workers
    ]


def replica_table(rows: list[Mapping[str, Any]]) -> Table:
    """Rows with name, revision, state, detail, url, in_flight, running, waiting, kv.

    The revision has a column where there are several, and of addresses the port is shown, so that 80 columns are
    enough; else it is said above the table.
    """
    several = len({row.get("revision") for row in rows}) > 1
    table = Table(box=None, pad_edge=False, header_style="bold")
    if several:
        table.add_column("revision", min_width=max(len(str(row.get("revision", ""))) for row in rows))
    for column in (
        "replica",
        "state",
        "in\nflight",
        "run-\nning",
        "wait-\ning",
        "KV\ncache",
        "re-\nstarts",
        "port" if several else "url",
    ):
        table.add_column(column, justify="left" if column in ("replica", "state", "url", "port") else "right")
    for row in rows:
        state = str(row["state"])
        kv = row.get("kv_cache_usage_ratio")
        table.add_row(
            *([str(row.get("revision", ""))] if several else []),
            str(row["name"]),
            Text(f"{state} {row.get('detail', '')}".rstrip(), style=STATE_STYLE.get(state, "")),
            _figure(row.get("in_flight")),
            _figure(row.get("running")),
            _figure(row.get("waiting")),
            f"{kv:.0%}" if isinstance(kv, float) else "–",
            _figure(row.get("restarts")),
            str(row.get("url", "")).rpartition(":" if several else "\0")[2],
        )
    return table


def _figure(value: object) -> str:
    return "–" if value is None else str(value)


def merged_rows(replicas: list[dict[str, Any]], gateway: Mapping[str, Any] | None) -> list[Mapping[str, Any]]:
    """Replicas as the supervisor knows them, with the gateway's figures of the same name."""
    seen = {row["name"]: row for row in (gateway or {}).get("endpoints", [])}
    figures = ("in_flight", "running", "waiting", "kv_cache_usage_ratio")
    return [{**r, **{k: seen[r["name"]][k] for k in figures if r["name"] in seen}} for r in replicas]


def shares(revision: str, weights: Mapping[str, float]) -> str:
    """The revision that serves, or each one with its share of the requests."""
    if len(weights) < 2:
        return revision
    return " · ".join(f"{name} {share:.3g} %" for name, share in ((n, 100 * w) for n, w in weights.items()))


def live_picture(view: View, now: float) -> RenderableType:
    """The picture that ``up`` keeps on a terminal."""
    rows = [
        {
            "name": r.name,
            "revision": r.revision,
            "state": str(r.state),
            "detail": f"{now - r.since:.0f} s" if r.state is not ReplicaState.READY else "",
            "restarts": r.restarts,
            "url": r.url if r.port else "",
        }
        for r in view.replicas
    ]
    title = Text.assemble(
        ("inferdock", "bold"), f"  {view.model}  {shares(view.revision, view.weights)}  ", (view.url, "cyan")
    )
    parts: list[RenderableType] = [title, replica_table(merged_rows(rows, view.gateway))]
    parts += [Text(f"{r.name}: {r.problem}", style="red") for r in view.replicas if r.problem and not view.stopping]
    if view.stopping:
        parts.append(Text("draining: open requests finish, new ones are refused (Ctrl-C again to stop now)"))
    elif view.ready:
        parts.append(Text(load_line(view.gateway)))
    return Group(*parts)


def replica_line(replica: Replica, url: str) -> str:
    """One plain line about a change of a replica's state."""
    if replica.state is ReplicaState.STARTING:
        return f"{replica.name} is starting on port {replica.port}; its log is {replica.log}"
    if replica.state is ReplicaState.READY:
        return f"{replica.name} is ready and serves behind {url}"
    if replica.state is ReplicaState.WAITING:
        return f"{replica.name} died and will be restarted. {replica.problem}"
    if replica.state is ReplicaState.DRAINING:
        return f"{replica.name} finishes what it has, and will stop"
    return f"{replica.name} has stopped"


def stamp() -> str:
    """Time of day for plain lines."""
    return time.strftime("%H:%M:%S")
