"""``inferdock sim``: one simulated vLLM replica."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import click
import uvloop

from inferdock.cli.output import note
from inferdock.sim.faults import FORM, Faults, parse_fault
from inferdock.sim.options import SimOptions
from inferdock.sim.server import SimServer
from inferdock.sim.traits import read_traits


@click.command(context_settings={"show_default": True})
@click.option("--model", default="sim", help="Name that clients ask for, or a folder (as vLLM's --model).")
@click.option("--served-model-name", help="Name that clients ask for, if it is not --model.")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=int, default=8000, help="Port; 0 takes any free one.")
@click.option("--ttft", type=click.FloatRange(min=0), default=0.05, help="Seconds to the first token.")
@click.option("--itl", type=click.FloatRange(min=0), default=0.01, help="Seconds between tokens.")
@click.option("--max-num-seqs", type=click.IntRange(min=1), default=256, help="Requests that run at once.")
@click.option("--kv-cache-tokens", type=click.IntRange(min=16), default=100_000, help="Tokens in the KV cache.")
@click.option("--max-model-len", type=click.IntRange(min=16), default=4096, help="Longest prompt plus answer.")
@click.option("--startup-time", type=click.FloatRange(min=0), default=0.0, help="Seconds until it listens.")
@click.option("--shutdown-timeout", type=click.FloatRange(min=0), default=0.0, help="Seconds to finish on SIGTERM.")
@click.option("--fault", "faults", multiple=True, metavar="SPEC", help=f"{FORM}, e.g. die:20@3x1.")
@click.option(
    "--announce",
    type=click.Path(dir_okay=False, path_type=Path),
    help='File that gets {"port": N} once it listens.',
)
def sim(
    model: str,
    served_model_name: str | None,
    host: str,
    port: int,
    ttft: float,
    itl: float,
    max_num_seqs: int,
    kv_cache_tokens: int,
    max_model_len: int,
    startup_time: float,
    shutdown_timeout: float,
    faults: tuple[str, ...],
    announce: Path | None,
) -> None:
    """Run one simulated vLLM replica: same routes and metrics, chosen speeds, injectable faults.

    \b
    Example:
      inferdock sim --port 8000 --ttft 0.1 --itl 0.02 --fault status:503@5x2
      curl -X POST localhost:8000/sim/faults -d '{"fault": "die:20"}'    # while it runs
    """
    options = SimOptions(
        model=served_model_name or model,
        host=host,
        port=port,
        ttft_s=ttft,
        itl_s=itl,
        max_num_seqs=max_num_seqs,
        kv_cache_tokens=kv_cache_tokens,
        max_model_len=max_model_len,
        startup_s=startup_time,
        shutdown_timeout_s=shutdown_timeout,
    )
    traits = read_traits(model)
    server = SimServer(traits.over(options), Faults([parse_fault(text) for text in (*traits.faults, *faults)]))
    uvloop.run(_serve(server, announce))


async def _serve(server: SimServer, announce: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    starting = loop.create_task(server.start())
    stopped = loop.create_task(stop.wait())
    await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # told to stop while it still pretends to load
        starting.cancel()
        return
    await starting
    note(f"simulated replica of `{server.options.model}` at {server.url}")
    if announce is not None:
        draft = announce.with_name(f".{announce.name}.draft")
        draft.write_text(json.dumps({"port": server.port}))
        draft.replace(announce)
    await stopped
    await server.stop()
