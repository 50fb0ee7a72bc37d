"""Which store, cache and model the settings mean."""

from pathlib import Path

import pytest

from inferdock.app.models import in_registry
from inferdock.app.registry import open_cache, open_registry, open_store
from inferdock.config.settings import RegistryS3Settings, RegistrySettings
from inferdock.domain.errors import ConfigError
from inferdock.registry.names import Reference


@pytest.mark.parametrize(
    ("url", "location"),
    [("/a/b", "/a/b"), ("file:///a/with%20space", "/a/with space"), (None, "/data/inferdock/registry")],
)
def test_a_folder_is_a_registry(url: str | None, location: str) -> None:
    assert open_store(RegistrySettings(url=url), {"XDG_DATA_HOME": "/data"}).location == location


def test_a_bucket_is_a_registry_in_the_region_of_the_environment() -> None:
    store = open_store(RegistrySettings(url="s3://bucket/prefix"), {"AWS_REGION": "eu-central-1"})
    assert store.location == "s3://bucket/prefix"


def test_a_bucket_without_a_region_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    with pytest.raises(ConfigError, match="region"):
        open_store(RegistrySettings(url="s3://bucket"), {})
    assert open_store(RegistrySettings(url="s3://bucket", s3=RegistryS3Settings(region="eu-west-1")), {})


@pytest.mark.parametrize("url", ["ftp://x", "s3://", "s3://UPPER", "https://bucket.s3.amazonaws.com"])
def test_what_is_no_place_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="registry"):
        open_store(RegistrySettings(url=url), {"AWS_REGION": "eu-west-1"})


def test_key_files_are_read_when_the_registry_is_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        open_registry(RegistrySettings(url=str(tmp_path), signing_key_file=tmp_path / "absent"), {})


def test_the_cache_lies_where_the_settings_or_xdg_say(tmp_path: Path) -> None:
    revision = "a" * 64
    assert open_cache(RegistrySettings(cache_dir=tmp_path), {}).folder(revision).is_relative_to(tmp_path)
    folder = open_cache(RegistrySettings(), {"XDG_CACHE_HOME": str(tmp_path)}).folder(revision)
    assert folder.is_relative_to(tmp_path / "inferdock" / "models")


@pytest.mark.parametrize(
    ("source", "reference"),
    [
        ("demo", None),
        ("org/model", None),
        ("./not-there", None),
        ("demo@1.0", Reference("demo", "1.0.0", None)),
        ("m", Reference("m", None, "champion")),
        ("m@candidate", Reference("m", None, "candidate")),
    ],
)
def test_a_source_is_a_reference_unless_it_is_a_folder_the_demo_or_on_the_hub(
    source: str, reference: Reference | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_registry(source) == reference
    (tmp_path / "m").mkdir()
    assert in_registry("m") is None
