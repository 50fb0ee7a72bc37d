"""What is measured: a registry with two versions, `inferdock up` that serves the first, keys, and a real Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp

from bench.agreement.traffic import LEAVER, MODEL, TENANTS
from bench.servers import answers, free_port, process, wait_for

ROOT: Final = Path(__file__).parents[2]
REPLICAS: Final = 2
PRICE: Final = 3.6
"""Dollars for an hour of the machine: a tenth of a cent a second."""
SCRAPE_S: Final = 1
LOOK_S: Final = 0.2
WAITS: Final = 400
FELT: Final = 3
TOLD: Final = ("ready", "draining")
"""States of replicas that the gateway knows."""
VERSIONS: Final = ("1.0.0", "1.1.0")


class StopError(Exception):
    """The run cannot go on; says why."""


@dataclass(slots=True)
class Place:
    """One folder with everything in it.

    Attributes:
        held: (moment, seconds so far of replicas that the gateway knew), as the state file said every ``LOOK_S``.
        starting: seconds of replicas before that, which the gateway knows nothing of.
        started: monotonic seconds when the platform's process was started.
        up_since: monotonic seconds when the platform first named its gateway's address.
    """

    folder: Path
    engine: str
    held: list[tuple[float, float]] = field(default_factory=list)
    started: float = 0.0
    up_since: float = 0.0
    starting: float = 0.0
    prometheus: str = ""
    _looked: float = 0.0

    @property
    def config(self) -> Path:
        """The configuration file."""
        return self.folder / "inferdock.yaml"

    @property
    def state(self) -> dict[str, Any]:
        """Of the platform; empty before there is one."""
        try:
            found: dict[str, Any] = json.loads((self.folder / "up" / "up-0" / "state.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def write(self) -> None:
        """The configuration, and targets of Prometheus."""
        settings: dict[str, Any] = {
            "registry": {"url": str(self.folder / "registry"), "cache_dir": str(self.folder / "cache")},
            "state_dir": str(self.folder / "up"),
            "drain_timeout_s": 20,
            "engine": {"kind": self.engine, "restart_backoff_s": 0.2, "env": {"OMP_WAIT_POLICY": "PASSIVE"}},
            "gateway": {"replica_drain_timeout_s": 2, "hold_timeout_s": 200, "models": {MODEL: {"cache": CACHE}}},
            "keys": {"tenants_in_metrics": True},
            "cost": {"cost_per_hour": PRICE},
        }
        if self.engine == "sim":
            settings["engine"]["sim"] = {"ttft_s": 0.03, "itl_s": 0.01, "startup_s": 1.0}
        self.config.write_text(json.dumps(settings))
        self._targets([])

    async def command(self, *words: str, within_s: float = 900) -> str:
        """Run `inferdock`; what it wrote.

        Raises:
            StopError: it fails; with what it complained of.
        """
        run = (sys.executable, "-m", "inferdock.cli.main", *words, "-f", str(self.config))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERDOCK_")}
        child = await asyncio.create_subprocess_exec(
            *run, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
        )
        async with asyncio.timeout(within_s):
            out, err = await child.communicate()
        if child.returncode:
            raise StopError(f"status {child.returncode}: inferdock {' '.join(words)}\n{err.decode()}")
        return out.decode()

    async def push(self) -> None:
        """Two versions of the demo model, whose weights are the same."""
        demo = ROOT / "models" / "demo"
        same = shutil.copytree(demo, self.folder / "same")
        (same / "README.md").write_text("The same weights again.\n")
        for version, model in zip(VERSIONS, (demo, same), strict=True):
            alias = ("--alias", "champion") if version == VERSIONS[0] else ()
            await self.command("model", "push", str(model), "--name", MODEL, "--version", version, *alias)

    async def make_keys(self) -> dict[str, str]:
        """One for each tenant, and one for the console."""
        made = {}
        for name in (*TENANTS, LEAVER):
            made[name] = (await self.command("keys", "create", "--name", name, "--tenant", name)).strip()
        made["admin"] = (await self.command("keys", "create", "--name", "admin", "--admin")).strip()
        return made

    async def look(self) -> None:
        """Note the time of replicas and where engines are, until cancelled."""
        self._looked = time.monotonic()
        known: list[dict[str, Any]] = []
        while True:
            await asyncio.sleep(LOOK_S)
            now = time.monotonic()
            rows = self.state.get("replicas", [])
            before = self.held[-1][1] if self.held else 0.0
            told = sum(row["state"] in TOLD for row in rows)
            self.held.append((now, before + told * (now - self._looked)))
            self.starting += (len(rows) - told) * (now - self._looked)
            self._looked = now
            targets = [
                {
                    "targets": [row["url"].removeprefix("http://")],
                    "labels": {"model": MODEL, "revision": row["revision"]},
                }
                for row in rows
                if row.get("url") and row["state"] in ("ready", "draining")
            ]
            if targets != known:
                known = targets
                self._targets(targets)

    def _targets(self, targets: list[dict[str, Any]]) -> None:
        new = self.folder / "engines.new"
        new.write_text(json.dumps(targets))
        new.replace(self.folder / "engines.json")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """A Prometheus that scrapes the gateway and the engines, and records with our rules."""
        often = dict.fromkeys(("scrape_interval", "scrape_timeout", "evaluation_interval"), f"{SCRAPE_S}s")
        admin = self.state["admin_url"].removeprefix("http://")
        engines = [{"files": [str(self.folder / "engines.json")], "refresh_interval": "1s"}]
        jobs = [
            {"job_name": "gateway", "honor_labels": True, "static_configs": [{"targets": [admin]}]},
            {"job_name": "engines", "honor_labels": True, "file_sd_configs": engines},
        ]
        config = self.folder / "prometheus.yml"
        rules = [f"{ROOT}/prometheus/rules/*.yaml"]
        config.write_text(json.dumps({"global": often, "rule_files": rules, "scrape_configs": jobs}))
        address = f"127.0.0.1:{free_port()}"
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder / 'data'}"]
        log = self.folder / "prometheus.log"
        with process([*command, "--log.level=warn", f"--web.listen-address={address}"], log) as child:
            self.prometheus = f"http://{address}"
            wait_for(lambda: answers(f"{self.prometheus}/-/ready"), child, log)
            yield

    async def kill_an_engine(self, http: aiohttp.ClientSession) -> int:
        """SIGKILL to the process group of a replica that works on most requests; how many these were.

        Waits a while for one that works on several, so that the death is felt.
        """
        row, held = self.state["replicas"][0], 0
        for _ in range(WAITS):
            async with http.get(f"{self.state['admin_url']}/admin/status") as response:
                seen = {one["name"]: one["in_flight"] for one in (await response.json())["endpoints"]}
            rows = [row for row in self.state["replicas"] if row["state"] == "ready"]
            row = max(rows, key=lambda row: seen.get(row["name"], 0))
            held = seen.get(row["name"], 0)
            if held >= FELT:
                break
            await asyncio.sleep(0.02)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(os.getpgid(row["pid"]), signal.SIGKILL)
        return int(held)

    async def settled(self, within_s: float = 300) -> None:
        """Until as many replicas are ready as there shall be, and no others are left."""
        deadline = time.monotonic() + within_s
        while [row["state"] for row in self.state.get("replicas", [])] != ["ready"] * REPLICAS:
            if time.monotonic() > deadline:
                raise StopError(f"the platform did not come to rest:\n{(self.folder / 'up.log').read_text()[-3000:]}")
            await asyncio.sleep(0.1)


CACHE: Final = {"enabled": True, "semantic": False}


@contextlib.asynccontextmanager
async def open_place(folder: Path, engine: str) -> AsyncIterator[tuple[Place, dict[str, str]]]:
    """Everything runs and is ready; gives the keys too."""
    place = Place(folder=folder, engine=engine)
    place.write()
    await place.push()
    keys = await place.make_keys()
    up = ["up", "--port", "0", "--model", f"{MODEL}@champion", "--replicas", str(REPLICAS), "-f", str(place.config)]
    with process([sys.executable, "-m", "inferdock.cli.main", *up], folder / "up.log"):
        place.started = began = time.monotonic()
        while not place.state.get("admin_url"):
            if time.monotonic() > began + 60:
                raise StopError(f"the platform does not start:\n{(folder / 'up.log').read_text()[-3000:]}")
            await asyncio.sleep(0.02)
        place.up_since = time.monotonic()
        looking = asyncio.create_task(place.look())
        try:
            await place.settled()
            with place.watching():
                yield place, keys
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
