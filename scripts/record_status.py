"""Draws docs/status.svg: what ``inferdock status`` shows while a release is under way, on simulated engines.

``python -m scripts.record_status`` (needs ``pip install pyte``). As in ``scripts.record_release`` the terminals are
real ones with a shell in each, and nothing is played; only the terminal with the view is drawn.
"""

from __future__ import annotations

import json
import select
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from scripts.record_release import COLUMNS, DOCS, ROOT, Recorder, Terminal, picture

PORT: Final = 18430
ROWS: Final = 30
LINE: Final = '{"model": "answers", "prompt": "What is a canary release?", "max_tokens": 40, "temperature": 0}'
SETTINGS: Final = {
    "gateway": {"port": PORT},
    "cache": {"enabled": True},
    "cost": {"cost_per_hour": 1.2},
    "engine": {"max_num_seqs": 16, "sim": {"itl_s": 0.02}},
}


def story(recorder: Recorder) -> None:
    """What happens until the view is worth a picture."""
    view, platform, release, load, same = recorder.terminals

    def sees(terminal: Terminal, text: str) -> Callable[[], bool]:
        return lambda: any(text in line for line in terminal.shown)

    push = "inferdock model push demo --name answers --version"
    recorder.run(release, f"{push} 1.0.0 --alias champion")
    recorder.run(release, f"{push} 1.1.0 --alias candidate --engine-arg=--seed=1")
    recorder.type(platform, "inferdock up --model answers@champion --engine sim --replicas 3")
    recorder.wait(lambda: sum("ready" in line for line in platform.shown) >= 3)
    url = f"http://127.0.0.1:{PORT}/v1"
    recorder.type(load, f"inferdock bench {url} --rate 12 --duration 120 --output-tokens 60 > bench.txt 2>&1")
    ask = f"curl -s -o answer -H 'content-type: application/json' {url}/completions -d '{LINE}'"
    recorder.type(same, f"while {ask}; do sleep 0.3; done")
    recorder.type(view, "inferdock status")
    recorder.wait(sees(view, "quits"))
    recorder.type(
        release,
        "inferdock release start answers@1.1.0 --gates health --weights 10,30,100 --hold 25 --bake 300 "
        "--max-errors 0.05 --ttft-p95 0",
    )
    recorder.wait(sees(view, "30 %"))
    end = time.monotonic() + 20  # for the curves
    recorder.wait(lambda: time.monotonic() > end)
    while select.select([view.fd], [], [], 0.3)[0]:  # until a picture is whole
        view.take()


def main() -> None:
    """Draw."""
    folder = Path(tempfile.mkdtemp(prefix="inferdock-status-"))
    shutil.copytree(ROOT / "models" / "demo", folder / "demo")
    places = {
        "registry": {"url": str(folder / "registry"), "cache_dir": str(folder / "cache")},
        "state_dir": str(folder / "state"),
    }
    (folder / "inferdock.yaml").write_text(json.dumps(SETTINGS | places), encoding="utf-8")
    titles = ("inferdock status", "platform", "release", "load", "one question")
    terminals = [Terminal(title, ROWS, folder) for title in titles]
    recorder = Recorder(terminals)
    try:
        story(recorder)
        (DOCS / "status.svg").write_text(picture(Recorder(terminals[:1])), encoding="utf-8")
        recorder.run(terminals[-1], "\x03inferdock release abort --reason seen")
    finally:
        for terminal in reversed(terminals):  # clients first, and the platform after them
            terminal.key("\x03\n")  # the line end: for a prompt of its own behind what was left half written
            recorder.wait(lambda one=terminal: one.waits)
        for terminal in terminals:
            terminal.end()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{COLUMNS} x {ROWS}: {DOCS / 'status.svg'}")


if __name__ == "__main__":
    main()
