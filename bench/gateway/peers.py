"""The gateways that are compared: how each is installed, configured and started.

Defaults of each product hold unless a line here says why not. All write their logs to the null device. The Rust routers
use ``round_robin`` (their default ``cache_aware`` costs more), haproxy and nginx write no request log: both favour the
peers. LiteLLM does not start without a key, so its requests carry one.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.gateway.tools import cache, snapshot

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "vllm-router": "vllm-router==0.1.17",
    "sglang-router": "sglang-router==0.3.2",
    "litellm": "litellm[proxy]==1.106.2",
}
MOST_OPEN = 9_000
"""Open requests that every gateway must take; twice as many sockets."""


@dataclass(frozen=True)
class Place:
    """Where one instance runs: its folder, its ports, its replicas, how many worker processes it has.

    ``secret``: text made up for this instance, for products that take their key as a setting.
    """

    folder: Path
    port: int
    second_port: int
    urls: Sequence[str]
    workers: int
    secret: str


@dataclass(frozen=True)
class Peer:
    """One gateway.

    Attributes:
        command: what starts it; None: no gateway, the load goes to a replica.
        version: as the product names it.
        make_key: makes a key before the start and gives the header lines of a client that has it; None: keys are not
            switched on here.
        needs_key: it does not start without keys, so they are on whether asked for or not.
        slow: far slower than the rest, so that its steps get more time.
        missing: why it cannot run here; empty if it can.
        workers: whether it can run several workers (or threads) on demand.
    """

    name: str
    command: Callable[[Place], list[str]] | None
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)
    make_key: Callable[[Place], list[str]] | None = None
    needs_key: bool = False
    slow: bool = False
    missing: str = ""
    workers: bool = False


NAMES = ("direct", "inferdock", "bare", "haproxy", "nginx", "vllm-router", "sglang-router", "litellm")


def find(name: str) -> Peer:
    """A peer by its name; ``inferdock@REVISION`` is a commit of this repository instead of the working tree."""
    if name == "direct":
        return Peer(name, None, "")
    product, _, revision = name.partition("@")
    makers: dict[str, Callable[[], Peer]] = {
        "inferdock": lambda: _inferdock(name, revision),
        "bare": _bare,
        "haproxy": _haproxy,
        "nginx": _nginx,
        "vllm-router": lambda: _rust_router("vllm-router", ["bin/vllm-router"]),
        "sglang-router": lambda: _rust_router("sglang-router", ["bin/python", "-m", "sglang_router.launch_router"]),
        "litellm": _litellm,
    }
    if product not in makers:
        sys.exit(f"error: no peer is called {name}; there are {', '.join(NAMES)}")
    return makers[product]()


# -- Inferdock --------------------------------------------------------------------------------------------------------


def _inferdock(name: str, revision: str) -> Peer:
    source, commit = snapshot(revision) if revision else (ROOT / "src", "working tree")
    environment = {"PYTHONPATH": str(source)}

    def command(place: Place) -> list[str]:
        arguments = _cli("gateway", "-f", str(_config(place, environment)), "--port", str(place.port))
        arguments += [part for url in place.urls for part in ("--replica", f"m={url}")]
        return arguments + (["--workers", str(place.workers)] if place.workers > 1 else [])

    offered = _help(environment, "gateway")
    return Peer(
        name,
        command,
        commit,
        environment,
        make_key=(lambda place: inferdock_key(place, environment)) if _help(environment, "keys") else None,
        workers="--workers" in offered,
        missing="" if offered else "`inferdock gateway --help` fails",
    )


def _config(place: Place, environment: Mapping[str, str]) -> Path:
    config = place.folder / "inferdock.yaml"
    # Requests beyond the limit are refused, which is right for a gateway and wrong for this measurement.
    limits = "".join(f"  {limit}: {MOST_OPEN}\n" for limit in _in_flight_limits(environment))
    config.write_text(f"gateway:\n{limits}state_dir: {place.folder}\n")
    return config


def _in_flight_limits(environment: Mapping[str, str]) -> list[str]:
    """Settings that bound open requests; an older commit has fewer."""
    ask = "from inferdock.config.settings import GatewaySettings as G; print(*G.model_fields)"
    command = [sys.executable, "-c", ask]
    known = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=True)
    return [name for name in known.stdout.split() if name.startswith("max_in_flight")]


def _cli(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "inferdock.cli.main", *arguments]


def _help(environment: Mapping[str, str], *command: str) -> str:
    result = subprocess.run(
        _cli(*command, "--help"), capture_output=True, text=True, env={**os.environ, **environment}, check=False
    )
    return result.stdout if result.returncode == 0 else ""


def inferdock_key(place: Place, environment: Mapping[str, str]) -> list[str]:
    """A key; with BENCH_KEY_LIMITS in the environment one with every limit on, each out of reach."""
    wanted = ("--rpm", "--tpm", "--streams") if os.environ.get("BENCH_KEY_LIMITS") else ()
    limits = [part for limit in wanted for part in (limit, str(1_000_000_000))]
    command = _cli("keys", "create", "-f", str(_config(place, environment)), "--name", "bench", *limits)
    made = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment}, check=False)
    if made.returncode:
        sys.exit(f"no key could be made: {made.stderr.strip()}")
    return [f"Authorization: Bearer {made.stdout.strip()}"]


def _bare() -> Peer:
    def command(place: Place) -> list[str]:
        ports = [url.rpartition(":")[2] for url in place.urls]
        return [sys.executable, "-m", "bench.gateway.bare_proxy", str(place.port), *ports]

    return Peer("bare", command, "", {"PYTHONPATH": str(ROOT)})


# -- haproxy and nginx, from the distribution -------------------------------------------------------------------------


def _haproxy() -> Peer:
    def command(place: Place) -> list[str]:
        servers = "".join(
            f"  server r{number} {url.removeprefix('http://')} check\n" for number, url in enumerate(place.urls)
        )
        config = place.folder / "haproxy.cfg"
        config.write_text(
            f"global\n  maxconn {MOST_OPEN}\n  nbthread {place.workers}\n"
            "defaults\n  mode http\n  option http-no-delay\n  http-reuse always\n"
            "  timeout connect 5s\n  timeout client 600s\n  timeout server 600s\n"
            f"frontend clients\n  bind 127.0.0.1:{place.port}\n  default_backend replicas\n"
            f"backend replicas\n  balance leastconn\n{servers}"
        )
        return [_program("haproxy"), "-db", "-f", str(config)]

    return Peer("haproxy", command, _version("haproxy", "-v"), missing=_absent("haproxy"), workers=True)


def _nginx() -> Peer:
    def command(place: Place) -> list[str]:
        servers = "".join(f"    server {url.removeprefix('http://')};\n" for url in place.urls)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = "".join(f"  {kind}_temp_path {place.folder}/{kind};\n" for kind in kinds)
        config = place.folder / "nginx.conf"
        user = "user root;\n" if os.geteuid() == 0 else ""
        config.write_text(
            f"{user}daemon off;\nworker_processes {place.workers};\npid {place.folder}/nginx.pid;\n"
            f"error_log stderr;\nworker_rlimit_nofile {2 * MOST_OPEN};\n"
            f"events {{ worker_connections {2 * MOST_OPEN}; }}\n"
            f"http {{\n  access_log off;\n{temporary}"
            "  client_max_body_size 64m;\n  client_body_buffer_size 1m;\n"  # else long prompts go through a file
            "  keepalive_requests 1000000000;\n  keepalive_timeout 600s;\n"
            f"  upstream replicas {{\n{servers}    keepalive 1024;\n    keepalive_requests 1000000000;\n  }}\n"
            f"  server {{\n    listen 127.0.0.1:{place.port};\n    location / {{\n      proxy_pass http://replicas;\n"
            '      proxy_http_version 1.1;\n      proxy_set_header Connection "";\n      proxy_buffering off;\n'
            "      proxy_read_timeout 600s;\n    }\n  }\n}\n"
        )
        return [_program("nginx"), "-c", str(config), "-e", "stderr"]

    return Peer("nginx", command, _version("nginx", "-v"), missing=_absent("nginx"), workers=True)


def _program(name: str) -> str:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin") or ""


def _absent(name: str) -> str:
    return "" if _program(name) else f"not installed (Debian: apt-get install -y {name})"


def _version(name: str, flag: str) -> str:
    if _absent(name):
        return ""
    result = subprocess.run([_program(name), flag], capture_output=True, text=True, check=False)
    return (result.stdout or result.stderr).splitlines()[0].replace("nginx version: ", "").strip()


# -- Python packages, each in an environment of its own ---------------------------------------------------------------


def _rust_router(name: str, start: Sequence[str]) -> Peer:
    folder = cache() / name

    def command(place: Place) -> list[str]:
        return [
            str(folder / start[0]), *start[1:],
            "--host", "127.0.0.1", "--port", str(place.port), "--prometheus-port", str(place.second_port),
            "--prometheus-host", "127.0.0.1", "--worker-urls", *place.urls, "--policy", "round_robin",
            "--worker-startup-check-interval", "1",
        ]  # fmt: skip

    return Peer(name, command, _installed(name), missing=_uninstalled(name))


def _litellm() -> Peer:
    folder = cache() / "litellm"

    def command(place: Place) -> list[str]:
        models = [
            {"model_name": "m", "litellm_params": {"model": "openai/m", "api_base": f"{url}/v1", "api_key": "none"}}
            for url in place.urls
        ]
        config = place.folder / "config.yaml"
        general = {"master_key": place.secret}
        settings = {"model_list": models, "general_settings": general, "litellm_settings": {"telemetry": False}}
        config.write_text(json.dumps(settings))  # JSON is YAML
        arguments = ["--config", str(config), "--host", "127.0.0.1", "--port", str(place.port)]
        return [str(folder / "bin/litellm"), *arguments, "--num_workers", str(place.workers)]

    offline = {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it asks the network for prices at start
    return Peer(
        "litellm", command, _installed("litellm"), offline,
        make_key=lambda place: [f"Authorization: Bearer {place.secret}"],
        needs_key=True, slow=True, missing=_uninstalled("litellm"),
    )  # fmt: skip


def _installed(name: str) -> str:
    pattern = f"lib/python*/site-packages/{name.replace('-', '_')}-*.dist-info"
    found = next(iter((cache() / name).glob(pattern)), None)
    return found.name.removesuffix(".dist-info").rpartition("-")[2] if found else ""


def _uninstalled(name: str) -> str:
    wanted = PACKAGES[name].partition("==")[2]
    return "" if _installed(name) == wanted else f"version {wanted} is not installed (run with --install)"


def install(name: str) -> None:
    """Install a peer that comes as a Python package into its own environment, unless it is there."""
    if name not in PACKAGES or not _uninstalled(name):
        return
    folder = cache() / name
    print(f"installing {PACKAGES[name]} into {folder}", file=sys.stderr, flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(folder / "bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, PACKAGES[name]], check=False).returncode:
        print(f"{name} cannot be installed on Python {platform.python_version()}: left out", file=sys.stderr)
