"""The module of the registry, initialised once, and what it makes on an emulator of AWS."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.docs.pages import ROOT
from tests.support.terraform import Terraform, initialised
from tests.terraform.emulator import Emulator, running_emulator

MODULE = ROOT / "terraform" / "model-registry"
FOR_TRIALS = ("-var=force_destroy=true", "-var=deletion_protection=false", "-var=require_tls=false")
"""What an emulator needs: it speaks no TLS (and ignores the condition of the policy), and all goes away at the end."""


@dataclass(frozen=True, kw_only=True)
class AppliedRegistry:
    """What Terraform made, and how to reach it.

    Attributes:
        environment: variables for a process that uses the registry: Inferdock's own, as the module's output
            ``inferdock_environment`` says them, and AWS's.
    """

    bucket: str
    table: str
    environment: dict[str, str]
    outputs: dict[str, Any]
    terraform: Terraform
    emulator: Emulator


@pytest.fixture(scope="session")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """The module after ``init``; skips where Terraform or its provider is missing."""
    return initialised(MODULE, tmp_path_factory.mktemp("terraform"))


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A fresh one for each file of tests."""
    with running_emulator(tmp_path_factory.mktemp("aws")) as emulator:
        yield emulator


@pytest.fixture(scope="module")
def applied_registry(terraform: Terraform, emulator: Emulator, tmp_path_factory) -> Iterator[AppliedRegistry]:
    """The unmodified module for the environment prod, applied; at the end destroyed, with whatever lies in it.

    Takes about a minute, nearly all of it the provider's waiting for the lifecycle rules to be stable.
    """
    folder: Path = tmp_path_factory.mktemp("applied") / "module"
    here = terraform.of_copy(folder, **emulator.environment)
    here.apply("-var=environment=prod", *FOR_TRIALS)
    outputs = here.outputs()
    yield AppliedRegistry(
        bucket=outputs["bucket"],
        table=outputs["table"],
        environment={**emulator.environment, **outputs["inferdock_environment"]},
        outputs=outputs,
        terraform=here,
        emulator=emulator,
    )
    remove_delete_markers(emulator, outputs["bucket"])
    here.destroy("-var=environment=prod", *FOR_TRIALS)
    assert emulator.client("s3").list_buckets()["Buckets"] == []
    assert emulator.client("dynamodb").list_tables()["TableNames"] == []
    assert emulator.client("iam").list_policies(Scope="Local")["Policies"] == []


def remove_delete_markers(emulator: Emulator, bucket: str) -> None:
    """Undo deletions, for the emulator's sake.

    A destroy takes versioning away before it empties the bucket, and then moto answers 500 for what has a delete marker
    (S3 does not), which the provider tries again for many minutes.
    """
    s3 = emulator.client("s3")
    while markers := s3.list_object_versions(Bucket=bucket).get("DeleteMarkers"):
        for marker in markers:
            s3.delete_object(Bucket=bucket, Key=marker["Key"], VersionId=marker["VersionId"])
