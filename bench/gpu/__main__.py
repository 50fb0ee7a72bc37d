"""``python -m bench.gpu``: how fast a published model's shape is on a GPU, direct and behind the gateway.

Starts vLLM with invented weights (nothing is downloaded), in bf16 and in AWQ, and raises the rate of an open loop until
goodput falls. Examples: ``python -m bench.gpu`` (a CUDA machine, about 45 minutes), ``python -m bench.gpu --form cpu``
(tries the procedure), ``python -m bench.gpu --weights awq --minutes 15``.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

from bench.gpu import engines, report
from bench.gpu.device import Gpu, HourlyPrice, check_fits, first_gpu, price_of
from bench.gpu.folder import write_folder
from bench.gpu.forms import FORMS, WEIGHTS, Form, chosen, pair_seconds, step_seconds
from bench.gpu.load import Runs, Sides, Sweep, sweep
from inferdock.bench.report import machine, write_json
from inferdock.cost.prices import shipped
from inferdock.domain.errors import ConfigError, InferdockError

RESULTS: Final = Path(__file__).parents[1] / "results"
FILES: Final = {"gpu": "gpu.json", "cpu": "gpu-cpu-form.json", "sim": "gpu-sim-form.json"}
_BEGIN, _END = "<!-- gpu figures -->", "<!-- end of gpu figures -->"


def main() -> int:
    """Command line; returns the exit status."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    args = _arguments()
    try:
        if args.table:
            document = _load(args.table)
        else:
            document = _run(args)
            target = args.out / FILES[args.form]
            write_json(target, document)
            print(f"written: {target}", file=sys.stderr)
        text = report.render(document)
        if args.page:
            _write_page(args.page, text)
    except InferdockError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return exc.exit_code
    print(text)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--form", choices=FORMS, default="gpu", help="gpu: evidence; cpu, sim: only try the procedure (default: gpu)")
    add("--weights", default=",".join(WEIGHTS), help="of bf16,awq (default: both)")
    add("--minutes", type=float, help="of load, for all weights together (gpu 40, cpu 3)")
    add("--prompt-tokens", type=int, help="of every request (gpu 512, cpu 64)")
    add("--output-tokens", type=int, help="of every request (gpu 128, cpu 16)")
    add("--pairs", type=int, help="runs on both sides for the gateway's share (6)")
    add("--dollars-per-hour", type=float, help="of the GPU (default: the catalogue's price of its kind)")
    add("--port", type=int, default=0, help="of the engine (default: a free one)")
    add("--seed", type=int, default=1, help="of arrivals and prompts")
    add("--out", type=Path, default=RESULTS, metavar="DIR", help="folder for the JSON (default: bench/results)")
    add("--table", type=Path, metavar="FILE", help="measure nothing, print the tables of a result")
    add("--page", type=Path, metavar="FILE", help="write the tables into a page, between its marks")
    return parser.parse_args()


def _run(args: argparse.Namespace) -> dict[str, Any]:
    form, names = _form(args), chosen(args.weights)
    gpu = first_gpu() if form.name == "gpu" else None
    if form.vllm:
        engines.check_vllm(cuda=gpu is not None)
    if args.port:
        engines.check_port(args.port)
    if gpu is not None:
        check_fits(gpu, form.shape, {name: WEIGHTS[name] for name in names}, form.max_model_len)
    price = _price(args.dollars_per_hour, gpu)
    before = os.getloadavg()[0]
    budget_s = form.minutes * 60 / len(names)
    sections = {name: _measure(form, name, gpu, price, args, budget_s) for name in names}
    return {
        "form": form.name,
        "note": form.note,
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "configuration": asdict(form)
        | {
            "seconds_per_run": form.seconds(budget_s),
            "seed": args.seed,
            "weights": names,
            "price": asdict(price) if price else None,
        },
        "machine": machine() | {"gpu": asdict(gpu) if gpu else None, "load_average": [before, os.getloadavg()[0]]},
        "weights": sections,
    }


def _form(args: argparse.Namespace) -> Form:
    names = ("minutes", "prompt_tokens", "output_tokens", "pairs")
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    if any(value <= 0 for value in given.values()) or (args.dollars_per_hour or 1) <= 0:
        raise ConfigError("Minutes, tokens, pairs and dollars must be above 0.")
    form = replace(FORMS[args.form], **given)
    if form.prompt_tokens + form.output_tokens > form.max_model_len:
        raise ConfigError(
            f"{form.prompt_tokens} + {form.output_tokens} tokens are more than the {form.max_model_len} of a request.",
            cure="Lower --prompt-tokens or --output-tokens.",
        )
    return form


def _price(dollars: float | None, gpu: Gpu | None) -> HourlyPrice | None:
    if dollars is not None:
        return HourlyPrice(dollars=dollars, source="given with --dollars-per-hour")
    return price_of(gpu.name, gpu.total, shipped()) if gpu is not None else None


def _measure(
    form: Form, name: str, gpu: Gpu | None, price: HourlyPrice | None, args: argparse.Namespace, budget_s: float
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_folder(folder, form.shape, WEIGHTS[name])
        _say(f"{name}: starting the engine")
        with engines.engine(form, gpu, folder, args.port) as engine, engines.gateway(engine.url) as gateway:
            urls = {"direct": f"{engine.url}/v1", "gateway": f"{gateway}/v1"}
            sides = Sides(urls=urls, form=form, seed=args.seed)
            found, rate, pairs = asyncio.run(_load_sides(sides, budget_s))
    return report.section(
        engine=engine, shape=form.shape, awq=WEIGHTS[name], found=found, pair_rate=rate, pairs=pairs, price=price
    )


async def _load_sides(sides: Sides, budget_s: float) -> tuple[Sweep, float | None, list[Runs]]:
    """Warm up, sweep, then runs in pairs at half the gateway's knee."""
    await sides.warm()
    form, seconds = sides.form, sides.form.seconds(budget_s)

    async def both(rate: float, turn: int) -> Runs:
        found = await sides.both(rate, step_seconds(seconds, rate), turn)
        _say(
            f"  {rate:g} requests/s: "
            + ", ".join(f"{side} {one.goodput_per_s:.1f} good" for side, one in found.items())
        )
        return found

    found = await sweep(both, form, time.monotonic() + budget_s - 2 * seconds * form.pairs)
    rate = report.pair_rate(found)
    if rate is None:
        return found, None, []
    return found, rate, [await sides.both(rate, pair_seconds(seconds, rate), turn) for turn in range(form.pairs)]


def _load(path: Path) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{path} is not a result of this benchmark.", cure="Run it first.") from exc
    return document


def _write_page(page: Path, text: str) -> None:
    before, begin, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ConfigError(f"{page} has no place for the tables.", cure=f"Put {_BEGIN} and {_END} into it.")
    page.write_text(f"{before}{begin}\n{text}{end}{after}", encoding="utf-8")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
