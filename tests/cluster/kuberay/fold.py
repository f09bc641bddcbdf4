"""Make rayjob.schema.json of KubeRay's own file: `python fold.py ray.io_rayjobs.yaml > rayjob.schema.json`.

Nothing is left out of the schema of ray.io/v1. Equal parts, such as the pod templates, are written once, under
`$defs`. A RayCluster's spec is that of a RayJob's rayClusterSpec.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from typing import Any

import yaml

SMALL = 200
"""Parts of fewer characters stay where they are."""


def text(part: Any) -> str:
    return json.dumps(part, sort_keys=True, separators=(",", ":"))


def parts(schema: Any) -> list[str]:
    """The texts of all mappings in it, itself first."""
    inside = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    return [text(schema)] * isinstance(schema, dict) + [found for part in inside for found in parts(part)]


def folded(schema: Any, often: Counter[str], named: dict[str, Any]) -> Any:
    """It with references for what occurs often; those parts come into `named`."""
    if isinstance(schema, list):
        return [folded(part, often, named) for part in schema]
    if not isinstance(schema, dict):
        return schema
    key = text(schema)
    if often[key] < 2 or len(key) < SMALL or not isinstance(schema.get("type"), str):
        return {name: folded(part, often, named) for name, part in schema.items()}
    if key not in named:
        named[key] = {}
        named[key] = {name: folded(part, often, named) for name, part in schema.items()}
    return {"$ref": f"#/$defs/{list(named).index(key)}"}


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        (schema,) = (
            version["schema"]["openAPIV3Schema"]
            for version in yaml.load(file, yaml.CSafeLoader)["spec"]["versions"]
            if version["name"] == "v1"
        )
    named: dict[str, Any] = {}
    whole = folded(schema, Counter(parts(schema)), named)
    whole["$defs"] = {str(number): part for number, part in enumerate(named.values())}
    print(json.dumps(whole, separators=(",", ":"), sort_keys=True))
