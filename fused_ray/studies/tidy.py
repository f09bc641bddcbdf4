"""`fused-ray clean`: what finished runs and studies no longer need, shown first and removed on request.

Of a run that is part of a study, and of a study that is not finished or has runs to try again, only checkpoints of
finished runs go: nothing is lost with them. Models that studies share keep their history, which the next study looks
for. Nothing is removed where somebody is at work.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fused_ray.errors import FusedRayError, RunDirectoryError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.screen import make_screen, make_table, size
from fused_ray.runs.tidy import AUDITS, CHECKPOINTS, HISTORY, LOST, Spare, of_folder, spare
from fused_ray.storage import lock, shelf
from fused_ray.storage.folder import Folder, study_of
from fused_ray.storage.mirror import in_words
from fused_ray.studies.folders import opened

_Part = tuple[Folder, list[Spare]]


@dataclass(frozen=True)
class Tidied:
    """What a folder no longer needs, or has been rid of."""

    place: str
    files: Sequence[Spare]
    left: Sequence[str] = ()
    """What was left alone, and why, a line each."""

    @property
    def bytes(self) -> int:
        """What their removal frees."""
        return sum(each.bytes for each in self.files)


def look(path: str | Path) -> Tidied:
    """What a run or a study no longer needs. Raises RunDirectoryError if it is neither."""
    folder = opened(path)
    place = in_words(str(folder.path))
    if owner := folder.worker:
        return Tidied(place, [], [in_words(lock.in_use(folder.path, owner))])
    files: list[Spare] = []
    left: list[str] = []
    try:
        files += [each for _, files in _parts(folder, left) for each in files]
    except RunDirectoryError as error:  # its configuration cannot be read, say
        left.append(in_words(str(error)))
    return Tidied(place, files, left)


def clear(path: str | Path) -> Tidied:
    """Remove it; what is told is what has gone. Raises RunDirectoryError if it is neither a run nor a study."""
    folder = opened(path)
    place = in_words(str(folder.path))
    gone: list[Spare] = []
    left: list[str] = []
    try:
        with folder.attempt(f"fused-ray clean --delete {shlex.quote(str(path))}", wait=0, settles=False):
            folder.lock(0)
            try:
                for part, files in _parts(folder, left):
                    gone += _removed(part, files, left)
            finally:
                folder.unlock()
    except RunDirectoryError as error:
        left.append(in_words(str(error)))
    return Tidied(place, gone, left)


def _removed(part: Folder, files: Sequence[Spare], left: list[str]) -> list[Spare]:
    """Those that could be removed, of a folder that this process has locked, or a run in it that it locks."""
    inner = not part.writing
    try:
        if inner:
            part.lock(0)
        part.remove([each.name for each in files])
    except FusedRayError as error:
        left.append(in_words(str(error)))
    finally:
        if inner:
            part.unlock()
    return [each for each in files if not (part.path / each.name).exists()]


# -- what is no longer needed


def _parts(folder: Folder, left: list[str]) -> Iterator[_Part]:
    """A folder and those in it, each with what it no longer needs; why others need all of it goes to `left`."""
    if folder.older:
        left.append(f"{in_words(str(folder.path))} is of an earlier version")
    elif isinstance(folder, RunDirectory):
        if folder.finished:
            yield from _of_run(folder, (CHECKPOINTS,) if study_of(folder.path) else tuple(LOST))
        else:
            left.append(f"{in_words(str(folder.path))} is not finished; {in_words(folder.how_to_go_on)}")
    else:
        yield from _of_study(folder, left)


def _of_study(study: Folder, left: list[str]) -> Iterator[_Part]:
    kinds = tuple(LOST) if study.finished and not study.result["failed"] else (CHECKPOINTS,)
    if len(kinds) == 1:
        left.append(f"{in_words(str(study.path))} may go on: only checkpoints of its finished runs can go")
    unfinished = 0
    for found in shelf.found(study.path, inside=True)[1:]:
        try:
            run = RunDirectory.open(found.place)
            if run.finished:
                yield from _of_run(run, kinds)
            unfinished += not run.finished
        except RunDirectoryError as error:
            left.append(in_words(str(error)))
    if unfinished:
        left.append(f"{unfinished} run(s) in {in_words(str(study.path))} that are not finished")
    if AUDITS in kinds:
        shadows = study.path / "shadows"
        groups = sorted(group.name for group in shadows.glob("[!.]*")) if not shadows.is_symlink() else []
        yield study, [each for group in groups for each in of_folder(study.path, f"shadows/{group}", AUDITS)]


def _of_run(run: RunDirectory, kinds: Sequence[str]) -> Iterator[_Part]:
    yield run, spare(run, [kind for kind in kinds if kind != HISTORY or not _is_shared(run)])


def _is_shared(run: RunDirectory) -> bool:
    """Whether it made a model of a store, where studies look for it by its name."""
    place = run.path.resolve()
    return place.parent.name == "models" and re.fullmatch(r"[0-9a-f]{24}(-history)?", place.name) is not None


# -- shown


def show(found: Sequence[Tidied], *, deleted: bool) -> None:
    """What goes, or has gone, by folder and kind; what is lost with it; and what is left alone."""
    screen = make_screen()
    body = [
        (each.place, kind, str(len(files)), size(sum(file.bytes for file in files)))
        for each in found
        for kind in LOST
        if (files := [file for file in each.files if file.kind == kind])
    ]
    if body:
        screen.print(
            make_table(
                ("folder", "removed" if deleted else "can go", "files", "size"),
                body,
                left=("folder", "removed", "can go"),
            )
        )
    for line in (line for each in found for line in each.left):
        screen.say(f"left alone: {line}")
    for kind in LOST:
        if any(kind == row[1] for row in body):
            screen.tell(f"{kind}: {LOST[kind]}")
    whole = size(sum(each.bytes for each in found))
    if deleted:
        screen.say(f"freed {whole}")
    elif body:
        screen.say(f"nothing was removed; with --delete it is, and that frees {whole}")
    else:
        screen.say("nothing can go")


def plain(found: Sequence[Tidied], *, deleted: bool) -> dict[str, Any]:
    """The same for JSON."""
    return {
        "deleted": deleted,
        "bytes": sum(each.bytes for each in found),
        "folders": [
            {
                "place": each.place,
                "bytes": each.bytes,
                "kinds": {
                    kind: {"files": len(files), "bytes": sum(file.bytes for file in files)}
                    for kind in LOST
                    if (files := [file for file in each.files if file.kind == kind])
                },
                "left_alone": list(each.left),
            }
            for each in found
        ],
        "lost": {kind: LOST[kind] for kind in LOST if any(file.kind == kind for each in found for file in each.files)},
    }
