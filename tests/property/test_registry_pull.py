"""Laws of pulling: what comes out is what the manifest says, and no single byte can differ unnoticed."""

from __future__ import annotations

import tempfile
import unicodedata
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferdock.domain.errors import IntegrityError, ModelError
from inferdock.registry.model_cache import ModelCache
from inferdock.registry.paths import check_paths
from inferdock.registry.progress import Silent
from inferdock.registry.pull import pull_to, verify_folder
from inferdock.registry.revision_folder import blob_path
from tests.support.stored_versions import entry_of, never, read_folder, stored

CHUNK = 16
NAMES = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=6).map(
    lambda text: unicodedata.normalize("NFC", text)
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)


def allowed(paths: Mapping[str, bytes]) -> bool:
    """Whether a version may have such files."""
    try:
        check_paths(paths)
    except ModelError:
        return False
    return True


BYTES = st.one_of(st.just(b""), st.just(b"twin"), st.binary(max_size=70))
VERSIONS = st.dictionaries(PATHS, BYTES, min_size=1, max_size=6).filter(allowed)
FULL_VERSIONS = VERSIONS.filter(lambda files: any(files.values()))


def cache_in(folder: str) -> ModelCache:
    return ModelCache(Path(folder), threads=2, chunk=CHUNK, pause=never)


@given(files=VERSIONS)
def test_any_files_come_out_of_the_cache_as_they_were(files: dict[str, bytes]) -> None:
    store, manifest = stored(files)
    with tempfile.TemporaryDirectory() as folder:
        cache = cache_in(folder)

        pulled = cache.pull(store, manifest, Silent())

        assert read_folder(pulled.folder) == files
        assert cache.verified(manifest, Silent()) == pulled.folder


@given(files=VERSIONS, before=VERSIONS)
def test_any_files_come_into_a_folder_that_held_any_others_of_ours(
    files: dict[str, bytes], before: dict[str, bytes]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for version, content in (("1.0.0", before), ("2.0.0", files)):
            store, manifest = stored(content, version=version)
            pull_to(store, manifest, folder, threads=2, progress=Silent(), chunk=CHUNK, pause=never)

            assert read_folder(folder) == content
            verify_folder(manifest, folder, threads=2, progress=Silent())


@given(files=FULL_VERSIONS, data=st.data())
def test_any_flipped_byte_in_the_cache_is_found_and_named_and_mended(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    store, manifest = stored(files)
    with tempfile.TemporaryDirectory() as folder:
        cache = cache_in(folder)
        pulled = cache.pull(store, manifest, Silent())
        path = data.draw(st.sampled_from([path for path, content in files.items() if content]))
        flip(Path(folder, blob_path(entry_of(path, files[path]).sha256)), data)

        with pytest.raises(IntegrityError) as caught:
            cache.verified(manifest, Silent())

        twins = [other for other, content in files.items() if content == files[path]]
        assert any(caught.value.message.startswith(f"{twin} of demo@1.0.0") for twin in twins)
        assert cache.pull(store, manifest, Silent()).fetched_files == 1
        assert read_folder(pulled.folder) == files


@given(files=FULL_VERSIONS, data=st.data())
def test_any_flipped_byte_in_the_store_is_found_and_named_and_never_visible(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    store, manifest = stored(files)
    path = data.draw(st.sampled_from([path for path, content in files.items() if content]))
    held = store.files["demo", "1.0.0"]
    twins = [other for other, content in files.items() if content == files[path]]
    at, bit = data.draw(st.integers(0, len(files[path]) - 1)), data.draw(st.integers(0, 7))
    for twin in twins:  # one of them is asked for
        flipped = bytearray(held[twin])
        flipped[at] ^= 1 << bit
        held[twin] = bytes(flipped)
    with tempfile.TemporaryDirectory() as folder:
        with pytest.raises(IntegrityError) as caught:
            cache_in(folder).pull(store, manifest, Silent())

        assert any(caught.value.message.startswith(f"{twin} of demo@1.0.0") for twin in twins)
        assert not Path(folder, "revisions").exists()


def flip(path: Path, data: st.DataObject) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.chmod(0o644)
    path.write_bytes(content)
