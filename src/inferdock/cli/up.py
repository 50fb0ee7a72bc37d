"""``inferdock up``: the platform on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from inferdock.app.models import find_model
from inferdock.app.platform import run_platform
from inferdock.app.terminal import has_terminal
from inferdock.cli.models.bars import bars
from inferdock.cli.output import note
from inferdock.cli.platform_view import live_picture, replica_line, stamp
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.config.settings import Settings
from inferdock.supervisor.engine import Machine
from inferdock.supervisor.model_folder import Model
from inferdock.supervisor.preflight import quick_checks, require
from inferdock.supervisor.replica import ReplicaState
from inferdock.supervisor.supervisor import View


@click.command()
@config_file_option
@click.option("--model", help="Folder, name[@version] in the registry, org/model, or `demo` (default).")
@click.option("--name", help="Name to serve it under; default: the folder's name.")
@click.option("--replicas", type=int, help="Number of replicas (default 1).")
@click.option("--host", help="Address to listen on (default 127.0.0.1).")
@click.option("--port", type=int, help="Port of the gateway (default 8080).")
@click.option("--workers", type=int, help="Gateway processes that serve the port together (default 1).")
@click.option("--engine", type=click.Choice(["vllm", "sim"]), help="Engine (default vllm); sim makes up its answers.")
@click.option("--max-model-len", type=int, help="Longest prompt plus answer, in tokens.")
@click.option("--state-dir", type=click.Path(file_okay=False, path_type=Path), help="Folder for logs and run state.")
@click.option("--drain-timeout", type=float, help="Seconds that open requests get to finish (default 60).")
def up(
    config_file: Path | None,
    model: str | None,
    name: str | None,
    replicas: int | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    engine: str | None,
    max_model_len: int | None,
    state_dir: Path | None,
    drain_timeout: float | None,
) -> int:
    """Run the platform here: replicas and gateway, watched, restarted, and drained on Ctrl-C. SIGHUP reads the
    configuration again.

    \b
    Example:
      inferdock up                                  # the demo model at http://127.0.0.1:8080/v1
      inferdock up --model ./mistral-7b --replicas 2
      inferdock up --model mistral-7b@champion      # from the registry, every byte verified
      inferdock up --engine sim --replicas 4        # without a model
    """
    flags = {
        "model.source": ("--model", model),
        "model.name": ("--name", name),
        "engine.replicas": ("--replicas", replicas),
        "gateway.host": ("--host", host),
        "gateway.port": ("--port", port),
        "gateway.workers": ("--workers", workers),
        "engine.kind": ("--engine", engine),
        "model.max_model_len": ("--max-model-len", max_model_len),
        "state_dir": ("--state-dir", state_dir),
        "drain_timeout_s": ("--drain-timeout", drain_timeout),
    }

    def read() -> Settings:
        return load_settings(config_file, flags).settings

    settings = read()
    with bars() as progress:
        found = find_model(settings, os.environ, progress)
    for warning in require(quick_checks(settings, found, Machine.here())):
        note(f"warning: {warning.message} {warning.cure}")
    return asyncio.run(_run(settings, found, read))


async def _run(settings: Settings, model: Model, read: Callable[[], Settings]) -> int:
    stop, stop_now, reload = asyncio.Event(), asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    had_terminal = has_terminal()

    def asked_to_stop() -> None:
        (stop_now if stop.is_set() else stop).set()

    def hang_up() -> None:
        if had_terminal and not has_terminal():
            asked_to_stop()
        else:
            reload.set()

    handlers = {signal.SIGINT: asked_to_stop, signal.SIGTERM: asked_to_stop, signal.SIGHUP: hang_up}
    for number, handler in handlers.items():
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup ignores the end of the terminal, and so do we
            loop.add_signal_handler(number, handler)
    console = Console(stderr=True)
    display = _LiveDisplay(console) if console.is_terminal else _LineDisplay()
    with display:
        await run_platform(
            settings,
            model,
            environment=os.environ,
            changed=display.show,
            stop=stop,
            stop_now=stop_now,
            reload=reload,
            read=read,
            say=display.say,
        )
    note("Stopped at once." if stop_now.is_set() else "Stopped; nothing is left running.")
    return 130 if stop_now.is_set() else 0


class _LineDisplay:
    """One line per event, for logs and pipes."""

    def __init__(self) -> None:
        self._told: dict[str, tuple[str, int]] = {}
        self._greeted = False
        self._stopping = False

    def __enter__(self) -> _LineDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, view: View) -> None:
        """Say what is new."""
        if view.url and "gateway" not in self._told:
            self._told["gateway"] = ("listening", 0)
            note(f"{stamp()} gateway listens at {view.url}, admin at {view.admin_url}")
        if view.stopping and not self._stopping:
            self._stopping = True
            note(f"{stamp()} draining: open requests finish, new ones are refused")
        for replica in view.replicas:
            key = (str(replica.state), replica.restarts)
            stopped = replica.state is ReplicaState.STOPPED
            if not stopped and self._told.get(replica.name) != key and not view.stopping:
                self._told[replica.name] = key
                note(f"{stamp()} {replica_line(replica, view.url)}")
        if view.ready and not self._greeted:
            self._greeted = True
            note(greeting(view))

    def say(self, text: str) -> None:
        """Say one sentence."""
        note(f"{stamp()} {text}")


class _LiveDisplay:
    """A picture that is redrawn in place, on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._greeted = False

    def __enter__(self) -> _LiveDisplay:
        self._live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            self._live.__exit__(None, None, None)

    def show(self, view: View) -> None:
        """Redraw."""
        if view.ready and not self._greeted:
            self._greeted = True
            self._console.print(greeting(view), highlight=False, soft_wrap=True)
        self._live.update(live_picture(view, time.monotonic()))

    def say(self, text: str) -> None:
        """Say one sentence above the picture."""
        self._console.print(f"{stamp()} {text}", highlight=False, soft_wrap=True, markup=False)


def greeting(view: View) -> str:
    """What a newcomer needs once the first replica is ready."""
    body = f'{{"model": "{view.model}", "messages": [{{"role": "user", "content": "What is Inferdock?"}}]}}'
    return (
        f"\n{view.model} is served at {view.url}/v1 (OpenAI API). Try it from another terminal:\n"
        f'  inferdock ask "What is Inferdock?" --url {view.url}/v1\n'
        f"  curl {view.url}/v1/chat/completions -H 'Content-Type: application/json' -d '{body}'\n"
        f"Metrics: {view.url}/metrics   Stop: Ctrl-C\n"
    )
