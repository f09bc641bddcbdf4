"""What an sdist and a wheel hold, and what is wrong with it.

python -m tests.release.contents dist
"""

from __future__ import annotations

import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
LICENCES = {"LICENSE", "NOTICE"}
BESIDE = {
    *LICENCES,
    *("CHANGELOG.md", "CITATION.cff", "MANIFEST.in", "README.md", "constraints.txt", "pyproject.toml", "setup.cfg"),
}
"""What an sdist has of the repository beside the package: no tests, no pages, no pictures."""
MADE = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt"}

Files = Mapping[str, bytes]


def package(root: Path = ROOT) -> set[str]:
    """The files of the package, from the repository's root: modules, presets, data, templates, py.typed."""
    files = (path.relative_to(root) for path in (root / "fused_ray").rglob("*") if path.is_file())
    return {path.as_posix() for path in files if "__pycache__" not in path.parts}


def wheel(path: Path) -> dict[str, bytes]:
    """The files of a wheel."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}


def sdist(path: Path) -> dict[str, bytes]:
    """The files of an sdist, from the one folder in it."""
    with tarfile.open(path) as archive:
        members = [member for member in archive.getmembers() if member.isfile()]
        read = {member.name: archive.extractfile(member) for member in members}
        return {name.partition("/")[2]: file.read() for name, file in read.items() if file is not None}


def wrong_in_wheel(files: Files, expected: set[str]) -> list[str]:
    """Complaints: what is missing, what is too much, what names this machine."""
    about = {name.partition("/")[0] for name in files if name.partition("/")[0].endswith(".dist-info")}
    if len(about) != 1:
        return [f"{len(about)} folders .dist-info"]
    (folder,) = about
    made = {f"{folder}/{name}" for name in (*MADE, *(f"licenses/{name}" for name in LICENCES))}
    return [*_other(files, expected | made), *_of_this_machine(files)]


def wrong_in_sdist(files: Files, expected: set[str]) -> list[str]:
    """Complaints, as of a wheel."""
    made = {"PKG-INFO", *(name for name in files if name.startswith("fused_ray.egg-info/"))}
    return [*_other(files, expected | BESIDE | made), *_of_this_machine(files)]


def _other(files: Files, expected: set[str]) -> list[str]:
    missing, more = sorted(expected - files.keys()), sorted(files.keys() - expected)
    return [*(f"{name} is missing" for name in missing), *(f"{name} is too much" for name in more)]


def _of_this_machine(files: Files) -> list[str]:
    places = {f"{place}/".encode() for place in (ROOT, Path.home(), sys.prefix) if str(place) != "/"}
    return [f"{name} names a place of this machine" for name, text in files.items() if any(p in text for p in places)]


def only(folder: Path, ending: str) -> Path:
    """The one file of that kind in a folder."""
    (found,) = folder.glob(f"*{ending}")
    return found


def main(folder: Path) -> None:
    """Say what is in the folder's sdist and wheel. Raises SystemExit if something is wrong with it."""
    expected, complaints = package(), []
    for ending, read, wrong in ((".tar.gz", sdist, wrong_in_sdist), (".whl", wheel, wrong_in_wheel)):
        path = only(folder, ending)
        files = read(path)
        complaints += [f"{path.name}: {complaint}" for complaint in wrong(files, expected)]
        print(f"{path}: {len(files)} files, {path.stat().st_size / 1e6:.1f} MB")
    if complaints:
        raise SystemExit("\n".join(complaints))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
