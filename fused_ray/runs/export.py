"""M_f and M_r of a finished run as files, each proven by its hash, and M_f as a folder that needs no fused_ray."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from fused_ray.config.fields import Constants
from fused_ray.config.parts.methods import changed
from fused_ray.config.paths import expanded
from fused_ray.core.lora import Lora
from fused_ray.core.removal import removal_hash
from fused_ray.core.standard import standard
from fused_ray.core.state import Arrays, state_hash
from fused_ray.errors import RunDirectoryError
from fused_ray.models import logits_of
from fused_ray.runs import load_exported, peft
from fused_ray.runs.card import ABOUT, card
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.handles import model_that_forgot
from fused_ray.storage.files import encode_state, read_adapter, read_state


@standard()
def apply_adapter(run: Path, out: Path) -> str:
    """Write M_f (M_r + A_f, or the whole model) of a finished run; returns its SHA-256.

    Raises RunDirectoryError if what is written is not the run's.
    """
    out = expanded(out)  # before a run elsewhere is fetched
    directory = RunDirectory.open(run, older=True)
    expected: str = directory.result["hash"]["unlearned"]
    _put({out: _proven(model_that_forgot(directory.path), expected, directory.constants)}, out)
    return expected


@standard()
def restore_base(run: Path, out: Path | None) -> str:
    """Put the adapter on a freshly built model, let it answer and take it off; write M_r if asked; returns its SHA-256.

    The run directory holds no data, so it answers on the probe. Raises RunDirectoryError unless the live model and
    the file both have the hash from before unlearning, and NumericsError if the model answers as another one would.
    """
    from fused_ray import models
    from fused_ray.models.anatomy import probing
    from fused_ray.models.rehearsal import memory_format, section_of

    out = out and expanded(out)  # before a run elsewhere is fetched
    directory = RunDirectory.open(run, older=True)
    expected: str = directory.result["hash"]["base"]
    state = read_state(directory.path / "base.safetensors")
    config, method = directory.config, directory.config.unlearn.method
    if (directory.path / "unlearned.safetensors").exists():
        raise RunDirectoryError(
            f"{run}: the method {method} changed {changed(method)}, so there is no adapter to take off; "
            "M_r as it was before is base.safetensors in the run directory"
        )
    shape, classes = tuple(directory.result["data"]["shape"]), directory.result["data"]["classes"]
    form = memory_format(section_of(config.model), shape, classes)
    model = models.build(config.model, shape, classes)
    adapter, values = read_adapter(directory.path / "adapter.safetensors")
    with probing(model, shape, form) as images:
        digest = removal_hash(model, state, adapter, values, images)
    if digest != expected:
        raise RunDirectoryError(f"{run}: with the adapter off, the model is not the one from before unlearning")
    if out is not None:
        _put({out: _proven(state, expected, directory.constants)}, out)
    return expected


@standard()
def export_folder(run: Path, out: Path, reversible: bool = False) -> str:
    """Write M_f of a finished run as a folder that plain PyTorch loads without fused_ray; returns its SHA-256.

    With `reversible` M_r and the adapter are there, too; a low-rank one also as PEFT has it. Raises RunDirectoryError
    if what is written is not the run's, and where torch.export makes no program of the model.
    """
    out = expanded(out)  # before a run elsewhere is fetched
    directory = RunDirectory.open(run)
    result, config, constants = directory.result, directory.config, directory.constants
    about = {key: result[key] for key in ABOUT}
    expected: str = about["hash"]["unlearned"]
    files = {"model.safetensors": _proven(model_that_forgot(directory.path), expected, constants)}
    more, no_peft = _reversible(run, directory) if reversible else ({}, None)
    _free(out)  # before what takes a while
    model = directory.model("after")
    files = {
        "load.py": Path(load_exported.__file__).read_bytes(),
        "model.pt2": program(model, tuple(about["data"]["shape"]), f"{run}: {config.model.where}"),
        **files,
        "about.json": json.dumps(about, indent=2).encode(),
        **more,
    }
    names = dict.fromkeys(name.partition("/")[0] for name in files)
    page = card(config, about, names, no_peft)
    _put({out / name: content for name, content in {"README.md": page.encode(), **files}.items()}, out)
    return expected


def _reversible(run: Path, directory: RunDirectory) -> tuple[dict[str, bytes], str | None]:
    """M_r and the adapter, by file, and why there is no folder for PEFT if there could be one."""
    handle, method = directory.adapter, directory.config.unlearn.method
    if handle is None:
        raise RunDirectoryError(f"{run}: the method {method} changed {changed(method)}, so there is no adapter")
    files = {
        "base.safetensors": _proven(handle.base, directory.result["hash"]["base"], directory.constants),
        "adapter.safetensors": (directory.path / "adapter.safetensors").read_bytes(),
    }
    if not isinstance(handle.adapter, Lora):
        return files, None
    reason = peft.unfit(handle.adapter, directory.model("before"))
    if reason is None:
        files |= {f"peft/{name}": text for name, text in peft.files(handle.adapter, handle.values).items()}
    return files, reason


class _Logits(nn.Module):
    """A model whose forward pass gives its logits and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = logits_of(self.model(x))
        return logits


def program(model: nn.Module, shape: tuple[int, ...], where: str) -> bytes:
    """A model with its weights as a program of torch.export, for any number of inputs. Raises RunDirectoryError."""
    content = io.BytesIO()
    some, any_number = torch.zeros(2, *shape), {0: torch.export.Dim("batch")}
    try:
        made = torch.export.export(_Logits(model), (some,), dynamic_shapes=(any_number,))
        for part in made.graph_module.modules():
            if isinstance(part, torch.fx.GraphModule):
                for node in part.graph.nodes:
                    node.meta.pop("stack_trace", None)  # where the source lies on this machine, and its lines
        torch.export.save(made, content)
    except Exception as error:  # whatever it meets in a model of the user's own
        told = str(error).strip().partition("\n")[0]
        raise RunDirectoryError(
            f"{where}: torch.export makes no program of it ({type(error).__name__}: {told}); "
            "fused-ray apply writes its weights alone"
        ) from error
    return content.getvalue()


def _proven(state: Arrays, expected: str, constants: Constants) -> bytes:
    """A model's file. Raises RunDirectoryError unless the model has the hash that result.json has."""
    digest = state_hash(state)
    if digest != expected:
        raise RunDirectoryError(
            f"the model has the hash {digest}, but result.json says {expected}: the files were changed"
        )
    return encode_state(state, constants)


def _free(out: Path) -> None:
    if os.path.lexists(out):
        raise RunDirectoryError(f"{out} exists already; name another one with --out")


def _put(files: Mapping[Path, bytes], out: Path) -> None:
    """Write the file `out`, or files in a folder `out`: all of it, or nothing. Raises RunDirectoryError."""
    _free(out)
    try:
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=".") as aside:
            for path, content in files.items():
                place = Path(aside) / path.relative_to(out.parent)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content)
            os.replace(Path(aside) / out.name, out)
    except OSError as error:
        raise RunDirectoryError(f"cannot write {out}: {error.strerror}") from None
