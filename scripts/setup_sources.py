"""Where packages come from: reads what pip is configured with and says the same to uv, which does not read it.

Called by `setup_install` and `lock.sh` (`python -m scripts.setup_sources main`).
"""

from __future__ import annotations

import ast
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from scripts.setup_shell import LocalRunner, Runner

TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where PyTorch's own CPU builds are, for machines whose pip knows of no other place."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Places and habits that pip is configured with; empty values mean pip's defaults."""

    index: str = ""
    extra_indexes: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    no_index: bool = False
    trusted_hosts: tuple[str, ...] = ()
    cert: str = ""
    proxy: str = ""
    timeout_s: str = ""
    env: Mapping[str, str] = field(default_factory=dict)

    def uv_arguments(self) -> list[str]:
        """The same places as arguments of `uv pip`; what the person set for uv itself wins."""
        args = ["--no-index"] if self.no_index else []
        if self.index and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & set(self.env):
            args += ["--default-index", self.index]
        for url in self.extra_indexes:
            args += ["--index", url]
        if self.extra_indexes:
            args += ["--index-strategy", "unsafe-best-match"]  # pip takes the best of all indexes, uv the first hit
        for place in self.find_links:
            args += ["--find-links", place]
        for host in self.trusted_hosts:
            args += ["--allow-insecure-host", host]
        return args

    def uv_environment(self) -> dict[str, str]:
        """Certificates, proxy and time-out as variables that uv reads, where they are not set already."""
        wanted = {
            "SSL_CERT_FILE": self.cert,
            "HTTPS_PROXY": self.proxy,
            "HTTP_PROXY": self.proxy,
            "UV_HTTP_TIMEOUT": self.timeout_s,
        }
        present = {name.upper() for name in self.env}
        return {name: value for name, value in wanted.items() if value and name not in present}

    def local_wheels(self, name: str) -> list[Path]:
        """Wheels of a package in the folders given by find-links."""
        folders = [path for place in self.find_links if (path := _local_path(place)) is not None]
        return sorted(wheel for folder in folders for wheel in folder.glob(f"{name}-*.whl"))


def read_sources(python: str, *, runner: Runner, env: Mapping[str, str]) -> Sources:
    """What the pip of this Python is configured with.

    Args:
        python: interpreter that has pip.
        runner: how to run it.
        env: the environment, for instance ``os.environ``.
    """
    listed = runner.run([python, "-m", "pip", "config", "list"])
    options = parse_pip_config(listed.output if listed.ok else "")
    words = {name: tuple(value.split()) for name, value in options.items()}
    return Sources(
        index=options.get("index-url", "").strip(),
        extra_indexes=tuple(url for url in words.get("extra-index-url", ()) if _exists(url)),
        find_links=tuple(place for place in words.get("find-links", ()) if _exists(place)),
        no_index=options.get("no-index", "").lower() in ("1", "true", "yes", "on"),
        trusted_hosts=words.get("trusted-host", ()),
        cert=options.get("cert", ""),
        proxy=options.get("proxy", ""),
        timeout_s=options.get("timeout", options.get("default-timeout", "")),
        env=dict(env),
    )


def parse_pip_config(listing: str) -> dict[str, str]:
    """Option to value from the output of `pip config list`: environment over `install` over `global`."""
    found: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in listing.splitlines():
        match = re.fullmatch(r"(:env:|[\w-]+)\.([\w-]+)=(.*)", line.strip())
        if match is None or match[1] not in found:
            continue
        try:
            value = ast.literal_eval(match[3])
        except (ValueError, SyntaxError):
            continue
        found[match[1]][match[2]] = str(value)
    return {**found["global"], **found["install"], **found[":env:"]}


def _local_path(place: str) -> Path | None:
    """The folder that a place names; None for an address."""
    parts = urlsplit(place)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return None if parts.scheme else Path(place).expanduser()


def _exists(place: str) -> bool:
    """Whether a place can be asked; pip passes over missing folders, uv stops at them."""
    path = _local_path(place)
    return path is None or path.exists()


def main() -> int:
    """Print uv arguments, one per line, for `lock.sh`: the main index, or a place that has torch's CPU build."""
    if sys.argv[1:] not in (["main"], ["torch-cpu"]):
        print("usage: python -m scripts.setup_sources main|torch-cpu", file=sys.stderr)
        return 2
    sources = read_sources(sys.executable, runner=LocalRunner(), env=os.environ)
    wheels = sources.local_wheels("torch")
    if sys.argv[1] == "main":
        args = Sources(index=sources.index, env=sources.env).uv_arguments()
    elif wheels:
        args = ["--find-links", str(wheels[0].parent)]
    else:
        args = ["--index", TORCH_CPU_INDEX, "--index-strategy", "unsafe-best-match"]
    print("\n".join(args), end="\n" if args else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
