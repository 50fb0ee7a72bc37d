"""Values, sentences and texts of `app.render`, and that the code of releases can use what the chart makes."""

from __future__ import annotations

import pytest
import yaml

from inferdock.app import render as app_render
from inferdock.app.render import find_chart, merged, objects, read_values, sentence, spelt, without_hooks
from inferdock.domain.errors import ConfigError
from inferdock.kube.naming import label_value
from inferdock.release.drivers.kubernetes.template import revision_parts
from inferdock.release.records.cluster_names import REVISION, revision_name
from inferdock.release.steps import Target
from tests.support.chart import COMBINATIONS, chart_objects, templates
from tests.support.kubernetes_checks import labels, of_kind


def test_later_values_win_and_maps_are_merged(tmp_path):
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("a: {b: 1, c: [1]}\nd: {e: 1}\n")
    second.write_text("a: {c: [2]}\nd: null\n")
    assert read_values([first, second], ["a.b=3", "x.y=no"]) == {
        "a": {"b": 3, "c": [2]},
        "d": None,
        "x": {"y": "no"},
    }


@pytest.mark.parametrize(
    "text",
    ["a: [", "- 1", "1: 2", "x: !!python/object:os.system {}", "a: 0000-00-00", "\x00", "a: " + "[" * 5000],
    ids=["cut", "list", "numbers-as-keys", "object", "impossible-date", "nothing-printable", "deep"],
)
def test_files_that_are_no_values_are_refused(text, tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"not YAML|must hold a map"):
        read_values([file], [])


@pytest.mark.parametrize("text", ["nameOverride: 2026-01-31", "engine: &a {config: *a}"], ids=["date", "endless"])
def test_values_that_json_cannot_hold_are_refused(text, tmp_path):
    file = tmp_path / "values.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match="JSON cannot"):
        chart_objects(read_values([file], []))


def test_a_file_that_is_not_there_or_too_large_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        read_values([tmp_path / "none"], [])
    large = tmp_path / "large"
    large.write_bytes(b"#" * (app_render.MAX_VALUES_BYTES + 1))
    with pytest.raises(ConfigError, match="larger than 1024 KiB"):
        read_values([large], [])


def test_a_setting_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="is not KEY=VALUE"):
        read_values([], ["nonsense"])


def test_a_chart_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="There is no chart at"):
        find_chart(tmp_path)
    assert (find_chart(None) / "Chart.yaml").is_file()


def test_a_name_that_helm_does_not_take_is_refused():
    with pytest.raises(ConfigError):
        chart_objects({}, name="Not A Name")


def test_merging_changes_neither_side():
    below, above = {"a": {"b": [1]}}, {"a": {"c": 2}}
    both = merged(below, above)
    both["a"]["b"].append(9)
    assert (below, above) == ({"a": {"b": [1]}}, {"a": {"c": 2}})


def test_sentences_lose_where_helm_found_them():
    said = "execution error at (llm-inference/templates/x.yaml:1:4): This cannot work."
    assert sentence(said) == "This cannot work."
    schema = "values don't meet the schema\nllm-inference:\n- at '/a/b~1c': got string, want integer\n"
    assert sentence(schema) == "The values are not those of the chart: `a.b/c`: got string, want integer."
    assert sentence("something  else\n") == "something else"


def test_texts_of_several_lines_stay_readable_and_come_back():
    everything = chart_objects(COMBINATIONS["prod"])
    text = spelt(everything)
    assert list(yaml.safe_load_all(text)) == everything
    assert "inferdock.yaml: |\n" in text


def test_hooks_are_left_out_where_objects_are_applied_by_hand():
    everything = chart_objects({})
    assert [one["kind"] for one in everything if one not in without_hooks(everything)] == ["Pod"]


def test_what_is_no_object_is_refused():
    with pytest.raises(ConfigError, match="no object"):
        objects({"templates/x.yaml": "- 1\n"})


def test_without_the_sdk_the_cure_is_said(monkeypatch):
    def missing(name: str):
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.delitem(app_render.sys.modules, app_render.SDK, raising=False)
    monkeypatch.setattr(app_render.importlib, "import_module", missing)
    with pytest.raises(ConfigError) as refused:
        app_render.helm()
    assert "inferdock[deploy]" in refused.value.cure


@pytest.mark.parametrize("name", sorted(COMBINATIONS))
def test_releases_can_make_revisions_of_every_template(name):
    """The release driver's own reading of a template gives the objects that the chart gives."""
    everything = chart_objects(COMBINATIONS[name])
    for config_map in templates(everything):
        model = labels(config_map)["inferdock.io/model"]
        first = [one for one in everything if labels(one).get(REVISION) and labels(one)["inferdock.io/model"] == model]
        revision = labels(first[0])[REVISION]
        reference = first[0]["metadata"]["annotations"]["inferdock.io/reference"]
        target = Target(reference=reference, revision=revision, replicas=1)
        parts = revision_parts(config_map["data"]["objects.yaml"], target, model_label=model, namespace="models")
        made = {(part.resource.kind, part.name): part.body for part in parts}
        assert made.keys() == {(one["kind"], one["metadata"]["name"]) for one in first}
        for one in first:
            body = made[(one["kind"], one["metadata"]["name"])]
            body["metadata"]["annotations"].pop(REVISION)
            one["spec" if one["kind"] == "Deployment" else "metadata"].pop("replicas", None)
            assert body == one
        assert all(part.name.endswith((revision_name(revision), "-floor")) for part in parts)


def test_labels_of_models_are_those_of_the_gateway():
    for given in ("mistral", "mistralai/Mistral-7B-Instruct-v0.2", "x" * 80, "a b/c", "ends-"):
        everything = chart_objects({"models": {"mistral-7b-instruct": {"name": given, "facts": None}}})
        assert labels(templates(everything)[0])["inferdock.io/model"] == label_value(given)
        assert of_kind(everything, "Service")
