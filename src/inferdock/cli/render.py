"""``inferdock render``: Kubernetes objects from the chart, without a cluster and without helm."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from inferdock.app.render import CHART_NAME, find_chart, objects, render, spelt, without_hooks
from inferdock.app.render import read_values as merge_values
from inferdock.cli.output import note, print_json
from inferdock.domain.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

_OPTIONS = (
    click.option("--chart", type=click.Path(path_type=Path), help="Folder or archive of the chart; default: ours."),
    click.option(
        "--values",
        "files",
        type=click.Path(dir_okay=False, path_type=Path),
        multiple=True,
        help="File of values; later ones win.",
    ),
    click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="One value, as `helm --set` takes it."),
    click.option("--release", "name", default=CHART_NAME, show_default=True, help="Name of the Helm release."),
)


def chart_options(command: F) -> F:
    """Add ``--chart``, ``--values``, ``--set`` and ``--release``; the command gets ``chart``, ``values``, ``name``."""

    @functools.wraps(command)
    def called(chart: Path | None, files: tuple[Path, ...], settings: tuple[str, ...], **given: Any) -> Any:
        return command(chart=find_chart(chart), values=merge_values(files, settings), **given)

    wrapped: Any = called
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return cast("F", wrapped)


@click.command(name="render")
@chart_options
@click.option("-n", "--namespace", default="default", show_default=True, help="Namespace of the objects.")
@click.option("--to", "folder", type=click.Path(file_okay=False, path_type=Path), help="Write one file per template.")
@click.option("-o", "--output", type=click.Choice(["yaml", "json"]), default="yaml", show_default=True, help="Form.")
def render_command(
    chart: Path, values: dict[str, Any], name: str, namespace: str, folder: Path | None, output: str
) -> None:
    """Print the Kubernetes objects that the chart gives for some values, but for the pod of `helm test`.

    Nothing is sent anywhere. Values that cannot work are refused with a sentence (exit code 3). Needs the extra
    `deploy`.

    \b
    Example:
      inferdock render | kubectl apply -f -
      inferdock render --values prod.yaml --set gateway.replicaCount=3 -n models --to out/
    """
    rendered = render(chart, values, name=name, namespace=namespace)
    if folder is not None:
        _write(rendered, folder)
    elif output == "json":
        print_json(without_hooks(objects(rendered)))
    else:
        print(spelt(without_hooks(objects(rendered))), end="")


def _write(rendered: dict[str, str], folder: Path) -> None:
    for path in sorted(rendered):
        found = without_hooks(objects({path: rendered[path]}))
        if not found:
            continue
        target = folder / path.removeprefix("templates/").replace("/", "-")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            target.write_text(spelt(found), encoding="utf-8")
        except OSError as exc:
            raise ConfigError(f"Cannot write {target}: {exc.strerror}.", cure="Give another folder with --to.") from exc
        note(f"wrote {target}: {', '.join(sorted({one['kind'] for one in found}))}")
