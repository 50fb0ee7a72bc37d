"""Programs that tests talk to our parts with: installs those that are missing, where it may (`scripts/test.sh`).

Never fails: a test whose program is not there is skipped, and says so.
"""

from __future__ import annotations

import shutil
import sys

from scripts.setup_shell import LocalRunner, SetupError
from scripts.setup_system import SystemPackages, running_as_root

PACKAGE_OF_PROGRAM = {
    "aws": "awscli",
    "curl": "curl",
    "h2load": "nghttp2-client",
    "wrk": "wrk",
    "npm": "npm",
    "redis-server": "redis-server",
}
"""Programs and Debian's packages of them; npm brings node. Terraform has no package: tests that need it are
skipped where it is not."""


def add_programs(system: SystemPackages) -> str:
    """Install what is missing.

    Returns:
        a sentence for the person, "" when nothing was missing.
    """
    missing = sorted(package for program, package in PACKAGE_OF_PROGRAM.items() if system.which(program) is None)
    if not missing:
        return ""
    names = ", ".join(missing)
    try:
        system.install(missing, why=f"Some tests need {names}")
    except SetupError as exc:
        return f"{exc.message} Tests that need them are skipped. {exc.cure}"
    return f"Installed {names} for the tests."


def main() -> None:
    """Entry point."""
    sentence = add_programs(SystemPackages(LocalRunner(), running_as_root(), which=shutil.which))
    if sentence:
        print(sentence, file=sys.stderr)


if __name__ == "__main__":
    main()
