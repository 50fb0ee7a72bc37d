"""``inferdock engine``: one engine in place of this process, for containers and by hand, and its preStop hook."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import sys
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

import click

from inferdock.app.engine import (
    Place,
    as_first_process,
    check_place,
    engine_launch,
    find_engine_model,
    wait_until_left_alone,
)
from inferdock.cli.models.bars import bars
from inferdock.cli.output import note
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.domain.errors import EngineError
from inferdock.supervisor.engine import Launch, Machine
from inferdock.supervisor.preflight import raise_open_files
from inferdock.supervisor.quota import cpu_quota

TERMINATED = 128 + signal.SIGTERM
SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL")
READ_TIMEOUT_S = 5.0


@click.group(invoke_without_command=True)
@config_file_option
@click.option("--model", help="Folder, name[@version] in the registry, org/model, or `demo` (default).")
@click.option("--name", help="Name to serve it under; default: the folder's name.")
@click.option("--engine", "kind", type=click.Choice(["vllm", "sim"]), help="Engine (default vllm).")
@click.option("--max-model-len", type=int, help="Longest prompt plus answer, in tokens.")
@click.option("--drain-timeout", type=float, help="Seconds that requests get to finish on SIGTERM (default 60).")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; vLLM asks for no key.")
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="Port to listen on.")
@click.option(
    "--python", envvar="ENGINE_PYTHON", help="Interpreter that has vLLM; default $ENGINE_PYTHON, else our own."
)
@click.option("--offline", is_flag=True, help="Take the version from the cache, and ask no registry.")
@click.option("--revision", help="What the model must be: 12 to 64 digits of its digest, or version-digits.")
@click.option(
    "--print", "--dry-run", "dry_run", is_flag=True, help="Check everything, print the command, start nothing."
)
@click.pass_context
def engine(
    context: click.Context,
    config_file: Path | None,
    model: str | None,
    name: str | None,
    kind: str | None,
    max_model_len: int | None,
    drain_timeout: float | None,
    host: str,
    port: int,
    python: str | None,
    offline: bool,
    revision: str | None,
    dry_run: bool,
) -> None:
    """Start one engine in place of this process, as `inferdock up` starts a replica: the entry of the engine's image.

    A version is pulled if it is not in the cache, every byte is compared with its manifest (exit code 11 when one is
    wrong), and this process becomes the engine: SIGTERM lets it finish its requests for --drain-timeout.

    \b
    Example:
      inferdock engine --model mistral-7b@1.0.0 --host 0.0.0.0
      inferdock engine --model mistral-7b@1.0.0 --offline --revision 1.0.0-0123456789ab   # after inferdock model pull
      inferdock engine --model ./mistral-7b --print
    """
    if context.invoked_subcommand is not None:
        return
    signal.signal(signal.SIGTERM, _end)
    flags = {
        "model.source": ("--model", model),
        "model.name": ("--name", name),
        "engine.kind": ("--engine", kind),
        "model.max_model_len": ("--max-model-len", max_model_len),
        "drain_timeout_s": ("--drain-timeout", drain_timeout),
    }
    settings = load_settings(config_file, flags).settings
    place = Place(host=host, port=port, python=_path_of(python), machine=Machine.here(), quota=cpu_quota())
    with bars() as progress:
        found = find_engine_model(settings, os.environ, progress, offline=offline, revision=revision)
    for warning in check_place(settings, found, place):
        note(f"warning: {warning.message} {warning.cure}")
    launch = engine_launch(settings, found, place, os.environ)
    if dry_run:
        print(spelt(launch, os.environ))
        return
    note(f"{found.name} (revision {found.revision}): {shlex.join(launch.command)}")
    raise_open_files()
    if os.getpid() == 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        launch = as_first_process(launch)
    _become(launch)


def _path_of(python: str | None) -> str:
    """The interpreter's path, since the engine is started without a search."""
    return sys.executable if not python else shutil.which(python) or python


def _end(number: int, frame: FrameType | None) -> None:
    """The first process of a container ends on SIGTERM only where it has said so; weights may be read for minutes."""
    sys.exit(TERMINATED)


def _become(launch: Launch) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(launch.command[0], launch.command, dict(launch.environment))
    except OSError as exc:
        raise EngineError(
            f"{launch.command[0]} cannot be started: {exc.strerror}.", cure="Name the interpreter with --python."
        ) from exc


def spelt(launch: Launch, environment: Mapping[str, str]) -> str:
    """The command for a shell, with the variables that it adds; values of those that may be secret are left out."""
    added = sorted((name, value) for name, value in launch.environment.items() if environment.get(name) != value)
    shown = (f"{name}={'...' if any(word in name.upper() for word in SECRETS) else value}" for name, value in added)
    return shlex.join(["env", *shown, *launch.command])


@engine.command()
@click.option("--port", type=click.IntRange(1, 65535), default=8000, show_default=True, help="The engine's port.")
@click.option(
    "--quiet", type=click.FloatRange(min=0), default=3.0, show_default=True, help="Seconds without a request."
)
@click.option(
    "--at-most", type=click.FloatRange(min=0), default=20.0, show_default=True, help="Longest wait in seconds."
)
def drain(port: int, quiet: float, at_most: float) -> None:
    """Wait until nobody sends the engine here new requests: the `preStop` hook of its container.

    It does not wait for requests that run: SIGTERM, which follows, lets the engine finish them. A pod's grace period
    must be at least this --at-most plus the engine's --drain-timeout plus a margin.

    \b
    Example:
      inferdock engine drain --quiet 3 --at-most 20
    """

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=READ_TIMEOUT_S) as response:
            return str(response.read().decode("utf-8", "replace"))

    alone, took = wait_until_left_alone(read, quiet_s=quiet, at_most_s=at_most, clock=time.monotonic, sleep=time.sleep)
    note(f"{'No new requests' if alone else 'Still new requests'} after {took:.1f} s.")
