"""Terraform for tests: a copy of a module, its provider from wherever this machine has it, an emulator in place of AWS.

Nothing here names a path of one machine: the provider is looked for in the places that Terraform itself knows
(https://developer.hashicorp.com/terraform/cli/config/config-file#implied-local-mirror-directories) and below the usual
roots for data, or in ``TF_PROVIDER_MIRROR``.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PROGRAM = "terraform"
PROVIDER = Path("registry.terraform.io", "hashicorp", "aws")
DATA_ROOTS = (Path("/opt"), Path("/usr/share"), Path("/usr/local/share"))
NEVER_HANG_S = 240
"""A full apply takes about a minute; a busy machine may need twice that."""


def without_accounts(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without anything that could lead to a real account of AWS, or change what Terraform does."""
    return {name: value for name, value in environment.items() if not name.startswith(("AWS_", "TF_"))}


def skip_or_fail(reason: str) -> None:
    """Skip the test; where Terraform has to be there (``CI_REQUIRE_TERRAFORM=1``), fail it."""
    if os.environ.get("CI_REQUIRE_TERRAFORM") == "1":
        pytest.fail(f"{reason}, and CI_REQUIRE_TERRAFORM=1 asks for it")
    pytest.skip(reason)


def mirrors(environment: Mapping[str, str]) -> Iterator[Path]:
    """Folders that may hold the provider, best first."""
    if environment.get("TF_PROVIDER_MIRROR"):
        yield Path(environment["TF_PROVIDER_MIRROR"])
    home = Path(environment.get("HOME", "/nonexistent"))
    data = [environment.get("XDG_DATA_HOME") or str(home / ".local" / "share")]
    data += (environment.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    yield home / ".terraform.d" / "plugins"
    yield from (Path(folder) / "terraform" / "plugins" for folder in data if folder)
    for root in DATA_ROOTS:
        yield from sorted(path.parents[2] for path in root.glob(f"*/{PROVIDER}"))


def locked_version(module: Path) -> str:
    """The provider's version in a module's lock file."""
    text = (module / ".terraform.lock.hcl").read_text(encoding="utf-8")
    return re.findall(r'hashicorp/aws" \{\s+version += "([^"]+)"', text)[0]


def mirror_of_provider(environment: Mapping[str, str], version: str) -> Path | None:
    """The first folder that holds this version of the provider for Linux, unpacked or as an archive."""
    patterns = (f"{version}/linux_*", f"terraform-provider-aws_{version}_linux_*.zip")
    for folder in mirrors(environment):
        if any(any((folder / PROVIDER).glob(pattern)) for pattern in patterns):
            return folder
    return None


@dataclass(frozen=True, kw_only=True)
class Terraform:
    """Runs Terraform in one folder.

    Attributes:
        folder: copy of a module; its state lies there too.
        environment: all that Terraform sees.
    """

    folder: Path
    environment: Mapping[str, str]

    def run(self, *words: str, expect: Iterable[int] = (0,)) -> str:
        """Run one command; its standard output.

        Raises:
            AssertionError: its exit code is not an expected one; the message has its output.
        """
        done = subprocess.run(
            [PROGRAM, *words],
            cwd=self.folder,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=NEVER_HANG_S,
        )
        assert done.returncode in tuple(expect), f"terraform {' '.join(words)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def apply(self, *words: str) -> None:
        """Apply without questions."""
        self.run("apply", "-auto-approve", "-input=false", "-no-color", *words)

    def destroy(self, *words: str) -> None:
        """Destroy all of it without questions."""
        self.run("destroy", "-auto-approve", "-input=false", "-no-color", *words)

    def outputs(self) -> dict[str, Any]:
        """Values of the module's outputs."""
        found = json.loads(self.run("output", "-json"))
        return {name: output["value"] for name, output in found.items()}

    def of_copy(self, folder: Path, **environment: str) -> Terraform:
        """The same module in another folder, with a state of its own and more environment; needs no ``init``."""
        copy_module(self.folder, folder)
        return Terraform(folder=folder, environment={**self.environment, **environment})


def copy_module(source: Path, target: Path) -> None:
    """The files of a module without its state, so that tests leave nothing beside the sources."""
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".terraform", "*.tfstate*", "*.tfvars"))


def initialised(module: Path, folder: Path) -> Terraform:
    """A copy of a module after ``init``, with exactly the provider of its lock file.

    Skips the test where Terraform or the provider is not there: neither can be installed from Debian.
    """
    if shutil.which(PROGRAM) is None:
        skip_or_fail("needs terraform (https://developer.hashicorp.com/terraform/install)")
    environment = without_accounts(os.environ) | {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
    mirror = mirror_of_provider(os.environ, locked_version(module))
    flags = ["-backend=false", "-input=false", "-no-color", "-lockfile=readonly"]
    if mirror is not None:
        environment["TF_CLI_CONFIG_FILE"] = os.devnull
        flags.append(f"-plugin-dir={mirror}")
    elif "TF_CLI_CONFIG_FILE" in os.environ:
        environment["TF_CLI_CONFIG_FILE"] = os.environ["TF_CLI_CONFIG_FILE"]
    copy_module(module, folder / "module")
    environment["TF_DATA_DIR"] = str(folder / "data")
    terraform = Terraform(folder=folder / "module", environment=environment)
    try:
        terraform.run("init", *flags)
    except (AssertionError, subprocess.TimeoutExpired) as exc:
        if mirror is not None:
            raise
        skip_or_fail(f"needs the AWS provider, from its registry or from the folder TF_PROVIDER_MIRROR: {exc}"[:600])
    return terraform
