"""Further models for a platform that runs: found under the name of the first, and given up when nobody wants them."""

from pathlib import Path

import pytest

from inferdock.app.models import Finder, PullCancelledError
from inferdock.app.registry import open_registry
from inferdock.config.settings import ModelSettings, RegistrySettings, Settings
from inferdock.domain.errors import ModelError, RegistryError
from inferdock.registry.progress import Silent
from inferdock.registry.push import Request, push
from tests.support.model_folders import write_model


@pytest.fixture
def finder(tmp_path: Path) -> Finder:
    """A finder for a platform that serves ``chat``; ``m@1.0.0`` lies in the registry."""
    registry = RegistrySettings(url=str(tmp_path / "registry"), cache_dir=tmp_path / "cache")
    folder = write_model(tmp_path / "model")
    push(open_registry(registry, {}), Request(folder=folder, name="m", version="1.0.0"), Silent())
    return Finder(Settings(model=ModelSettings(source="demo"), registry=registry), {}, "chat")


def test_a_version_is_looked_up_before_it_is_pulled(finder: Finder) -> None:
    looked = finder.look("m@1.0.0")
    found = finder.find(looked.source, lambda: False)
    assert (looked.folder, looked.reference, looked.name) == (None, "m@1.0.0", "chat")
    assert (found.revision, found.digest, found.reference) == (looked.revision, looked.digest, "m@1.0.0")
    assert found.folder is not None
    assert (found.folder / "config.json").is_file()


def test_a_folder_is_found_under_the_same_name(finder: Finder, tmp_path: Path) -> None:
    found = finder.find(finder.look(str(tmp_path / "model")).source, lambda: False)
    assert (found.name, found.reference, found.folder) == ("chat", "", tmp_path / "model")


def test_a_pull_ends_when_nobody_wants_it_any_more_and_goes_on_when_somebody_does(finder: Finder) -> None:
    with pytest.raises(PullCancelledError):
        finder.find("m@1.0.0", lambda: True)
    assert finder.find("m@1.0.0", lambda: False).folder is not None


@pytest.mark.parametrize(("reference", "error"), [("m@9.9.9", RegistryError), ("/nowhere", ModelError)])
def test_what_is_not_there_is_said(finder: Finder, reference: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        finder.look(reference)
