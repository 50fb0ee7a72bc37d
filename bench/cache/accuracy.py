"""How often the response cache is right: labelled prompts through the embedder, the thresholds and the guard.

``python -m bench.cache.accuracy``, some minutes, most of them for vectors that are kept under ``out/``; ``--quick``
under a minute. The data are read from ``$INFERDOCK_CACHE_DATA`` and no text of them is printed or written.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.cache import accuracy_tables as tables
from bench.cache.accuracy_data import FOLDER
from bench.cache.accuracy_vectors import Vectors
from inferdock.cache.guard.guard import ALLOWANCE

Measure = Callable[[Vectors], list[tables.Row]]

QUICK_EACH = 40
MEASURES: dict[str, Measure] = {
    "workload": lambda vectors: tables.workload_rows(vectors, quick=False),
    "template": lambda vectors: tables.group_rows("template", ("kind", "template"), vectors),
    "checklist": lambda vectors: tables.group_rows("checklist", ("capability", "test"), vectors),
    "qqp": tables.qqp_rows,
    "growth": tables.growth_rows,
    "traffic": tables.traffic_rows,
    "timing": lambda vectors: [tables.timing_row(vectors)],
}
QUICK: dict[str, Measure] = {
    "workload": lambda vectors: tables.workload_rows(vectors, quick=True),
    "template": lambda vectors: tables.group_rows("template", ("kind", "template"), vectors, each=QUICK_EACH),
    "checklist": lambda vectors: tables.group_rows("checklist", ("capability", "test"), vectors, each=QUICK_EACH),
}


def main() -> None:
    """Measure, print tables, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=MEASURES, help="one of the tables")
    parser.add_argument("--quick", action="store_true", help="the workload, and samples of templates and CheckList")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    if not FOLDER.is_dir():
        parser.exit(1, f"There are no labelled prompts in {FOLDER}; INFERDOCK_CACHE_DATA may name another folder.\n")

    vectors = Vectors()
    figures: dict[str, object] = {"base": tables.BASE, "allowances": ALLOWANCE}
    for name, measure in (QUICK if options.quick else MEASURES).items():
        if options.only in (None, name):
            rows = measure(vectors)
            figures[name] = rows
            _print(name, rows)
    if options.out:
        options.out.write_text(json.dumps(figures, indent=1) + "\n")


def _print(name: str, rows: Sequence[tables.Row]) -> None:
    columns = list(rows[0])
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [min(max(len(line[place]) for line in cells), 70) for place in range(len(columns))]
    print(f"\n{name}")
    for line in cells:
        print("  " + "  ".join(cell[:70].ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
