"""What a run depended on besides its configuration: versions, machine, code revision. Imports none of it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("fused-ray", "ray", "torch", "torchvision", "numpy", "pyarrow", "pydantic", "safetensors")


@cache
def environment() -> dict[str, Any]:
    """Plain values for environment.json, of this process."""
    return {**machine(), "revision": _revision()}


@cache
def machine() -> dict[str, Any]:
    """The machine under this process, whatever share of it the process may use, and what is installed there."""
    return {
        "name": platform.node(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpus": _gpus(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _gpus() -> list[str]:
    """The names of all NVIDIA cards, by the driver's own files, or else by its tool."""
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    try:
        lines = [line for card in cards for line in card.read_text().splitlines() if line.startswith("Model:")]
        if not lines and (tool := shutil.which("nvidia-smi")):
            asked = [tool, "--query-gpu=name", "--format=csv,noheader"]
            lines = subprocess.run(asked, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.removeprefix("Model:").strip() for line in lines]


def _revision() -> str | None:
    """The git revision of the code, with "+changes" if its files differ from it; None outside a checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        commands = (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        head, changes = (
            subprocess.run(["git", "-C", here, *c], capture_output=True, text=True, timeout=5, check=True).stdout
            for c in commands
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.strip() + ("+changes" if changes.strip() else "")


def usable_cpus() -> int:
    """The cores that this process may use: its affinity, its Slurm share and its control group's quota."""
    limits = [float(len(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else float(os.cpu_count() or 1)]
    share = os.environ.get("SLURM_CPUS_PER_TASK") or os.environ.get("SLURM_CPUS_ON_NODE", "")
    if share.isdigit():
        limits.append(float(share))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        if quota != "max":
            limits.append(float(quota) / float(period))
    except (OSError, ValueError):
        pass
    return max(1, int(min(limits)))
