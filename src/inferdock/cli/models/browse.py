"""``inferdock model list`` and ``show``."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import click
import msgspec
from rich.text import Text

from inferdock.cli.models.options import Where, cell, number, registry_options, size, table
from inferdock.cli.models.options import show as print_it
from inferdock.cli.output import note, output_option, print_json
from inferdock.domain.errors import IntegrityError
from inferdock.registry.ledger import Released, State
from inferdock.registry.manifest import encode
from inferdock.registry.names import CHAMPION, Reference, check_name
from inferdock.registry.registry import Registry, Version


@click.command("list")
@registry_options
@click.argument("name", required=False)
@output_option
def list_(where: Where, name: str | None, output: str) -> None:
    """Show the models, or the versions of one, newest last.

    \b
    Example:
      inferdock model list
      inferdock model list mistral-7b -o json | jq -r '.[-1].version'
    """
    registry = where.registry()
    if name is not None:
        _list_versions(registry.state(check_name(name)), output)
    else:
        _list_models(registry, output)


def _list_models(registry: Registry, output: str) -> None:
    states = list(_states(registry))
    if output == "json":
        print_json([_model(state) for state in states])
        return
    if not states:
        note(f"The registry {registry.store.location} is empty. `inferdock model push` fills it.")
        return
    made = table(
        "model", "versions", "newest", "aliases", "size", right=("versions", "size"), wide=("model", "aliases")
    )
    for state in states:
        newest = list(state.versions or "–")[-1]
        aliases = ", ".join(f"{alias} {version}" for alias, version in _by_importance(state)) or "–"
        total = sum(released.push.size_bytes for released in state.versions.values())
        row = (cell(state.name, "bold"), cell(len(state.versions)), cell(newest), cell(aliases), cell(size(total)))
        made.add_row(*row)
    print_it(made)


def _states(registry: Registry) -> Iterable[State]:
    """Every model; one whose history is broken is named, and does not hide the others."""
    for name in registry.names():
        try:
            yield registry.state(name)
        except IntegrityError as exc:
            note(f"warning: {exc}")


def _by_importance(state: State) -> list[tuple[str, str]]:
    return sorted(state.aliases.items(), key=lambda item: (item[0] != CHAMPION, item[0]))


def _model(state: State) -> dict[str, Any]:
    return {
        "name": state.name,
        "versions": list(state.versions),
        "aliases": dict(state.aliases),
        "size_bytes": sum(released.push.size_bytes for released in state.versions.values()),
    }


def _list_versions(state: State, output: str) -> None:
    if output == "json":
        print_json([_row(state, released) for released in state.versions.values()])
        return
    made = table(
        "version",
        "revision",
        "aliases",
        "size",
        "files",
        "pushed",
        "by",
        right=("size", "files"),
        wide=("aliases", "by"),
    )
    for released in state.versions.values():
        push, event = released.push, released.event
        aliases = ", ".join(state.aliases_of(push.version)) or "–"
        row = (push.version, push.revision[:12], aliases, size(push.size_bytes), push.files, event.time[:16] + "Z")
        made.add_row(*(cell(value) for value in row), cell(event.actor))
    print_it(made)


def _row(state: State, released: Released) -> dict[str, Any]:
    push, event = released.push, released.event
    return {
        "version": push.version,
        "revision": push.revision,
        "aliases": state.aliases_of(push.version),
        "size_bytes": push.size_bytes,
        "files": push.files,
        "pushed_at": event.time,
        "pushed_by": event.actor,
        "signed_by": push.signed_by,
        "manifest_sha256": push.manifest_sha256,
    }


@click.command()
@registry_options
@click.argument("reference", metavar="NAME[@VERSION|@ALIAS]")
@click.option("--manifest", "raw", is_flag=True, help="Write MANIFEST.json, byte for byte.")
@output_option
def show(where: Where, reference: str, raw: bool, output: str) -> None:
    """Show what a version is: facts of the model, files with digests, arguments, where it came from.

    \b
    Example:
      inferdock model show mistral-7b@1.0.0
      inferdock model show mistral-7b --manifest | sha256sum
    """
    version = where.registry().version(Reference.parse(reference))
    if raw:
        sys.stdout.buffer.write(encode(version.manifest))
        return
    if output == "json":
        document = msgspec.to_builtins(version.manifest)
        print_json({**document, "aliases": version.aliases, "signed_by": version.released.push.signed_by})
        return
    for name, value in _lines(version):
        print_it(Text.assemble((f"{name:<14}", "bold"), cell(value)))
    made = table("file", "size", "sha256", right=("size",), wide=("file",))
    for entry in version.manifest.content.files:
        made.add_row(cell(entry.path), cell(size(entry.size)), cell(entry.sha256[:16] + "…", "dim"))
    print_it(Text(""))
    print_it(made)


def _lines(version: Version) -> Iterable[tuple[str, str]]:
    manifest = version.manifest
    facts, engine, provenance = manifest.content.facts, manifest.content.engine, manifest.provenance
    allowed = [name for name in ("pickle", "remote_code") if getattr(manifest.content.permissions, name)]
    weights = ", ".join(f"{dtype} {size(count)}" for dtype, count in sorted(facts.dtypes.items()))
    quantization = ", ".join(f"{key} {value}" for key, value in (facts.quantization or {}).items())
    yield "version", str(version)
    yield "revision", manifest.revision
    yield "aliases", ", ".join(version.aliases) or "none"
    yield "architecture", facts.architecture
    yield "parameters", number(facts.parameters) if facts.parameters else "unknown"
    yield "weights", weights or size(facts.weight_bytes)
    yield "quantisation", quantization or "none"
    yield "context", f"{facts.context_length} tokens" if facts.context_length else "as the engine finds it"
    yield "vocabulary", str(facts.vocabulary_size or "unknown")
    yield "arguments", " ".join(engine.arguments) or "none"
    yield "image", engine.image or "none"
    yield "allowed", ", ".join(allowed) or "nothing special"
    yield "pushed", f"{provenance.pushed_at} by {provenance.pushed_by} from {provenance.source}"
    if made := provenance.made_from:
        how = f"{made.method}, {made.bits} bits in groups of {made.group_size}"
        yield "made from", f"{made.source} ({made.revision[:12]}) by {how}; {made.library}"
    yield "signed by", ", ".join(version.released.push.signed_by) or "nobody"
    for key, value in sorted(provenance.labels.items()):
        yield "label", f"{key}={value}"
    yield "size", f"{size(manifest.size_bytes)} in {len(manifest.content.files)} files"
