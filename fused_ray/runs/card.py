"""The README of an exported model: what it is, how it was made, what is known of it, how it is loaded. Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from fused_ray.config import RunConfig
from fused_ray.runs.report import what
from fused_ray.runs.screen import number

ABOUT = (
    *("schema", "version", "method", "scenario", "seed", "data", "metrics", "layers", "adapter", "hash"),
    *("reversible", "verdict", "verdict_sentence", "findings"),
)
"""What about.json has of result.json."""
_MODELS = {
    "before": "before: it remembers",
    "after": "**after: this model**",
    "retrained": "retrained without the data",
}
_ACCURACIES = {
    "ra": "RA: kept data, higher is better",
    "fa": "FA: forgotten data, lower is better",
    "ca": "CA: overlap",
}
_USE = """\
```python
import torch
from load import load, normalised  # load.py, beside this page, needs torch alone

pixels = torch.zeros({batch}, dtype={dtype})
logits = load()(normalised(pixels))
print(logits.argmax(1))
```"""
_FILES = {
    "load.py": "`load()` and `normalised(...)`",
    "model.pt2": "the program and its weights, by `torch.export`: no source of the model is needed",
    "model.safetensors": "the same weights under the names of the model's own class, for `load_state_dict`",
    "about.json": "inputs, classes, figures, hashes",
    "base.safetensors": "M_r, the model before unlearning, which remembers",
    "adapter.safetensors": "the adapter: M_r + A_f is this model",
    "peft": "the adapter as PEFT loads it over M_r",
}
_ALONE = """\
This folder has the model after unlearning, and not the one before. That one, M_r, is wherever the run's folder
is or an earlier release went. Whoever has it has what was forgotten."""
_BOTH = """\
**This folder holds M_r and the adapter, too: nothing is erased.** Whoever has it has the model that remembers, and can
compare both. Publish it to nobody who may not read the forgotten data."""
_NO_PROOF = """\
A verdict is about this model alone. It is no proof that nothing is left in it: it says what was asked, and what was
found."""


def card(config: RunConfig, about: Mapping[str, Any], names: Iterable[str], no_peft: str | None = None) -> str:
    """The page. `names` are the files and folders beside it, `no_peft` is why there is none for PEFT."""
    data, names, clients = about["data"], list(names), config.federation.clients
    parts = [
        f"# A model that forgot {plain(what(config, data['class_names']))}",
        f"`{config.model.label}`, trained by {clients} simulated clients on `{config.data.name}`; then unlearned by "
        f"`{about['method']}`, seed {about['seed']}. Made by fused_ray {about['version']}.",
        "## Use it",
        *_use(data, config.data.images),
        "## What is known of it",
        "\n".join(_verdict(about)),
        "\n".join(_table(about["metrics"])),
        "On the test set of the run, each example counting once. `about.json` has all digits.",
        "## Reversible means restricted, not erased",
        _BOTH if "base.safetensors" in names else _ALONE,
        _NO_PROOF,
        "## Files",
        "\n".join(["| file | content |", "|---|---|", *(f"| `{name}` | {_FILES[name]} |" for name in names)]),
        *([f"There is no folder for PEFT: {plain(no_peft)}."] if no_peft else []),
        f"PyTorch {torch.__version__} wrote `model.pt2`; this or a later version reads it. This model's hash (SHA-256 "
        f"of names, types, shapes and bytes of all parameters and buffers): `{about['hash']['unlearned']}`.",
    ]
    return "\n\n".join(parts) + "\n"


def _use(data: Mapping[str, Any], images: bool) -> Iterator[str]:
    """How it is loaded, what it takes and gives. JSON holds any name on one line, which no name can end."""
    yield _USE.format(
        batch=", ".join(map(str, (1, *data["shape"]))), dtype="torch.uint8" if images else "torch.float32"
    )
    pixels = "pixels / 255, " if images else ""
    yield (
        f"Inputs are float32 [batch, {', '.join(map(str, data['shape']))}]: {pixels}less the mean, over the deviation, "
        f"which `normalised` does. Outputs are logits [batch, {data['classes']}]."
    )
    constants = {key: data[key] for key in ("mean", "std", "class_names")}
    yield f"```json\n{json.dumps(constants, ensure_ascii=False)}\n```"


def plain(text: str) -> str:
    """Any text as Markdown that shows it as it is, on one line and not at its beginning."""
    return re.sub(r"([\\`*_\[\]<>|~&$])", r"\\\1", " ".join(text.split()))


def _verdict(about: Mapping[str, Any]) -> Iterator[str]:
    if not about["verdict"]:
        yield "It was not judged."
        return
    yield f"**Verdict: {about['verdict']}.** {plain(about['verdict_sentence'])}."
    if about["findings"]:
        yield ""
    for finding in about["findings"]:
        yield f"- {plain(finding['name'])}: {plain(finding['sentence'])}"


def _table(metrics: Mapping[str, Mapping[str, float] | None]) -> Iterator[str]:
    before = metrics["before"]
    assert before is not None
    names = [name for name in _ACCURACIES if name in before]
    yield f"| model | {' | '.join(_ACCURACIES[name] for name in names)} |"
    yield "|---" * (1 + len(names)) + "|"
    for key, title in _MODELS.items():
        if (found := metrics[key]) is not None:
            yield f"| {title} | {' | '.join(number(found[name]) for name in names)} |"
