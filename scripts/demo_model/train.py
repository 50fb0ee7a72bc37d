"""Trains the demo model, or measures one that is there.

python scripts/demo_model/train.py --out models/demo                   # from scratch, minutes on two cores
python scripts/demo_model/train.py --eval-only --model models/demo     # only the scores
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":
    # Started as a file, so the repository's root has to be put on the import path first.
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from scripts.demo_model.cli import main

    sys.exit(main())
