#!/usr/bin/env python3
"""Makes `.venv` ready: `python3 scripts/setup.py --help`. Called by `make setup`; needs nothing but Python >= 3.11.

This file is only the door: it must run on any Python 3, so that an old one gets a sentence and not a traceback.
The steps are in scripts/setup_steps.py.
"""

import os
import subprocess
import sys

OLDEST = (3, 11)
NEWER_NAMES = ("python3.13", "python3.12", "python3.11", "python3.14")
ASK_VERSION = "import sys; sys.exit(sys.version_info < (3, 11))"


def newer_python() -> "str | None":
    """Name of an installed Python that is new enough, or None."""
    for name in NEWER_NAMES:
        try:
            if subprocess.call([name, "-c", ASK_VERSION], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) == 0:
                return name
        except OSError:
            continue
    return None


def enter() -> int:
    """Run the steps under a Python that is new enough."""
    if sys.version_info < OLDEST:
        name = newer_python()
        if name is None:
            version = ".".join(str(part) for part in sys.version_info[:2])
            sys.stderr.write("error: Inferdock needs Python 3.11 or newer, and this is Python " + version + ".\n")
            sys.stderr.write("       Install one (Debian 12 has it) and run: make setup PYTHON=python3.11\n")
            return 2
        os.execvp(name, [name, os.path.abspath(__file__), *sys.argv[1:]])
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from scripts.setup_steps import main  # noqa: PLC0415  (an old Python could not even parse it)

    return main(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(enter())
