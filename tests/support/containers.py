"""Images and containers for tests, without a registry: buildah, podman and runc on a base image made by mmdebstrap.

Everything lies in one folder of the user's cache, so that the next run finds base image and layers there. What a
machine cannot do is said in one sentence, and the tests are skipped with it.
"""

from __future__ import annotations

import fcntl
import functools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from inferdock.config.folders import default_cache_dir
from tests.docs.pages import ROOT

PROGRAMS = ("buildah", "podman", "runc", "mmdebstrap")
BASE = "localhost/inferdock-test-base:1"
"""In place of python:slim, and with it of vLLM's image: a Debian with python3 and venv."""
LEFT_OUT = ("doc", "man", "locale", "info", "lintian")
MERGED_USR = "/usr/share/mmdebstrap/hooks/merged-usr"
NEVER_HANG_S = 900
MANY_IMAGES = 300
"""Each build leaves one for each step that is new."""
CERTIFICATES = Path("/etc/ssl/certs")
CONTAINERS_CONF = """\
[containers]
default_ulimits = []
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""Works where nobody may raise limits and no systemd runs."""


def why_not() -> str:
    """Why images cannot be built and run here; "" where they can."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"no {', '.join(missing)} here"
    if os.geteuid() != 0:
        return "building and running containers without being root is not tried"
    if platform.machine() not in ("x86_64", "aarch64"):
        return f"no base image for {platform.machine()}"
    return "" if codename_and_mirror() else "this is no Debian with a mirror that apt knows"


@functools.cache
def codename_and_mirror() -> tuple[str, str] | None:
    """This Debian's name and where it comes from."""
    try:
        release = dict(line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line)
    except OSError:
        return None
    name = release.get("VERSION_CODENAME", "").strip('"')
    if release.get("ID", "").strip('"') != "debian" or not name:
        return None
    words = ["apt-get", "indextargets", "--format", "$(CODENAME) $(REPO_URI)", "Created-By: Packages"]
    lines = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    found = [line.split()[1] for line in lines if line.startswith(f"{name} ")]
    return (name, found[0]) if found else None


class Workshop:
    """Builds and runs images.

    Attributes:
        folder: store of images, configuration, base image.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "containers.conf").write_text(CONTAINERS_CONF)
        store = f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
        (folder / "storage.conf").write_text(store)
        (folder / "registries.conf").write_text('unqualified-search-registries = []\nshort-name-mode = "enforcing"\n')
        (folder / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
        (folder / "pip.conf").write_text("[global]\n" + "".join(f"{k} = {v}\n" for k, v in self._pip().items()))

    @property
    def environment(self) -> dict[str, str]:
        """For buildah and podman: nothing of the machine's own configuration counts."""
        files = {
            "CONTAINERS_CONF": "containers.conf",
            "CONTAINERS_STORAGE_CONF": "storage.conf",
            "CONTAINERS_REGISTRIES_CONF": "registries.conf",
        }
        return dict(os.environ) | {name: str(self.folder / file) for name, file in files.items()}

    def _pip(self) -> Mapping[str, str]:
        """Where this machine's pip finds packages, as far as that holds inside of a container."""
        words = [sys.executable, "-m", "pip", "config", "list"]
        text = subprocess.run(words, capture_output=True, text=True, check=False).stdout
        found = {"timeout": "180"}
        for line in text.splitlines():
            key, _, value = line.partition("=")
            name = key.rpartition(".")[2]
            if name in ("index-url", "proxy", "cert") or (name == "extra-index-url" and "file:" not in value):
                found[name] = value.strip("'")
        return found

    def run(self, *words: str, check: bool = True, timeout: float = NEVER_HANG_S) -> subprocess.CompletedProcess[str]:
        """Run buildah or podman."""
        done = subprocess.run(
            words, env=self.environment, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")
        return done

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One process at a time makes the base image."""
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def make_base(self) -> str:
        """The base image; made once."""
        with self.alone():
            if self.run("podman", "image", "exists", BASE, check=False).returncode:
                tar = self.folder / "base.tar"
                self.run(*_bootstrap(tar))
                self.run("podman", "import", str(tar), BASE)
                tar.unlink()
        return BASE

    def build(
        self,
        image: str,
        tag: str,
        *words: str,
        bases: Mapping[str, str] | None = None,
        volumes: Sequence[str] = (),
    ) -> str:
        """Build one of ours with scripts/build_images.py, on local bases; layers are kept for the next time."""
        script = [sys.executable, "-m", "scripts.build_images", image, "--builder", "buildah", "--tag", tag, *words]
        script += [word for name, base in (bases or {}).items() for word in ("--base", f"{name}={base}")]
        script += ["--secret", f"pip={self.folder / 'pip.conf'}", "--", "--layers", "--isolation", "chroot"]
        script += ["--network", "host", "--pull-never", "-v", f"{CERTIFICATES}:{CERTIFICATES}:ro"]
        script += [word for volume in volumes for word in ("-v", volume)]
        script += ["--signature-policy", str(self.folder / "policy.json")]
        self.run(*script)
        return tag

    def tidy(self) -> None:
        """Forget layers of old sources when there are many; those of the newest images stay."""
        if len(self.run("podman", "images", "--all", "--quiet").stdout.split()) > MANY_IMAGES:
            self.run("podman", "image", "prune", "--force", check=False)

    def inspect(self, tag: str) -> dict[str, object]:
        """What podman says about an image."""
        found: list[dict[str, object]] = json.loads(self.run("podman", "image", "inspect", tag).stdout)
        return found[0]


def _bootstrap(tar: Path) -> Sequence[str]:
    found = codename_and_mirror()
    assert found is not None
    left_out = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in LEFT_OUT]
    include = "--include=usr-is-merged,python3,python3-venv,ca-certificates"
    options = ["--quiet", "--variant=apt", f"--hook-dir={MERGED_USR}", '--aptopt=Apt::Install-Recommends "false"']
    return ["mmdebstrap", *options, include, *left_out, found[0], str(tar), found[1]]


def workshop() -> Workshop:
    """The user's own."""
    return Workshop(default_cache_dir(os.environ) / "test-images")


class Container:
    """A container that runs until the test is over.

    Args:
        shop: where the image is.
        image: its tag.
        words: the command's arguments.
        options: for `podman run`.
    """

    def __init__(self, shop: Workshop, image: str, *words: str, options: Sequence[str] = ()) -> None:
        self._shop = shop
        common = ["--network", "host", "--no-healthcheck", "--detach", *options]
        self.name = shop.run("podman", "run", *common, image, *words).stdout.strip()

    def __enter__(self) -> Container:
        return self

    def __exit__(self, *_: object) -> None:
        self._shop.run("podman", "rm", "--force", "--time", "0", self.name, check=False)

    @property
    def log(self) -> str:
        """Everything that it wrote."""
        done = self._shop.run("podman", "logs", self.name)
        return done.stdout + done.stderr

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self._shop.run("podman", "inspect", "-f", "{{.State.Running}}", self.name).stdout.strip() == "true"

    def signal(self, name: str) -> None:
        """Send its first process a signal."""
        self._shop.run("podman", "kill", "--signal", name, self.name)

    def wait(self) -> int:
        """Its exit status."""
        return int(self._shop.run("podman", "wait", self.name, timeout=120).stdout.strip())

    def execute(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return self._shop.run("podman", "exec", self.name, *words, check=False)
