"""``inferdock cost``: what a million tokens cost, by model, revision and tenant; ``prices`` and ``refresh``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import click
import uvloop
from rich.console import Console
from rich.table import Table
from rich.text import Text

from inferdock.app import cost as app
from inferdock.app.platform import resolve_state_root
from inferdock.cli.output import note, output_option, print_json, printable
from inferdock.cli.settings_options import config_file_option, load_settings
from inferdock.config.settings import CostSettings, Settings
from inferdock.cost.prices import write_catalogue
from inferdock.cost.report import money, shares
from inferdock.supervisor.state import read_state

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST_S = 31 * 86400
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


def _seconds(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Read ``90s``, ``10m``, ``1h`` or ``7d``."""
    if value is None:
        return None
    match = re.fullmatch(r"([0-9]{1,7})([smhd])", value)
    seconds = int(match[1]) * _UNITS[match[2]] if match else 0
    if not 1 <= seconds <= _LONGEST_S:
        raise click.BadParameter(f"{value[:50]!r} is no time like 90s, 10m, 1h or 7d (31d at most).")
    return seconds


@click.group(invoke_without_command=True)
@config_file_option
@click.option("--cost-per-hour", type=float, metavar="DOLLARS", help="Of the machine that all replicas run on.")
@click.option("--instance-type", metavar="TYPE", help="Kind of machine, whose price is in the catalogue.")
@click.option("--region", metavar="REGION", help="Where these machines are.")
@click.option("--gpus-per-replica", type=float, metavar="N", help="GPUs of one replica.")
@click.option("--spot-share", type=float, metavar="SHARE", help="Part of the time on spot machines, 0 to 1.")
@click.option("--price-file", type=_FILE, help="Prices that replace those of the catalogue.")
@click.option("--prompt-weight", type=float, metavar="W", help="Work of a prompt token; that of an output token is 1.")
@click.option("--cached-weight", type=float, metavar="W", help="Work of a prompt token that the prefix cache holds.")
@click.option("--prometheus", metavar="URL", help="Ask a Prometheus that scrapes the gateway.")
@click.option("--selector", default="", metavar="MATCHERS", help='With --prometheus: labels, as `namespace="prod"`.')
@click.option(
    "--window",
    callback=_seconds,
    metavar="TIME",
    help="From now on for so long (90s, 10m, 1h); with --prometheus, until now (default 1h).",
)
@click.option("--url", metavar="URL", help="A gateway that `up` did not start, for its /metrics; needs --window.")
@click.option("--admin-url", metavar="URL", help="Its admin address, which also says since when it counts.")
@click.option("--port", type=int, help="Gateway port of the platform, where several run here.")
@click.option("--state-dir", type=_FOLDER, help="Where `up` keeps its state.")
@output_option
@click.pass_context
def cost(
    ctx: click.Context,
    /,
    config_file: Path | None,
    prometheus: str | None,
    selector: str,
    window: int | None,
    url: str | None,
    admin_url: str | None,
    port: int | None,
    state_dir: Path | None,
    output: str,
    **flags: Any,
) -> None:
    """Show what tokens cost: the platform that runs here since its start, or any gateway over a window.

    \b
    Example:
      inferdock cost --cost-per-hour 1.20
      inferdock cost --instance-type g5.xlarge --window 60s -o json
      inferdock cost --instance-type g5.xlarge --spot-share 1 --prometheus http://127.0.0.1:9090 --window 24h
    """
    chosen = {f"cost.{name}": (f"--{name.replace('_', '-')}", value) for name, value in flags.items()}
    chosen |= {"state_dir": ("--state-dir", state_dir), "cost.prometheus": ("--prometheus", prometheus)}
    settings = load_settings(config_file, chosen).settings
    ctx.obj = settings
    if ctx.invoked_subcommand is not None:
        return
    app.rates(settings.cost)  # what is missing is said before anybody waits
    where = None if settings.cost.prometheus and not (url or admin_url) else _where(settings, url, admin_url, port)
    document = app.report(settings.cost, uvloop.run(_figures(settings.cost, where, window, selector)))
    if output == "json":
        print_json(document)
    else:
        _show(document)


def _where(settings: Settings, url: str | None, admin_url: str | None, port: int | None) -> app.Where:
    """The gateway that is read."""
    if admin_url is not None:
        base = admin_url.rstrip("/")
        return app.Where((url or base).rstrip("/").removesuffix("/v1"), f"{base}/admin/status")
    if url is not None:
        return app.Where(url.rstrip("/").removesuffix("/v1"))
    state = read_state(resolve_state_root(settings, os.environ), port)
    rows = [row for row in state["replicas"] if row.get("state") != "stopped"]
    engines = [app.Engine(state["model"], row["revision"], row["url"]) for row in rows if row["state"] == "ready"]
    return app.Where(state["url"], f"{state['admin_url']}/admin/status", tuple(engines), len(rows))


async def _figures(settings: CostSettings, where: app.Where | None, window: int | None, selector: str) -> app.Figures:
    async with aiohttp.ClientSession() as http:
        if where is None:
            return await app.from_prometheus(http, settings.prometheus or "", window or 3600, selector)
        if window is None:
            return await app.since_start(http, where)
        note(f"Counting for {window} s.")
        return await app.over_window(http, where, window)


@cost.command()
@output_option
@click.pass_obj
def prices(settings: Settings, output: str) -> None:
    """List the price catalogue, with the source and the date of each price.

    \b
    Example:
      inferdock cost prices
      inferdock cost --price-file prices.json prices -o json
    """
    known = app.catalogue(settings.cost)
    rows: list[dict[str, Any]] = [
        {
            "instance_type": price.instance_type,
            "gpu": price.gpu,
            "gpus": price.gpus,
            "region": price.region,
            "on_demand": app.priced(price.on_demand, known.source(price.on_demand_source)),
            "spot": app.priced(price.spot, known.source(price.spot_source)),
        }
        for price in known.prices.values()
    ]
    if output == "json":
        print_json(rows)
        return
    console = Console(soft_wrap=True, highlight=False)
    table = _table("machine", "GPUs", "region", "on demand", "as of", "spot", "as of")
    for row in rows:
        amounts = [cell for kind in ("on_demand", "spot") for cell in _price_cells(row[kind])]
        gpus = f"{row['gpus']} {row['gpu'].removeprefix('NVIDIA ')}"
        table.add_row(*(printable(str(cell)) for cell in (row["instance_type"], gpus, row["region"], *amounts)))
    console.print(table)
    for name, source in known.sources.items():
        console.print(Text(f"{name}: {printable(source.text)}", style="dim"))


def _price_cells(price: Mapping[str, Any] | None) -> tuple[str, str]:
    if price is None:
        return "–", ""
    return f"{'~' if price['approximate'] else ''}${price['cost_per_hour']:.4f}", price["date"] or "no day"


@cost.command()
@click.argument("file", type=_FILE)
@click.option("--instance-type", "kinds", multiple=True, metavar="TYPE", help="Only these; default: all known.")
@click.pass_obj
def refresh(settings: Settings, file: Path, kinds: tuple[str, ...]) -> None:
    """Ask AWS for today's prices of one region (`cost --region`), and write them to FILE, a price file.

    Needs the extra `registry`, and credentials that may call pricing:GetProducts and ec2:DescribeSpotPriceHistory.

    \b
    Example:
      inferdock cost --region eu-west-1 refresh prices.json
      inferdock cost --price-file prices.json --region eu-west-1 --instance-type g5.xlarge
    """
    rows, sources, missing = app.refreshed(app.catalogue(settings.cost), settings.cost.region, kinds)
    for sentence in missing:
        note(sentence)
    write_catalogue(file, rows, sources)
    note(f"Wrote the prices of {len(rows)} machines to {file}.")


# -- The table ---------------------------------------------------------------------------------------------------


def _show(document: Mapping[str, Any]) -> None:
    console = Console(soft_wrap=True, highlight=False)
    total = document["total"]
    console.print(Text(f"{_span(document['elapsed_s'])}, {printable(document['source'])}", style="bold"))
    console.print(_rows(document))
    for line in (*_prices(total["dollars_per_million"]), *_paid(document), *_saved(total)):
        console.print(line)
    for sentence in document["notes"]:
        console.print(Text(printable(sentence), style="dim"))


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.2f} h"


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _rows(document: Mapping[str, Any]) -> Table:
    head = ("model", "revision", "tenant")
    table = _table(*head, "prompt", "cached", "output", "spared", "paid", "$/1M", "$/1M output")
    for column in table.columns[len(head) :]:
        column.justify, column.no_wrap = "right", True
    for row in document["tenants"]:
        table.add_row(*map(printable, _cells(row, (row["model"], row["revision"], row["tenant"] or "–"))))
    for row in document["revisions"]:
        if row["dollars"] and not any(row["tokens"].values()):  # nobody's tokens bear what it cost
            table.add_row(*map(printable, _cells(row, (row["model"] or "–", row["revision"] or "–", "no traffic"))))
    table.add_row(*_cells(document["total"], ("total", "", "")), style="bold")
    return table


def _cells(row: Mapping[str, Any], names: tuple[str, str, str]) -> tuple[str, ...]:
    tokens, unit = row["tokens"], row["dollars_per_million"]
    counts = (*(tokens[kind] for kind in ("prompt", "cached", "output")), sum(row["spared_tokens"].values()))
    return (*names, *map(_short, counts), *map(money, (row["dollars"], unit["blended"], unit["output"])))


def _short(count: int) -> str:
    """A number of tokens in a few letters; `-o json` has all digits."""
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**4)):
        if count >= size:
            return f"{count / (size if unit != 'k' else 1000):.4g}{unit}"
    return str(count)


def _prices(unit: Mapping[str, Any]) -> list[Text]:
    names = (
        ("blended", "all paid, over prompt and output tokens"),
        ("output", "all paid, over output tokens alone"),
        ("with_cache", "all paid, over these and those that the response cache gave"),
        ("working", "without start-up and idle time"),
    )
    return [_line(f"$/1M {name.replace('_', ' ')}", f"{money(unit[name])}  ({text})") for name, text in names]


def _paid(document: Mapping[str, Any]) -> list[Text]:
    total = document["total"]
    times = {name: total["time_dollars"][key] for key, name in (("busy", "working"), ("idle", "idle"))}
    times["starting"] = total["time_dollars"]["starting"]
    lines = [_line("paid", f"{money(total['dollars'])}, {money(total['dollars_per_hour'])} an hour")]
    if share := shares(times):
        lines.append(_line("of this", share))
    if total["purchase_dollars"].get("spot"):
        spot = money(total["saved_by_spot_dollars"])
        lines.append(_line("on demand", f"{money(total['on_demand_dollars'])}; spot saves {spot}"))
    return lines


def _saved(total: Mapping[str, Any]) -> list[Text]:
    saved = total["saved_dollars"]
    response, prefix = money(saved["response_cache"]), money(saved["prefix_cache"])
    return [_line("saved", f"response cache {response}, prefix cache {prefix}")]


def _line(name: str, value: str) -> Text:
    return Text.assemble((f"{name:<16}", "bold"), value)
