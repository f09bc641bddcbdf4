"""Environments of their own that borrow what is installed here, so that making one takes seconds."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path


def layered(folder: Path, *install: str | Path) -> Path:
    """The programs of a fresh environment, in which pip has installed that. What it lacks, Python finds here."""
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = (folder / "lib").glob("python*/site-packages")
    # a .pth file in a folder that is named by one is not read, so an editable fused_ray there is not found
    (site / "borrowed.pth").write_text("".join(f"{sysconfig.get_path(kind)}\n" for kind in ("purelib", "platlib")))
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install"]
    done([*pip, "--disable-pip-version-check", "--quiet", *install], folder)
    return folder / "bin"


def done(command: Sequence[str | Path], at: Path, **variables: str) -> str:
    """What a program prints that ends well, in that folder and without this process's way to the repository."""
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    ended = subprocess.run(
        command, cwd=at, env={**environment, **variables}, capture_output=True, text=True, timeout=500, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout
