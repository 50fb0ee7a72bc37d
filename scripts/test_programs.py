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
    "buildah": "buildah",
    "chromium": "chromium",
    "curl": "curl",
    "h2load": "nghttp2-client",
    "kubectl": "kubernetes-client",
    "wrk": "wrk",
    "mmdebstrap": "mmdebstrap",
    "npm": "npm",
    "podman": "podman",
    "prometheus": "prometheus",
    "redis-server": "redis-server",
    "runc": "runc",
}
"""Programs and Debian's packages of them; npm brings node, and mmdebstrap makes what tests of images build on.
Terraform has no package: tests that need it are skipped where it is not."""


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
        return f"{exc.message} {_one_by_one(system, missing)} {exc.cure}"
    return f"Installed {names} for the tests."


def _one_by_one(system: SystemPackages, missing: list[str]) -> str:
    """Not every distribution has every package: one that is not there must not keep the others away."""
    refused = []
    for package in missing:
        try:
            system.install([package], why=f"Some tests need {package}")
        except SetupError:
            refused.append(package)
    return f"Without {', '.join(refused)}: tests that need them are skipped." if refused else "Each alone went in."


def main() -> None:
    """Entry point."""
    sentence = add_programs(SystemPackages(LocalRunner(), running_as_root(), which=shutil.which))
    if sentence:
        print(sentence, file=sys.stderr)


if __name__ == "__main__":
    main()
