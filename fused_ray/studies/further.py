"""Further metrics of audits (`audit.metrics`) as columns of a study's tables: one for every figure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from fused_ray.config.parts.metrics import Metric

PREFIX = "metric_"
"""What the names of these columns begin with."""
Row = Mapping[str, Any]


def columns(figures: Iterable[Row]) -> dict[str, float]:
    """A report's `audit_metrics` as columns of a row."""
    return {f"{PREFIX}{figure['name']}": figure["value"] for figure in figures}


def means(reports: Sequence[Sequence[Row]]) -> list[Row]:
    """Several reports' `audit_metrics` as one: each figure's mean over the reports that have it."""
    by_name: dict[str, list[Row]] = {}
    for figure in (figure for report in reports for figure in report):
        by_name.setdefault(figure["name"], []).append(figure)
    return [{**each[0], "value": statistics.fmean(figure["value"] for figure in each)} for each in by_name.values()]


def names(rows: Iterable[Row]) -> list[str]:
    """The columns that some of these rows have a figure in, in their order."""
    all_names = (name for row in rows for name, value in row.items() if name.startswith(PREFIX) and value is not None)
    return list(dict.fromkeys(all_names))


def shown(columns: Iterable[str], metrics: Sequence[Metric]) -> list[str]:
    """Those of these columns that tables for people show: all but what a metric keeps from them."""
    return [column for column in columns if all(metric.shows(heading(column)) for metric in metrics)]


def heading(column: str) -> str:
    """What a table calls a column."""
    return column.removeprefix(PREFIX)


def fields(rows: Iterable[Row], metrics: Sequence[Metric]) -> list[pa.Field]:
    """The columns that these rows have, with what they mean."""
    return [pa.field(name, pa.float64(), metadata={"doc": meaning(heading(name), metrics)}) for name in names(rows)]


def meaning(figure: str, metrics: Sequence[Metric]) -> str:
    """What a figure means, by the metric that it is of."""
    return next((metric.legend for metric in metrics if metric.gives(figure)), "figure of a metric of an earlier start")
