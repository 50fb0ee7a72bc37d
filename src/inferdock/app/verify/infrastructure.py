"""Terraform modules of a checkout: accepted by Terraform itself, in a copy, without an account."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from inferdock.app.verify.commands import program, run
from inferdock.app.verify.ground import LackingError, verdict
from inferdock.verify.check import Evidence

_NO_PROVIDER: Final = (
    "Failed to query available provider packages",
    "Failed to install provider",
    "registry service is unreachable",
)
_PROVIDER: Final = Path("registry.terraform.io", "hashicorp", "aws")


async def validated(module: Path) -> Evidence:
    """`terraform validate` of a copy of a module.

    Raises:
        LackingError: Terraform or its AWS provider is not there.
    """
    terraform = program("terraform", "https://developer.hashicorp.com/terraform/install")
    with tempfile.TemporaryDirectory(prefix="verify-") as name:
        copy = Path(name) / "module"
        shutil.copytree(module, copy, ignore=shutil.ignore_patterns(".terraform", "*.tfstate*", "*.tfvars"))
        mirror = _mirror()
        where = (f"-plugin-dir={mirror}",) if mirror is not None else ()
        environment = {"TF_DATA_DIR": f"{name}/data", "TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
        words = ("-backend=false", "-input=false", "-no-color", *where)
        begun = await run(terraform, "init", *words, folder=copy, environment=environment)
        if any(sign in begun.out + begun.err for sign in _NO_PROVIDER):
            raise LackingError("Needs Terraform's AWS provider: let it reach its registry, or set TF_PROVIDER_MIRROR.")
        if begun.code != 0:
            return verdict(False, begun.said)
        done = await run(terraform, "validate", "-no-color", folder=copy, environment=environment)
    sentence = "Terraform finds nothing wrong." if done.code == 0 else done.said
    return verdict(done.code == 0, sentence, f"terraform -chdir=terraform/{module.name} validate")


def _mirror() -> str | None:
    """Folder with the provider, where the person names one or one lies where software of this machine does."""
    named = os.environ.get("TF_PROVIDER_MIRROR")
    roots = (Path("/opt"), Path("/usr/share"), Path("/usr/local/share"))
    found = sorted(path.parents[2] for root in roots for path in root.glob(f"*/{_PROVIDER}"))
    return named or (str(found[0]) if found else None)
