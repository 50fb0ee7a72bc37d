"""Layers of the configuration, origins, unknown keys, and values from the environment."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.config.load import CONFIG_FILE_ENV, Loaded, env_name, flatten, load
from inferdock.config.settings import Settings
from inferdock.domain.errors import ConfigError


def written(folder: Path, text: str) -> Path:
    path = folder / "inferdock.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def loaded(
    file: Path | None = None, env: dict[str, str] | None = None, flags: dict[str, tuple[str, Any]] | None = None
) -> Loaded:
    return load(file=file, env=env or {}, flags=flags or {})


def test_without_any_layer_everything_is_default(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = loaded()
    assert result.settings == Settings()
    assert set(result.origins.values()) == {"default"}


def test_each_layer_yields_to_the_next(tmp_path):
    file = written(tmp_path, "gateway: {port: 1, admin_port: 1, attempts: 1}")
    env = {"INFERDOCK_GATEWAY__PORT": "2", "INFERDOCK_GATEWAY__ADMIN_PORT": "2"}
    result = loaded(file, env, {"gateway.port": ("--port", 3)})
    gateway = result.settings.gateway
    assert (gateway.port, gateway.admin_port, gateway.attempts) == (3, 2, 1)


def test_the_origin_of_each_value_is_told(tmp_path):
    file = written(tmp_path, "gateway: {port: 1, admin_port: 1, attempts: 1}")
    env = {"INFERDOCK_GATEWAY__PORT": "2", "INFERDOCK_GATEWAY__ADMIN_PORT": "2"}
    origins = loaded(file, env, {"gateway.port": ("--port", 3)}).origins
    assert origins["gateway.port"] == "flag --port"
    assert origins["gateway.admin_port"] == "env INFERDOCK_GATEWAY__ADMIN_PORT"
    assert origins["gateway.attempts"] == f"file {file}"
    assert origins["gateway.host"] == "default"


def test_a_flag_that_was_not_given_does_not_count(tmp_path):
    file = written(tmp_path, "gateway: {port: 1}")
    assert loaded(file, flags={"gateway.port": ("--port", None)}).settings.gateway.port == 1


def test_a_flag_of_zero_counts():
    assert loaded(flags={"gateway.port": ("--port", 0)}).settings.gateway.port == 0


def test_the_file_in_the_working_folder_is_found(tmp_path, monkeypatch):
    written(tmp_path, "gateway: {port: 1}")
    monkeypatch.chdir(tmp_path)
    assert loaded().origins["gateway.port"] == "file inferdock.yaml"


def test_the_file_named_by_the_environment_goes_before_the_one_in_the_working_folder(tmp_path, monkeypatch):
    written(tmp_path, "gateway: {port: 1}")
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "other.yaml"
    other.write_text("gateway: {port: 2}")
    assert loaded(env={CONFIG_FILE_ENV: str(other)}).settings.gateway.port == 2


def test_a_file_named_by_flag_goes_before_the_one_named_by_the_environment(tmp_path):
    file = written(tmp_path, "gateway: {port: 1}")
    assert loaded(file, {CONFIG_FILE_ENV: "/missing.yaml"}).settings.gateway.port == 1


@pytest.mark.parametrize("text", ["", "# nothing\n", "model:\n", "null\n", "{}\n"])
def test_a_file_that_says_nothing_changes_nothing(tmp_path, text):
    assert loaded(written(tmp_path, text)).settings == Settings()


@pytest.mark.parametrize(
    ("text", "wrong", "right"),
    [
        ("gatway: {port: 1}", "gatway", "gateway"),
        ("gateway: {prot: 1}", "gateway.prot", "gateway.port"),
        ("engine: {sim: {tft_s: 1}}", "engine.sim.tft_s", "engine.sim.ttft_s"),
        ("port: 1", "port", "gateway.port"),
        ("drain_timeout: 1", "drain_timeout", "drain_timeout_s"),
    ],
)
def test_an_unknown_key_names_the_nearest_right_one(tmp_path, text, wrong, right):
    with pytest.raises(ConfigError) as error:
        loaded(written(tmp_path, text))
    assert f"`{wrong}`" in error.value.message
    assert f"`{right}`" in error.value.cure


def test_an_unknown_key_without_a_neighbour_says_where_to_look(tmp_path):
    with pytest.raises(ConfigError, match="config show"):
        loaded(written(tmp_path, "zzzzzzzz: 1"))


@pytest.mark.parametrize(
    ("name", "right"),
    [("INFERDOCK_GATEWAY_PORT", "INFERDOCK_GATEWAY__PORT"), ("INFERDOCK_LOG__LEVL", "INFERDOCK_LOG__LEVEL")],
)
def test_an_unknown_variable_names_the_nearest_right_one(name, right):
    with pytest.raises(ConfigError) as error:
        loaded(env={name: "1"})
    assert f"`{name}`" in error.value.message
    assert f"`{right}`" in error.value.cure


def test_variables_of_others_are_left_alone():
    assert loaded(env={"PORT": "1", "XINFERDOCK_GATEWAY__PORT": "1"}).settings == Settings()


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("INFERDOCK_GATEWAY__PORT", "9000", "gateway.port", 9000),
        ("INFERDOCK_DRAIN_TIMEOUT_S", "1.5", "drain_timeout_s", 1.5),
        ("INFERDOCK_LOG__REQUESTS", "false", "log.requests", False),
        ("INFERDOCK_MODEL__NAME", "null", "model.name", None),
        ("INFERDOCK_ENGINE__EXTRA_ARGS", '["--seed", "1"]', "engine.extra_args", ("--seed", "1")),
        ("INFERDOCK_ENGINE__ENV", "{A: b}", "engine.env", {"A": "b"}),
        ("INFERDOCK_ENGINE__SIM__TTFT_S", "0.5", "engine.sim.ttft_s", 0.5),
        ("INFERDOCK_MODEL__SOURCE", "org/model", "model.source", "org/model"),
    ],
)
def test_a_variable_is_read_as_yaml(name, text, path, value):
    result = loaded(env={name: text})
    assert dict(flatten(result.settings))[path] == value
    assert result.origins[path] == f"env {name}"


@pytest.mark.parametrize("text", ["123", "2024-01-01", "true", "a: b", "@scope/x", "2024-99-01", "1:20"])
def test_a_variable_for_text_is_taken_as_it_stands(text):
    assert loaded(env={"INFERDOCK_MODEL__NAME": text}).settings.model.name == text


@pytest.mark.parametrize("text", ["[1", "{a", "*anchor", "\x01", "[" * 5_000, "9" * 5_000, "2024-99-01"])
def test_a_variable_that_is_not_yaml_is_named(text):
    with pytest.raises(ConfigError, match="INFERDOCK_GATEWAY__PORT"):
        loaded(env={"INFERDOCK_GATEWAY__PORT": text})


@pytest.mark.parametrize(
    ("layer", "origin"),
    [
        ({"env": {"INFERDOCK_GATEWAY__PORT": "70000"}}, "env INFERDOCK_GATEWAY__PORT"),
        ({"flags": {"gateway.port": ("--port", 70000)}}, "flag --port"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_origin(layer, origin):
    with pytest.raises(ConfigError) as error:
        loaded(**layer)
    assert "`gateway.port`" in error.value.message
    assert origin in error.value.message
    assert "70000" in error.value.message


def test_a_problem_inside_a_list_is_laid_to_the_layer_that_gave_the_list(tmp_path):
    with pytest.raises(ConfigError, match=r"engine\.extra_args\.1.*file"):
        loaded(written(tmp_path, "engine: {extra_args: [a, [b]]}"))


PATHS = [path for path, _ in flatten(Settings())]


@given(path=st.sampled_from(PATHS))
def test_every_setting_has_a_variable_that_reaches_it(path):
    default = dict(flatten(Settings()))[path]
    plain = list(default) if isinstance(default, tuple) else default
    text = json.dumps(plain, default=lambda group: group.model_dump())
    result = loaded(env={env_name(path): text})
    assert {p for p, origin in result.origins.items() if origin != "default"} == {path}
    assert result.settings == Settings()


@given(port=st.integers(0, 65535), replicas=st.integers(1, 64), level=st.sampled_from(["debug", "error"]))
def test_the_same_values_mean_the_same_in_every_layer(port, replicas, level):
    values = {"gateway.port": port, "engine.replicas": replicas, "log.level": level}
    by_env = loaded(env={env_name(path): str(value) for path, value in values.items()})
    by_flag = loaded(flags={path: ("--x", value) for path, value in values.items()})
    assert by_env.settings == by_flag.settings


@given(names=st.lists(st.sampled_from(PATHS), unique=True))
def test_origins_name_every_setting_in_order(names):
    defaults = dict(flatten(Settings()))
    result = loaded(flags={name: ("--x", defaults[name]) for name in names})
    assert list(result.origins) == PATHS
    assert {p for p, origin in result.origins.items() if origin != "default"} == {
        name for name in names if defaults[name] is not None
    }
