"""Writes the chart's values.schema.json and the tables in its README from values.yaml: `scripts/render`.

values.yaml is the source: the value says the type, `# --` lines say what it means, a `# @schema {...}` line says more
than the type. The keys of one model stand here, since values.yaml shows only an example of one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).resolve().parents[1] / "helm" / "llm-inference"
BEGIN: Final = "<!-- values: written by scripts/render; do not edit -->"
END: Final = "<!-- end of values -->"
FREE: Final = {"type": "object"}

OF_A_MODEL: Final[dict[str, tuple[dict[str, Any], str]]] = {
    "name": (
        {"type": "string", "pattern": r"^[^\p{Cc}\p{Zl}\p{Zp}]{1,200}$"},
        "What clients call it; default: its key. Stays the same when the weights change.",
    ),
    "version": (
        {"type": "string", "pattern": r"^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]*[0-9A-Za-z])?$", "maxLength": 50},
        "Version of the first revision. Later ones come by `inferdock release`.",
    ),
    "revision": (
        {"type": "string", "maxLength": 64},
        "Its digest: 12 to 64 hex digits. `inferdock install` fills it in from the registry.",
    ),
    "source": (
        {"type": "string"},
        "Empty: the registry. Else a Hugging Face name, a folder in the image or a volume, or `demo`.",
    ),
    "replicas": (
        {"type": ["integer", "null"], "minimum": 0},
        "Replicas, where it is not autoscaled; default: `replicaCount`.",
    ),
    "facts": (
        {
            "type": "object",
            "additionalProperties": False,
            "required": ["weightGiB", "layers", "kvHeads", "headDim"],
            "properties": {
                "weightGiB": {"type": "number", "exclusiveMinimum": 0},
                "layers": {"type": "integer", "minimum": 1},
                "kvHeads": {"type": "integer", "minimum": 1},
                "headDim": {"type": "integer", "minimum": 1},
                "kvBytes": {"type": "number", "exclusiveMinimum": 0},
            },
        },
        "`{weightGiB, layers, kvHeads, headDim, kvBytes}`, from which the chart computes whether it fits on the card.",
    ),
}
MODEL_KEY: Final = "^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$"


@dataclass(frozen=True, slots=True)
class Value:
    """One leaf of values.yaml.

    Attributes:
        path: with dots between.
        default: its value.
        text: what it means.
        schema: JSON schema, without the description.
    """

    path: str
    default: Any
    text: str
    schema: dict[str, Any]


def read_values(chart: Path = CHART) -> tuple[dict[str, Any], list[Value]]:
    """The tree of schemas, and the leaves in order.

    Raises:
        ValueError: a leaf has no description.
    """
    text = (chart / "values.yaml").read_text()
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)
    leaves: list[Value] = []
    tree = _group(node, text.splitlines(), "", leaves)
    return tree, leaves


def _group(node: yaml.MappingNode, lines: list[str], prefix: str, leaves: list[Value]) -> dict[str, Any]:
    properties = {}
    for key, value in node.value:
        path = f"{prefix}{key.value}"
        said, schema, is_models = _comment(lines, key.start_mark.line)
        default = yaml.safe_load(yaml.serialize(value))
        if is_models:
            leaves.append(Value(path, "see values.yaml", said, {}))
            properties[key.value] = {"$ref": "#/$defs/models", "description": said}
        elif not said and isinstance(value, yaml.MappingNode) and value.value:
            properties[key.value] = _group(value, lines, f"{path}.", leaves)
        elif not said:
            raise ValueError(f"values.yaml: {path} has no `# --` line.")
        else:
            found = schema or _inferred(default)
            leaves.append(Value(path, default, said, found))
            properties[key.value] = {**found, "description": said}
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any] | None, bool]:
    """What the lines above a key say: meaning, schema, whether it is the map of models."""
    said: list[str] = []
    schema, is_models = None, False
    while line > 0 and (above := lines[line - 1].strip()).startswith("#"):
        line -= 1
        if above.startswith("# @schema "):
            schema = json.loads(above.removeprefix("# @schema "))
        elif above == "# @models":
            is_models = True
        elif above.startswith("# -- "):
            said.insert(0, above.removeprefix("# -- "))
            break
    return " ".join(said), schema, is_models


def _inferred(default: Any) -> dict[str, Any]:
    kinds: list[tuple[type, str]] = [(bool, "boolean"), (int, "integer"), (float, "number"), (str, "string")]
    for kind, name in [*kinds, (list, "array"), (dict, "object")]:
        if isinstance(default, kind):
            return {"type": name}
    raise ValueError(f"values.yaml: the type of {default!r} needs a `# @schema` line.")


def schema() -> str:
    """values.schema.json."""
    tree, _ = read_values()
    engine = tree["properties"]["engine"]["properties"]
    own = {name: {**kind, "description": text} for name, (kind, text) in OF_A_MODEL.items()}
    model = {"type": "object", "additionalProperties": False, "properties": own | engine}
    tree["$defs"] = {
        "models": {
            "type": "object",
            "propertyNames": {"pattern": MODEL_KEY},
            "additionalProperties": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/model"}]},
        },
        "model": model,
    }
    tree = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Values of llm-inference", **tree}
    return json.dumps(tree, indent=1, ensure_ascii=False) + "\n"


def table() -> str:
    """The tables of the README."""
    _, leaves = read_values()
    rows = [f"| `{leaf.path}` | {_default(leaf.default)} | {_cell(leaf.text)} |" for leaf in leaves]
    own = [f"| `models.NAME.{name}` | {_cell(text)} |" for name, (_, text) in OF_A_MODEL.items()]
    parts = ["### Of a model", "| Key | Meaning |\n|---|---|", "### All", "| Key | Default | Meaning |\n|---|---|---|"]
    return "\n".join([parts[0], "", parts[1], *own, "", parts[2], "", parts[3], *rows])


def _default(value: Any) -> str:
    text = value if value == "see values.yaml" else json.dumps(value, ensure_ascii=False)
    return "see values.yaml" if len(text) > 60 or value == "see values.yaml" else f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def readme(text: str) -> str:
    """The README with its tables made new."""
    pattern = re.compile(f"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
    return pattern.sub(lambda _: f"{BEGIN}\n\n{table()}\n\n{END}", text, count=1)


def outputs() -> Iterator[tuple[Path, str]]:
    """The files that this writes, with their texts."""
    yield CHART / "values.schema.json", schema()
    yield CHART / "README.md", readme((CHART / "README.md").read_text())
