"""What a scaling study shows in the terminal: its tables, and what is left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fused_ray.runs.screen import make_screen
from fused_ray.studies.scaling import rows, tables
from fused_ray.studies.scaling.directory import ScalingDirectory
from fused_ray.studies.status import failed

Rows = list[dict[str, Any]]


def show_scaling(directory: ScalingDirectory, *, to_error: bool = False) -> None:
    """The tables of a finished study; of another one its points so far."""
    screen, (points, model, paper) = make_screen(to_error), made_tables(directory)
    if points:
        tables.show(screen, tables.layouts(points, model, paper, directory.config))
    for line in told(directory):
        screen.say(line)


def made_tables(directory: ScalingDirectory) -> tuple[Rows, Rows, Rows]:
    """The rows of points.parquet, model.parquet and paper.parquet; of an unfinished study its points so far."""
    if directory.finished:
        return directory.made("points"), directory.made("model"), directory.made("paper")
    return rows.table(rows.by_point(directory.rows, directory.config.held_out), rows.POINTS).to_pylist(), [], []


def told(directory: ScalingDirectory) -> Iterator[str]:
    """What failed, what is left, and where everything is."""
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


def so_far(directory: ScalingDirectory) -> dict[str, Any]:
    """How far an unfinished one has come."""
    return {
        "finished": False,
        "done": len({(rows.point_of(row).name, row["repeat"]) for row in directory.rows}),
        "count": directory.config.count,
        "go_on": directory.how_to_go_on,
    }
