"""``inferdock up --model NAME@VERSION``: served from the registry, and not at all when one byte is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from tests.support.model_folders import write_model
from tests.support.platform import Platform

DEMO = ROOT / "models" / "demo"
REFUSED = 11


class Place:
    """A registry and a cache of the test's own, in a configuration file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store, self.cache = folder / "registry", folder / "cache"
        self.config = folder / "inferdock.yaml"
        self.config.write_text(json.dumps({"registry": {"url": str(self.store), "cache_dir": str(self.cache)}}))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run ``inferdock``."""
        command = [sys.executable, "-m", "inferdock.cli.main", *words]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("INFERDOCK_")}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=100, check=False
        )

    def push(self, folder: Path, version: str, *words: str) -> str:
        """Push a version; its revision."""
        done = self.run("model", "push", str(folder), "--name", "m", "--version", version, *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def up(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Start the platform where it must end by itself."""
        state = ("--port", "0", "--state-dir", str(self.folder / "state"))
        return self.run("up", "-f", str(self.config), "--engine", "sim", *state, *words)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def flip(path: Path, at: int) -> None:
    """Change one bit of a file, as a failing disk does: nothing else about it changes."""
    stamp = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    path.chmod(0o444)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


def served(url: str) -> str:
    """Ask for a completion; the revision that answered."""
    body = {"model": "m", "messages": [{"role": "user", "content": "What is Inferdock?"}], "max_tokens": 8}
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.load(response)["choices"][0]["message"]["content"]
        return str(response.headers["x-inferdock-revision"])


@pytest.mark.engine
@pytest.mark.timeout(300)
def test_the_engine_serves_a_version_with_the_arguments_it_was_pushed_with(place: Place, tmp_path: Path) -> None:
    revision = place.push(DEMO, "1.0.0", "--alias", "champion", "--engine-arg=--max-model-len", "--engine-arg=512")
    platform = Platform(tmp_path / "up", "-f", str(place.config), "--model", "m@champion")
    try:
        platform.wait_until_ready(1, within_s=240)
        assert served(platform.url) == f"1.0.0-{revision[:12]}"
        with urllib.request.urlopen(f"{platform.url}/v1/models", timeout=10) as response:
            assert json.load(response)["data"][0]["id"] == "m"
        log = next((tmp_path / "up").rglob("replica-0.log")).read_text()
        assert "'max_model_len': 512" in log or "max_seq_len=512" in log
        assert platform.stop() == 0
    finally:
        platform.kill()


def test_a_bare_name_serves_the_champion(place: Place, tmp_path: Path) -> None:
    revision = place.push(write_model(tmp_path / "model"), "1.0.0", "--alias", "champion")
    platform = Platform(tmp_path / "up", "-f", str(place.config), "--model", "m", "--engine", "sim")
    try:
        platform.wait_until_ready(1, within_s=60)
        assert served(platform.url) == f"1.0.0-{revision[:12]}"
        assert platform.stop() == 0
    finally:
        platform.kill()


def test_one_flipped_bit_in_the_cache_stops_the_start_and_is_mended_by_the_next_pull(
    place: Place, tmp_path: Path
) -> None:
    place.push(write_model(tmp_path / "model"), "1.0.0")
    pulled = place.run("model", "pull", "-f", str(place.config), "m@1.0.0")
    folder = Path(pulled.stdout.strip())
    for file in sorted(path for path in folder.rglob("*") if path.is_symlink()):
        target = file.resolve()
        flip(target, target.stat().st_size // 2)
        refused = place.up("--model", "m@1.0.0")
        assert refused.returncode == REFUSED, refused.stderr
        assert str(file.relative_to(folder)) in refused.stderr
        assert place.run("model", "pull", "-f", str(place.config), "m@1.0.0").returncode == 0


def test_one_flipped_bit_in_the_store_stops_the_start(place: Place, tmp_path: Path) -> None:
    place.push(write_model(tmp_path / "model"), "1.0.0")
    for file in ("config.json", "MANIFEST.json"):
        flip(place.store / "models" / "m" / "v1.0.0" / file, 5)
        refused = place.up("--model", "m@1.0.0")
        assert refused.returncode == REFUSED, refused.stderr
        assert file in refused.stderr
        flip(place.store / "models" / "m" / "v1.0.0" / file, 5)


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("--model", "m@9.9.9"), 9, "no m@9.9.9"),
        (("--model", "absent@1.0.0"), 9, "has no model absent"),
        (("--model", "absent"), 4, "no model folder `absent`"),
        (("--model", "m@canary"), 9, "no alias canary"),
        (("--model", "m@@"), 3, "is no alias"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, tuple) else "",
)
def test_what_is_not_there_is_said(
    place: Place, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    place.push(write_model(tmp_path / "model"), "1.0.0")
    done = place.up(*words)
    assert (done.returncode, sentence in done.stderr) == (code, True), done.stderr
    looked = json.loads(place.run("doctor", "-f", str(place.config), "--engine", "sim", "-o", "json", *words).stdout)
    assert [sentence in check["message"] for check in looked if check["name"] == "model"] == [True]
