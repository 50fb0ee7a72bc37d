"""Kubernetes objects from the chart, by Helm's own SDK: `inferdock render`, `inferdock install` and `scripts/render`.

The only module that imports the SDK, which is the extra ``deploy``: it is loaded by :func:`helm`.
"""

from __future__ import annotations

import copy
import ctypes
import importlib
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from inferdock.domain.errors import ConfigError

CHART_NAME: Final = "llm-inference"
SDK: Final = "helm_python"
OWNER: Final = b"helm"
"""Field manager of what the chart sets, as with the helm program."""
MAX_VALUES_BYTES: Final = 1024 * 1024
NOTES: Final = "NOTES.txt"
_HERE: Final = Path(__file__).resolve().parents[3] / "helm" / CHART_NAME


def helm() -> Any:
    """Helm's SDK.

    Raises:
        ConfigError: the extra is not installed.
    """
    if SDK not in sys.modules:
        _call_ourselves_helm()
    try:
        return importlib.import_module(SDK)
    except (ModuleNotFoundError, OSError) as exc:
        raise ConfigError(
            f"This command needs Helm's SDK, which cannot be loaded: {exc}.",
            cure="Run: pip install 'inferdock[deploy]'",
        ) from exc


def _call_ourselves_helm() -> None:
    """Let this program's name be `helm` before the SDK begins, which reads it from where the system put it.

    Helm owns the fields that it sets under the name of its program, and the SDK has no way to say another. Under
    ``python3.11`` neither `helm upgrade` nor the next Python could change them, and releases would meet a stranger.
    The SDK keeps no copy, so the name stays.
    """
    try:
        address = ctypes.c_void_p.in_dll(ctypes.CDLL(None), "program_invocation_name").value
    except (ValueError, OSError):  # a C library that keeps no such name
        return
    if address is not None and len(ctypes.string_at(address)) >= len(OWNER):
        ctypes.memmove(address, OWNER + b"\0", len(OWNER) + 1)


def find_chart(given: Path | None) -> Path:
    """The chart: the one given, else the checkout's, else the installed one.

    Raises:
        ConfigError: there is none.
    """
    places = (given,) if given is not None else (_HERE, Path(sys.prefix) / "share" / "inferdock" / "helm" / CHART_NAME)
    for place in places:
        if (place / "Chart.yaml").is_file() or place.suffix == ".tgz":
            return place
    raise ConfigError(
        f"There is no chart at {places[0]}.", cure="Give the folder or archive of llm-inference with --chart."
    )


def read_values(files: Sequence[Path], settings: Sequence[str]) -> dict[str, Any]:
    """Values of all files, later over earlier, and ``KEY=VALUE`` settings over them.

    Raises:
        ConfigError: a file cannot be read or is no YAML map, or a setting is not KEY=VALUE.
    """
    values: dict[str, Any] = {}
    for path in files:
        values = merged(values, _read(path))
    for setting in settings:
        values = merged(values, _set(setting))
    return values


def _set(setting: str) -> dict[str, Any]:
    sdk = helm()
    try:
        parsed: dict[str, Any] = sdk.parse_set_string(setting)
    except sdk.HelmError as exc:
        raise ConfigError(f"--set {setting} is not KEY=VALUE: {exc}.", cure="Dots go into maps: a.b=1.") from exc
    return parsed


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_VALUES_BYTES + 1)
        if len(text) > MAX_VALUES_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_VALUES_BYTES // 1024} KiB.", cure="Give a file of values.")
        values = yaml.safe_load(text) or {}
    except OSError as exc:
        raise ConfigError(f"Cannot read {path}: {exc.strerror}.") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} is not YAML: {exc}.") from exc
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path} must hold a map of values.", cure="See the chart's values.yaml.")
    return values


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Maps merged as Helm merges values: maps key by key, everything else replaced."""
    result = copy.deepcopy(dict(below))
    for key, value in above.items():
        mine = result.get(key)
        result[key] = merged(mine, value) if isinstance(mine, dict) and isinstance(value, dict) else value
    return result


def render(chart: Path, values: Mapping[str, Any], *, name: str, namespace: str) -> dict[str, str]:
    """The chart's templates with the values put in: path in the chart to text, without empty ones.

    Raises:
        ConfigError: the values are not those of the chart, or cannot work together; the chart's own sentence.
    """
    sdk = helm()
    try:
        sdk.validate_release_name(name)
        with sdk.Chart.load(chart) as loaded:
            rendered = loaded.render(dict(values), name=name, namespace=namespace)
    except sdk.HelmError as exc:
        raise ConfigError(sentence(str(exc))) from exc
    except (TypeError, ValueError, RecursionError) as exc:  # dates, endless aliases: YAML has more than JSON
        raise ConfigError(f"The values hold something that JSON cannot: {exc}.", cure="Put it in quotes.") from exc
    return {_inside(path): text for path, text in rendered.items() if text.strip()}


def _inside(path: str) -> str:
    return path.partition("/")[2]


def sentence(text: str) -> str:
    """What the chart or its schema said, without where in Helm's code it was said."""
    if "execution error at" in text:
        return text.partition("): ")[2].strip() or text
    lines = [" ".join(line.split()) for line in text.splitlines()]
    faults = [fault for line in lines if (fault := _fault(line)) and "want null" not in fault]
    return f"The values are not those of the chart: {'; '.join(faults)}." if faults else " ".join(lines)


def _fault(line: str) -> str:
    """A line of the schema's report, with the key as values files have it; "" for lines that only lead to others."""
    found = re.fullmatch(r"- at '/?(.*?)': (.+)", line)
    if found is None or found[2].endswith("failed") or found[2].startswith("validation failed"):
        return ""
    key = found[1].replace("~1", "\0").replace("/", ".").replace("\0", "/")
    return f"`{key}`: {found[2]}" if key else found[2]


def objects(rendered: Mapping[str, str]) -> list[dict[str, Any]]:
    """The Kubernetes objects of a rendering, in the order of the templates.

    Raises:
        ConfigError: a template gave no YAML, for instance with a value that breaks it.
    """
    found: list[Any] = []
    for path, text in sorted(rendered.items()):
        if path.endswith(NOTES):
            continue
        try:
            found += [document for document in yaml.safe_load_all(text) if document]
        except yaml.YAMLError as exc:
            raise ConfigError(f"{path} is not YAML with these values: {exc}.") from exc
    for document in found:
        if not isinstance(document, dict) or "kind" not in document:
            raise ConfigError(
                "With these values the chart gives something that is no object.", cure="See extraObjects."
            )
    return found


def without_hooks(documents: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What stays in the cluster: without the pod of `helm test`."""
    return [one for one in documents if "helm.sh/hook" not in (one.get("metadata", {}).get("annotations") or {})]


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def spelt(documents: Sequence[Mapping[str, Any]]) -> str:
    """Objects as YAML documents; the same objects always give the same text."""
    parts = [yaml.dump(dict(one), Dumper=_Dumper, sort_keys=False, width=160, allow_unicode=True) for one in documents]
    return "---\n".join(parts)
