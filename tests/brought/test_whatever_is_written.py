"""Whatever one writes works, or is refused in one line."""

from __future__ import annotations

import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fused_ray import (
    CompareConfig,
    FusedRayError,
    RunConfig,
)
from fused_ray.config import describe
from fused_ray.config.yaml_text import dump
from fused_ray.studies.sweeps.config import METRICS
from fused_ray.studies.sweeps.dimension import KINDS
from tests.brought.commands import PATHS, command, one_line

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


# -- whatever one writes ------------------------------------------------------------------------------------

FIELDS = {key: kind for key, kind, *_ in describe()}


WORDS = [
    *("auto", "fc1", "all", "class", "client", "sample", "exclusive", "fused", "federaser", "retrain", "reset", "lora"),
    *("resnet18", "mnist", "npz", "optuna", "random", "asha", "~/x", "~nobody/x", "s3://b/x", "no", "1e-2", "a\0b"),
    *("\ud800", "\x1b[31m", "[/red]", "猫", "a\nb", "x" * 300, ""),
]


NUMBERS = [0, 1, 2, 3, 5, 10, 50, -1, 2**70, 10**400, 0.0, 0.5, 1.0, 1e-2, 0.99, 1e308, float("inf"), float("nan")]


PLAIN = st.sampled_from([*WORDS, *NUMBERS, None, True, False, [0], [1, 0], [1, 1], ["fc3"], [], {}, {"a": 1}])


JUNK = PLAIN | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


SLIPS = st.sampled_from(["unlearn.layer", "lr", "data", "", ".", "unlearn.lr.x", "train", "unlearn"])


def rarely(strange: st.SearchStrategy[Any], usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly the second: what has one mistake gets further than what has ten."""
    return st.integers(0, 11).flatmap(lambda chance: strange if chance == 7 else usual)


def values_of(key: str) -> st.SearchStrategy[Any]:
    """What a field may be set to, and rarely anything."""
    kind = FIELDS[key]
    words = [word for word in re.findall(r"[\w-]+", kind) if word not in ("int", "float", "str", "list", "of", "bool")]
    usual = [None if word == "null" else word for word in words if word != "mapping"]
    usual += [1, 2, 3] * ("int" in kind) + [0.1, 0.5, 1e-2] * ("float" in kind) + [True, "no"] * ("bool" in kind)
    usual += [[0], [1, 0]] * ("list of int" in kind) + [["fc3"], ["fc1", "conv2"]] * ("list of str" in kind)
    usual += {"data.name": ["mnist", "npz"], "model.name": ["simplevit"], "unlearn.method": ["finetune", "puf"]}.get(
        key, []
    )
    usual += ["~/here"] * (key in PATHS) + [{"patch": 7}] * ("mapping" in kind)
    return rarely(JUNK, st.sampled_from(usual or ["word"]))


FIELD = rarely(SLIPS, st.sampled_from(sorted(FIELDS)))


SETTINGS = st.lists(FIELD, max_size=4, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: values_of(key) if key in FIELDS else JUNK for key in keys})
)


def nest(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in fields.items():
        section, _, name = key.partition(".")
        if name and isinstance(found.setdefault(section, {}), dict):
            found[section][name] = value
        else:
            found[section] = value
    return found


RUNS = SETTINGS.map(nest)


BASES = rarely(JUNK, RUNS)


LISTED = FIELD.flatmap(
    lambda key: st.tuples(
        st.just(key),
        rarely(st.just("gird"), st.sampled_from(["grid", "choice"])),
        st.lists(values_of(key) if key in FIELDS else JUNK, min_size=1, max_size=3, unique_by=repr),
    )
)


RANGED = st.tuples(
    st.sampled_from([key for key, kind in FIELDS.items() if "int" in kind or "float" in kind]),
    st.sampled_from([kind for kind in KINDS if kind not in ("grid", "choice")]),
    st.sampled_from([[1, 4], [0.1, 0.9], [1, 6, 2], [0.1, 0.9, 0.2], [0.01, 0.02], [3, 1], [0, 1]]),
)


SPACES = st.lists(rarely(RANGED, LISTED) | RANGED, min_size=1, max_size=3).map(
    lambda found: {key: {kind: values} for key, kind, values in found}
)


SWEEPS = st.fixed_dictionaries(
    {"space": rarely(JUNK, SPACES)},
    optional={
        "base": BASES,
        "search": rarely(JUNK, st.sampled_from(["grid", "random", "optuna"])),
        "samples": rarely(JUNK, st.integers(1, 9)),
        "seeds": rarely(JUNK, st.just([0, 1])),
        "objectives": rarely(JUNK, st.dictionaries(st.sampled_from([*METRICS, "x"]), st.sampled_from(["max", "min"]))),
        "scheduler": rarely(JUNK, st.just("none")),
        "max_trials": rarely(JUNK, st.integers(5, 2000)),
        "output": rarely(JUNK, st.just({"dir": "~/s", "store": None})),
    },
)


def entries(*names: str) -> st.SearchStrategy[Any]:
    described = st.fixed_dictionaries(
        {"label": rarely(JUNK, st.sampled_from(["a", "b"])), "set": rarely(JUNK, SETTINGS)}
    )
    return rarely(
        JUNK, st.lists(rarely(JUNK, st.sampled_from(names) | described), min_size=1, max_size=3, unique_by=repr)
    )


COMPARISONS = st.fixed_dictionaries(
    {"methods": entries("fused", "retrain", "federaser", "nto"), "scenarios": entries("class", "client", "exclusive")},
    optional={
        "base": BASES,
        "seeds": rarely(JUNK, st.just([0, 1])),
        "audit": rarely(JUNK, st.just({"shadows": 1})),
        "output": rarely(JUNK, st.just({"dir": "~/c"})),
        "quick": rarely(JUNK, SETTINGS),
    },
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, bytes, list[str]]:
    """A kind of file, its content, and overrides."""
    kind = draw(st.sampled_from(["run", "sweep", "compare"]))
    text = dump(draw({"run": RUNS, "sweep": SWEEPS, "compare": COMPARISONS}[kind]))
    change = draw(rarely(st.sampled_from(["tab", "again", "cut", "end", "word", "text", "bytes"]), st.just("")))
    place = draw(st.integers(0, max(0, len(text) - 1)))
    lines = text.splitlines(keepends=True)
    content = {
        "tab": text[:place] + "\t" + text[place:],
        "again": text + (lines[place % len(lines)] if lines else ""),
        "cut": text[:place],
        "end": "\ufeff" + text.replace("\n", "\r\n"),
        "word": text[:place]
        + draw(st.sampled_from(["{", "]", ": ", "*a", "&a ", "<<: ", "---\n", "!", "%"]))
        + text[place:],
        "text": draw(st.text(max_size=40)),
    }.get(change, text).encode("utf-8", "surrogatepass")
    if change == "bytes":
        content = draw(st.binary(max_size=40))
    override = SETTINGS.map(lambda fields: [f"{key}={json.dumps(value)}" for key, value in fields.items()])
    return kind, content, draw(st.just([]) | override | rarely(st.lists(st.text(max_size=12), max_size=2), st.just([])))


def tried(kind: str, content: bytes, overrides: list[str]) -> None:
    """A run's or a comparison's file is checked, a sweep's also planned: it works or ends with one line and code 2."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{kind}.yaml"
        file.write_bytes(content)
        sets = [part for override in overrides for part in ("--set", override)]
        if kind == "sweep":
            code, out, errors = command("plan", file, "--no-time", *sets)
            assert code in (0, 2), errors
            if code == 0:
                assert out
                return
            assert len(errors.splitlines()) == 1, errors
            assert errors.startswith("fused-ray: ")
            return
        try:
            {"run": RunConfig, "compare": CompareConfig}[kind].from_yaml(file, overrides)
        except FusedRayError:
            assert len(one_line(kind, file, *sets)) > len("fused-ray: ")
            assert os.listdir(folder) == [file.name]


TRY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@given(documents())
@settings(max_examples=100, **TRY)
def test_whatever_is_written_works_or_is_refused_in_one_line(document: tuple[str, bytes, list[str]]) -> None:
    tried(*document)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@given(documents())
@settings(max_examples=2000, **TRY)
def test_two_thousand_of_them(document: tuple[str, bytes, list[str]]) -> None:
    tried(*document)
