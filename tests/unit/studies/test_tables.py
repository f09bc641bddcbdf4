"""The tables of comparisons and sweeps: in 80 columns, with every figure, and with what the columns mean."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from fused_ray.config import RunConfig
from fused_ray.runs.screen import make_screen
from fused_ray.studies.comparisons import tables as comparison
from fused_ray.studies.comparisons.config import CompareConfig
from fused_ray.studies.sweeps import tables as sweep
from fused_ray.studies.sweeps.front import cases
from fused_ray.studies.sweeps.rows import ACCURACIES

CONFIG = CompareConfig.from_dict(
    {
        "methods": ["fused", {"label": "a-label-of-forty-letters-that-is-legal.ok", "set": {"unlearn.method": "not"}}],
        "scenarios": ["class", "exclusive"],
        "seeds": [0, 1],
        "audit": {"relearn_steps": 7},
    }
)

ASKING = CompareConfig.from_dict(
    {"methods": ["fused"], "scenarios": ["class"], "audit": {"metrics": ["residual"]}},
)


def compared(scenario: str, method: str, seed: int, **more: Any) -> dict[str, Any]:
    return {
        "scenario": scenario, "method": method, "seed": seed, "status": "done", "algorithm": "fused",
        "ra": 0.8 + seed / 10, "fa": 0.1, "ca": 0.7 if scenario == "exclusive" else None, "rea": 0.3, "mia_auc": 0.52,
        "index": 0.25,
        "ra_before": 0.75, "fa_before": 0.85, "ca_before": 0.65, "bytes_up": 6_612, "seconds_train": 12.34,
        "vacuous": False, "trivial": False, **more,
    }  # fmt: skip


ROWS = [
    compared(scenario.label, method.label, seed)
    for scenario in CONFIG.scenarios
    for method in CONFIG.methods
    for seed in CONFIG.seeds
]


def judged(*words: str) -> list[dict[str, Any]]:
    """The rows with verdicts, one after the other."""
    return [row | {"verdict": words[number % len(words)]} for number, row in enumerate(ROWS)]


def test_a_comparison_fits_80_columns(shown: Any) -> None:
    for rows in (ROWS, judged("forgotten", "not forgotten")):
        lines = shown(lambda rows=rows: comparison.show(make_screen(), rows, CONFIG), 80)
        meanings = lines.index(next(line for line in lines if line.startswith("RA: ")))
        assert max(len(line) for line in lines[:meanings] if not line.startswith(("class: ", "exclusive: "))) <= 80
        text = "\n".join(lines)
        for figure in ("0.850±0.071", "0.100±0.000", "0.300±0.000", "0.250±0.000", "0.520±0.000", "6.6 KB", "12.3 s"):
            assert text.count(figure) >= 4
        assert text.count("0.700±0.000") == 2
        folded = "".join(line.split()[0] for line in lines[:meanings] if line)
        assert folded.count("a-label-of-forty-letters-that-is-legal.ok") == 4  # in two halves of two tables


def test_a_wide_screen_shows_it_whole(shown: Any) -> None:
    lines = shown(lambda: comparison.show(make_screen(), ROWS, CONFIG), 160)
    assert sum("0.850 ± 0.071" in line and "0.520 ± 0.000" in line for line in lines) == 4


def test_a_comparison_says_what_its_columns_mean_once(shown: Any) -> None:
    lines = shown(lambda: comparison.show(make_screen(), ROWS, CONFIG), 80)
    for meaning in (
        "RA: accuracy on the data that stay (higher is better)",
        "FA: accuracy on what is forgotten (lower is better)",
        "ReA: relearning accuracy: FA after 7 steps of relearning (lower is better)",
        "Comm: communication: bytes that a client sends up in a round (lower is better)",
        "Comp: computation: seconds of local training (lower is better)",
    ):
        assert lines.count(meaning) == 1
        assert f"- {meaning}\n" in comparison.markdown(ROWS, CONFIG)
        assert comparison.latex(ROWS, CONFIG).count(meaning) == 1
    assert sum(line.startswith("MIA (AUC): membership inference attack:") for line in lines) == 1
    assert lines[0] == "class: forgetting class 0 (T-shirt); fashion-mnist-mini, lenet, 20 clients"


@pytest.mark.parametrize(("steps", "told"), [(7, 7), (25, 10)])
def test_relearning_accuracy_is_after_ten_steps_or_the_last(steps: int, told: int) -> None:
    config = CompareConfig.from_dict({"methods": ["fused"], "scenarios": ["class"], "audit": {"relearn_steps": steps}})
    assert f"FA after {told} steps of relearning" in comparison.markdown(ROWS[:1], config)


@pytest.mark.parametrize(
    ("first", "second", "cell"),
    [
        ({"index": 0.25}, {"index": 0.35}, "0.300 ± 0.071"),
        ({"index": 0.25}, {"index": None, "index_why": "cannot be told: noise"}, "0.250 (1 of 2 seeds)"),
        (*[{"index": None, "index_why": "cannot be told: noise"}] * 2, "cannot be told"),
        (*[{"index": None, "index_why": "does not apply: nothing says whose it is"}] * 2, "does not apply"),
        ({"index": None}, {"index": None}, "-"),
    ],
)
def test_an_index_says_on_how_many_seeds_it_is_told_or_why_not(first: Any, second: Any, cell: str) -> None:
    rows = [compared("class", "fused", seed, **changes) for seed, changes in enumerate((first, second))]
    line = next(line for line in comparison.markdown(rows, CONFIG).splitlines() if line.startswith("| fused |"))
    assert f"| {cell} |" in line


def test_an_answer_says_on_how_many_seeds_it_could_be_told() -> None:
    answers = [{"metric_residual_passes": 1.0}, {"metric_residual_passes": None}]
    rows = [compared("class", "fused", seed, **answer) for seed, answer in enumerate(answers)]
    line = next(line for line in comparison.markdown(rows, ASKING).splitlines() if line.startswith("| fused |"))
    assert line.endswith("| 1.000 (1 of 2 seeds) |")
    both = comparison.markdown([row | answers[0] for row in rows], ASKING)
    assert "| 1.000 ± 0.000 |" in both


def test_verdicts_are_counted_where_seeds_differ() -> None:
    mixed = comparison.markdown(judged("forgotten", "shallow"), CONFIG)
    assert "| method | RA | FA | verdict | ReA |" in mixed
    assert "| shallow 1, forgotten 1 | 0.300 ± 0.000 " in mixed
    alike = comparison.markdown(judged("damaged"), CONFIG)
    assert "| damaged | 0.300 ± 0.000 " in alike
    assert "| before: it remembers | 0.750 ± 0.000 | 0.850 ± 0.000 | - |" in alike


def swept(trial: int, values: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    figures = {"ra": 0.8 + seed / 10, "fa": 0.1, "ra_before": 0.7, "fa_before": 0.9, "ra_retrained": 0.8,
               "fa_retrained": 0.0}  # fmt: skip
    return {
        "trial": trial, "round": 5, "last": True, "bytes_up": 6_612, "bytes_up_total": 1_322_400,
        "seconds_total": 9.87, "status": "done", "seed": seed, "values": json.dumps(values | {"seed": seed}),
        "layers": "conv1 conv2 fc1 fc2 fc3", **{f"{name}{half}": figures.get(name) for name in ACCURACIES
                                                for half in ("", "_choose", "_report")},
    }  # fmt: skip


MANY = {
    "unlearn.layers": ["[bold]conv", "[/dog]", "猫"], "unlearn.sparsity": 0.123456, "unlearn.mask": "saliency",
    "unlearn.start": "negate", "unlearn.lr": 0.05, "unlearn.wire": "float16", "unlearn.saliency": "difference",
}  # fmt: skip


def test_a_sweep_of_many_fields_fits_80_columns(shown: Any) -> None:
    found = cases([swept(seed, MANY, seed) for seed in (0, 1)], 0.01, 0.02, 2)
    lines = shown(lambda: sweep.show(make_screen(), found, RunConfig()), 80)
    others = ("Recommended", "the nearest", "I: ", "scenario", "class:", "One half", "- ")
    tables = [line for line in lines if not line.startswith(others)]
    assert max(map(len, tables)) <= 80
    words = " ".join(line.split("  ")[0].strip() for line in tables)
    for text in ("[bold]conv", "[/dog]", "猫", "sparsity 0.1235", "mask saliency", "saliency difference"):
        assert text in words
    text = "\n".join(tables)
    assert text.count("0.850±0.071") == 2
    assert text.count("1.3 MB") == 2
    assert sum("RA: accuracy on the data that stay (higher is better)" in line for line in lines) == 1


def test_a_sweep_of_a_field_is_shown_whole(shown: Any) -> None:
    found = cases([swept(0, {"unlearn.sparsity": 0.5})], 0.01, 0.02)
    lines = shown(lambda: sweep.show(make_screen(), found, RunConfig()), 120)
    assert any("sparsity" in line and "up / client / round" in line for line in lines)


def test_everything_is_shown_on_an_ascii_terminal(shown: Any) -> None:
    found = cases([swept(seed, MANY, seed) for seed in (0, 1)], 0.01, 0.02, 2)

    def show() -> None:
        comparison.show(make_screen(), [row | {"trivial": True} for row in ROWS], CONFIG)
        sweep.show(make_screen(), found, RunConfig())

    lines = shown(show, 160, "ascii")
    assert any("0.850 +- 0.071" in line for line in lines)
    assert any("fused +" in line for line in lines)
    assert any(r"\u732b" in line for line in lines)


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_tables_go_where_they_are_wanted(capsys: pytest.CaptureFixture[str], stream: str) -> None:
    comparison.show(make_screen(stream == "stderr"), ROWS, CONFIG)
    written = capsys.readouterr()
    assert bool(written.out) == (stream == "stdout")
    assert bool(written.err) == (stream == "stderr")
    assert sys.stdout is not None


def test_a_deployments_times_are_shown_where_it_was_set_and_on_how_many_seeds(shown: Any) -> None:
    assert "to forget" not in comparison.markdown(ROWS, CONFIG)
    times = {"deployment": "phones", "simulated_seconds": 1234.5, "rounds_to_forget": 2, "seconds_to_forget": 0.125}
    never = {**times, "rounds_to_forget": None, "seconds_to_forget": None}
    rows = [row | (never if row["seed"] else times) for row in ROWS]
    text = comparison.markdown(rows, CONFIG)
    assert text.count("| 1234 s | 2.0 (1 of 2 seeds) | 0.125 s (1 of 2 seeds) |") == 4
    lines = shown(lambda: comparison.show(make_screen(), rows, CONFIG), 80)
    assert sum("0.125 s" in line for line in lines) == 4
    tables = lines[: lines.index(next(line for line in lines if line.startswith("RA: ")))]
    assert max(len(line) for line in tables if not line.startswith(("class: ", "exclusive: "))) <= 80
