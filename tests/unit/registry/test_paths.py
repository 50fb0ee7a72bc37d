"""Which paths files of a version may have."""

from __future__ import annotations

import pytest

from inferdock.domain.errors import ModelError
from inferdock.registry.paths import check_path, check_paths


@pytest.mark.parametrize(
    "path", ["config.json", "sub/folder/a.txt", "ümlaut.txt", "文件.bin", "a b.txt", "x/MANIFEST.json"]
)
def test_plain_relative_paths_are_allowed(path: str) -> None:
    check_path(path)


BAD = {
    "empty": "",
    "absolute": "/etc/passwd",
    "parent": "../a",
    "parent inside": "a/../../b",
    "dot": "./a",
    "double slash": "a//b",
    "trailing slash": "a/",
    "backslash": "a\\..\\b",
    "drive": "C:evil",
    "nul": "a\0b",
    "line end": "a\nb",
    "right to left": "a\u202eb",
    "surrogate": "a\udc80",
    "decomposed": "u\u0308",
    "device": "sub/CON.txt",
    "trailing dot": "a.",
    "trailing space": "a ",
    "long name": "a" * 256,
    "long path": "/".join(["a" * 200] * 4),
    "deep": "/".join(["a"] * 17),
    "ours": "manifest.JSON",
    "our signatures": "MANIFEST.sig",
}


@pytest.mark.parametrize("path", BAD.values(), ids=BAD.keys())
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(ModelError, match="file name"):
        check_path(path)


@pytest.mark.parametrize(
    "paths",
    [["a", "A"], ["straße", "STRASSE"], ["a", "a/b"], ["A", "a/b"], ["x/y/z", "X/Y"], ["a", "a"]],
    ids=["case", "folding", "file and folder", "file and folder by case", "deep", "twice"],
)
def test_two_paths_that_one_system_takes_for_one_file_are_refused(paths: list[str]) -> None:
    with pytest.raises(ModelError, match=r"one file|is a file and the folder"):
        check_paths(paths)


def test_ten_thousand_files_are_allowed() -> None:
    check_paths(f"folder-{n % 100}/file-{n}.safetensors" for n in range(10_000))
