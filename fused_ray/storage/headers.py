"""What the header of a safetensors file says of it, read without its tensors and without PyTorch."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open


def header(path: Path) -> dict[str, str] | None:
    """A file's metadata; None of what is no safetensors file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError, ValueError):
        return None
