"""Puts a gateway together, of one process or of several. Imports nothing of the supervisor, so that it stays small."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

from inferdock.app.front import build_front, keys_of
from inferdock.app.terminal import has_terminal
from inferdock.app.workers import build_parent
from inferdock.config.settings import Settings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.errors import InferdockError
from inferdock.gateway.auth import Authenticator, check_exposure
from inferdock.gateway.health import HealthChecker
from inferdock.gateway.reload import Reload
from inferdock.gateway.server import GatewayServer
from inferdock.gateway.workers.boards import private_boards
from inferdock.gateway.workers.parent import GatewayParent
from inferdock.telemetry.logs import EventLog, write_lines_to_fd

Gateway = GatewayServer | GatewayParent
Follow = Callable[[Gateway], Coroutine[None, None, None]]
SOCKET = "console.sock"


def build_gateway(
    settings: Settings,
    *,
    loop: asyncio.AbstractEventLoop,
    log: EventLog,
    read: Callable[[], Settings] | None = None,
) -> GatewayServer:
    """Put a gateway of one process together; nothing is started yet.

    Args:
        settings: the whole configuration.
        loop: runs everything.
        log: of this process.
        read: merges the configuration again, for reloads; default: it never changes.
    """
    parts = build_front(settings, private_boards(), loop=loop, log=log, check_soon=lambda: health.check_soon())
    health = HealthChecker(
        endpoints=parts.endpoints, pool=parts.front.pool, log=log, interval_s=settings.gateway.health_interval_s
    )

    def prepare(new: Settings) -> Callable[[], None]:
        return lambda: server.apply(new)

    server = GatewayServer(
        settings=settings,
        endpoints=parts.endpoints,
        metrics=parts.metrics,
        front=parts.front,
        health=health,
        log=log,
        apply=parts.apply,
        reload=Reload(settings=settings, read=read or (lambda: settings), rooms=[prepare], log=log),
    )
    return server


async def run_gateway(
    settings: Settings, specs: Sequence[EndpointSpec], announce: Path | None, read: Callable[[], Settings]
) -> bool:
    """Run a gateway until SIGTERM or SIGINT, then drain; SIGHUP reads the configuration again.

    Args:
        settings: the whole configuration.
        specs: endpoints to begin with; the admin API may replace them.
        announce: file that gets ports and process ids as JSON once the gateway listens (written atomically).
        read: merges the configuration again, for reloads.

    Returns:
        True when the drain lost nothing.

    Raises:
        ConfigError: the key file is damaged, or the gateway would serve anybody who reaches it.
        ResourceError: a port cannot be bound, or a worker does not start.
    """
    loop = asyncio.get_running_loop()
    log = EventLog(write_lines_to_fd(sys.stderr.fileno()), level=settings.log.level, form=settings.log.format)
    stop = asyncio.Event()
    check_keys(settings)
    following = following_cluster(settings, log)
    if following is not None and settings.gateway.console_socket is None:
        settings, read = with_console(settings, read)
    gateway: Gateway
    if settings.gateway.workers == 1:
        gateway = build_gateway(settings, loop=loop, log=log, read=read)
    else:
        gateway = build_parent(settings, loop=loop, log=log, read=read)
    _obey_signals(loop, gateway, stop)
    await gateway.start()
    gateway.replace_endpoints(list(specs))
    tasks = []
    if following is not None:
        tasks = [followed(following(gateway), log), console_of_cluster(settings, gateway, log)]
    if announce is not None:
        gateway.workers_changed = lambda: _announce(announce, settings.gateway.host, gateway)
        gateway.workers_changed()
    await stop.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return await gateway.drain()


def following_cluster(settings: Settings, log: EventLog) -> Follow | None:
    """What keeps endpoints and weights as a cluster says; None where no cluster is to be followed.

    Raises:
        ConfigError: the cluster's API cannot be found.
    """
    kubernetes = settings.gateway.kubernetes
    if not kubernetes.enabled:
        return None
    # Late: the client brings 20 MB of libraries that a gateway without a cluster does not need.
    source = importlib.import_module("inferdock.kube.source")
    access = importlib.import_module("inferdock.kube.access").cluster_access(kubernetes.api_url, os.environ)
    return lambda gateway: source.follow(
        kubernetes, access, log=log, changed=gateway.replace_endpoints, set_traffic=gateway.set_traffic
    )


def with_console(settings: Settings, read: Callable[[], Settings]) -> tuple[Settings, Callable[[], Settings]]:
    """Settings, and how they are read again, with a socket for the console in a folder that is ours alone."""
    socket = Path(tempfile.mkdtemp(prefix="inferdock-console-")) / SOCKET

    def told(plain: Settings) -> Settings:
        gateway = plain.gateway.model_copy(update={"console_socket": socket})
        return plain.model_copy(update={"gateway": gateway})

    return told(settings), lambda: told(read())


def console_of_cluster(settings: Settings, gateway: Gateway, log: EventLog) -> asyncio.Task[None]:
    """Answer the console's questions with what a pod knows; should that fail, the gateway serves on."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.event("error", "console not served", reason=repr(task.exception()))

    access = importlib.import_module("inferdock.kube.access").cluster_access(
        settings.gateway.kubernetes.api_url, os.environ
    )
    serve = importlib.import_module("inferdock.app.console.cluster").serve
    socket = settings.gateway.console_socket
    task = asyncio.create_task(serve(settings, access, key_file=keys_of(settings), gateway=gateway, socket=socket))
    task.add_done_callback(ended)
    return task


def followed(following: Coroutine[None, None, None], log: EventLog) -> asyncio.Task[None]:
    """Run it; should a defect of ours end it, the gateway serves on with what it knows, and says so."""

    def ended(task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            log.event("error", "cluster no longer followed: restart this gateway", reason=repr(task.exception()))

    task = asyncio.create_task(following)
    task.add_done_callback(ended)
    return task


def check_keys(settings: Settings) -> None:
    """Refuse to start where the key file is damaged, or where everybody would be served by accident.

    Raises:
        ConfigError: as above.
    """
    auth = Authenticator(keys_of(settings).read(), check=settings.keys.check)
    check_exposure(
        settings.gateway.host,
        keys_enabled=auth.enabled,
        allow_unauthenticated=settings.keys.allow_unauthenticated,
    )


def _obey_signals(loop: asyncio.AbstractEventLoop, gateway: Gateway, stop: asyncio.Event) -> None:
    """A second signal changes nothing: the drain has its deadline."""
    had_terminal = has_terminal()

    def hang_up() -> None:
        if had_terminal and not has_terminal():
            stop.set()  # the terminal is gone, and nobody else would end us
            return
        with contextlib.suppress(InferdockError):  # it is in the log
            gateway.reload()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, hang_up)


def _announce(path: Path, host: str, gateway: Gateway) -> None:
    document = {
        "host": host,
        "port": gateway.port,
        "admin_port": gateway.admin_port,
        "pid": os.getpid(),
        "workers": gateway.pids,
    }
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(document))
    draft.replace(path)
