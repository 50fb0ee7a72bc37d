"""Puts the platform on one machine together: a supervisor with its collaborators."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import aiohttp

from inferdock.app.console.commands import Commands
from inferdock.app.console.live import Figurer
from inferdock.app.console.server import ConsoleBackend, serving, socket_place
from inferdock.app.models import Finder
from inferdock.app.platform_figures import Teller, telling
from inferdock.config.folders import default_cache_dir, default_state_dir
from inferdock.config.settings import Settings
from inferdock.release.records.file_journal import journals_of
from inferdock.supervisor.engine import Launch, Machine, child_environment, engine_source, with_bytecode_cache
from inferdock.supervisor.engine import replica_launch as build_replica_launch
from inferdock.supervisor.model_folder import Model
from inferdock.supervisor.preflight import raise_open_files
from inferdock.supervisor.probe import Probe
from inferdock.supervisor.seats import Seat
from inferdock.supervisor.state import StateDir
from inferdock.supervisor.supervisor import Supervisor, View


def resolve_state_root(settings: Settings, environment: Mapping[str, str]) -> Path:
    """The folder under which running platforms keep their state."""
    return settings.state_dir or default_state_dir(environment)


async def run_platform(
    settings: Settings,
    model: Model,
    *,
    environment: Mapping[str, str],
    changed: Callable[[View], None],
    stop: asyncio.Event,
    stop_now: asyncio.Event,
    reload: asyncio.Event,
    read: Callable[[], Settings],
    say: Callable[[str], None],
) -> None:
    """Run replicas and gateway on this machine until ``stop``.

    Args:
        settings: the whole configuration.
        model: what to serve; further revisions come through the control socket.
        environment: of the children.
        changed: gets a fresh view whenever there is something new to show.
        stop: drain and end.
        stop_now: end at once.
        reload: each time it is set, the configuration is read again with ``read``.
        read: merges the configuration again.
        say: gets single sentences for the person who watches.

    Raises:
        ResourceError: the gateway cannot listen, or the state folder cannot be written.
        EngineError: no replica could be started.
    """
    machine = Machine.here()
    state_dir = StateDir(resolve_state_root(settings, environment), settings.gateway.port)
    environment = with_bytecode_cache(environment, default_cache_dir(environment) / "bytecode", engine_source())

    def replica_launch(model: Model, seat: Seat, port: int) -> Launch:
        index, replicas, seen = seat.index, seat.replicas, machine
        if machine.gpus:  # its GPUs are its own, so it is the only one that shares them
            index, replicas, seen = 0, 1, dataclasses.replace(machine, gpu_names=seat.gpu_names or machine.gpu_names)
        return build_replica_launch(
            index=index,
            port=port,
            engine=settings.engine.model_copy(update={"replicas": replicas}),
            model_settings=settings.model,
            model=model,
            drain_timeout_s=settings.drain_timeout_s,
            machine=seen,
            environment=environment,
        )

    def gateway_launch(state: StateDir) -> Launch:
        command = [sys.executable, "-m", "inferdock.cli.main", "gateway", "-f", str(state.gateway_config)]
        return Launch((*command, "--announce", str(state.announce)), child_environment(environment))

    state_dir.prepare()
    raise_open_files()
    async with aiohttp.ClientSession() as session, socket_place(state_dir.folder / "console.sock") as socket:
        root = resolve_state_root(settings, environment)
        port = ("--port", str(settings.gateway.port))
        supervisor = Supervisor(
            settings=_with_console(settings, socket),
            model=model,
            machine=machine,
            finder=Finder(settings, environment, model.name),
            state_dir=state_dir,
            replica_launch=replica_launch,
            gateway_launch=gateway_launch,
            probe=Probe(session),
            changed=changed,
            read=lambda: _with_console(read(), socket),
            say=say,
        )
        backend = ConsoleBackend(
            settings=settings,
            environment=environment,
            root=root,
            view=supervisor.view,
            commands=Commands(
                ["-f", str(state_dir.gateway_config), *port, "--state-dir", str(root)], environment, Path.cwd()
            ),
            http=session,
        )
        teller = Teller(
            supervisor=supervisor,
            journals=lambda: journals_of(root, model.name),
            figurer=Figurer(session, settings.cost),
            probe=Probe(session),
            say=say,
        )
        async with serving(backend, socket), telling(teller):
            await supervisor.run(stop, stop_now, reload)


def _with_console(settings: Settings, socket: Path) -> Settings:
    """The gateway is told where the console's questions go."""
    gateway = settings.gateway.model_copy(update={"console_socket": socket.absolute()})
    return settings.model_copy(update={"gateway": gateway})
