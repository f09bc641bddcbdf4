"""`fused-ray report`: one file that loads nothing, whose figures are the results', whatever the names in them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fused_ray import CompareConfig, RunConfig, ScaleConfig, SweepConfig, load_run
from fused_ray.cli.app import main
from fused_ray.pages.parts import Section, Subject, Table, Words, worth
from fused_ray.pages.render import render
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.execute import written
from fused_ray.runs.pages import whole as pages
from fused_ray.runs.pages.whole import subject
from fused_ray.runs.screen import number, size
from tests.pages import results
from tests.pages.reading import Read

OLD = Path(__file__).parents[1] / "unit" / "runs"
HOSTILE = "</script><script>alert('x')</script>\"><img src=x onerror=\"alert(1)\">&amp;'"
SECTIONS = ["Diagnosis", "Before, after, retrained", "Price against retraining", "Rounds", "By class", "Confusion",
            "By client", "Layers and adapter", "Depth", "Who held what", "Configuration and versions"]  # fmt: skip


def ended(*words: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["report", *map(str, words)])
    assert isinstance(caught.value.code, int)
    return caught.value.code


def reported(*words: object) -> None:
    assert ended(*words) == 0


def read(path: Path) -> Read:
    page = Read(path.read_text(encoding="utf-8"))
    loads_nothing(page)
    return page


def loads_nothing(page: Read) -> None:
    """No element or style that asks for anything; every table has a caption and scopes, every chart title and text."""
    for tag, name, value in page.attributes:
        assert "http:" not in value or name == "content", (tag, name, value)
        if name in ("src", "href", "action", "poster", "data", "srcset"):
            assert value.startswith(("#", "data:")), (tag, name, value)
        assert not name.startswith("on"), (tag, name)
    assert not {"img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    counts = Counter(page.tags)
    assert counts["script"] == 1
    assert counts["table"] == counts["caption"] == counts["thead"]
    assert counts["title"] == counts["desc"] + 1
    assert counts["th"] == sum(name == "scope" for _, name, _ in page.attributes)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    targets = [value[1:] for tag, name, value in page.attributes if (tag, name) == ("a", "href")]
    assert set(targets) <= set(ids)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return results.small_run(tmp_path_factory.mktemp("reports") / "run")


def test_a_run_writes_its_report_whose_figures_are_those_of_result_json(made: Path) -> None:
    result, page = load_run(made).result, read(made / "report.html")
    assert page.headings == ["Forgetting class 0 (T-shirt)", *SECTIONS]
    assert (made / "report.html").stat().st_size < 3_000_000
    assert result["verdict_sentence"][1:] in page.said
    models = page.tables["The models on the test set"][1:]
    expected = [result["metrics"][name] for name in ("before", "after", "before", "retrained")]
    assert [row[1:3] for row in models] == [[number(one["ra"]), number(one["fa"])] for one in expected]
    up = page.column("Bytes and wall seconds by phase", "up in all")
    sent = {phase: sums["up_total"] for phase, sums in result["bytes"].items() if sums["up_total"]}
    assert [up["pre-train"], up["unlearn"], up["retrain"]] == [
        size(sent[p]) for p in ("pretrain", "unlearn", "retrain")
    ]
    chosen = page.column("Sensitivity of the layers", "adapted")
    assert {layer for layer, adapted in chosen.items() if adapted} == set(result["layers"]["chosen"])
    audit = load_run(made).read_json("audit.json")
    inside = page.column("What was looked at inside", "after")
    assert inside["head recovery: FA of a new output layer"] == number(audit["head_recovery"]["after"]["accuracy"])
    assert result["hash"]["base"] in page.said
    assert f"fused-ray run {made}/config.yaml --set output.dir={made}-again" in page.said


def test_what_a_full_audit_asks_is_answered(made: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(made, tmp_path / "run")
    audit = json.loads((copied / "audit.json").read_text())
    found = {"resurfacing": False, "quantised": True, "residual": None}
    audit["audit_answers"] = [{"name": name, "passes": passes, "said": f"of {name}"} for name, passes in found.items()]
    (copied / "audit.json").write_text(json.dumps(audit))
    reported(copied)
    assert read(copied / "report.html").tables["Questions of the full audit"][1:] == [
        ["resurfacing", "FAILS", "of resurfacing"],
        ["quantised", "passes", "of quantised"],
        ["residual", "untold", "of residual"],
    ]


def test_classes_clients_and_confusion_are_those_of_the_tables(made: Path) -> None:
    run, page = load_run(made), read(made / "report.html")
    rounds = {(row["phase"], row["round"]): row for row in run.rounds.to_pylist()}
    last = {"before": ("pretrain", 2), "after": ("unlearn", 2), "retrained": ("retrain", 2)}
    classes = "Accuracy on the test images of each class; what is forgotten is marked"
    for model, key in last.items():
        told = list(page.column(classes, model).values())
        assert told == [number(value) for value in rounds[key]["class_accuracy"]]
        counts = rounds[key]["confusion"]
        by_class = [counts[10 * c : 10 * c + 10] for c in range(10)]
        right = [line[c] / sum(line) for c, line in enumerate(by_class)]
        assert right == pytest.approx(rounds[key]["class_accuracy"])
        tips = page.charts[f"Confusion {model}: percent of the true class"]
        shares = [f"{100 * count / sum(line):.0f}" for line in by_class for count in line]
        assert [tip.rpartition(": ")[2] for tip in tips] == shares
        clients = [row for row in run.clients.to_pylist() if (row["phase"], row["round"]) == key]
        assert list(page.column("Accuracy by client", f"RA {model}").values()) == [number(c["ra"]) for c in clients]
    assert rounds["unlearn", 1]["confusion"] is None  # of the last round alone
    assert rounds["rank", 1]["confusion"] is None
    held = run.held
    assert held is not None
    facts = run.read_json("scenario.json")
    assert [sum(row["held"]) for row in held] == facts["examples"]
    gone = [examples - kept for examples, kept in zip(facts["examples"], facts["retained"], strict=True)]
    assert [sum(row["to_forget"]) for row in held] == gone
    assert list(page.column("Training examples of each client", "to forget").values()) == list(map(str, gone))


def test_every_round_tells_its_figures_on_request(made: Path) -> None:
    run, page = load_run(made), read(made / "report.html")
    row = next(row for row in run.rounds.to_pylist() if (row["phase"], row["round"]) == ("unlearn", 2))
    seconds = row["train_seconds"] + row["aggregate_seconds"] + row["evaluate_seconds"]
    tip = (
        f"unlearn round 2\nRA {number(row['ra'])}, FA {number(row['fa'])}\nup {size(row['bytes_up'])}, "
        f"down {size(row['bytes_down'])}\n{seconds:.2f} s"
    )
    assert page.charts["Accuracy by round: unlearn"].count(tip) == 2  # on the line of RA and on that of FA
    assert len(page.tables["Every round"]) == 1 + len(run.rounds)


def test_it_is_not_written_where_it_is_not_wanted_nor_for_the_runs_of_a_study(tmp_path: Path) -> None:
    swept = SweepConfig.from_dict({"space": {"unlearn.layers": {"grid": [1, 2]}}})
    compared = CompareConfig.from_dict({"methods": ["fused"], "scenarios": ["class"], "seeds": [0]})
    scaled = ScaleConfig.from_dict({"points": [{"clients": [4, 8]}], "base": {"engine": {"backend": "local"}}})
    runs = [swept.run(trial) for trial in swept.trials] + [swept.model(swept.base), *scaled.runs]
    runs += [config for cell in compared.cells for config in (cell.config, cell.base) if config is not None]
    assert len(runs) > 6
    assert not any(config.output.report for config in runs)
    settings = RunConfig.from_dict({"output": {"report": False, "dir": str(tmp_path / "run")}})
    directory = RunDirectory.create(tmp_path / "run", settings)
    written(directory, {}, settings.output.report, pytest.fail)
    assert not (tmp_path / "run" / "report.html").exists()


def test_the_same_results_give_the_same_file(made: Path) -> None:
    one, other = (render("x", [subject(load_run(made))]) for _ in range(2))
    assert one == other


@pytest.mark.parametrize("old", ["old_run", "released_run"])
def test_of_an_earlier_version_what_is_missing_is_said_in_one_line(old: str, tmp_path: Path) -> None:
    run = shutil.copytree(OLD / old, tmp_path / "run")
    reported(run)
    page = read(run / "report.html")
    assert page.headings[1:] == SECTIONS
    assert "Who held how much of which class was not recorded by the version that made this run." in page.said
    assert ("Not audited" in page.said) == (old == "released_run")
    assert "Accuracy by round: unlearn" in page.charts


def test_an_earlier_sweep_shows_the_tables_that_it_wrote(tmp_path: Path) -> None:
    folder = shutil.copytree(OLD / "released_sweep", tmp_path / "sweep")
    reported(folder)
    assert " ".join((folder / "table.md").read_text().split()) in read(folder / "report.html").said


def test_names_are_text_whatever_they_are(tmp_path: Path) -> None:
    run = shutil.copytree(OLD / "old_run", tmp_path / "run")
    result = json.loads((run / "result.json").read_text())
    result["data"]["class_names"][0] = result["verdict_sentence"] = HOSTILE
    result["layers"]["ranking"][0]["layer"] = result["findings"][0]["name"] = HOSTILE
    (run / "result.json").write_text(json.dumps(result))
    reported(run)
    page = read(run / "report.html")
    assert f"Forgetting class 0 ({HOSTILE})" in page.headings
    assert HOSTILE in page.column("What the figures say, and what to do", "why")
    assert any(HOSTILE in tip for tips in page.charts.values() for tip in tips)
    table = Table(HOSTILE, (HOSTILE, HOSTILE), [(HOSTILE, HOSTILE)])
    everything = Subject(HOSTILE, HOSTILE, HOSTILE, [Section(HOSTILE, [table, Words([HOSTILE])])], verdict=HOSTILE)
    loads_nothing(Read(render(HOSTILE, [everything, everything])))


def test_a_comparison_has_a_leaderboard_verdicts_and_a_front(tmp_path: Path) -> None:
    place = results.comparison(tmp_path / "compared")
    reported(place)
    page = read(place / "report.html")
    board = next(rows for caption, rows in page.tables.items() if caption.startswith("class: forgetting"))
    assert [row[:4] for row in board[2:]] == [
        ["good", "0.700 ± 0.000", "0.100 ± 0.000", "forgotten"],
        ["costly", "0.700 ± 0.000", "0.100 ± 0.000", "shallow"],
        ["bad<b>&", "0.600 ± 0.000", "0.200 ± 0.000", "not forgotten"],
    ]
    front = page.tables["Pareto front: no other method is as good in RA, FA and bytes, and better in one"]
    assert front[1:] == [
        ["good", "class", "0.700", "0.100", "60.0 KB"],
        ["bad<b>&", "class", "0.600", "0.200", "50.0 KB"],
    ]
    assert page.column("Verdict by method and scenario", "class")["costly"] == "shallow"
    assert "good\nRA 0.700, FA 0.100\nup 60.0 KB in all" in page.charts["class: kept against forgotten"]


def test_a_sweep_has_a_front_and_heat_maps(tmp_path: Path) -> None:
    place = results.sweep(tmp_path / "swept")
    reported(place)
    page = read(place / "report.html")
    # trials 0 and 1 have one layer; RA is .5, .55, .6, .65, FA .2 after the last round
    heat = page.charts["kept data (RA) over layers and sparsity"]
    assert [tip.rpartition(": ")[2] for tip in heat] == ["0.500", "0.550", "0.600", "0.650"]
    assert heat[1].startswith("layers 1, sparsity 0.9")
    front = next(rows for caption, rows in page.tables.items() if "Pareto front" in caption)
    assert [row[:2] for row in front[1:]] == [["2", "0.9"]]  # the last trial before any round: FA 0, 100 bytes
    assert len(page.charts["kept data (RA) by round"]) == 12
    assert "Not finished: 4 of 4 trials" in page.said


def test_a_scaling_study_has_its_points_and_efficiencies(tmp_path: Path) -> None:
    place = results.scaling(tmp_path / "scaled")
    reported(place)
    page = read(place / "report.html")
    efficiency = {tuple(row[:3]): row[-1] for row in page.tables["Efficiency"][1:]}
    assert efficiency["strong", "8", "2"] == "0.80"  # 4 s / (2 x 2.5 s)
    assert efficiency["weak", "8", "2"] == "0.80"  # 2 s / 2.5 s
    assert "8 clients, 2 actors, lenet\n2.5 s (2.5 to 2.5)" in page.charts["Seconds of a round by clients (log scales)"]
    assert (
        "8 / 2 / 1 / lenet: train 50.0%"
        in page.charts["Share of a round's seconds, by clients / actors / nodes / payload"]
    )


def test_several_results_stand_in_one_file(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reported(made, made, results.comparison(tmp_path / "compared"))
    page = read(tmp_path / "report.html")
    metrics = load_run(made).result["metrics"]
    first, _, third = page.tables["All results"][1:]
    assert first[3:5] == [number(metrics["after"]["ra"]), number(metrics["after"]["fa"])]
    assert third[:2] == ["Comparison of 3 method(s)", "comparison"]
    assert page.headings.count("Rounds") == 2
    reported(made, made, "--out", tmp_path / "report.html")  # over an earlier report


def test_what_cannot_be_reported_is_one_line(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, half = tmp_path / "mine.html", shutil.copytree(made, tmp_path / "half")
    mine.write_text("<p>my thesis")
    (half / "result.json").unlink()
    for words, said in (
        ((tmp_path / "none",), f"{tmp_path / 'none'} is no run directory: there is no such folder"),
        ((half,), f"{half} is not finished; continue it with: fused-ray run --resume {half}"),
        ((made, "--out", mine), f"{mine} exists already and is no report; name another file with --out"),
        ((made, "--out", tmp_path / "no" / "x.html"), "cannot be written: No such file or directory"),
        ((made, "--out", "s3://bucket/x.html"), "--out s3://bucket/x.html: name a file of this machine"),
        ((), "Missing argument 'PATH'"),
    ):
        assert ended(*words) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert said in error
    assert mine.read_text() == "<p>my thesis"


def test_a_page_that_cannot_be_made_does_not_lose_the_run(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("no such figure")

    monkeypatch.setattr(pages, "subject", broken)
    told: list[str] = []
    written(load_run(made), load_run(made).result, True, told.append)
    assert told == ["there is no report.html: KeyError: 'no such figure'"]


@pytest.mark.parametrize(
    ("cell", "value"),
    [("0.803 ± 0.010", 0.803), ("1.4 KB", 1400), ("71.1 MB", 71.1e6), ("2,000", 2000), ("12%", 0.12), ("3 min", 180),
     ("-5", -5), ("-", None), ("forgotten", None), ("1e-3", 0.001)],
)  # fmt: skip
def test_cells_are_sorted_by_what_they_are_worth(cell: str, value: float | None) -> None:
    assert worth(cell) == (None if value is None else pytest.approx(value))
