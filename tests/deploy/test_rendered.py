"""k8s/ and the chart's generated files are up to date: by digest without Helm, and by rendering again."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml
from scripts import render_chart, render_kubernetes

from tests.support.chart import ROOT
from tests.support.kubernetes_scaling_checks import CHECKS
from tests.support.kubernetes_schemas import problem

FILES = sorted((ROOT / "k8s").rglob("*.yaml"))
CURE = "run scripts/render and commit what it writes"


def test_each_file_names_the_inputs_of_today():
    assert FILES
    heads = {folder: render_kubernetes.header(folder) for folder in {path.parent.name for path in FILES}}
    assert [path.name for path in FILES if not path.read_text().startswith(heads[path.parent.name])] == [], CURE


@pytest.mark.parametrize("stage", ["copies", "kubernetes"])
def test_rendering_again_changes_nothing(stage):
    assert render_kubernetes.stale(getattr(render_kubernetes, stage)()) == [], CURE


def test_the_schema_and_the_readme_are_those_of_the_values():
    assert render_kubernetes.stale(render_chart.outputs()) == [], CURE


def test_nothing_is_left_over():
    written = [*render_kubernetes.copies(), *render_kubernetes.kubernetes()]
    assert render_kubernetes.left_over(written) == [], CURE


def test_the_files_are_at_the_places_of_the_plan():
    places = {
        "base/deployment.yaml", "base/service.yaml", "base/configmap.yaml", "base/pdb.yaml",
        "scaling/scaledobject.yaml", "monitoring/servicemonitor.yaml", "caching/redis.yaml",
    }  # fmt: skip
    assert places <= {path.relative_to(ROOT / "k8s").as_posix() for path in FILES}


def test_the_files_together_are_whole():
    """As after `kubectl apply -f` of each folder; what k8s/caching replaces is replaced."""
    there = {}
    for folder in ("base", "scaling", "monitoring", "caching"):
        for path in sorted((ROOT / "k8s" / folder).glob("*.yaml")):
            for one in yaml.safe_load_all(path.read_text()):
                if one["kind"] != "Kustomization":
                    there[(one["kind"], one["metadata"]["name"])] = one
    everything = list(there.values())
    assert [wrong for one in everything if (wrong := problem(one))] == []
    assert [wrong for check in CHECKS.values() for wrong in check(everything)] == []


def test_no_secret_is_written_down():
    for path in FILES:
        assert not [one for one in yaml.safe_load_all(path.read_text()) if one["kind"] == "Secret"]


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl (Debian: kubernetes-client)")
@pytest.mark.parametrize("folder", ["base", "scaling", "monitoring", "caching"])
def test_kustomize_builds_each_folder(folder):
    built = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "k8s" / folder)], capture_output=True, text=True, timeout=60, check=True
    )
    assert [one["kind"] for one in yaml.safe_load_all(built.stdout)]
