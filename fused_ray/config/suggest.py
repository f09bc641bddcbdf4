"""What somebody meant who wrote something else."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher

_ALIKE, _AS_GOOD = 0.7, 0.05
"""How much alike two words must be, from 0 to 1, and how far behind the best another may be to be told with it."""


def did_you_mean(given: object, known: Iterable[str]) -> str:
    """ "; did you mean ...?" with what is written nearly like it, or is its last part; else nothing."""
    word, alike = str(given).lower(), {}
    for name in known:
        last = name.lower().rpartition(".")[2]  # the field without its section
        alike[name] = 1.0 if last == word else SequenceMatcher(None, word, name.lower()).ratio()
    best = max(alike.values(), default=0.0)
    near = [name for name, likeness in alike.items() if likeness >= max(_ALIKE, best - _AS_GOOD)]
    return f"; did you mean {' or '.join(near[:3])}?" if near else ""
