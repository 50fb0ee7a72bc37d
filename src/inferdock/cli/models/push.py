"""``inferdock model push``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from inferdock.cli.models.bars import bars
from inferdock.cli.models.options import Where, registry_options, size
from inferdock.cli.output import note, output_option, print_json, printable
from inferdock.domain.errors import ConfigError
from inferdock.registry.inspect.folder import Permissions
from inferdock.registry.manifest import Engine
from inferdock.registry.names import Version, check_alias, check_name
from inferdock.registry.push import Pushed, Request
from inferdock.registry.push import push as run_push


@click.command()
@registry_options
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the model; default: the folder's.")
@click.option("--version", required=True, help="For instance 1.2.0; a version that is there never changes.")
@click.option("--alias", help="Then let this alias mean it, for instance candidate.")
@click.option("--allow-pickle", is_flag=True, help="Take pickles, which can run code when loaded; noted for good.")
@click.option("--trust-remote-code", is_flag=True, help="Take code that the engine imports; noted for good.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave out such files, for instance '*.bin'.")
@click.option("--engine-arg", "engine_args", multiple=True, metavar="ARG", help="Argument for the engine; repeatable.")
@click.option("--image", help="Container image to serve it with: repository@sha256:...")
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE", help="Anything to note with it; repeatable.")
@click.option("--source", default="", help="Where it came from, in your words; default: the folder's name.")
@click.option("--reason", default="", help="Why, for the history.")
@output_option
def push(
    where: Where,
    path: Path,
    name: str | None,
    version: str,
    alias: str | None,
    allow_pickle: bool,
    trust_remote_code: bool,
    exclude: Sequence[str],
    engine_args: tuple[str, ...],
    image: str | None,
    labels: Sequence[str],
    source: str,
    reason: str,
    output: str,
) -> None:
    """Check the model in the folder PATH, send what the registry does not have yet, and make it a version.

    Pushing the same files again does nothing; other files under the same version are refused. A push that was cut goes
    on where it was. Nothing is visible before all of it is there and verified.

    Exit code 4 when the folder may not be pushed, 10 when the version is taken or being pushed.

    \b
    Example:
      inferdock model push ./mistral-7b --name mistral-7b --version 1.0.0 --alias candidate
      inferdock model push ./mistral-7b --version 1.0.1 --engine-arg=--max-model-len --engine-arg=8192 --label run=42
    """
    request = Request(
        folder=path,
        name=check_name(name or path.resolve().name),
        version=str(Version.parse(version)),
        allowed=Permissions(pickle=allow_pickle, remote_code=trust_remote_code),
        exclude=exclude,
        engine=Engine(arguments=engine_args, image=image),
        source=source,
        labels=dict(_label(text) for text in labels),
        reason=reason,
    )
    alias = check_alias(alias) if alias else None
    registry = where.registry()
    with bars() as progress:
        pushed = run_push(registry, request, progress)
    moved = registry.move_alias(request.name, alias, request.version, reason=reason) if alias else None
    if output == "json":
        print_json(_document(pushed, alias))
        return
    _say(pushed)
    if alias:
        note(f"{request.name}@{alias} is {request.version}{'' if moved else ' already'}.")


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"--label {text[:100]!r} is not KEY=VALUE.")
    return key, value


def _document(pushed: Pushed, alias: str | None) -> dict[str, Any]:
    ways = (("sent", pushed.sent), ("copied", pushed.copied), ("kept", pushed.kept))
    return {
        "name": pushed.manifest.name,
        "version": pushed.manifest.version,
        "revision": pushed.manifest.revision,
        "created": pushed.event is not None,
        "size_bytes": pushed.manifest.size_bytes,
        "files": len(pushed.manifest.content.files),
        **{way: {"files": files, "bytes": count} for way, (files, count) in ways},
        "alias": alias,
    }


def _say(pushed: Pushed) -> None:
    manifest = pushed.manifest
    what = f"{manifest.name}@{manifest.version}"
    if pushed.event is None:
        note(f"{what} is there already with the same content: nothing to do.")
    else:
        (sent, sent_bytes), (copied, copied_bytes), (kept, kept_bytes) = pushed.sent, pushed.copied, pushed.kept
        parts = [f"{sent} files sent ({size(sent_bytes)})"]
        if copied:
            parts.append(f"{copied} copied from other versions ({size(copied_bytes)})")
        if kept:
            parts.append(f"{kept} were there from an earlier try ({size(kept_bytes)})")
        note(f"{what} is pushed: {', '.join(parts)}.")
    print(printable(manifest.revision))
