"""``inferdock install``: the chart into a cluster, without helm, and words about what takes its time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
import uvloop

from inferdock.app.install import Installed, Wish, reach, send_chart, wait_until_ready, with_revisions
from inferdock.app.render import NOTES, render
from inferdock.cli.output import note, output_option, print_json, printable
from inferdock.cli.render import chart_options
from inferdock.cli.settings_options import config_file_option, load_settings


@click.command()
@config_file_option
@chart_options
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace to install into.")
@click.option("--create-namespace", is_flag=True, help="Make the namespace if it is not there.")
@click.option("--kube-context", help="Context of kubectl's configuration; default: the current one.")
@click.option("--kube-api", metavar="URL", help="Address of the API server, for instance of a `kubectl proxy`.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until every pod is ready.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=1200.0,
    show_default=True,
    help="Longest wait in seconds; weights may have to be fetched.",
)
@click.option("--replace", is_flag=True, help="Let Helm delete engines that the values no longer name.")
@output_option
def install(
    config_file: Path | None,
    chart: Path,
    values: dict[str, Any],
    name: str,
    namespace: str,
    create_namespace: bool,
    kube_context: str | None,
    kube_api: str | None,
    wait: bool,
    timeout: float,
    replace: bool,
    output: str,
) -> None:
    """Install the chart into a cluster, or upgrade it, and wait until every pod is ready, or say why one is not.

    Models from the registry get the version and revision that the values leave out. What the values no longer name is
    not deleted while it serves: versions change by `inferdock release`. Needs the extra `deploy`; `helm` and
    `kubectl` see the release as any other.

    Exit code 8 when pods cannot become ready, 12 when they are not within --timeout.

    \b
    Example:
      inferdock install -n models --create-namespace --values prod.yaml
      inferdock install -n models --set gateway.replicaCount=3 --kube-context staging
    """
    registry = load_settings(config_file, {}).settings.registry
    values = with_revisions(values, registry, os.environ, note)
    notes = render(chart, values, name=name, namespace=namespace).get(f"templates/{NOTES}", "")
    wish = Wish(
        name=name,
        namespace=namespace,
        chart=chart,
        values=values,
        context=kube_context,
        api_url=kube_api,
        create_namespace=create_namespace,
        replace=replace,
    )
    done = uvloop.run(_install(wish, timeout if wait else None))
    if output == "json":
        print_json(
            {
                "release": name,
                "namespace": namespace,
                "helm_revision": done.number,
                "upgraded": done.upgraded,
                "deployments": done.deployments,
                "ready": wait,
            }
        )
    else:
        print(printable(notes), end="")


async def _install(wish: Wish, timeout_s: float | None) -> Installed:
    done = await send_chart(wish)
    note(f"{'Upgraded' if done.upgraded else 'Installed'} {wish.name} in {wish.namespace} (revision {done.number}).")
    if timeout_s is not None:
        async with reach(wish, os.environ) as api:
            await wait_until_ready(
                api, wish, done.deployments, timeout_s=timeout_s, told=lambda text: note(printable(text))
            )
    return done
