"""``inferdock model alias`` and ``delete``."""

from __future__ import annotations

import click

from inferdock.cli.models.bars import interactive
from inferdock.cli.models.options import Where, registry_options
from inferdock.cli.output import note, output_option, print_json
from inferdock.domain.errors import ConfigError
from inferdock.registry.ledger import UNSET
from inferdock.registry.names import Reference, Version, check_alias, check_name


@click.command()
@registry_options
@click.argument("name")
@click.argument("alias")
@click.argument("version", required=False, metavar="[VERSION|ALIAS]")
@click.option("--expect", metavar="VERSION", help="Only if it means this version now (`none`: if it is not set).")
@click.option("--remove", is_flag=True, help="Take the alias away.")
@click.option("--reason", default="", help="Why, for the history.")
@output_option
def alias(
    where: Where,
    name: str,
    alias: str,
    version: str | None,
    expect: str | None,
    remove: bool,
    reason: str,
    output: str,
) -> None:
    """Let ALIAS mean a VERSION (or what another alias means); without one, say what it means.

    When `champion` moves, `previous` takes the version it leaves. With --expect nothing is moved if somebody else was
    quicker (exit code 10).

    \b
    Example:
      inferdock model alias mistral-7b champion 1.1.0 --expect 1.0.0 --reason "passed the gates"
      inferdock model alias mistral-7b champion previous
    """
    check_name(name)
    check_alias(alias)
    if remove and version:
        raise click.UsageError("Say a version or --remove, not both.")
    registry = where.registry()
    target = str(registry.resolve(Reference.parse(f"{name}@{version}")).push.version) if version else None
    moved = None
    if remove or target:
        wanted = None if expect is None else UNSET if expect == "none" else str(Version.parse(expect))
        moved = registry.move_alias(name, alias, target, expect=wanted, reason=reason)
    else:
        target = str(registry.resolve(Reference(name, None, alias)).push.version)
    if output == "json":
        print_json({"name": name, "alias": alias, "version": target, "changed": moved is not None})
    elif not remove and not version:
        print(target)
    else:
        note(f"{name}@{alias} is {target or 'taken away'}{'' if moved else ' already'}.")


@click.command()
@registry_options
@click.argument("reference", metavar="NAME@VERSION")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", help="Why, for the history.")
@output_option
def delete(where: Where, reference: str, yes: bool, reason: str, output: str) -> None:
    """Delete a version: its files go, its events and its number stay. What an alias means is not deleted.

    \b
    Example:
      inferdock model delete mistral-7b@0.9.0 --reason "licence withdrawn"
    """
    wanted = Reference.parse(reference)
    if wanted.version is None:
        raise ConfigError(f"{reference} does not name a version.", cure="For instance mistral-7b@1.0.0.")
    registry = where.registry()
    if not yes:
        if not interactive():
            raise ConfigError(f"Deleting {wanted} cannot be undone.", cure="Say --yes where nobody can be asked.")
        click.confirm(f"Delete {wanted} from {registry.store.location} for good?", abort=True, err=True)
    event = registry.delete(wanted.name, wanted.version, reason=reason)
    if output == "json":
        print_json({"name": wanted.name, "version": wanted.version, "deleted": event is not None})
    else:
        note(f"{wanted} is deleted." if event else f"{wanted} was deleted before.")
