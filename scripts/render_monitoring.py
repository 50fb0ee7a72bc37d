"""Writes grafana/dashboards/*.json and prometheus/rules/slo.yaml: `python -m scripts.render_monitoring`.

Run `scripts/render` after it: the chart has copies.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.monitoring import slo
from scripts.monitoring.boards import RELEASE, SERVING
from scripts.monitoring.cache_board import CACHE
from scripts.monitoring.cost_board import COST
from scripts.monitoring.panels import Dashboard, text_of

ROOT: Final = Path(__file__).resolve().parents[1]
RULES: Final = ROOT / "prometheus" / "rules"
DASHBOARDS: Final = ROOT / "grafana" / "dashboards"
BOARDS: Final[tuple[Dashboard, ...]] = (COST, SERVING, RELEASE, CACHE)
_HEAD: Final = "# Written by scripts/render_monitoring.py from scripts/monitoring/slo.py; do not edit.\n"


class _Blocks(yaml.SafeDumper):
    """Writes texts of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Blocks.add_representer(str, _text)


def outputs() -> Iterator[tuple[Path, str]]:
    """The files that this writes, with their texts."""
    yield RULES / "slo.yaml", _HEAD + yaml.dump(slo.document(), Dumper=_Blocks, sort_keys=False, width=1000)
    for board in BOARDS:
        yield DASHBOARDS / f"{board.name}.json", text_of(board)


if __name__ == "__main__":
    for path, text in outputs():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
