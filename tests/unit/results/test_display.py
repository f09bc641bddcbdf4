"""Tables in the terminal that depend on how many classes there are."""

from __future__ import annotations

import pytest

from fused_ray.data.summary import Row
from fused_ray.results.display import MANY_CLASSES, show_clients


@pytest.mark.parametrize("classes", [MANY_CLASSES, MANY_CLASSES + 1])
def test_a_column_for_each_class_or_a_summary(classes: int, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = [0] * classes, [0] * classes
    first[3], first[7], second[7] = 40, 2, 60
    rows = [
        Row(client=0, name="0", examples=42, counts=first, to_forget=5),
        Row(client=1, name="1", examples=60, counts=second, to_forget=0),
    ]
    show_clients(rows, [f"c{c}" for c in range(classes)], "abc")
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if "│" in line]
    if classes > MANY_CLASSES:
        assert cells == [
            ["0", "42", "2", "c3 (40)", "5"],
            ["1", "60", "1", "c7 (60)", "0"],
            ["all", "102", "2", "c7 (62)", "5"],
        ]
    else:
        assert cells[0] == ["0", "42", *map(str, first), "5"]
        assert len(cells[2]) == classes + 3
    assert lines[-1] == "partition sha256 abc"
