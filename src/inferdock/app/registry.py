"""Puts a registry together from the settings: store, keys, cache; used by `inferdock model` and by `up`."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from inferdock.config.extras import load_extra
from inferdock.config.folders import default_cache_dir, default_data_dir
from inferdock.config.settings import RegistrySettings
from inferdock.domain.errors import ConfigError
from inferdock.registry.filesystem import FilesystemStore
from inferdock.registry.model_cache import ModelCache
from inferdock.registry.registry import Registry
from inferdock.registry.store import Store

AWS: Final = "inferdock.registry.aws.store"
SIGNING: Final = "inferdock.registry.signing"
"""Loaded by name where they are used: they need the extra `registry`."""


def open_registry(settings: RegistrySettings, environment: Mapping[str, str]) -> Registry:
    """The registry that the settings name.

    Raises:
        ConfigError: its address or a key file is wrong, or a package for it is missing.
    """
    return Registry(
        store=open_store(settings, environment),
        actor=settings.actor or _user(),
        clock=lambda: datetime.now(UTC),
        signer=_load(SIGNING).Signer(settings.signing_key_file) if settings.signing_key_file else None,
        trusted=_load(SIGNING).TrustedKeys(settings.trusted_key_files) if settings.trusted_key_files else None,
        threads=settings.threads,
    )


def open_store(settings: RegistrySettings, environment: Mapping[str, str]) -> Store:
    """The place that ``registry.url`` names.

    Raises:
        ConfigError: it names none that we know.
    """
    url = settings.url or str(default_data_dir(environment) / "registry")
    scheme = urlsplit(url).scheme if "://" in url else ""
    if scheme == "s3":
        store: Store = _load(AWS).AwsStore(_with_region(settings, environment))
        return store
    if scheme == "file":
        return FilesystemStore(Path(unquote(urlsplit(url).path)))
    if scheme:
        raise ConfigError(
            f"registry.url is {url[:200]!r}, and {scheme}:// is no place for a registry.",
            cure="Give a folder, or s3://bucket/prefix.",
        )
    return FilesystemStore(Path(url).expanduser().absolute())


def _with_region(settings: RegistrySettings, environment: Mapping[str, str]) -> RegistrySettings:
    """``AWS_REGION`` counts too: pods with a role have it, and boto3 looks at ``AWS_DEFAULT_REGION`` alone."""
    region = settings.s3.region or environment.get("AWS_REGION") or None
    return settings.model_copy(update={"s3": settings.s3.model_copy(update={"region": region})})


def open_cache(settings: RegistrySettings, environment: Mapping[str, str]) -> ModelCache:
    """Where versions are pulled to on this machine."""
    root = settings.cache_dir or default_cache_dir(environment) / "models"
    return ModelCache(root.expanduser().absolute(), threads=settings.threads)


def _load(module: str) -> Any:
    sentence = "This registry needs the Python package {package}, which is not installed."
    return load_extra(module, extra="registry", sentence=sentence)


def _user() -> str:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may run under a number that has no name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"[:200]
