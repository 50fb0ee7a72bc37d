"""Servers of a benchmark: started on given cores, watched as process trees, ended whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.gateway.peers import Peer, Place
from bench.gateway.tools import program
from bench.servers import free_port, process, wait_for


@dataclass(frozen=True)
class Cores:
    """Cores of the gateway, and those of replicas and load."""

    gateway: tuple[int, ...]
    others: tuple[int, ...]


@dataclass(frozen=True)
class Replicas:
    """The running fake replicas."""

    urls: tuple[str, ...]

    def ask(self, path: str) -> str:
        """GET of the first replica; all of them are one process."""
        with urllib.request.urlopen(self.urls[0] + path, timeout=10) as response:
            return str(response.read().decode())


@dataclass(frozen=True)
class Running:
    """A gateway that answers."""

    port: int
    pid: int | None
    start_s: float
    idle_rss_mb: float
    headers: tuple[str, ...] = ()

    def pids(self) -> list[int]:
        """Processes of its tree, the root first."""
        return [] if self.pid is None else tree(self.pid)


def tree(root: int) -> list[int]:
    """A process and all of its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = parent_pid((entry / "stat").read_text())
                children.setdefault(parent, []).append(int(entry.name))
    found = [root]
    for pid in found:
        found.extend(children.get(pid, []))
    return found


def parent_pid(stat: str) -> int:
    """Parent in the text of ``/proc/PID/stat``; the name in parentheses may hold anything."""
    return int(stat.rpartition(")")[2].split()[1])


def rss_mb(pids: Sequence[int]) -> list[float]:
    """Resident memory of each process in MB (10^6 bytes)."""
    page = os.sysconf("SC_PAGE_SIZE")
    sizes = []
    for pid in pids:
        with contextlib.suppress(OSError):
            sizes.append(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * page / 1e6)
    return sizes


@dataclass(frozen=True)
class Busy:
    """Seconds that cores have been busy, and that processes have run, up to one moment."""

    at: float
    cores_s: float
    ours_s: float


def busy(cores: Sequence[int], pids: Sequence[int]) -> Busy:
    """Reads the counters of the cores and of the processes that belong there."""
    lines = Path("/proc/stat").read_text().splitlines()
    ours = sum(cpu_s(pid) for pid in pids)
    return Busy(time.monotonic(), sum(core_busy_s(lines, core) for core in cores), ours)


def core_busy_s(lines: Sequence[str], core: int) -> float:
    """Seconds since boot in which a core did not idle, from the lines of ``/proc/stat``; stolen time counts."""
    ticks = next(line.split()[1:9] for line in lines if line.startswith(f"cpu{core} "))
    user, nice, system, _, _, irq, softirq, steal = map(int, ticks)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Seconds that the threads of a process have run."""
    total = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):
            total += int(task.read_text().split()[0])
    return total / 1e9


def others_share(before: Busy, after: Busy) -> float:
    """Share of the time in which cores were busy with something else than the processes that belong there."""
    others = (after.cores_s - before.cores_s) - (after.ours_s - before.ours_s)
    return max(0.0, others / (after.at - before.at))


def pinned(cores: Sequence[int], command: Sequence[str]) -> list[str]:
    """The command, kept on the given cores with all it starts."""
    return ["taskset", "-c", ",".join(map(str, cores)), *command]


@contextlib.contextmanager
def replicas(count: int, cores: Cores) -> Iterator[Replicas]:
    """Run the fake replicas."""
    command = pinned(cores.others, [str(program("upstream")), str(count)])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            yield Replicas(tuple(f"http://127.0.0.1:{port}" for port in child.stdout.readline().split()))
        finally:
            child.kill()


@contextlib.contextmanager
def gateway(
    peer: Peer, upstreams: Replicas, *, count: int, workers: int, cores: Cores, auth: bool, log: Path | None
) -> Iterator[Running]:
    """Run one gateway in front of the first ``count`` replicas; yields when it answers."""
    urls = upstreams.urls[:count]
    if peer.command is None:
        yield Running(int(urls[0].rpartition(":")[2]), None, 0.0, 0.0)
        return
    with tempfile.TemporaryDirectory(prefix=f"bench-{peer.name.partition('@')[0]}-") as folder:
        place = Place(Path(folder), free_port(), free_port(), urls, workers, f"sk-{secrets.token_hex(16)}")
        headers = tuple(peer.make_key(place)) if peer.make_key and (auth or peer.needs_key) else ()
        command = pinned(cores.gateway, peer.command(place))
        with _environment(peer.environment), contextlib.chdir(folder):
            started = process(command, log or Path(os.devnull))
            child = started.__enter__()
        try:
            took = wait_for(lambda: _completes(place.port, headers), child, log or Path(os.devnull))
            if headers and _completes(place.port, ()):
                sys.exit("it serves requests without a key although keys are on")
            yield Running(place.port, child.pid, took, max(rss_mb(tree(child.pid))), headers)
        finally:
            started.__exit__(None, None, None)


@contextlib.contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _completes(port: int, headers: Sequence[str]) -> bool:
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body)
    request.add_header("Content-Type", "application/json")
    for header in headers:
        name, _, value = header.partition(":")
        request.add_header(name, value.strip())
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return bool(response.status == 200)
    except (OSError, ValueError):
        return False
