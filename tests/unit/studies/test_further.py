"""Further metrics as columns of a study's tables."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa

from fused_ray.config.parts.metrics import Metric
from fused_ray.studies import further
from fused_ray.studies.comparisons import rows

ECE = Metric(name="ece", measure=len, better="lower", meaning="how far off\nit is.")
FIGURES = [{"name": "ece_after", "value": 0.25}, {"name": "gap", "value": 2.0}]


def test_a_column_for_every_figure_and_null_where_there_is_none() -> None:
    found = rows.table([{"method": "a"}, {"method": "b", **further.columns(FIGURES)}], [ECE])
    assert found.column_names == [*rows.SCHEMA.names, "metric_ece_after", "metric_gap"]
    assert found.column("metric_ece_after").to_pylist() == [None, 0.25]
    assert found.schema.field("metric_ece_after").metadata == {b"doc": b"how far off it is (lower is better)"}
    assert found.schema.field("metric_gap").type == pa.float64()
    assert rows.table(found.to_pylist(), [ECE]) == found  # as a comparison that goes on reads and writes it


def test_a_metric_may_keep_some_of_its_figures_from_tables_for_people() -> None:
    columns = [*further.columns([*FIGURES, {"name": "ece", "value": 1.0}, {"name": "ece_passes", "value": 1.0}])]
    assert further.shown(columns, [ECE]) == columns
    answering = replace(ECE, headline=("passes",))
    assert further.shown(columns, [answering]) == ["metric_gap", "metric_ece_passes"]


def test_means_are_over_the_reports_that_have_a_figure() -> None:
    more = [{"name": "ece_after", "value": 0.75}]
    assert further.means([FIGURES, more]) == [{"name": "ece_after", "value": 0.5}, {"name": "gap", "value": 2.0}]
    assert further.means([]) == []
