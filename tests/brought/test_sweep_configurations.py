"""Sweeps and comparisons as people write them: ranges, who is to blame, more samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_ray import (
    SweepConfig,
    load_sweep,
    resume_sweep,
    sweep,
)
from fused_ray.config.yaml_text import dump
from fused_ray.errors import ConfigError
from fused_ray.seeding import generator
from fused_ray.studies.sweeps.dimension import KINDS, Dimension
from fused_ray.studies.sweeps.directory import SweepDirectory
from tests.brought.commands import COMPARISON, DRAWN, SWEEP, command, one_line

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


# -- sweeps: ranges -----------------------------------------------------------------------------------------


def chance(number: int) -> float:
    """The draw of that number, between 0 and 1, for the key `k` and seed 0."""
    return float(generator(0, "sweep/k", number).random())


def drawn(kind: str, *values: float, count: int = 300) -> set[Any]:
    dimension = Dimension.model_validate({kind: list(values)})
    return {dimension.draw(0, "k", number) for number in range(count)}


def test_whole_and_quantised_ranges_by_hand() -> None:
    assert drawn("randint", 1, 5) == {1, 2, 3, 4}  # as in Ray Tune, without the upper end
    assert drawn("qrandint", 10, 21, 5) == {10, 15, 20}
    assert drawn("quniform", 0.05, 0.35, 0.1) == {0.1, 0.2, 0.3}
    assert drawn("quniform", 0.1, 0.3, 0.1) == {0.1, 0.2, 0.3}
    assert drawn("lograndint", 1, 4) == {1, 2, 3}
    assert drawn("qloguniform", 0.01, 0.05, 0.02) == {0.02, 0.04}
    assert drawn("qlograndint", 2, 8, 2) == {2, 4, 6, 8}
    assert all(type(value) is int for kind in ("randint", "lograndint") for value in drawn(kind, 1, 9))
    c = chance(7)
    assert Dimension(randint=(10, 20)).draw(0, "k", 7) == 10 + int(10 * c)
    assert Dimension(uniform=(1, 3)).draw(0, "k", 7) == 1 + 2 * c
    assert Dimension(lograndint=(1, 100)).draw(0, "k", 7) == int(100**c)


def test_whole_numbers_are_drawn_evenly() -> None:
    counts = dict.fromkeys((3, 4, 5, 6), 0)
    for number in range(4000):
        counts[Dimension(randint=(3, 7)).draw(0, "k", number)] += 1
    assert all(abs(count - 1000) < 120 for count in counts.values())  # four standard deviations


@given(
    st.sampled_from([kind for kind in KINDS if kind not in ("grid", "choice")]),
    st.integers(1, 10**6),
    st.integers(1, 10**6),
    st.integers(1, 1000),
    st.integers(0, 99),
)
@settings(max_examples=200, deadline=None)
def test_a_draw_stays_in_its_range_whatever_it_is(kind: str, low: int, more: int, step: int, number: int) -> None:
    scale = 1 if kind.endswith("randint") else 1e-3
    values = [low * scale, (low + more) * scale, *([step * scale] if kind.startswith("q") else [])]
    if kind.startswith("q") and (low + more) // step * step < low:
        with pytest.raises(ValueError, match="no multiple of"):
            Dimension.model_validate({kind: values})
        return
    dimension = Dimension.model_validate({kind: values})
    found = dimension.draw(0, "k", number)
    assert dimension.ends[0] <= found <= dimension.ends[1]
    assert low * scale <= dimension.ends[0] + 1e-9
    assert dimension.ends[1] <= (low + more) * scale + 1e-9
    if dimension.step is not None:
        assert round(found / dimension.step) * dimension.step == pytest.approx(found)


@pytest.mark.parametrize(
    ("key", "values", "said"),
    [
        ("unlearn.lr", {"grid": [1e-2, 0.01]}, "space.unlearn.lr.grid: 0.01 is there twice"),
        ("unlearn.lr", {"choice": [1, 1.0]}, "space.unlearn.lr.choice: 1 is there twice"),
        ("forget.classes", {"grid": [0, [0]]}, "space.forget.classes: 0 and [0] are the same"),
        ("forget.poison", {"grid": [True, "yes"]}, 'space.forget.poison: true and "yes" are the same'),
        ("unlearn.layers", {"uniform": [1, 4]}, "unlearn.layers: it takes whole numbers, and uniform draws others"),
        ("unlearn.rounds", {"quniform": [1, 4, 1]}, "and quniform draws others; write qrandint"),
        ("unlearn.start", {"uniform": [0, 1]}, "space.unlearn.start: it takes no numbers; write grid or choice"),
        ("unlearn.layers", {"randint": [1, 4.5]}, "space.unlearn.layers.randint: input should be a valid integer"),
        ("unlearn.layers", {"randint": [4, 1]}, "space.unlearn.layers.randint: [4, 1] is no range"),
        ("unlearn.layers", {"lograndint": [0, 3]}, "[0, 3] is no range above 0"),
        ("unlearn.layers", {"randint": [1, 9]}, "space.unlearn.layers: 8 is more than the 5 layers"),
        ("unlearn.lr", {"quniform": [0.1, 1, 0]}, "space.unlearn.lr.quniform: 0 is no step between 0.1 and 1"),
        ("unlearn.lr", {"quniform": [0.1, 1, 1e-300]}, "is no step between"),
        ("unlearn.lr", {"quniform": [0.11, 0.19, 0.1]}, "no multiple of 0.1 lies in [0.11, 0.19]"),
        ("unlearn.lr", {"quniform": [0.1, 1]}, "space.unlearn.lr.quniform: "),
        ("unlearn.lr", {}, "space.unlearn.lr: it has nothing; write one of grid, choice, uniform"),
        ("unlearn.lr", 0.1, "space.unlearn.lr: say how it varies, as in {grid: [0.1]}"),
    ],
)  # fmt: skip
def test_a_dimension_that_is_wrong_is_named(key: str, values: Any, said: str) -> None:
    Path("s.yaml").write_text(dump({"space": {key: values}}))
    assert said in one_line("plan", "s.yaml", "--no-time")


def test_optuna_is_refused_what_it_would_drop() -> None:
    values = {"search": "optuna", "samples": 2, "space": {"unlearn.lr": {"qloguniform": [0.1, 1, 0.1]}}}
    with pytest.raises(ConfigError, match=r"space\.unlearn\.lr: optuna has no qloguniform; write loguniform, or a"):
        SweepConfig.from_dict(values)


# -- sweeps and comparisons: who is to blame ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        # the second field is wrong, not the first
        (
            {"space": {"unlearn.lr": {"grid": [0.1]}, "unlearn.layers": {"grid": [9]}}},
            "space.unlearn.layers: 9 is more than the 5 layers",
        ),
        # the base is at odds with a value of the space
        (
            {"base": {"forget": {"classes": [3]}}, "space": {"forget.scenario": {"grid": ["class", "client"]}}},
            'space.forget.scenario = "client": base.forget.classes: the scenario',
        ),
        (
            {"space": {"data.limit": {"grid": [199, 1000]}}},
            "space.data.limit = 199: base.federation.clients: 20 clients of at least 10 examples (data.min_examples) "
            "need more than the 199 training examples of fashion-mnist-mini that data.limit=199 leaves",
        ),
        (
            {"seeds": [-1], "space": {"unlearn.lr": {"grid": [0.1]}}},
            "seeds: input should be greater than or equal to 0",
        ),
        ({"base": {"unlearn": {"layers": 9}}, "space": {"seed": {"grid": [0]}}}, "base.unlearn.layers: 9 is more than"),
        (
            {
                "base": {"unlearn": {"layers": 3}},
                "space": {"unlearn.start": {"grid": ["reset"]}, "unlearn.sparsity": {"grid": [0]}},
            },
            "space.unlearn.start: reset at sparsity 0 would set 3 whole layers to zero",
        ),
    ],
)
def test_a_sweep_blames_the_field_that_is_to_be_changed(sections: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        SweepConfig.from_dict(sections)
    assert said in str(caught.value)


def test_a_draw_that_does_not_go_together_is_a_row_and_no_error() -> None:
    """Of what is drawn, no value comes twice: that one trial cannot be run says nothing against its values."""
    space = {
        "unlearn.lr": {"loguniform": [0.01, 1]},
        "unlearn.layers": {"choice": [1, 3]},
        "unlearn.sparsity": {"choice": [0, 0.5]},
        "unlearn.start": {"choice": ["reset", "negate"]},
    }
    trials = SweepConfig.from_dict({"space": space, "search": "random", "samples": 30}).trials
    bad = [trial for trial in trials if trial.config is None]
    assert 0 < len(bad) < 30
    assert all(trial.values["unlearn.start"] == "reset" and trial.values["unlearn.layers"] == 3 for trial in bad)


def test_data_that_are_missing_are_blamed_on_their_field() -> None:
    Path("s.yaml").write_text(SWEEP)
    Path("c.yaml").write_text(COMPARISON)
    there = {"label": "there", "set": {"forget.scenario": "class", "data.root": "/nowhere"}}
    for arguments, said in {
        ("sweep", "s.yaml", "--set", "base.data.root=/nowhere"): "base.data.root: ",
        ("sweep", "s.yaml", "--set", "space.data.root={grid: [/nowhere]}"): "space.data.root: ",
        ("compare", "c.yaml", "--set", "base.data.root=/nowhere"): "base.data.root: ",
        ("compare", "c.yaml", "--set", f"scenarios={json.dumps([there])}"): "scenarios: there: data.root: ",
        ("compare", "c.yaml", "--set", "base.unlearn.layers=9"): "base.unlearn.layers: 9 is more",
        ("compare", "c.yaml", "--set", "base.retrain.rounds=0"): "base.retrain.rounds: the method retrain needs",
        (
            "compare",
            "c.yaml",
            "--set",
            "methods=[{label: x, set: {unlearn.method: nto}}]",
        ): "methods: x: unlearn.method: unk",
    }.items():
        assert one_line(*arguments).startswith(f"fused-ray: {said}") or f": {said}" in one_line(*arguments), arguments


def rows(path: str) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if "seconds" not in k} for row in load_sweep(path).rows]


def test_more_samples_for_a_finished_sweep() -> None:
    """The trials that are done keep their numbers, values and figures; the new ones are a longer sweep's."""
    sweep(SweepConfig.from_dict(DRAWN))
    before, written = (
        rows("sweep"),
        {file: file.stat().st_mtime_ns for file in Path("sweep/trials").glob("*/result.json")},
    )
    longer = SweepConfig.from_dict({**DRAWN, "samples": 4})
    code, _, errors = command("sweep", "--resume", "sweep", "--set", "samples=4")
    assert code == 0, errors
    after = rows("sweep")
    assert [row for row in after if row["trial"] < 2] == before
    assert all(file.stat().st_mtime_ns == when for file, when in written.items())
    found = {row["trial"]: json.loads(row["values"]) for row in after}
    assert found == {trial.number: trial.values for trial in longer.trials}
    assert load_sweep("sweep").config.samples == 4
    assert load_sweep("sweep").result["trials"] == 4
    resume_sweep("sweep")  # nothing is left
    assert rows("sweep") == after
    with pytest.raises(ConfigError, match="samples: 4 are drawn already; there can only be more"):
        resume_sweep("sweep", ["samples=3"])


def test_numbers_of_trials_do_not_depend_on_how_many_there_are() -> None:
    """Those of one model follow each other, and still have the numbers that they were drawn with."""
    space = {"seed": {"choice": [0, 1]}, **DRAWN["space"]}
    few, many = (SweepConfig.from_dict({**DRAWN, "space": space, "samples": n}).trials for n in (6, 20))
    assert [trial.values["seed"] for trial in many] == sorted(
        (trial.values["seed"] for trial in many), reverse=many[0].values["seed"] == 1
    )
    known = {trial.number: trial.values for trial in many}
    assert sorted(known) == list(range(20))
    assert [known[trial.number] for trial in few] == [trial.values for trial in few]
    assert [trial.number for trial in few] != list(range(6))


def test_a_sweep_that_was_extended_and_killed_is_unfinished() -> None:
    directory = SweepDirectory.create("sweep", SweepConfig.from_dict(DRAWN))
    (directory.path / "result.json").write_text('{"trials": 3}')
    directory.lock(1)
    directory.extend(SweepConfig.from_dict({**DRAWN, "samples": 4, "max_trials": 5}))
    assert not directory.finished
    assert (directory.config.samples, directory.config.max_trials) == (4, 5)


def test_a_grid_has_no_more_samples() -> None:
    grid = {**DRAWN, "search": "grid", "space": {"unlearn.lr": {"uniform": [0.1, 0.2]}}}
    SweepDirectory.create("sweep", SweepConfig.from_dict(grid))
    line = one_line("sweep", "--resume", "sweep", "--set", "samples=9")
    assert "samples: a grid's list of trials is fixed" in line
    assert f"output.store={Path('sweep/store').absolute()}" in line
