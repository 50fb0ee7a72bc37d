"""The Terraform module of the GPU nodes and the plan's path to it: style, contract, pages, errata; without an apply."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import ROOT
from tests.support.terraform import Terraform, initialised

pytestmark = pytest.mark.timeout(300)

FOLDER = ROOT / "terraform"
MODULE = FOLDER / "eks-nodegroup"
PLANS_PATH = FOLDER / "eks-nodegroup.tf"
PLANS_SAMPLE = Path(__file__).parent / "plan_samples" / "eks-nodegroup.tf"

BLOCK = re.compile(r'^(variable|output) "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| `(\w+)` \|(.*)\|$", re.MULTILINE)
BELOW = "[below](#groups)"
"""What the table of the README has for types and defaults of several lines."""


def sources(module: Path = MODULE) -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted(module.glob("*.tf")))


def value_of(name: str, body: str) -> str | None:
    """An argument of a block as the README's table has it; None where it is missing."""
    found = re.search(rf"^  {name} += *(.*)$", body, re.MULTILINE)
    if found is None:
        return None
    return BELOW if found[1].endswith(("{", "(")) else f"`{found[1]}`"


def rows_of_blocks(kind: str) -> dict[str, str]:
    """What the README's table has to say of each variable or output."""
    rows = {}
    for found, name, body in BLOCK.findall(sources()):
        cells = [(value_of("description", body) or "").strip('`"')]
        if kind == "variable":
            cells = [value_of("type", body) or "", value_of("default", body) or "required", *cells]
        if found == kind:
            rows[name] = " | ".join(cells)
    return rows


def rows_of_readme(heading: str) -> dict[str, str]:
    text = (MODULE / "README.md").read_text(encoding="utf-8")
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    return {name: cells.strip() for name, cells in ROW.findall(section)}


@pytest.mark.parametrize(("kind", "heading"), [("variable", "Inputs"), ("output", "Outputs")])
def test_the_readme_describes_each(kind, heading):
    assert rows_of_readme(heading) == rows_of_blocks(kind)


@pytest.mark.parametrize("folder", [FOLDER, MODULE], ids=["root", "module"])
def test_the_lock_file_is_of_the_wanted_provider(folder):
    wanted = re.findall(r'source  = "hashicorp/aws"\s+version = "(.*)"', sources(folder))
    lock = (folder / ".terraform.lock.hcl").read_text(encoding="utf-8")
    assert re.findall(r'constraints = "(.*)"', lock) == wanted
    assert len(re.findall(r'"zh:[0-9a-f]{64}"', lock)) > 10


def test_no_account_no_region_and_no_endpoint_are_named():
    text = sources(FOLDER) + sources()
    assert not re.search(r'provider "|access_key|secret_key|endpoints|region +=|backend "', text)


def test_the_chart_knows_the_nodes_that_are_made_by_default():
    known = yaml.safe_load((ROOT / "helm/llm-inference/files/instances.yaml").read_text(encoding="utf-8"))
    named = set(re.findall(r'"(g\w+\.\w+)"', sources()))
    assert named, "the module has a default"
    assert named <= set(known)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """The folder that has the plan's path, after ``init``."""
    return initialised(FOLDER, tmp_path_factory.mktemp("root"))


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    """The module by itself, after ``init``."""
    return initialised(MODULE, tmp_path_factory.mktemp("module"))


def test_everything_is_formatted(root: Terraform):
    root.run("fmt", "-check", "-recursive", "-diff")


def test_the_plans_path_is_valid_without_a_warning(root: Terraform):
    found = json.loads(root.run("validate", "-json"))
    assert (found["valid"], found["diagnostics"]) == (True, [])


def test_the_module_is_valid_without_a_warning(module: Terraform):
    found = json.loads(module.run("validate", "-json"))
    assert (found["valid"], found["diagnostics"]) == (True, [])


def test_the_contract_of_the_module_holds(module: Terraform):
    assert re.search(r"Success! \d+ passed, 0 failed", module.run("test", "-no-color"))


def test_the_plans_sample_is_not_valid(module: Terraform, tmp_path):
    here = module.of_copy(tmp_path / "sample")
    for path in here.folder.glob("*.tf"):
        if path.name != "versions.tf":
            path.unlink()
    (here.folder / PLANS_SAMPLE.name).write_text(PLANS_SAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    found = json.loads(here.run("validate", "-json", expect=[1]))
    assert [each["summary"] for each in found["diagnostics"]] == ["Reference to undeclared resource"] * 3


def has_no_p3(text: str) -> bool:
    """7: V100 has no AWQ kernels in vLLM and no bfloat16."""
    return not re.search(r'"p3\.', text)


def has_the_drivers_image(text: str) -> bool:
    """44: without it nodes have no driver."""
    return "_NVIDIA" in text and "ami_type" in text


def has_a_disk_of_its_own(text: str) -> bool:
    """44: EKS's default of 20 GiB is smaller than image and weights."""
    return bool(re.search(r"volume_size|disk_size", text))


def leaves_the_size_to_the_autoscaler(text: str) -> bool:
    """44: the next apply would take its nodes away again."""
    return bool(re.search(r"ignore_changes = \[scaling_config\[0\]\.desired_size\]", text))


def has_an_on_demand_group(text: str) -> bool:
    """44: when spot nodes run out, something has to be left."""
    return "ON_DEMAND" in text


def keeps_kinds_of_card_apart(text: str) -> bool:
    """44: a price per hour and a target per replica are those of one card."""
    groups = re.findall(r"instance_types += +\[(.*?)\]", text)
    return all(len(set(re.findall(r'"(\w+)\.', group))) == 1 for group in groups if '"' in group)


def taints_nodes_with_a_gpu(text: str) -> bool:
    """44: pods without a GPU would fill them."""
    return bool(re.search(r'key += "nvidia.com/gpu"', text))


CHECKS = [
    has_no_p3,
    has_the_drivers_image,
    has_a_disk_of_its_own,
    leaves_the_size_to_the_autoscaler,
    has_an_on_demand_group,
    keeps_kinds_of_card_apart,
    taints_nodes_with_a_gpu,
]


@pytest.mark.parametrize("right", CHECKS, ids=[check.__name__ for check in CHECKS])
def test_07_and_44_the_sample_is_wrong_and_ours_is_right(right):
    assert not right(PLANS_SAMPLE.read_text(encoding="utf-8"))
    assert right(sources())
