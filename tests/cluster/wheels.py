"""A folder of wheels, from what is installed here: what somebody without internet would bring along."""

from __future__ import annotations

import re
import sys
import zipfile
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.tags import sys_tags
from packaging.utils import canonicalize_name


def needed(name: str, extras: frozenset[str] = frozenset()) -> set[str]:
    """The names of a package and of all that it needs here, with what the extras bring."""
    seen: set[tuple[str, frozenset[str]]] = set()
    left = [(canonicalize_name(name), extras)]
    while left:
        package = left.pop()
        if package in seen:
            continue
        seen.add(package)
        for text in distribution(package[0]).requires or []:
            want = Requirement(text)
            if want.marker is None or any(want.marker.evaluate({"extra": extra}) for extra in {"", *package[1]}):
                left.append((canonicalize_name(want.name), frozenset(want.extras)))
    return {package for package, _ in seen}


def wheel(installed: Distribution, folder: Path) -> Path:
    """The wheel of an installed distribution: its files as they lie there, uncompressed.

    Left out is what an installer made itself, such as the scripts of entry points.
    """
    about = installed.read_text("WHEEL") or ""
    tags = set(re.findall(r"^Tag: (\S+)$", about, re.MULTILINE))
    tag = next(str(tag) for tag in sys_tags() if str(tag) in tags)
    name = re.sub(r"[-_.]+", "_", installed.metadata["Name"])
    path = folder / f"{name}-{installed.version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in installed.files or []:
            if (
                file.parts[0] != ".."
                and file.suffix != ".pyc"
                and file.name not in ("INSTALLER", "REQUESTED", "RECORD")
            ):
                archive.write(file.locate(), str(file))
        record = next(str(file) for file in installed.files or [] if file.name == "RECORD")
        rows = [f"{name},," for name in [*archive.namelist(), record]]
        archive.writestr(record, "".join(f"{row}\n" for row in rows))
    return path


def wheels(names: Iterable[str], folder: Path) -> Path:
    """The folder, with the wheels of those packages."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(names):
        wheel(distribution(name), folder)
    return folder


if __name__ == "__main__":  # python -m tests.cluster.wheels FOLDER
    wheels({*needed("fused-ray"), "pip", "setuptools"} - {"fused-ray"}, Path(sys.argv[1]))
