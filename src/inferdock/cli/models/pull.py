"""``inferdock model pull``."""

from __future__ import annotations

from pathlib import Path

import click

from inferdock.cli.models.bars import bars
from inferdock.cli.models.options import Where, registry_options, size
from inferdock.cli.output import note, output_option, print_json, printable
from inferdock.registry.names import Reference
from inferdock.registry.pull import pull_to


@click.command()
@registry_options
@click.argument("reference", metavar="NAME[@VERSION|@ALIAS]")
@click.option(
    "--to", "target", type=click.Path(file_okay=False, path_type=Path), help="Write plain files here instead."
)
@click.option("--force", is_flag=True, help="With --to: remove files that are not the version's.")
@output_option
def pull(where: Where, reference: str, target: Path | None, force: bool, output: str) -> None:
    """Fetch a version, verify every byte, and print its folder. A name alone means its champion.

    Files go to a cache that knows them by their digests, so what two versions share is fetched once; `inferdock up
    --model NAME@VERSION` does the same. With --to the folder holds plain files, for containers. A pull
    that was cut goes on where it was.

    Exit code 9 when there is no such version, 11 when bytes or signature are not right.

    \b
    Example:
      inferdock model pull mistral-7b@1.0.0
      inferdock model pull mistral-7b@champion --to /models/mistral-7b
    """
    registry = where.registry()
    version = registry.version(Reference.parse(reference))
    with bars() as progress:
        if target is None:
            pulled = where.cache().pull(registry.store, version.manifest, progress)
        else:
            pulled = pull_to(
                registry.store, version.manifest, target, threads=registry.threads, progress=progress, force=force
            )
    if output == "json":
        print_json(
            {
                "name": version.manifest.name,
                "version": version.manifest.version,
                "revision": version.manifest.revision,
                "folder": str(pulled.folder),
                "fetched": {"files": pulled.fetched_files, "bytes": pulled.fetched_bytes},
                "present": {"files": pulled.present_files, "bytes": pulled.present_bytes},
                "damaged": pulled.damaged,
                "signed_by": version.signed_by,
            }
        )
        return
    if pulled.damaged:
        paths = ", ".join(pulled.damaged[:5]) + (" and more" if len(pulled.damaged) > 5 else "")
        note(f"warning: {len(pulled.damaged)} files here had other bytes and were replaced: {printable(paths)}.")
    there = f", {pulled.present_files} were there ({size(pulled.present_bytes)})" if pulled.present_files else ""
    note(f"{version} is here and verified: {pulled.fetched_files} files fetched ({size(pulled.fetched_bytes)}){there}.")
    print(pulled.folder)
