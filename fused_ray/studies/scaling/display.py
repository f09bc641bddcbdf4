"""What a scaling study shows in the terminal: its tables, and what is left."""

from __future__ import annotations

from collections.abc import Iterator

from fused_ray.runs.screen import make_screen
from fused_ray.studies.scaling import rows, tables
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.status import failed


def show_scaling(directory: ScalingDirectory, *, to_error: bool = False) -> None:
    """The tables of a finished study; of another one its points so far."""
    screen, config = make_screen(to_error), directory.config
    if directory.finished:
        made = [directory.made(name) for name in ("points", "model", "paper")]
    else:
        made = [rows.table(rows.by_point(directory.rows, config.held_out), rows.POINTS).to_pylist(), [], []]
    if made[0]:
        tables.show(screen, tables.layouts(made[0], made[1], made[2], config))
    for line in _in_words(directory):
        screen.say(line)


def _in_words(directory: ScalingDirectory) -> Iterator[str]:
    statuses = {(rows.point_of(row).name, row["repeat"]): row["status"] for row in directory.rows}
    for (name, repeat), status in statuses.items():
        if failed(status):
            yield f"{name}, repeat {repeat}: {status}"
    if not directory.finished:
        yield f"Not finished: {len(statuses)} of {directory.config.count} runs; {directory.how_to_go_on}"
        return
    if count := directory.result["failed"]:
        yield f"{count} of {len(statuses)} runs failed; to try them again: {directory.RESUME} {directory.path}"
    yield (
        f"Everything is in {directory.path}: points.parquet, measured.parquet, model.parquet, paper.parquet, "
        "tables.md, plots/, and a directory per run."
    )
