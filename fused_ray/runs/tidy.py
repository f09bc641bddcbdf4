"""What a finished run no longer needs, and what cannot be done any more without it.

Of a finished run `show`, `report`, `apply`, `restore`, `audit` and `diff` read its models, tables and JSON files, and a
later run on its model (`pretrain.from`) the round that ranked the layers, which stays for that. The rest of what is
kept to go on is told here, by kind. A file that does not have the name and the header that this program gave it is
nobody's business, and links are not followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from fused_ray.config import schedule
from fused_ray.runs.checkpoints import MARK
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.given import RANKING
from fused_ray.storage.headers import header

CHECKPOINTS, HISTORY, AUDITS = "checkpoints", "history", "models of audits"
LOST = {
    CHECKPOINTS: "nothing is lost: a finished run goes on from none of its checkpoints",
    HISTORY: (
        "no later or unfinished run can begin with these runs' models (pretrain.from) by a method that goes back over "
        "pre-training, such as federaser and eraseclient"
    ),
    AUDITS: (
        "another audit, by other settings or another version's rules, or one that was interrupted, trains these models "
        "again"
    ),
}
"""Of each kind what is lost with it."""
_ROUND = re.compile(r"\d{6}")
_ANEW = re.compile(r"(swap|klom|ruli)-\d+")


class Spare(NamedTuple):
    """A file that is no longer needed."""

    name: str
    """From its run's or study's folder."""
    kind: str
    bytes: int
    """What its removal frees: none where another link to it stays."""


def spare(run: RunDirectory, kinds: Iterable[str] = tuple(LOST)) -> list[Spare]:
    """The files of some kinds that a finished run no longer needs. Raises RunDirectoryError if it cannot be read."""
    phases = schedule.phases(run.config)
    tests: dict[str, list[tuple[str, Callable[[str], bool], bool]]] = {
        CHECKPOINTS: [("checkpoints", lambda stem: stem in phases and stem != Path(RANKING).stem, True)],
        HISTORY: [("history", lambda stem: bool(_ROUND.fullmatch(stem)), True)],
        AUDITS: [("audit", lambda stem: True, True), ("audit/anew", lambda stem: bool(_ANEW.fullmatch(stem)), False)],
    }
    return [
        each
        for kind in kinds
        for folder, named, marked in tests[kind]
        for each in of_folder(run.path, folder, kind, named, marked)
    ]


def of_folder(
    root: Path, folder: str, kind: str, named: Callable[[str], bool] = lambda stem: True, marked: bool = True
) -> Iterator[Spare]:
    """The safetensors files of a folder with such names, and, if `marked`, the header of a checkpoint."""
    where = root
    for part in folder.split("/"):  # the root itself may be a link: it is what was named
        where = where / part
        if where.is_symlink() or not where.is_dir():
            return
    for path in sorted(where.glob("[!.]*.safetensors")):
        if path.is_symlink() or not path.is_file() or not named(path.stem):
            continue
        about = header(path)
        if about is not None and (not marked or MARK in about):
            status = os.stat(path)
            yield Spare(f"{folder}/{path.name}", kind, status.st_size if status.st_nlink == 1 else 0)
