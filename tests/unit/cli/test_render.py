"""`inferdock render` and `inferdock install`, as far as they need no cluster."""

from __future__ import annotations

import json

import yaml
from click.testing import CliRunner

from inferdock.cli.main import cli
from inferdock.domain.errors import ConfigError


def run(*words: str):
    return CliRunner().invoke(cli, ["render", *words])


def test_objects_go_to_standard_output_ready_for_kubectl():
    done = run("--set", "gateway.replicaCount=3", "-n", "models", "--release", "llm")
    found = list(yaml.safe_load_all(done.stdout))
    (gateway,) = [one for one in found if one["kind"] == "Deployment" and one["metadata"]["name"].endswith("gateway")]
    assert gateway["spec"]["replicas"] == 3
    assert {one["metadata"]["namespace"] for one in found} == {"models"}
    assert [one for one in found if one["kind"] == "Pod"] == []


def test_json_is_one_list():
    assert {one["kind"] for one in json.loads(run("-o", "json").stdout)} >= {"Deployment", "Service", "ConfigMap"}


def test_files_are_written_one_per_template(tmp_path):
    assert run("--to", str(tmp_path / "out")).exit_code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "access.yaml",
        "gateway.yaml",
        "network.yaml",
        "revisions.yaml",
    }


def test_a_folder_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    done = run("--to", str(tmp_path / "file" / "inside"))
    assert isinstance(done.exception, ConfigError)


def test_install_refuses_values_before_it_looks_for_a_cluster():
    done = CliRunner().invoke(cli, ["install", "--set", "gateway.replicas=3", "--kube-api", "http://127.0.0.1:9"])
    assert isinstance(done.exception, ConfigError)
    assert "`gateway`: additional properties 'replicas' not allowed" in str(done.exception)
