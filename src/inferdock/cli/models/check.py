"""``inferdock model verify`` and ``diff``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from inferdock.cli.models.bars import bars
from inferdock.cli.models.options import Where, cell, registry_options, size, table
from inferdock.cli.models.options import show as print_it
from inferdock.cli.output import note, output_option, print_json
from inferdock.domain.errors import IntegrityError
from inferdock.registry.compare import Difference, FileChange, compare
from inferdock.registry.manifest import FileEntry
from inferdock.registry.names import Reference, check_name
from inferdock.registry.registry import Registry
from inferdock.registry.verify import verify as run_verify


@click.command()
@registry_options
@click.argument("references", metavar="NAME[@VERSION|@ALIAS]...", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Every version of the models named, or of all models.")
@output_option
def verify(where: Where, references: tuple[str, ...], every: bool, output: str) -> None:
    """Read every byte of a version where it is stored, compare it with what was pushed, and check the history's chain.

    Signatures are checked too where `registry.trusted_key_files` names keys. Exit code 11 when something is not right.

    \b
    Example:
      inferdock model verify mistral-7b@champion
      inferdock model verify --all
    """
    if not references and not every:
        raise click.UsageError("Name a version, or say --all.")
    registry = where.registry()
    results = [_result(registry, reference) for reference in _chosen(registry, references, every)]
    if output == "json":
        print_json(results)
    else:
        for result in results:
            _say(result)
    faults = [result for result in results if not result["ok"]]
    if faults:
        raise IntegrityError(
            f"{len(faults)} of {len(results)} versions are not what was pushed.",
            cure="Do not start them. Restore the files from a backup, or push the model again under a new version.",
        )


def _chosen(registry: Registry, references: Sequence[str], every: bool) -> list[Reference]:
    if not every:
        return [Reference.parse(text) for text in references]
    names = [check_name(text) for text in references] or registry.names()
    return [Reference(name, version, None) for name in names for version in registry.state(name).versions]


def _result(registry: Registry, reference: Reference) -> dict[str, Any]:
    result: dict[str, Any] = {"name": reference.name, "version": reference.version, "ok": False, "faults": []}
    try:
        version = registry.version(reference)
        with bars() as progress:
            faults = run_verify(registry, version, progress)
    except IntegrityError as exc:
        return result | {"error": exc.message}
    return result | {
        "version": version.manifest.version,
        "revision": version.manifest.revision,
        "ok": not faults,
        "faults": [{"path": fault.path, "fault": fault.fault} for fault in faults],
        "files": len(version.manifest.content.files),
        "signed_by": version.signed_by,
    }


def _say(result: dict[str, Any]) -> None:
    what = f"{result['name']}@{result['version']}"
    if result["ok"]:
        signed = f", signed by {', '.join(key[:12] for key in result['signed_by'])}" if result["signed_by"] else ""
        print_it(cell(f"{what}: {result['files']} files are what was pushed{signed}.", "green"))
    elif "error" in result:
        print_it(cell(f"{what}: {result['error']}", "red"))
    for fault in result["faults"]:
        print_it(cell(f"{what}: {fault['path']} {fault['fault']}.", "red"))


@click.command()
@registry_options
@click.argument("before", metavar="NAME[@VERSION|@ALIAS]")
@click.argument("after", metavar="NAME[@VERSION|@ALIAS]")
@output_option
def diff(where: Where, before: str, after: str, output: str) -> None:
    """Show what differs between two versions: files, facts, arguments, permissions, where they came from.

    \b
    Example:
      inferdock model diff mistral-7b@champion mistral-7b@candidate
    """
    registry = where.registry()
    old, new = (registry.version(Reference.parse(text)) for text in (before, after))
    found = compare(old.manifest, new.manifest)
    if output == "json":
        print_json({"before": str(old), "after": str(new), **_document(found)})
        return
    note(f"{old} → {new}")
    if found.same_revision:
        print_it(cell(f"Same revision {new.manifest.revision[:12]}: they answer alike.", "green"))
    _print(found)


def _document(found: Difference) -> dict[str, Any]:
    return {
        "same_revision": found.same_revision,
        "same_files": found.same_files,
        "files": [
            {"path": change.path, "before": _entry(change.before), "after": _entry(change.after)}
            for change in found.files
        ],
        "values": [{"name": c.name, "before": c.before, "after": c.after} for c in found.values],
        "provenance": [{"name": c.name, "before": c.before, "after": c.after} for c in found.provenance],
    }


def _entry(entry: FileEntry | None) -> Any:
    return None if entry is None else msgspec.to_builtins(entry)


def _print(found: Difference) -> None:
    made = table("", "what", "before", "after", wide=("what", "before", "after"))
    for change in found.files:
        sign, style = _sign(change)
        made.add_row(cell(sign, style), cell(change.path), *(cell(_spell(e)) for e in (change.before, change.after)))
    for value in (*found.values, *found.provenance):
        made.add_row(cell("~", "yellow"), cell(value.name), cell(_value(value.before)), cell(_value(value.after)))
    if made.row_count:
        print_it(made)
    print_it(cell(f"{found.same_files} files are the same, {len(found.files)} differ."))


def _sign(change: FileChange) -> tuple[str, str]:
    if change.before is None:
        return "+", "green"
    return ("-", "red") if change.after is None else ("~", "yellow")


def _spell(entry: FileEntry | None) -> str:
    return "–" if entry is None else f"{size(entry.size)} {entry.sha256[:12]}"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "none"
    return "–" if value is None else str(value)
