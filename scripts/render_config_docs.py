"""Writes docs/configuration.md from config/settings.py: `make docs`. `tests/docs` compares the page with `render()`."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import annotated_types
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from inferdock.config.load import env_name
from inferdock.config.settings import Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "configuration.md"

HEAD = """\
<!-- Written by scripts/render_config_docs.py from config/settings.py; do not edit: run `make docs`. -->

# Configuration

One file, `inferdock.yaml`, holds every setting; each has a default, so an empty file or none will do. A value comes
from the last of these that gives it: default, file, environment variable, flag. `inferdock config show --origin`
says which one did. The file is the one given with `-f`, else `$INFERDOCK_CONFIG`, else `./inferdock.yaml`.

An unknown key, in the file or as an `INFERDOCK_*` variable, is an error that names the nearest right key. A variable is
called like its key, in capitals, with two underscores for the dot; its value is read as YAML:
`INFERDOCK_ENGINE__EXTRA_ARGS='["--seed", "1"]'`.

```yaml inferdock.yaml
model:
  source: ./mistral-7b
engine:
  replicas: 2
  extra_args: ["--max-num-batched-tokens", "4096"]
gateway:
  port: 8000
drain_timeout_s: 30
```

Durations are seconds and end in `_s`; sizes are bytes unless the name says otherwise.
"""


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    for title, model, prefix in groups(Settings, ""):
        parts.append(f"## {title}\n\n{_prose(inspect.getdoc(model) or '')}\n")
        parts.append("| Key | Type | Default | Meaning |\n| --- | --- | --- | --- |")
        for name, field in leaves(model):
            cells = (f"`{prefix}{name}`", _spell_type(field), _spell_default(field), _prose(field.description or ""))
            parts.append("| " + " | ".join(cells) + " |")
        parts.append("")
    parts.append(f"The variable of `gateway.port`, for instance, is `{env_name('gateway.port')}`.")
    return "\n".join(parts) + "\n"


def groups(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, type[BaseModel], str]]:
    """(heading, group, prefix of its keys) for the top and every group below it, in the order of declaration."""
    yield (f"`{prefix[:-1]}`" if prefix else "Top of the file"), model, prefix
    for name, field in model.model_fields.items():
        if _is_group(field):
            assert isinstance(field.annotation, type)
            yield from groups(field.annotation, f"{prefix}{name}.")
        elif (inside := _mapped_group(field)) is not None:
            yield from groups(inside, f"{prefix}{name}.NAME.")


def _mapped_group(field: FieldInfo) -> type[BaseModel] | None:
    """The group that a map has for each of its names."""
    if get_origin(field.annotation) is not dict:
        return None
    inside = get_args(field.annotation)[1]
    return inside if isinstance(inside, type) and issubclass(inside, BaseModel) else None


def leaves(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """The group's own settings, without the groups inside it."""
    return [(name, field) for name, field in model.model_fields.items() if not _is_group(field)]


def _is_group(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _prose(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _spell_type(field: FieldInfo) -> str:
    limits = [_spell_limit(limit) for limit in field.metadata]
    return ", ".join([_spell_annotation(field.annotation), *(limit for limit in limits if limit)])


def _spell_limit(limit: object) -> str:
    spelled = {
        annotated_types.Ge: ("ge", "≥ {}"),
        annotated_types.Gt: ("gt", "> {}"),
        annotated_types.Le: ("le", "≤ {}"),
        annotated_types.Lt: ("lt", "< {}"),
        annotated_types.MinLen: ("min_length", "length ≥ {}"),
        annotated_types.MaxLen: ("max_length", "length ≤ {}"),
    }.get(type(limit))
    return spelled[1].format(getattr(limit, spelled[0])) if spelled else ""


NAMES: dict[Any, str] = {
    str: "text",
    int: "integer",
    float: "number",
    bool: "true or false",
    Path: "path",
    type(None): "null",
}


def _spell_annotation(kind: Any) -> str:
    if kind in NAMES:
        return NAMES[kind]
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "group"
    origin, inside = get_origin(kind), get_args(kind)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(_spell_annotation(part) for part in inside)
    if origin is tuple:
        return f"list of {_spell_annotation(inside[0])}"
    if origin is dict:
        return f"map of {_spell_annotation(inside[0])} to {_spell_annotation(inside[1])}"
    if origin is typing.Annotated:
        return _spell_annotation(inside[0])
    raise TypeError(f"render_config_docs has no words for {kind!r}")


def _spell_default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    plain = [_plain(one) for one in value] if isinstance(value, tuple) else value
    text = yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("\n").removesuffix("\n...")
    return f"`{text}`"


def _plain(value: object) -> object:
    return value.model_dump() if isinstance(value, BaseModel) else value


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
