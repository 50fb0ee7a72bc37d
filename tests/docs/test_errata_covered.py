"""Each of the 49 errata of the plan has a check by name that knows the plan's fault as well as ours.

The list says where. A check that is renamed, or that no longer looks at the plan's fault, breaks it.
"""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import ROOT

CHART, IMAGES, NODES = "deploy/test_chart_errata.py", "deploy/test_image_files.py", "terraform/test_nodegroup.py"
HERE = "docs/test_plan_errata.py"
SAMPLE = "test_the_sample_is_wrong_and_ours_is_right"
MISTAKE = "test_the_plans_sample_has_the_mistake_and_ours_does_not"
WHERE: dict[int, list[tuple[str, str, str]]] = {
    **{number: [(IMAGES, MISTAKE, f'"ERRATA-{number}-')] for number in (1, 2, 3, 4, 5)},
    **{
        number: [(CHART, SAMPLE, f'"{number:02d}-')]
        for number in (8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 24, 26, 27, 28, 29, 46)
    },
    **{number: [(CHART, f"test_{number:02d}_", "")] for number in (6, 12, 23, 25, 40, 41, 43, 45, 49)},
    7: [(CHART, "test_07_", ""), (NODES, "test_07_and_44_", "has_no_p3")],
    44: [(NODES, "test_07_and_44_", "has_a_disk_of_its_own"), (NODES, "test_the_plans_sample_is_not_valid", "")],
    **{number: [(HERE, f"test_{number:02d}_", "")] for number in (*range(30, 40), 42, 47, 48)},
}
"""Number of an erratum: file below tests/, beginning of the test's name, text that names its case."""
LOOKS_AT_THE_PLAN = re.compile(r"SAMPLE|sample\(|PLAN|plan|p3\.2xlarge")


def test_the_list_has_all_of_them():
    assert sorted(WHERE) == list(range(1, 50))


@pytest.mark.parametrize("number", WHERE, ids=lambda number: f"{number:02d}")
def test_an_erratum_has_its_check(number):
    for file, name, case in WHERE[number]:
        text = (ROOT / "tests" / file).read_text(encoding="utf-8")
        found = [
            ast.get_source_segment(text, node) or ""
            for node in ast.parse(text).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith(name)
        ]
        assert found, f"{file} has no test {name}…"
        assert case in text
        assert any(LOOKS_AT_THE_PLAN.search(one) for one in found), f"{name} in {file} ignores the plan"
        assert all("assert" in one or "raises(" in one for one in found)
        assert not any("skip(" in one for one in found)
