"""The module of the registry, initialised once, and what it makes on an emulator of AWS."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
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


class Applying:
    """The apply of the whole module, beside other tests: nearly all of its minute is waiting."""

    def __init__(self) -> None:
        self._undo = contextlib.ExitStack()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="terraform")
        self._applied = self._pool.submit(self._apply)

    def _apply(self) -> AppliedRegistry:
        folder = Path(self._undo.enter_context(tempfile.TemporaryDirectory(prefix="terraform-")))
        emulator = self._undo.enter_context(running_emulator(folder))
        here = initialised(MODULE, folder).of_copy(folder / "applied", **emulator.environment)
        here.apply("-var=environment=prod", *FOR_TRIALS)
        outputs = here.outputs()
        return AppliedRegistry(
            bucket=outputs["bucket"],
            table=outputs["table"],
            environment={**emulator.environment, **outputs["inferdock_environment"]},
            outputs=outputs,
            terraform=here,
            emulator=emulator,
        )

    def result(self) -> AppliedRegistry:
        """What was applied, once it is; skips or fails as the apply did."""
        return self._applied.result()

    def close(self) -> None:
        """End the emulator, and with it all that was made on it."""
        self._pool.shutdown(wait=True)
        self._undo.close()


_APPLYING = pytest.StashKey[Applying]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What wants the apply comes last of all: so long it may take, beside tests that do not mind a busy processor."""
    items.sort(key=_wants_apply)


def _wants_apply(item: pytest.Item) -> bool:
    return "applied_registry" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def applying(request: pytest.FixtureRequest) -> None:
    """Begin the apply with the first test of this folder, if a test of this session wants it."""
    if any(map(_wants_apply, request.session.items)):
        request.config.stash[_APPLYING] = Applying()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Leave no process."""
    if (applying := session.config.stash.get(_APPLYING, None)) is not None:
        applying.close()


@pytest.fixture(scope="module")
def applied_registry(pytestconfig: pytest.Config) -> Iterator[AppliedRegistry]:
    """The unmodified module for the environment prod, applied; at the end destroyed, with whatever lies in it."""
    applied = pytestconfig.stash[_APPLYING].result()
    yield applied
    emulator = applied.emulator
    remove_delete_markers(emulator, applied.bucket)
    applied.terraform.destroy("-var=environment=prod", *FOR_TRIALS)
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
