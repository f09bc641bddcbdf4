"""`fused-ray report`: results of any kind as one HTML file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from fused_ray.config.kinds import COMPARISON, RUN, SCALING, SWEEP
from fused_ray.config.paths import expanded, remote
from fused_ray.errors import FusedRayError, NotWrittenError
from fused_ray.pages.parts import Part, Subject, Table
from fused_ray.pages.render import GENERATOR, render
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.pages import whole as runs
from fused_ray.runs.report import summary
from fused_ray.storage.folder import LOCK_WAIT, Folder, kind_of_folder
from fused_ray.storage.mirror import in_words
from fused_ray.studies.comparisons import page as comparisons
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.scaling import page as scaling
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.sweeps import page as sweeps
from fused_ray.studies.sweeps.directory import SweepDirectory


def write(paths: Sequence[str | Path], out: str | Path | None = None) -> str:
    """Write the report of results, and say where it is: `out`, or report.html in the folder of the only one, else here.

    Raises FusedRayError where one cannot be read or is a run that is not finished, or the file cannot be written.
    """
    opened = [_opened(path) for path in paths]
    subjects = [subject for _, subject in opened]
    if len(opened) == 1:
        text = render(subjects[0].title, subjects)
    else:
        text = render(f"{len(subjects)} results", subjects, [_overview(opened)])
    if out is None and len(opened) == 1:
        return _into(opened[0][0], text)
    return _as_file(runs.NAME if out is None else out, text)


def _opened(path: str | Path) -> tuple[Folder, Subject]:
    """A folder of results, and what is told of it."""
    kind = kind_of_folder(path)
    if kind == SWEEP:
        sweep = SweepDirectory.open(path, older=True)
        return sweep, sweeps.subject(sweep)
    if kind == COMPARISON:
        comparison = ComparisonDirectory.open(path)
        return comparison, comparisons.subject(comparison)
    if kind == SCALING:
        study = ScalingDirectory.open(path)
        return study, scaling.subject(study)
    assert kind == RUN
    run = RunDirectory.open(path, older=True)
    return run, runs.subject(run)


def _overview(opened: Sequence[tuple[Folder, Subject]]) -> Part:
    """A line a result; of studies their own sections tell more."""
    head = ("result", "kind", "verdict", "RA", "FA", "RA retrained", "FA retrained", "sent up in all", "folder")
    body = []
    for folder, subject in opened:
        figures = summary(folder.result) if isinstance(folder, RunDirectory) else ("-",) * 5
        place = in_words(str(folder.path))
        body.append((subject.title, subject.kind, subject.verdict or "-", *figures, place))
    return Table("All results", head, body, left=("kind", "verdict", "folder"))


def _into(folder: Folder, text: str) -> str:
    """Into the folder itself, on S3 too. Raises FusedRayError where it may not be written."""
    with folder.attempt(f"fused-ray report {folder.path}"):
        folder.lock(LOCK_WAIT)
        try:
            folder.write(runs.NAME, text.encode())
        finally:
            folder.unlock()
    return in_words(str(folder.path / runs.NAME))


def _as_file(out: str | Path, text: str) -> str:
    """Anywhere on this machine, over an earlier report but over nothing else."""
    if remote(out):
        raise FusedRayError(f"--out {remote(out)}: name a file of this machine")
    target = expanded(out)
    try:
        if os.path.exists(target) and GENERATOR not in target.read_text(encoding="utf-8", errors="replace")[:2000]:
            raise FusedRayError(f"{target} exists already and is no report; name another file with --out")
        temporary = target.with_name(f".{target.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        raise NotWrittenError(f"{target} cannot be written: {error.strerror}") from None
    return str(target)
