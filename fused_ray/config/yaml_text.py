"""YAML as people write it: the only place where it is read or written.

Numbers and dates are read as YAML 1.2 says, for 1.1 surprises: `1e-2` is a number, `010` is ten, `2024-01-01` and
`1:30` are text. Booleans are those of 1.1, `no` and `on` among them. A key that stands twice in one mapping is an
error, for what stands in the first would be lost.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from pathlib import Path
from typing import Any

import yaml

from fused_ray.config.paths import expanded
from fused_ray.errors import ConfigError

_TAG = "tag:yaml.org,2002:"
_PLAIN = (
    ("null", r"(?:~|null|Null|NULL)?$", ["~", "n", "N", ""]),
    ("bool", r"(?:yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$", [*"yYnNtTfFoO"]),
    ("int", r"[-+]?(?:[0-9][0-9_]*|0x[0-9a-fA-F]+|0o[0-7]+)$", [*"-+0123456789"]),
    (
        "float",
        r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$",
        [*"-+.0123456789"],
    ),
    ("merge", r"<<$", ["<"]),
)
"""What a plain word may stand for, with the characters that it may begin with; anything else is text."""


class _Loader(yaml.SafeLoader):
    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """Raises ConstructorError where a key stands twice; of what a merge brings in, a key of one's own wins."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        first: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                before = first.setdefault(key.value, key)
                if before is not key:
                    where = f"first in line {before.start_mark.line + 1}"
                    how = "write <<: [*one, *other]" if key.value == "<<" else "make them one"
                    problem = f"the key {key.value} is there twice, {where}; {how}"
                    raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what this module or a reader of YAML 1.1 would not take for text."""


_Loader.yaml_implicit_resolvers = {}  # not those of YAML 1.1
for _name, _pattern, _first in _PLAIN:
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


def _int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = node.value.lower().replace("_", "")
    return int(text, 16 if "x" in text else 8 if "o" in text else 10)


_Loader.add_constructor(f"{_TAG}int", _int)


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file's has no keys. Raises ConfigError naming file, line and column."""
    try:
        content = expanded(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise ConfigError(f"cannot read the config file {path}: {reason}") from None
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        values = parsed(content.decode("utf-16" if wide else "utf-8-sig"), str(path))
    except UnicodeDecodeError:
        raise ConfigError(f"cannot read the config file {path}: it is not UTF-8 text") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else f"one value, {_short(values)}"
        raise ConfigError(f"{path} must hold a mapping of sections such as `data:` and `unlearn:`, and holds {kind}")
    return values


def parsed(text: str, where: str) -> Any:
    """The plain value that a YAML text stands for. Raises ConfigError: where, line and column, what is wrong."""
    try:
        value = yaml.load(text, _Loader)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        at = f"line {before.count(chr(10)) + 1}, column {error.position - before.rfind(chr(10))}"
        raise ConfigError(f"{where}, {at}: YAML allows no character U+{error.character:04X}") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{where}{at}: {_reason(error)}") from None
    except (yaml.YAMLError, ValueError, TypeError) as error:
        raise ConfigError(f"{where} is no YAML that can be read: {error}") from None
    except RecursionError:
        raise ConfigError(f"{where} is no YAML that can be read: it is nested too deeply") from None
    return plain(value, where)


def _reason(error: yaml.MarkedYAMLError) -> str:
    reason = " ".join(str(part) for part in (error.context, error.problem) if part)
    if "'\\t'" in reason:
        return f"{reason}; indent with spaces, not with tabs"
    if "expected a single document" in reason:
        return "a second document begins here (---); keep one a file"
    if "could not determine a constructor for the tag" in reason:
        return f"{reason}; only plain values can be configured"
    return reason


def plain(values: Any, where: str) -> Any:
    """A copy in plain JSON types; paths become text. Raises ConfigError where something is neither."""
    try:
        return json.loads(json.dumps(values, default=os.fspath), object_pairs_hook=_once)
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{where}: only plain values can be configured: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):  # such as 1 and "1"
        raise ValueError("two keys are the same when they are written out")
    return mapping


def dump(values: Any) -> str:
    """Plain values as YAML, which `parsed` reads back to equal ones, keys in their order."""
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}..."
