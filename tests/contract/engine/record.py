"""Writes the recording of a live engine: ``python -m tests.contract.engine.record http://127.0.0.1:8000``."""

from __future__ import annotations

import asyncio
import json
import sys
import urllib.request
from pathlib import Path

from tests.contract.engine.shapes import record

RECORDINGS = Path(__file__).with_name("recordings")


def main() -> None:
    """Record and write ``recordings/vllm-<version>.json``."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    base_url = sys.argv[1].rstrip("/")
    with urllib.request.urlopen(f"{base_url}/version", timeout=10) as response:
        version = json.load(response)["version"]
    recording = asyncio.run(record(base_url))
    path = RECORDINGS / f"vllm-{version}.json"
    path.write_text(json.dumps(recording, indent=1, sort_keys=True) + "\n")
    print(f"{path}: {len(recording)} entries")


if __name__ == "__main__":
    main()
