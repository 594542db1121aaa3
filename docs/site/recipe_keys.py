"""Write docs/recipe-keys.md from the schema of recipes: make recipe-keys."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from lusifer.model.connector_settings import SETTINGS
from lusifer.training.recipe import data, parts, recipe, stage

PAGE = Path(__file__).resolve().parents[1] / "recipe-keys.md"
HEAD = """# Recipe keys

A recipe is a YAML file with the keys below. The command `lusifer check RECIPE` reads it, estimates memory and time, and
downloads nothing. An unknown key, a wrong type or an impossible combination is an error with file and line.

To change a key for one call, write its path: `--set stages.retrieval.batch_size=64`, `--set model.encoder.layers=6`. A
stage is named by its `name` or its number, an item of a list by its number.

Values follow YAML 1.2: `1e-4` is a number, `null` is no value. A key without a default is *required*.
"""
SHOWN: dict[type[BaseModel], str] = {
    recipe.ModelSettings: "model",
    recipe.BaseSettings: "bases",
    recipe.StartSettings: "start",
    recipe.Dtypes: "number-formats",
    recipe.Variant: "variants",
    stage.AlignmentStage: "alignment-stage",
    stage.ContrastiveStage: "contrastive-stage",
    parts.Train: "train",
    parts.BackboneLoRA: "adapters",
    parts.LoRA: "adapters",
    data.AlignmentSource: "data-of-an-alignment-stage",
    data.PairSource: "data-of-a-contrastive-stage",
    data.QuerySource: "pairs-to-score-on",
    data.Evaluate: "evaluate",
    data.Watch: "watch",
}
"""Class -> the section that shows its keys."""
NAMES = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true`, `false`", "null": "`null`"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def values(node: dict[str, Any]) -> str:
    """What a key may hold, in words: type, limits, choices."""
    if "$ref" in node:
        name = node["$ref"].rpartition("/")[2]
        return next(f"[keys](#{anchor})" for kind, anchor in SHOWN.items() if kind.__name__ == name)
    branches = node.get("anyOf") or node.get("oneOf")
    if branches:
        return ", or ".join(dict.fromkeys(map(values, branches)))
    if "enum" in node or "const" in node:
        return ", ".join(f"`{value}`" for value in node.get("enum", [node.get("const")]))
    if node.get("type") == "array":
        return f"list of {values(node['items'])}".replace("list of text", "list of texts")
    if node.get("type") == "object":
        below = node.get("additionalProperties") or next(iter(node.get("patternProperties", {}).values()), {})
        return f"name: {values(below)}"
    limits = ", ".join(f"{sign} {node[key]:,}" for key, sign in LIMITS.items() if key in node)
    pattern = ""
    if "pattern" in node:
        pattern = " of letters, digits, " + ", ".join(f"`{sign}`" for sign in "_.-" if sign in node["pattern"])
    return NAMES[node["type"]] + (f" {limits}" if limits else "") + pattern


def row(key: str, node: dict[str, Any], required: bool, shown: str | None) -> str:
    """One line of a table; a missing description is an error."""
    text = " ".join(node["description"].split()).replace("|", "\\|")
    default = node.get("default")
    if required:
        default = "*required*"
    elif " Left out, " in text:
        default = "*default: see right*"
    elif isinstance(default, dict) or "default" not in node:
        default = f"*default* `{json.dumps(default)}`" if default == {} and shown is None else "*default: see there*"
    else:
        default = f"*default* `{default if isinstance(default, str) else json.dumps(default)}`"
    return f"| `{key}` | {shown or values(node)}<br>{default} | {text} |"


def table(kind: type[BaseModel], without: type[BaseModel] | None = None) -> str:
    """The keys of a class as a table; those of `without`, which has a table of its own, are left out."""
    schema = kind.model_json_schema()
    left_out = without.model_fields if without else {}
    shown = {recipe.ModelSettings: {"connector": "[keys](#connector)"}}.get(kind, {})
    shown |= {recipe.Recipe: {"stages": "list of [stages](#stages)"}}.get(kind, {})
    rows = [
        row(key, node, key in schema.get("required", ()), shown.get(key))
        for key, node in schema["properties"].items()
        if key not in left_out
    ]
    return "\n".join(["| Key | Value, default | Meaning |", "|---|---|---|", *rows])


def section(title: str, path: str, kind: type[BaseModel], without: type[BaseModel] | None = None) -> str:
    """A heading, where the keys are, and their table."""
    return f"## {title}\n\n{path}\n\n{table(kind, without)}\n"


def connectors() -> str:
    """The settings of every connector of the package, a table each."""
    lines = ["## Connector", "", "In `model.connector`. `type` names the connector; `{type: ff}` is the default.", ""]
    for name, kind in SETTINGS.items():
        schema = kind.model_json_schema()["properties"]
        rows = [row(key, node, False, None) for key, node in schema.items() if key != "type"]
        words = " ".join((kind.__doc__ or "").split())
        lines += [f"### {name}", "", words, "", "| Key | Value, default | Meaning |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def page() -> str:
    """The page as it should be."""
    either = "In `stages.NAME` of a stage with `kind:"
    return "\n".join(
        [
            HEAD,
            section("Recipe", "At the top of the file.", recipe.Recipe),
            section("Model", "In `model`.", recipe.ModelSettings),
            section("Bases", "In `model.encoder` and `model.llm`.", recipe.BaseSettings),
            section("Start", "In `model.start`, in place of `model.encoder` and `model.llm`.", recipe.StartSettings),
            connectors(),
            section(
                "Number formats",
                "In `model.dtype`. Trainable weights and adapters are always float32.",
                recipe.Dtypes,
            ),
            section("Stages", "In `stages.NAME`, for both kinds of stage.", stage.StageSettings),
            section("Alignment stage", f"{either} alignment`.", stage.AlignmentStage, stage.StageSettings),
            section("Contrastive stage", f"{either} contrastive`.", stage.ContrastiveStage, stage.StageSettings),
            section("Train", "In `stages.NAME.train`.", parts.Train),
            section("Adapters", "In `stages.NAME.lora`.", parts.BackboneLoRA),
            f"In `stages.NAME.lora.encoder` and `stages.NAME.lora.llm`.\n\n{table(parts.LoRA)}\n",
            section("Data", "In each item of `stages.NAME.data` and `stages.NAME.evaluate.data`.", data.Source),
            section("Data of an alignment stage", "In addition to [Data](#data).", data.AlignmentSource, data.Source),
            section("Data of a contrastive stage", "In addition to [Data](#data).", data.PairSource, data.Source),
            section("Evaluate", "In `stages.NAME.evaluate`.", data.Evaluate),
            section(
                "Pairs to score on",
                "In `stages.NAME.evaluate.data`, in addition to [Data](#data).",
                data.QuerySource,
                data.Source,
            ),
            section("Watch", "In `stages.NAME.watch`. The parallel text is not trained on.", data.Watch),
            section("Variants", "In `variants.NAME`.", recipe.Variant),
        ]
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
