"""``inferdock model quantize``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import click
import msgspec

from inferdock.app.quantize import Quantisation, Sizes, Wanted
from inferdock.app.quantize import quantise as run_quantise
from inferdock.cli.models.bars import bars
from inferdock.cli.models.options import Where, registry_options, size
from inferdock.cli.output import note, output_option, print_json, printable
from inferdock.domain.errors import ConfigError
from inferdock.quantize.calibration import DEMO
from inferdock.quantize.recipe import BITS, GROUP_SIZES, METHODS, Method, Recipe
from inferdock.registry.names import Version, check_alias, check_name


@click.command(context_settings={"show_default": True})
@registry_options
@click.argument("source")
@click.option("--method", type=click.Choice(METHODS), default="awq", help="awq, or rtn: rounding alone, to compare.")
@click.option("--bits", type=click.Choice([str(bits) for bits in BITS]), default="4", help="Of a weight.")
@click.option(
    "--group-size",
    type=click.Choice([str(count) for count in GROUP_SIZES]),
    default="128",
    help="Inputs that share a scale; it must divide those of every layer.",
)
@click.option("--name", required=True, help="Of the model in the registry.")
@click.option("--version", required=True, help="Of the result, for instance 1.1.0; must be free.")
@click.option("--alias", help="Then let this alias mean it, for instance candidate.")
@click.option(
    "--calibration",
    metavar="FILE",
    help="Texts, JSONL, like those it will serve; `demo` for the set of the demo model (its default).",
)
@click.option("--samples", type=click.IntRange(8, 4096), default=128, help="Texts used, at most.")
@click.option("--sequence-length", type=click.IntRange(16, 32_768), default=512, help="Tokens of a text, at most.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, help="Of the choice of texts.")
@click.option("--reason", default="", help="Why, for the history.")
@output_option
def quantize(
    where: Where,
    source: str,
    name: str,
    version: str,
    alias: str | None,
    calibration: str | None,
    reason: str,
    output: str,
    **recipe: str | int,
) -> None:
    """Quantise the model SOURCE (a folder, `demo`, or NAME@VERSION) to 4 bits, and push the result as a version.

    The manifest says what it was made from and how. Whether it is good enough is for `inferdock eval` and the gates of
    `inferdock release` to say. Needs the engine's packages; docs/quantization.md.

    Exit code 3 when the calibration file is wrong, 4 when the model cannot be quantised so, 5 when memory or disk is
    short, 10 when the version is taken: all of it said before the work begins.

    \b
    Example:
      inferdock model quantize demo --group-size 64 --name inferdock-demo --version 1.1.0
      inferdock model quantize mistral-7b@1.0.0 --calibration chats.jsonl --name mistral-7b --version 1.1.0
    """
    if calibration is None and source != "demo":
        raise ConfigError(
            "There are no texts to calibrate on.", cure="Give --calibration FILE with texts like those it will serve."
        )
    wanted = Wanted(
        source=source,
        name=check_name(name),
        version=str(Version.parse(version)),
        recipe=_recipe(recipe),
        calibration=DEMO if calibration is None or calibration == "demo" else Path(calibration),
        reason=reason,
    )
    alias = check_alias(alias) if alias else None
    with bars() as progress:
        made = run_quantise(where.settings, os.environ, wanted, progress, note)
    if alias:
        where.registry().move_alias(wanted.name, alias, wanted.version, reason=reason)
    if output == "json":
        print_json(_document(made, alias))
        return
    _say(made)


def _recipe(given: dict[str, str | int]) -> Recipe:
    return Recipe(
        method=cast(Method, given["method"]),
        bits=int(given["bits"]),
        group_size=int(given["group_size"]),
        samples=int(given["samples"]),
        sequence_length=int(given["sequence_length"]),
        seed=int(given["seed"]),
    )


def _document(made: Quantisation, alias: str | None) -> dict[str, Any]:
    manifest = made.pushed.manifest
    return {
        "name": manifest.name,
        "version": manifest.version,
        "revision": manifest.revision,
        "alias": alias,
        "made_from": msgspec.to_builtins(made.made_from),
        "bytes": {
            part: {"before": getattr(made.before, part), "after": getattr(made.after, part)}
            for part in asdict(made.before)
        },
        "blocks": [{"error": error, "rounding_error": rounding} for error, rounding in made.blocks],
    }


def _say(made: Quantisation) -> None:
    manifest = made.pushed.manifest
    note(f"{manifest.name}@{manifest.version} is made from {made.made_from.source} and pushed:")
    for part, what in (("linear", "quantised layers"), ("weights", "all weights"), ("folder", "whole folder")):
        note(f"  {what}: {_change(made.before, made.after, part)}")
    print(printable(manifest.revision))


def _change(before: Sizes, after: Sizes, part: str) -> str:
    old, new = getattr(before, part), getattr(after, part)
    return f"{size(old)} to {size(new)} ({100 * (new - old) / old:+.1f} %)"
