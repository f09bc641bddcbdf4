"""What a run shows in the terminal: live progress, and tables that a newcomer understands."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar
from rich.table import Table

from fused_ray.config import RunConfig
from fused_ray.errors import RunDirectoryError
from fused_ray.results.directory import RunDirectory

if TYPE_CHECKING:
    from fused_ray.data.summary import Row
    from fused_ray.results.recorder import Progress

TITLES = {
    "pretrain": "pre-train",
    "rank": "rank layers",
    "saliency": "gradients",
    "replay": "replay",
    "unlearn": "unlearn",
    "retrain": "retrain",
    "audit": "audit",
}


MANY_CLASSES = 20
"""With more of them, a table of clients has no column for each."""


@contextmanager
def show_progress(path: Path) -> Iterator[Callable[[Progress], None]]:
    """A listener that shows progress on standard error: a live bar on a terminal, else a line per finished round.

    Ray's own noise goes to ray.log in the run directory meanwhile.
    """
    with progress_console(path) as console:
        if console.is_terminal:
            with Bar(
                TextColumn("{task.fields[phase]:<11}"),
                BarColumn(),
                TextColumn("{task.fields[text]}"),
                console=console,
            ) as bar:
                yield _Live(bar, console)
        else:
            yield _Lines(console)


class Notes:
    """Prints each note once, however often it is told."""

    def __init__(self, console: Console) -> None:
        self._console, self._seen = console, set[str]()

    def __call__(self, notes: Iterable[str]) -> None:
        for note in notes:
            if note not in self._seen:
                self._seen.add(note)
                self._console.print(f"note: {note}", highlight=False, soft_wrap=True, markup=False)


class _Live:
    """One bar: the rounds of all phases; beside it phase, round, clients done, RA, FA, bytes and time left."""

    def __init__(self, bar: Bar, console: Console) -> None:
        self._bar, self._notes = bar, Notes(console)
        self._task = bar.add_task("", total=None, phase="start", text="starting")

    def __call__(self, progress: Progress) -> None:
        self._notes(progress.notes)
        if not progress.rounds:
            return
        share = progress.clients_done / max(1, progress.clients)
        left = (progress.rounds - progress.round + 1 - share) * progress.round_seconds
        text = (
            f"round {progress.round}/{progress.rounds}  clients {progress.clients_done}/{progress.clients}"
            f"  RA {number(progress.ra)}  FA {number(progress.fa)}  up {size(progress.bytes_up)}"
        )
        text += f"  {left:.0f} s left" if progress.round_seconds else ""
        done = progress.round - 1 + share
        phase = TITLES.get(progress.phase, progress.phase)
        self._bar.update(self._task, total=progress.rounds, completed=done, phase=phase, text=text)


class _Lines:
    """A line per finished round."""

    def __init__(self, console: Console) -> None:
        self._console, self._notes, self._last = console, Notes(console), ("", 0)

    def __call__(self, progress: Progress) -> None:
        self._notes(progress.notes)
        now = (progress.phase, progress.round)
        if now != self._last and progress.rounds:
            self._last = now
            self._console.print(
                f"{progress.seconds:7.1f} s  {TITLES.get(progress.phase, progress.phase)} round"
                f" {progress.round}/{progress.rounds}"
                f"  (so far RA {number(progress.ra)}, FA {number(progress.fa)})",
                highlight=False,
                soft_wrap=True,
            )


def show_result(path: Path, config: RunConfig, result: dict[str, Any], *, to_error: bool = False) -> None:
    """The run's result as a table with what it says in words."""
    console = make_console(to_error)
    metrics, sizes, seconds = result["metrics"], result["bytes"], result["seconds"]
    overlap = "ca" in metrics["before"]
    table = Table(title=f"Forgetting {_what(config)} ({config.data.name}, {config.model.label}, "
                        f"{config.federation.clients} clients, seed {config.seed})")  # fmt: skip
    for name in ("model", "kept data (RA)", "forgotten data (FA)", *(["overlap (CA)"] if overlap else [])):
        table.add_column(name, justify="left" if name == "model" else "right")
    table.add_column("sent up / client / round", justify="right")
    table.add_column("training time", justify="right")
    rows = [
        ("before: it remembers", metrics["before"], "pretrain"),
        (_after(config, result), metrics["after"], "unlearn"),
        *([("adapter removed", metrics["before"], None)] if result["adapter"] else []),
        ("retrained without the data", metrics["retrained"], "retrain"),
    ]
    for title, found, phase in rows:
        if found is None:
            continue
        figures = [number(found[name]) for name in ("ra", "fa", *(["ca"] if overlap else []))]
        upload = size(sizes[phase]["up_per_client_per_round"]) if phase and sizes[phase]["up_total"] else "-"
        took = f"{seconds[phase]['train']:.1f} s" if phase and sizes[phase]["up_total"] else "-"
        table.add_row(title, *figures, upload, took)
    console.print(table)
    for line in _in_words(result):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"Everything is in {path}; M_f as a file: fused-ray apply {path} --out model.safetensors",
                  highlight=False, soft_wrap=True)  # fmt: skip


def _after(config: RunConfig, result: dict[str, Any]) -> str:
    if not result["adapter"]:
        return f"after: {config.unlearn.method} changed the whole model"
    return f"after: {result['adapter']['values']} adapter values on {', '.join(result['layers']['chosen'])}"


def _in_words(result: dict[str, Any]) -> Iterator[str]:
    metrics, hashes = result["metrics"], result["hash"]
    before, after, retrained = metrics["before"], metrics["after"], metrics["retrained"]
    if result["vacuous"]:
        yield (f"VACUOUS: the model before (FA {before['fa']:.3f}) knew no more of the forgotten data than a retrained "
               f"one (FA {retrained['fa']:.3f}): there was nothing to forget.")  # fmt: skip
    else:
        than = f", retrained {retrained['fa']:.3f}" if retrained else ""
        yield f"Forgetting: FA went from {before['fa']:.3f} to {after['fa']:.3f}{than}."
    if result["reversible"]:
        yield f"Reversible: with the adapter off, the model's hash is that from before, bit for bit: {hashes['base']}"
    elif not result["adapter"]:
        yield f"Not reversible: the method {result['method']} changed the whole model; M_r is kept as base.safetensors."
    else:
        yield f"NOT REVERSIBLE: the hash is {hashes['restored']}, before it was {hashes['base']}"
    if not result["numerics"]["comparable"]:
        yield "The nodes are not bit-comparable: the same run elsewhere may give other bits."


def show_unfinished(directory: RunDirectory) -> None:
    """How far a run has come."""
    rows = directory.table("rounds").to_pylist()
    last = rows[-1] if rows else None
    reached = f"it reached {last['phase']} round {last['round']}" if last else "no round is finished yet"
    print(f"{directory.path} is not finished: {reached}; continue it with: fused-ray run --resume {directory.path}")


def show_clients(rows: Sequence[Row], class_names: Sequence[str], sha256: str) -> None:
    """Who holds how many examples of which class, and how many of them must be forgotten.

    Where there are more classes than a table has room for, how many of them a client holds, and most of which.
    """
    many = len(class_names) > MANY_CLASSES
    table = Table(title="Who holds what (training examples)")
    for name in ("client", "examples", *(("classes", "most of") if many else class_names), "to forget"):
        table.add_column(name, justify="right")

    def add(who: str, counts: Sequence[int], to_forget: int) -> None:
        largest = max(range(len(counts)), key=counts.__getitem__)
        summary = (str(sum(c > 0 for c in counts)), f"{class_names[largest]} ({counts[largest]})")
        table.add_row(who, str(sum(counts)), *(summary if many else map(str, counts)), str(to_forget))

    for row in rows:
        add(escape(row["name"]), row["counts"], row["to_forget"])
    totals = [sum(row["counts"][c] for row in rows) for c in range(len(class_names))]
    table.add_section()
    add("all", totals, sum(row["to_forget"] for row in rows))
    make_console().print(table)
    print(f"partition sha256 {sha256}")


def size(count: float) -> str:
    """Bytes for people, in powers of 1,000."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError


def make_console(to_error: bool = False) -> Console:
    """A console that is wide enough for its tables where nobody's window limits it, as in a job's log."""
    console = Console(stderr=to_error)
    if not console.is_terminal:
        console.width = max(console.width, 160)
    return console


def number(value: float | None) -> str:
    """An accuracy for people."""
    return "-" if value is None else f"{value:.3f}"


def _what(config: RunConfig) -> str:
    classes = config.forget_classes
    if config.forget.scenario == "class":
        return f"class {', '.join(map(str, classes))}"
    if config.forget.scenario == "client":
        who = config.forget_count if config.forget.clients is None else len(config.forget.clients)
        return f"{who} clients" + (" whose labels are flipped" if config.forget.poison else "")
    if config.forget.scenario == "sample":
        return "single examples" + (" that carry a backdoor" if config.forget.poison else "")
    return f"all that client {config.forget.owner} knew: class {classes[0]} alone, most of class {classes[1]}"


@contextmanager
def progress_console(path: Path) -> Iterator[Console]:
    """The screen for the progress of what is written into a folder; Ray's own noise goes to ray.log there meanwhile."""
    with standard_error_to(path / "ray.log") as screen:
        console = Console(file=screen, stderr=True)
        console.print(f"fused-ray: {path}", highlight=False, soft_wrap=True)
        yield console


@contextmanager
def standard_error_to(path: Path) -> Iterator[Any]:
    """What native code and Ray print to standard error goes to a file meanwhile; yields the screen's stream."""
    sys.stderr.flush()
    try:
        on_screen = sys.stderr.fileno() == 2
    except (OSError, ValueError):  # replaced by something without a descriptor, as in a notebook
        on_screen = False
    if not on_screen:
        yield sys.stderr
        return
    try:
        log = open(path, "ab")  # noqa: SIM115
    except OSError as error:
        raise RunDirectoryError(f"{path} cannot be written: {error.strerror}") from None
    screen = os.dup(2)
    with log, os.fdopen(os.dup(screen), "w", buffering=1) as stream:
        os.dup2(log.fileno(), 2)
        try:
            yield stream
        finally:
            sys.stderr.flush()
            os.dup2(screen, 2)
            os.close(screen)
