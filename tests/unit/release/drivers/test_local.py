"""The local driver's figures: what the gateway shows, read whole and sorted by revision."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from inferdock.domain.errors import UnreachableError
from inferdock.release.drivers.local import LocalMeter
from inferdock.telemetry import names
from inferdock.telemetry.scrape import read_figures

LABELS = 'model="m",revision="1.0.0-a"'
TEXT = f"""
# TYPE {names.REQUESTS} counter
{names.REQUESTS}{{{LABELS},route="/v1/completions",status="200"}} 7
{names.REQUESTS}{{{LABELS},route="/v1/completions",status="429"}} 5
{names.REQUESTS}{{{LABELS},route="/v1/chat/completions",status="503"}} 2
{names.REQUESTS}{{model="n",revision="9",route="/v1/completions",status="200"}} 99
# TYPE {names.TTFT} histogram
{names.TTFT}_bucket{{{LABELS},le="0.1"}} 3
{names.TTFT}_bucket{{{LABELS},le="0.5"}} 4
{names.TTFT}_bucket{{{LABELS},le="+Inf"}} 6
{names.TTFT}_count{{{LABELS}}} 6
"""


async def figures(text: str) -> dict[str, object]:
    async def metrics(_: web.Request) -> web.Response:
        return web.Response(text=text)

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    async with TestServer(app) as server, aiohttp.ClientSession() as http:
        return dict(await LocalMeter(http, str(server.make_url("/")), "m").read())


async def test_failures_are_the_servers_and_clients_faults_do_not_count() -> None:
    counts = (await figures(TEXT))["1.0.0-a"]
    assert (counts.requests, counts.errors) == (9, 2)
    assert counts.ttft.bounds == (0.1, 0.5)
    assert counts.ttft.counts == (3, 1, 2)


async def test_long_figures_are_read_to_their_end() -> None:
    filler = "".join(f'other_metric{{n="{n}"}} 1\n' for n in range(100_000))
    assert (await figures(filler + TEXT))["1.0.0-a"].requests == 9


@pytest.mark.parametrize("text", [f"{names.REQUESTS}{{broken", f'{names.REQUESTS}{{{LABELS},status="x"}} 1'])
def test_figures_that_cannot_be_read_are_said(text: str) -> None:
    with pytest.raises(UnreachableError, match="cannot be read"):
        read_figures(text, "m")
