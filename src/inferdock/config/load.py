"""Builds :class:`Settings` from defaults < file < ``INFERDOCK_*`` < flags, with the origin of each value.

The only module that reads environment variables for configuration. Called by ``cli``; pure but for reading the
file that it is given.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from inferdock.config.settings import Settings
from inferdock.domain.errors import ConfigError

ENV_PREFIX = "INFERDOCK_"
CONFIG_FILE_ENV = "INFERDOCK_CONFIG"
DEFAULT_FILE = "inferdock.yaml"
MAX_FILE_BYTES = 1024 * 1024
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)
"""What reading YAML raises; ValueError: impossible dates and numbers, bytes that are not UTF-8."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings together with the origin of every leaf.

    Attributes:
        settings: the validated configuration.
        origins: dotted path (``gateway.port``) to origin (``default``, ``file inferdock.yaml``,
            ``env INFERDOCK_GATEWAY__PORT``, ``flag --port``).
    """

    settings: Settings
    origins: Mapping[str, str]


def load(
    *,
    file: Path | None,
    env: Mapping[str, str],
    flags: Mapping[str, tuple[str, Any]],
) -> Loaded:
    """Merge all layers into one configuration.

    Args:
        file: configuration file; None takes ``$INFERDOCK_CONFIG``, else ``./inferdock.yaml`` if it exists.
        env: the environment, for instance ``os.environ``.
        flags: dotted path to (flag as typed, value); values of None are ignored.

    Raises:
        ConfigError: unreadable file, unknown key (names the nearest right one), wrong type or range.
    """
    leaves = _default_leaves()
    chosen: dict[str, tuple[Any, str]] = {}
    path = _choose_file(file, env)
    if path is not None:
        _overlay(chosen, _file_leaves(path, leaves))
    _overlay(chosen, _env_leaves(env, leaves))
    _overlay(chosen, {p: (v, f"flag {flag}") for p, (flag, v) in flags.items() if v is not None})
    settings = _validate(chosen)
    origins = {p: chosen[p][1] if p in chosen else "default" for p in leaves}
    return Loaded(settings=settings, origins=origins)


def flatten(settings: Settings) -> Iterator[tuple[str, Any]]:
    """Yield (dotted path, value) for every leaf, in the order of declaration."""
    yield from _walk_values(settings, "")


def _walk_values(model: BaseModel, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _walk_values(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _default_leaves() -> dict[str, Any]:
    """Dotted path of every leaf, in order, to its type."""
    return dict(_walk_fields(Settings, ""))


def _walk_fields(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _walk_fields(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


def _choose_file(file: Path | None, env: Mapping[str, str]) -> Path | None:
    if file is not None:
        return file
    if env.get(CONFIG_FILE_ENV):
        return Path(env[CONFIG_FILE_ENV])
    default = Path(DEFAULT_FILE)
    return default if default.is_file() else None


def _overlay(target: dict[str, tuple[Any, str]], layer: Mapping[str, tuple[Any, str]]) -> None:
    target.update(layer)


def _file_leaves(path: Path, leaves: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    data = _read_yaml(path)
    return {p: (v, f"file {path}") for p, v in _walk_mapping(data, "", leaves, path)}


class _StrictLoader(yaml.SafeLoader):
    """YAML without surprises: the same key twice in one mapping is an error, not a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_FILE_BYTES + 1)
        if len(raw) > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than 1 MiB.", cure="A configuration file is a few KB of YAML.")
        data = yaml.load(raw.decode("utf-8"), Loader=_StrictLoader)
    except OSError as exc:
        raise ConfigError(
            f"Cannot read the configuration file {path}: {exc.strerror}.",
            cure="Give an existing file with -f, or leave it out to use the defaults.",
        ) from exc
    except _NOT_YAML as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(f"{path} is not valid YAML: {reason}.", cure="Mend the line that it names.") from exc
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(f"{path} must hold a mapping at the top.", cure="Begin with a key such as `gateway:`.")
    return data


def _walk_mapping(
    data: Mapping[Any, Any], prefix: str, leaves: Mapping[str, Any], path: Path
) -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        dotted = f"{prefix}{key}"
        if dotted in leaves:
            yield dotted, value
        elif any(leaf.startswith(f"{dotted}.") for leaf in leaves):
            if value is None:
                continue
            if not isinstance(value, Mapping):
                raise ConfigError(f"`{dotted}` in {path} must be a group of keys, not {_spell(value)}.")
            yield from _walk_mapping(value, f"{dotted}.", leaves, path)
        else:
            raise _unknown_key(dotted, f"in {path}", leaves)


def _unknown_key(dotted: str, where: str, leaves: Mapping[str, Any]) -> ConfigError:
    groups = {p.rpartition(".")[0] for p in leaves} - {""}
    near = difflib.get_close_matches(dotted, [*leaves, *groups], n=1, cutoff=0.5)
    if not near:
        tail = dotted.rpartition(".")[2]
        near = [p for p in leaves if p.rpartition(".")[2] == tail][:1]
    cure = f"Did you mean `{near[0]}`?" if near else "`inferdock config show` lists every key."
    return ConfigError(f"Unknown key `{dotted}` {where}.", cure=cure)


def env_name(dotted: str) -> str:
    """Environment variable of a leaf: ``gateway.port`` is ``INFERDOCK_GATEWAY__PORT``."""
    return ENV_PREFIX + dotted.upper().replace(".", "__")


def _env_leaves(env: Mapping[str, str], leaves: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    known = {env_name(p): p for p in leaves}
    for name in sorted(env):
        if not name.startswith(ENV_PREFIX) or name == CONFIG_FILE_ENV:
            continue
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            cure = f"Did you mean `{near[0]}`?" if near else "Groups and keys are joined by two underscores."
            raise ConfigError(f"Unknown environment variable `{name}`.", cure=cure)
        is_text = leaves[known[name]] in (str, str | None)
        found[known[name]] = (_parse_scalar(name, env[name], is_text=is_text), f"env {name}")
    return found


def _parse_scalar(name: str, text: str, *, is_text: bool) -> Any:
    """Value of a variable. For a setting that is text, only null is more than the text itself (a name may be `123`)."""
    try:
        value = yaml.load(text, Loader=_StrictLoader)
    except _NOT_YAML as exc:
        if is_text:
            return text
        raise ConfigError(f"`{name}={text[:80]}` is not a valid value.", cure="Quote it as YAML would.") from exc
    return text if is_text and value is not None and not isinstance(value, str) else value


def _validate(chosen: Mapping[str, tuple[Any, str]]) -> Settings:
    nested: dict[str, Any] = {}
    for dotted, (value, _) in chosen.items():
        *groups, leaf = dotted.split(".")
        target = nested
        for group in groups:
            target = target.setdefault(group, {})
        target[leaf] = value
    try:
        return Settings.model_validate(nested)
    except ValidationError as exc:
        raise _first_problem(exc, chosen) from exc


def _first_problem(exc: ValidationError, chosen: Mapping[str, tuple[Any, str]]) -> ConfigError:
    problem = exc.errors()[0]
    path = ".".join(str(part) for part in problem["loc"])
    leaf = next((p for p in chosen if path == p or path.startswith(f"{p}.")), path)
    origin = chosen[leaf][1] if leaf in chosen else "default"
    reason = problem["msg"][0].lower() + problem["msg"][1:]
    return ConfigError(f"`{path}` ({origin}) is wrong: {reason}; it is {_spell(problem['input'])}.")


def _spell(value: object) -> str:
    """A wrong value for an error: bounded, since aliases can make a small file mean gigabytes of text."""
    return reprlib.repr(value)[:120]
