"""What somebody meant who wrote something else."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """ "; did you mean ...?" with what is written nearly like it, or is its last part; else nothing."""
    word = str(given).lower()
    names = {name.lower(): name for name in known}
    near = [full for full in names if full.rpartition(".")[2] == word]  # the field without its section
    near += [full for full in get_close_matches(word, names, cutoff=0.7) if full not in near]
    return f"; did you mean {' or '.join(names[full] for full in near[:3])}?" if near else ""
