"""M_f and M_r of a finished run as files, each proven by its hash."""

from __future__ import annotations

import os
from pathlib import Path

from fused_ray.config.fields import Constants
from fused_ray.config.parts.methods import changed
from fused_ray.config.paths import expanded
from fused_ray.core.removal import removal_hash
from fused_ray.core.standard import standard
from fused_ray.core.state import Arrays, state_hash
from fused_ray.errors import RunDirectoryError
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
    expected = directory.result["hash"]["unlearned"]
    return _write(out, model_that_forgot(directory.path), expected, directory.constants)


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
        return _write(out, state, expected, directory.constants)
    return expected


def _write(out: Path, state: Arrays, expected: str, constants: Constants) -> str:
    digest = state_hash(state)
    if digest != expected:
        raise RunDirectoryError(
            f"the model has the hash {digest}, but result.json says {expected}: the files were changed"
        )
    if os.path.exists(out):
        raise RunDirectoryError(f"{out} exists already; name another file with --out")
    temporary = out.with_name(f".{out.name}.tmp")
    try:
        temporary.write_bytes(encode_state(state, constants))
        os.replace(temporary, out)
    except OSError as error:
        raise RunDirectoryError(f"cannot write {out}: {error.strerror}") from None
    return digest
