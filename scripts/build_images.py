"""Builds our images from docker/ with what deploy/versions.yaml names: `python -m scripts.build_images --help`.

A door of a few lines to docker, podman or buildah: which base image by which digest, which labels, which secrets. It
refuses an image without a digest, because a tag may move.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from inferdock import __version__

ROOT = Path(__file__).resolve().parents[1]
VERSIONS = ROOT / "deploy" / "versions.yaml"
DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
BUILDERS = {
    "docker": ["docker", "build"],
    "podman": ["podman", "build", "--format", "docker"],
    "buildah": ["buildah", "bud", "--format", "docker"],
}
"""Programs that build; without `--format docker` the last two drop HEALTHCHECK."""


class BuildError(Exception):
    """The image cannot be built; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one image is built.

    Attributes:
        file: Dockerfile below docker/.
        bases: build argument to entry of deploy/versions.yaml.
        arguments: further build arguments.
        needed: those that the person must give.
    """

    file: str
    bases: Mapping[str, str]
    arguments: Mapping[str, str]
    needed: frozenset[str] = frozenset()


PYTHON = {"PYTHON_IMAGE": "python"}
RECIPES = {
    "gateway": Recipe("gateway/Dockerfile", PYTHON, {"FLAVOUR": "gateway"}),
    "gateway-cache": Recipe("gateway/Dockerfile", PYTHON, {"FLAVOUR": "gateway-cache"}),
    "registry": Recipe("gateway/Dockerfile", PYTHON, {"FLAVOUR": "registry"}),
    "engine": Recipe("vllm/Dockerfile", {**PYTHON, "ENGINE_IMAGE": "vllm"}, {}),
    "engine-cpu": Recipe("vllm/Dockerfile.cpu", PYTHON, {}),
    "baked": Recipe(
        "vllm/Dockerfile.baked", {}, {}, frozenset({"BASE_IMAGE", "MODEL", "MODEL_REVISION", "REGISTRY_URL"})
    ),
}


def reference(entry: Mapping[str, Any], name: str) -> str:
    """An image by tag and digest.

    Raises:
        BuildError: it has no digest.
    """
    digest = entry.get("digest")
    if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
        tagged = f"{entry['image']}:{entry['tag']}"
        raise BuildError(
            f"deploy/versions.yaml has no digest of {name} ({tagged}). Find it with\n"
            f"  docker buildx imagetools inspect {tagged} --format '{{{{.Manifest.Digest}}}}'\n"
            f"and write it there, or give --base {name}=IMAGE@sha256:..."
        )
    return f"{entry['image']}:{entry['tag']}@{digest}"


def build_arguments(image: str, given: Mapping[str, str], bases: Mapping[str, str], revision: str) -> dict[str, str]:
    """Build arguments of an image.

    Args:
        image: name of a recipe.
        given: from the person; they win.
        bases: entry of deploy/versions.yaml to the image to take in its place.
        revision: commit of the sources.

    Raises:
        BuildError: a base has no digest.
    """
    recipe = RECIPES[image]
    versions = yaml.safe_load(VERSIONS.read_text(encoding="utf-8"))
    chosen = {name: bases.get(entry) or reference(versions[entry], entry) for name, entry in recipe.bases.items()}
    return {**chosen, **recipe.arguments, "VERSION": __version__, "SOURCE_REVISION": revision, **given}


def command(
    builder: str, image: str, tag: str, arguments: Mapping[str, str], secrets: Mapping[str, Path], extra: Sequence[str]
) -> list[str]:
    """The builder's command line."""
    words = [*BUILDERS[builder], *extra, "-f", f"docker/{RECIPES[image].file}", "-t", tag]
    words += [word for name, value in arguments.items() for word in ("--build-arg", f"{name}={value}")]
    words += [word for name, path in secrets.items() for word in ("--secret", f"id={name},src={path}")]
    return [*words, "."]


def source_revision() -> str:
    """The commit that is checked out; "unknown" outside of git."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def pairs(words: Sequence[str]) -> dict[str, str]:
    """``NAME=VALUE`` words.

    Raises:
        BuildError: one has no ``=``.
    """
    wrong = [word for word in words if "=" not in word]
    if wrong:
        raise BuildError(f"{wrong[0]!r} is not NAME=VALUE.")
    return dict(word.split("=", 1) for word in words)


def parse(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.build_images", description="Build one image. What follows -- goes to the builder."
    )
    parser.add_argument("image", choices=RECIPES)
    parser.add_argument("--tag", help="default: inferdock/IMAGE:VERSION")
    parser.add_argument("--builder", choices=BUILDERS, help="default: the first of them that is installed")
    parser.add_argument("--base", action="append", default=[], metavar="ENTRY=IMAGE", help="another base image")
    parser.add_argument("--arg", action="append", default=[], metavar="NAME=VALUE", help="a build argument")
    parser.add_argument("--secret", action="append", default=[], metavar="ID=FILE", help="pip (a pip.conf) or aws")
    parser.add_argument("--print", action="store_true", help="print the command and build nothing")
    at = words.index("--") if "--" in words else len(words)
    asked = parser.parse_args(words[:at])
    asked.extra = list(words[at + 1 :])
    return asked


def main(words: Sequence[str]) -> int:
    """Build one image; 2 when something is missing."""
    asked = parse(words)
    try:
        builder = asked.builder or next((name for name in BUILDERS if shutil.which(name)), None)
        if builder is None:
            raise BuildError(f"None of {', '.join(BUILDERS)} is installed.")
        arguments = build_arguments(asked.image, pairs(asked.arg), pairs(asked.base), source_revision())
        if missing := RECIPES[asked.image].needed - set(arguments):
            raise BuildError(f"{asked.image} wants --arg NAME=VALUE for {', '.join(sorted(missing))}.")
        secrets = {name: Path(path) for name, path in pairs(asked.secret).items()}
        tag = asked.tag or f"inferdock/{asked.image}:{__version__}"
        words = command(builder, asked.image, tag, arguments, secrets, asked.extra)
    except BuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(shlex.join(words), file=sys.stdout if asked.print else sys.stderr, flush=True)
    return 0 if asked.print else subprocess.run(words, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
