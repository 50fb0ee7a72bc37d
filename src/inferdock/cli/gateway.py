"""``inferdock gateway``: the data plane alone, in front of replicas that somebody else runs."""

from __future__ import annotations

from pathlib import Path

import click
import uvloop

from inferdock.app.gateway import run_gateway
from inferdock.cli.output import note
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.config.settings import Settings
from inferdock.domain.endpoint import EndpointSpec
from inferdock.domain.errors import ConfigError, RequestError
from inferdock.gateway.admin import endpoint_spec


@click.command()
@config_file_option
@click.option(
    "--replica", "replicas", multiple=True, metavar="MODEL[@REVISION]=URL", help="A replica to send requests to."
)
@click.option("--host", help="Address to listen on.")
@click.option("--port", type=int, help="Port for clients; 0 takes any free one.")
@click.option("--admin-port", type=int, help="Port of the admin API on 127.0.0.1; 0 takes any free one.")
@click.option("--workers", type=int, help="Processes that serve the port together (default 1).")
@click.option("--drain-timeout", type=float, help="Seconds that open requests get on SIGTERM.")
@click.option(
    "--announce",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File that gets host, ports and pid as JSON once the gateway listens.",
)
def gateway(
    config_file: Path | None,
    replicas: tuple[str, ...],
    host: str | None,
    port: int | None,
    admin_port: int | None,
    workers: int | None,
    drain_timeout: float | None,
    announce: Path | None,
) -> None:
    """Run the gateway alone, in front of given replicas. SIGHUP reads the configuration again, SIGTERM drains.

    The response cache needs the revision: only then is it sure that a release gets no old answers.

    \b
    Example:
      inferdock gateway --port 8080 --replica my-model=http://127.0.0.1:8001 --replica my-model=http://127.0.0.1:8002
      inferdock gateway --replica my-model@v3=http://127.0.0.1:8001
    """
    flags = {
        "gateway.host": ("--host", host),
        "gateway.port": ("--port", port),
        "gateway.admin_port": ("--admin-port", admin_port),
        "gateway.workers": ("--workers", workers),
        "drain_timeout_s": ("--drain-timeout", drain_timeout),
    }

    def read() -> Settings:
        return load_settings(config_file, flags).settings

    settings = read()
    specs = [_parse_replica(index, text) for index, text in enumerate(replicas)]
    if not uvloop.run(run_gateway(settings, specs, announce, read)):
        note("The drain deadline cut requests that were still open.")


def _parse_replica(index: int, text: str) -> EndpointSpec:
    named, equals, url = text.partition("=")
    model, at, revision = named.rpartition("@") if "@" in named else (named, "", "")
    if not equals or not model or (at and not revision):
        raise ConfigError(
            f"--replica {text} is not MODEL[@REVISION]=URL.", cure="For instance my-model@v3=http://127.0.0.1:8001."
        )
    try:
        return endpoint_spec(f"replica-{index}", url, model, revision)
    except RequestError as exc:
        raise ConfigError(f"--replica {text}: {exc.message}") from exc
