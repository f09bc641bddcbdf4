"""Configurations as people bring them: each works, or is refused in one line that says where and how to mend it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fused_ray import (
    CompareConfig,
    FusedRayError,
    RunConfig,
    SweepConfig,
    load_run,
    load_sweep,
    resume_sweep,
    run,
    sweep,
)
from fused_ray.cli.app import main
from fused_ray.config import describe
from fused_ray.config.yaml_text import dump, parsed, read_yaml
from fused_ray.errors import ConfigError, NumericsError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.start import prepare
from fused_ray.seeding import generator
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.sweeps.config import METRICS
from fused_ray.studies.sweeps.dimension import KINDS, Dimension
from fused_ray.studies.sweeps.directory import SweepDirectory

SWEEP = "base: {data: {limit: 400}, federation: {clients: 4}}\nspace:\n  unlearn.sparsity: {grid: [0.5, 0.9]}\n"
COMPARISON = "methods: [fused]\nscenarios: [class]\nbase: {data: {limit: 400}, federation: {clients: 4}}\n"
RUN = "data: {limit: 400}\nfederation: {clients: 4}\n"


def command(*arguments: object) -> tuple[int, str, str]:
    """A command line as typed: exit code, standard output and standard error."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    return int(str(end.value.code)), out.getvalue(), errors.getvalue()


def one_line(*arguments: object) -> str:
    """What a command is refused with."""
    code, _, errors = command(*arguments)
    lines = errors.splitlines()
    assert code == 2, (arguments, errors)
    assert len(lines) == 1, errors
    assert lines[0].startswith("fused-ray: ")
    assert lines[0].isprintable()
    return lines[0]


def refused(values: Any, *overrides: str) -> str:
    with pytest.raises(FusedRayError) as caught:
        RunConfig.from_dict(values, overrides)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# -- YAML ---------------------------------------------------------------------------------------------------

TWICE = "data: {limit: 400}\nforget: {scenario: client, clients: [1]}\npretrain: {rounds: 2}\nforget: {classes: [0]}\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TWICE, "f.yaml, line 4, column 1: the key forget is there twice, first in line 2"),
        ("train:\n  lr: 1\n  momentum: 0\n  lr: 2\n", "line 4, column 3: the key lr is there twice, first in line 2"),
        ("train: {lr: 1,\n lr: 2}\n", "line 2, column 2: the key lr is there twice, first in line 1"),
        ("model: {args: {a: [{b: 1, b: 2}]}}\n", "the key b is there twice, first in line 1"),
        (
            "train: &a {lr: 1}\n<<: *a\n<<: *a\n",
            "line 3, column 1: the key << is there twice, first in line 2; write <<",
        ),
        ("train:\n\tlr: 1\n", "line 2, column 1: while scanning for the next token found character '\\t'"),
        ("train:\n\tlr: 1\n", "indent with spaces"),
        ("train: {lr: 1\n", "f.yaml, line 2, column 1: "),
        ("train: lr: 1\n", "f.yaml, line 1, column 10: mapping values are not allowed here"),
        ("train: *other\n", "f.yaml, line 1, column 8: found undefined alias 'other'"),
        ("seed: 1\n---\nseed: 2\n", "f.yaml, line 2, column 1: a second document begins here"),
        ("seed: 1\nb: \x07\n", "f.yaml, line 2, column 4: YAML allows no character U+0007"),
        ("- seed\n- 1\n", "f.yaml must hold a mapping of sections such as `data:` and `unlearn:`, and holds a list"),
        (
            "seed\n",
            'f.yaml must hold a mapping of sections such as `data:` and `unlearn:`, and holds one value, "seed"',
        ),
        ("seed: &a [*a]\n", "f.yaml: only plain values can be configured: Circular reference"),
        ("seed: !!python/name:os.system\n", "f.yaml, line 1, column 7: could not determine a constructor"),
        ("seed: " + "[" * 500, "f.yaml is no YAML that can be read: it is nested too deeply"),
        ("seed: " + "9" * 5000, "f.yaml is no YAML that can be read"),
    ],
)
def test_yaml_that_is_wrong_is_told_with_its_place(text: str, said: str) -> None:
    Path("f.yaml").write_text(text, encoding="utf-8")
    assert said in one_line("run", "f.yaml")


def test_twice_on_the_command_line_is_told_too() -> None:
    assert "the key lr is there twice" in one_line("run", "--set", "train={lr: 1, lr: 2}")
    Path("s.yaml").write_text(SWEEP)
    assert "the key grid is there twice" in one_line("plan", "s.yaml", "--set", "space.seed={grid: [1], grid: [2]}")
    Path("b.yaml").write_text("seed: 1\nseed: 2\n")
    assert "b.yaml, line 2, column 1: the key seed" in one_line("plan", "s.yaml", "--set", "base=b.yaml")
    assert refused({"seed": 1, 1: 2, "1": 3}).endswith("two keys are the same when they are written out")


@pytest.mark.parametrize("start", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_what_editors_add_does_no_harm(start: str, end: str, encoding: str) -> None:
    text = start + end.join(["%YAML 1.2", "---", "# é", "train: &t {lr: 0.5}", "unlearn: {<<: *t, rounds: 1}", ""])
    Path("f.yaml").write_bytes(text.encode(encoding))
    config = RunConfig.from_yaml("f.yaml")
    assert (config.train.lr, config.unlearn.lr, config.unlearn.rounds) == (0.5, 0.5, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(("1e-2", 0.01), ("1E5", 1e5), (".5e-3", 0.0005), ("-2e+1", -20.0), ("3.", 3.0), ("1e400", float("inf"))),
        *(("010", 10), ("0x1F", 31), ("0o17", 15), ("1_000", 1000), ("1_0.5", 10.5), ("+3", 3)),
        *(("2024-01-01", "2024-01-01"), ("1:30", "1:30"), ("e5", "e5"), ("'1e-2'", "1e-2"), (".", "."), ("=", "=")),
        *(("~", None), ("", None), ("null", None), ("yes", True), ("off", False), ("n", "n"), ("~/x", "~/x")),
    ],
)
def test_plain_words_are_what_people_take_them_for(text: str, value: Any) -> None:
    found = parsed(f"a: {text}", "here")["a"]
    assert found == value
    assert type(found) is type(value)


@given(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()))
@example({"a": "1e-2", "b": "nULL", "c": "09", "d": "0o17", "e": "no", "f": "<<", "g": "2024-01-01", "1e5": "="})
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_back(values: dict[str, Any]) -> None:
    assert parsed(dump(values), "here") == values


def test_numbers_in_every_place() -> None:
    assert RunConfig.from_dict({}, ["train.lr=1e-2"]).train.lr == 0.01
    both = SweepConfig.from_dict({"space": {}}, ["space.unlearn.lr={grid: [1e-2, 1E-1]}", "ra_margin=1e-3"])
    assert [trial.values["unlearn.lr"] for trial in both.trials] == [0.01, 0.1]
    assert both.ra_margin == 0.001


def test_a_configuration_with_words_like_numbers_goes_on(tmp_path: Path) -> None:
    config = RunConfig.from_dict({"output": {"dir": "1e5"}, "data": {"name": "npz", "root": "2024-01-01"}})
    directory = RunDirectory.create(tmp_path / "run", config)
    assert directory.config == config


# -- sections and keys --------------------------------------------------------------------------------------


def test_an_empty_section_is_its_default() -> None:
    Path("f.yaml").write_text("data:\n  # name: mnist\nmodel: {args: }\nfederation: {clients: 4}\nengine:\n")
    assert RunConfig.from_yaml("f.yaml") == RunConfig.from_dict({"federation": {"clients": 4}})
    assert RunConfig.from_yaml("f.yaml", ["data.alpha=2"]).data.alpha == 2
    Path("s.yaml").write_text("base:\nspace: {unlearn.rounds: {grid: [1, 2]}}\nobjectives:\noutput:\nseeds:\n")
    assert SweepConfig.from_yaml("s.yaml") == SweepConfig.from_dict({"space": {"unlearn.rounds": {"grid": [1, 2]}}})
    Path("c.yaml").write_text("base: {data: }\nmethods: [fused]\nscenarios: [class]\naudit:\noutput:\n")
    assert CompareConfig.from_yaml("c.yaml") == CompareConfig.from_dict({"methods": ["fused"], "scenarios": ["class"]})
    assert RunConfig.from_dict({"train": None}, ["train.lr=1"]).train.lr == 1


def test_an_empty_space_is_none_unless_filled() -> None:
    Path("s.yaml").write_text("base:\nspace:\n")
    assert "space: write a mapping of dotted fields" in one_line("plan", "s.yaml")
    filled = SweepConfig.from_yaml("s.yaml", ["space.seed={grid: [1]}"])
    assert list(filled.space) == ["seed"]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"trian": {"lr": 1}}, "trian: unknown key; did you mean train?"),
        ({"train": {"momentun": 1}}, "train.momentun: unknown key; did you mean momentum?"),
        ({"lr": 1}, "lr: unknown key; did you mean train.lr or"),
        ({"train": {"sparsity": 0.5}}, "train.sparsity: unknown key; did you mean unlearn.sparsity?"),
        ({"train.lr": 1}, "train.lr: unknown key; in a file it is nested, train: {lr: ...};"),
        ({"data": {"partition": "dirichlt"}}, "unknown partition 'dirichlt'; did you mean dirichlet? choose"),
        ({"data": {"name": "fashon-mnist"}}, "unknown data set 'fashon-mnist'; did you mean fashion-mnist"),
        ({"model": {"name": "ResNet-18"}}, "unknown model 'ResNet-18'; did you mean resnet18"),
        ({"unlearn": {"method": "FedErase"}}, "unknown method 'FedErase'; did you mean federaser?"),
        ({"unlearn": {"layers": ["cnv1"]}}, "lenet has no layer 'cnv1'; did you mean conv1?"),
        ({"unlearn": {"method": False}}, "in YAML no, off, yes and on are false and true: put a name in quotes"),
        ({"data": {"label_column": True}}, "put a name in quotes (given: True)"),
        ({"data": ["mnist"]}, "data: write a mapping of its fields"),
        ({"data": "mnist"}, "data: write a mapping of its fields"),
        ({"federation": {"clients": 10**400}}, "federation.clients: input should be less than"),
    ],
)
def test_a_slip_is_told_with_what_was_meant(values: dict[str, Any], said: str) -> None:
    Path("f.yaml").write_text(dump(values))
    line = one_line("run", "f.yaml")
    assert said in line
    assert len(line) < 500


def test_names_that_nothing_resembles_get_no_advice() -> None:
    assert "did you mean" not in refused({"nonsense": 1})
    assert "did you mean" not in refused({"unlearn": {"method": "xyz"}})


def test_slips_in_comparisons_sweeps_and_commands() -> None:
    Path("c.yaml").write_text(COMPARISON)
    Path("s.yaml").write_text(SWEEP)
    for command_line, said in {
        ("compare", "c.yaml", "--set", "methods=[fusde]"): "unknown method 'fusde'; did you mean fused?",
        ("compare", "c.yaml", "--set", "scenarios=[clas]"): "unknown scenario 'clas'; did you mean class?",
        ("compare", "c.yaml", "--set", "methods=[no]"): "methods: write a name, in quotes",
        (
            "compare",
            "--preset",
            "paper-fashon-mnist",
        ): "no preset 'paper-fashon-mnist'; did you mean paper-fashion-mnist",
        ("plan", "s.yaml", "--set", "objectives={rra: max}"): "unknown 'rra'; did you mean ra?",
        ("plan", "s.yaml", "--set", "sampels=3"): "sampels: unknown key; did you mean samples?",
        ("plan", "s.yaml", "--set", "space.seed={gird: [1]}"): "space.seed.gird: unknown key; did you mean grid?",
        ("plan", "s.yaml", "--set", "search=optunna"): "did you mean optuna?",
        ("sweep", "shwo", "runs/sweep"): "no command 'shwo'; did you mean show?",
        ("shwo", "runs/run"): "'show'",
    }.items():
        assert said in one_line(*command_line), command_line


@pytest.mark.parametrize("command_line", ["run", "data", "plan", "sweep", "compare", "sweep start", "run --resume r"])
@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["unlearn.layers", "2"], "unlearn.layers=2"),
        (["unlearn.layers", "=", "2"], "unlearn.layers=2"),
        (["unlearn.layers", "=2"], "unlearn.layers=2"),
        (["unlearn.layers=", "2"], "unlearn.layers=2"),
        (["unlearn.layers:", "2"], "unlearn.layers=2"),
        (["unlearn.layers:2"], "unlearn.layers=2"),
        (["unlearn.layers: 2"], "unlearn.layers=2"),
        (["seed", "-1"], "seed=-1"),
        (["output.dir", "my run"], "'output.dir=my run'"),
        (["seed", "3", "c.yaml"], "seed=3"),
        (["seed", "c.yaml"], "seed=VALUE"),
        (["seed"], "seed=VALUE"),
        (["seed", "--json"], "seed=VALUE"),
        ([""], "KEY=VALUE"),
        (["forget.classes=[0,", "1]"], "'forget.classes=[0, 1]'"),
        (["forget.classes", "[0,", "1]", "c.yaml"], "'forget.classes=[0, 1]'"),
        (["seed=1", "unlearn.layers=2"], "unlearn.layers=2"),
        (["seed=1", "--set", "unlearn.layers", "2"], "unlearn.layers=2"),
    ],
)
def test_a_setting_in_other_words_is_told_as_it_should_be(command_line: str, words: list[str], meant: str) -> None:
    Path("c.yaml").write_text(RUN)
    assert one_line(*command_line.split(), "--set", *words).endswith(f" write --set {meant}")
    assert one_line(*command_line.split(), f"--set={words[0]}", *words[1:]).endswith(f" write --set {meant}")


def test_what_is_a_setting_or_no_setting_is_left_alone() -> None:
    Path("seed=1").write_text(RUN)
    Path("null").write_text(RUN)
    for words in (
        ["seed=1"],
        ["--set", "data.root=", "null"],
        ["--set", "seed =1"],
        ["--set", 'output.dir="a["', "null"],
    ):
        assert command("data", *words)[0] == 0, words
    assert one_line("run", "seed=2").endswith("seed=2 is a setting: write --set seed=2")
    assert "no such folder" in one_line("run", "--resume", "seed=2")
    assert "No such option: --set" in one_line("init", "--set", "seed", "2")
    assert "requires an argument" in one_line("run", "--set")


def test_a_wrong_file_is_answered_without_torch_and_ray() -> None:
    for name, text in (("run.yaml", RUN), ("s.yaml", SWEEP), ("c.yaml", COMPARISON)):
        Path(name).write_text(text + "sed: 1\n")
    program = (
        "import sys\nfrom fused_ray.cli.app import main\n"
        "for given in (['run', 'run.yaml'], ['plan', 's.yaml'], ['sweep', 's.yaml'], ['compare', 'c.yaml']):\n"
        "    try: main(given)\n"
        "    except SystemExit as end: print(end.code, 'torch' in sys.modules, 'ray' in sys.modules)"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, env=environment)
    assert done.stdout.splitlines() == ["2 False False"] * 4, done.stderr
    assert all("did you mean seed" in line for line in done.stderr.splitlines())


# -- paths --------------------------------------------------------------------------------------------------

PATHS = ("data.root", "data.partition_file", "model.weights", "pretrain.from", "output.dir")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    found = tmp_path / "home"
    found.mkdir()
    monkeypatch.setenv("HOME", str(found))
    return found


@pytest.mark.parametrize("key", PATHS)
def test_a_tilde_is_the_home_folder_in_every_path(home: Path, key: str) -> None:
    others = ["data.partition=file"] if key == "data.partition_file" else []
    config = RunConfig.from_dict({}, [f"{key}=~/here", *others]).model_dump(by_alias=True)
    section, name = key.split(".")
    assert config[section][name] == str(home / "here")
    assert "is not known here" in refused({}, f"{key}=~nobody-of-that-name/x", *others)
    for value, said in (("a\0b", "NUL"), ("", "the path is empty"), ("\ud800", "cannot have such characters")):
        message = refused({section: {name: value}}, *others)
        assert message.startswith(f"{key}: ")
        assert said in message


def test_a_tilde_in_sweeps_comparisons_and_arguments(home: Path) -> None:
    (home / "run.yaml").write_text(RUN)
    for name, text in (("s.yaml", SWEEP), ("c.yaml", COMPARISON)):
        (home / name).write_text(text)
    swept = SweepConfig.from_yaml("~/s.yaml", ["base=~/run.yaml", "output.store=~/store", "output.dir=~/sweep"])
    assert swept.base.federation.clients == 4
    assert (swept.store, swept.output.dir) == (home / "store", str(home / "sweep"))
    compared = CompareConfig.from_yaml("~/c.yaml", ["base=~/run.yaml", "output.dir=~/comparison"])
    assert compared.base.federation.clients == 4
    assert compared.cells[0].base.output.dir == str(home / "comparison/bases/class-0")
    assert RunConfig.from_yaml("~/run.yaml").data.limit == 400
    directory = RunDirectory.create("~/runs/a", RunConfig.from_yaml("~/run.yaml"))
    assert directory.path == home / "runs/a"
    assert "is not finished" in command("show", "~/runs/a")[1]
    assert "is not finished" in one_line("restore", "~/runs/a")
    assert command("init", "~/all.yaml")[0] == 0
    assert RunConfig.from_yaml(home / "all.yaml") == RunConfig()
    assert "no such folder" in one_line("run", "--resume", "~/nowhere")
    assert sorted(Path().iterdir()) == [Path("home")]


# -- kinds of files and folders -----------------------------------------------------------------------------

WANTED = {
    "run.yaml": "fused-ray run run.yaml",
    "s.yaml": "fused-ray sweep s.yaml",
    "c.yaml": "fused-ray compare c.yaml",
}


@pytest.mark.parametrize(
    ("command_name", "file"),
    [
        *(("run", "s.yaml"), ("run", "c.yaml"), ("data", "s.yaml"), ("plan", "run.yaml"), ("plan", "c.yaml")),
        *(("sweep", "run.yaml"), ("sweep", "c.yaml"), ("compare", "run.yaml"), ("compare", "s.yaml")),
    ],
)
def test_a_file_of_another_kind_names_its_command(command_name: str, file: str) -> None:
    for name, text in (("run.yaml", RUN), ("s.yaml", SWEEP), ("c.yaml", COMPARISON)):
        Path(name).write_text(text)
    assert one_line(command_name, file).endswith(WANTED[file])
    if command_name in ("plan", "compare"):
        own = {"plan": "s.yaml", "compare": "c.yaml"}[command_name]
        if file != "run.yaml":
            assert one_line(command_name, own, "--set", f"base={file}").endswith(WANTED[file])


def test_show_knows_all_kinds_of_folders_and_others_name_them() -> None:
    RunDirectory.create("run", RunConfig())
    SweepDirectory.create("sweep", SweepConfig.from_dict(parsed(SWEEP, "")))
    ComparisonDirectory.create("comparison", CompareConfig.from_dict(parsed(COMPARISON, "")))
    for kind, name in (("run", "run"), ("sweep", "sweep"), ("comparison", "compare")):
        code, out, _ = command("show", kind)
        assert code == 0
        assert f"continue it with: fused-ray {name} --resume {Path(kind).absolute()}" in out
        for other in {"run", "sweep", "compare"} - {name}:
            line = one_line(other, "--resume", kind)
            assert f"but of a {kind}: fused-ray show {kind}, or to go on with it, fused-ray {name} --resume" in line
    assert "sweep is no run directory of this version, but of a sweep" in one_line("apply", "sweep", "--out", "m")


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


# -- more samples -------------------------------------------------------------------------------------------

DRAWN: dict[str, Any] = {
    "base": {
        "data": {"limit": 200},
        "federation": {"clients": 2},
        "pretrain": {"rounds": 1},
        "unlearn": {"rounds": 1, "layers": ["fc3"]},
        "retrain": {"rounds": 0},
        "engine": {"backend": "local"},
        "audit": {"enabled": False},
    },
    "space": {"unlearn.sparsity": {"quniform": [0.01, 0.99, 0.01]}},
    "search": "random",
    "samples": 2,
    "output": {"dir": "sweep", "plots": False},
}


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


# -- a second request ---------------------------------------------------------------------------------------

TINY = [
    *("data.limit=200", "data.alpha=5", "federation.clients=3", "train.lr=5e-2", "pretrain.rounds=1"),
    *(
        "retrain.rounds=0",
        "unlearn.layers=[fc3]",
        "unlearn.rounds=1",
        "engine.backend=local",
        "audit.enabled=false",
        "output.plots=false",
    ),
]
QUICK = [
    *("unlearn.layers=[fc3]", "unlearn.rounds=0", "retrain.rounds=0", "engine.backend=local"),
    *("audit.enabled=false", "output.plots=false"),
]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("first") / "run"
    run(RunConfig.from_dict({}, [*TINY, f"output.dir={path}"]))
    return path


@pytest.fixture(scope="module")
def poisoned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("poisoned") / "run"
    run(RunConfig.from_dict({}, [*TINY, "forget.scenario=client", "forget.clients=[1]", f"output.dir={path}"]))
    return path


def test_a_second_request_takes_over_what_the_model_was_made_with(first: Path) -> None:
    config = RunConfig.from_dict({"pretrain": {"from": str(first)}, "forget": {"classes": [3]}, "train": None}, QUICK)
    was = load_run(first).config
    assert (config.seed, config.data, config.model, config.train) == (was.seed, was.data, was.model, was.train)
    assert (config.federation.clients, config.pretrain.rounds) == (3, 1)
    assert (config.forget_classes, config.output.dir, config.engine.backend) == ((3,), "runs/run", "local")
    assert config.pretrain_key() == was.pretrain_key()
    result = run(config)
    assert result["hash"]["base"] == load_run(first).result["hash"]["base"]
    moved = first.parent / "moved"
    first.rename(moved)  # what was written stands alone
    try:
        assert load_run("runs/run").config == config
        assert read_yaml("runs/run/config.yaml")["federation"]["clients"] == 3
    finally:
        moved.rename(first)


def test_what_the_command_line_and_data_show_is_the_first_runs(first: Path) -> None:
    assert RunConfig.from_dict({}, [f"pretrain.from={first}"]).federation.clients == 3
    shown = command("data", "--set", f"pretrain.from={first}")[1]
    assert load_run(first).result["partition_sha256"] in shown


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["federation.clients=4"], "federation.clients (3 there, 4 here)"),
        (["data.alpha=1", "seed=2"], "seed (0 there, 2 here), data.alpha (5.0 there, 1.0 here)"),
        (["data.limit=null"], "data.limit (200 there, unset here)"),
        (["model.name=resnet18", "unlearn.layers=[fc]"], "model.name (lenet there, resnet18 here)"),
        (["pretrain.rounds=2"], "pretrain.rounds (1 there, 2 here)"),
        (["train.lr=0.1", "data.augment=flip"], "data.augment (none there, flip here), train.lr (0.05 there, 0.1"),
        (["forget.scenario=exclusive"], "forget.scenario (class there, exclusive here)"),
        (["forget.scenario=client"], "(class there, client with poison here); leave these out to take them over, set"),
        (
            ["train.lr=0.1", "forget.scenario=client", "forget.poison=false", "unlearn.method=eraseclient"],
            "eraseclient goes back over pre-training, and cannot change train.lr (0.05 there, 0.1 here)",
        ),
    ],
)  # fmt: skip
def test_what_would_be_another_model_is_refused(first: Path, changes: list[str], said: str) -> None:
    fields = [part for change in (*QUICK, f"pretrain.from={first}", *changes) for part in ("--set", change)]
    line = one_line("run", *fields)
    assert line.startswith("fused-ray: pretrain.from: ")
    assert said in line
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    "changes",
    [
        ["forget.scenario=client", "forget.poison=false", "forget.clients=[2]"],
        ["forget.scenario=sample", "forget.poison=false"],
        ["train.lr=0.1"],
    ],
)
def test_another_request_is_the_very_point(first: Path, changes: list[str]) -> None:
    prepare(RunConfig.from_dict({}, [f"pretrain.from={first}", *QUICK, *changes]))


def test_training_that_differs_is_said(first: Path) -> None:
    heard: list[str] = []
    config = RunConfig.from_dict({}, [f"pretrain.from={first}", *QUICK, "train.lr=0.1"])
    run(config, listener=lambda progress: heard.extend(progress.notes))
    assert f"the model of {first} was trained with other settings: train.lr (0.05 there, 0.1 here)" in heard


def test_poison_belongs_to_the_model(poisoned: Path) -> None:
    from_it = f"pretrain.from={poisoned}"
    again = RunConfig.from_dict({}, [from_it, *QUICK, "unlearn.method=finetune"])
    assert (again.forget.scenario, again.forget.clients) == ("client", (1,))
    prepare(again)
    for changes, said in {
        ("forget.scenario=class",): "forget.scenario (client with poison there, class here)",
        ("forget.clients=[0]",): "forget.clients ([1] there, [0] here)",
        ("forget.poison=false",): "forget.scenario (client with poison there, client here)",
        (
            "forget.scenario=sample",
            "forget.examples=[3]",
        ): "forget.scenario (client with poison there, sample with poison",
    }.items():
        with pytest.raises(ConfigError) as caught:
            prepare(RunConfig.from_dict({}, [from_it, *QUICK, *changes]))
        assert said in str(caught.value)


def test_data_that_changed_under_the_model_are_noticed(first: Path, tmp_path: Path) -> None:
    """The key says what the data held when the model was trained, wherever they lie now."""
    earlier = tmp_path / "earlier"
    shutil.copytree(first, earlier)
    own, moved = tmp_path / "own", tmp_path / "moved"
    own.mkdir()
    for part in ("train", "test"):
        (own / f"{part}.parquet").write_bytes(part.encode())
    config = RunConfig.from_dict({"data": {"name": "parquet", "root": str(own)}, "retrain": {"rounds": 0}})
    (earlier / "config.yaml").write_text(config.to_yaml())
    result = json.loads((earlier / "result.json").read_text()) | {"pretrain_key": config.pretrain_key()}
    (earlier / "result.json").write_text(json.dumps(result))
    from fused_ray.runs.earlier import check_earlier

    second = RunConfig.from_dict({"pretrain": {"from": str(earlier)}})
    assert check_earlier(second) == []
    own.rename(moved)
    assert check_earlier(RunConfig.from_dict({"pretrain": {"from": str(earlier)}, "data": {"root": str(moved)}})) == []
    moved.rename(own)
    (own / "train.parquet").write_bytes(b"other")
    with pytest.raises(ConfigError, match="was trained on is not what its data and model sections name now"):
        check_earlier(second)


def test_a_model_made_on_another_kind_of_machine_is_said(first: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(first, other)
    result = json.loads((other / "result.json").read_text())
    result["numerics"]["fingerprints"] = ["0" * 64]
    (other / "result.json").write_text(json.dumps(result))
    heard: list[str] = []
    fields = [f"pretrain.from={other}", *QUICK]
    run(RunConfig.from_dict({}, fields), listener=lambda progress: heard.extend(progress.notes))
    assert any("floating point gives other bits than this run's" in note for note in heard)
    with pytest.raises(NumericsError, match="use the same kind of machine"):
        run(RunConfig.from_dict({}, [*fields, "engine.numerics=strict", "output.dir=strict"]))


def test_what_is_no_finished_run_is_refused(tmp_path: Path) -> None:
    SweepDirectory.create("sweep", SweepConfig.from_dict(DRAWN))
    assert "sweep is no run directory of this version, but of a sweep" in one_line(
        "run", "--set", "pretrain.from=sweep"
    )
    RunDirectory.create("begun", RunConfig())
    assert "begun has not finished pre-training" in one_line("run", "--set", "pretrain.from=begun")
    Path("begun/config.yaml").write_text("seed: 1\nseed: 2\n")
    assert "config.yaml, line 2, column 1: the key seed" in one_line("run", "--set", "pretrain.from=begun")
    for text in (SWEEP, COMPARISON):
        Path("f.yaml").write_text(text)
        kind = "sweep" if text == SWEEP else "compare"
        assert "base.pretrain.from: " in one_line(kind, "f.yaml", "--set", "base.pretrain.from=begun")


# -- whatever one writes ------------------------------------------------------------------------------------

FIELDS = {key: kind for key, kind, *_ in describe()}
WORDS = [
    *("auto", "fc1", "all", "class", "client", "sample", "exclusive", "fused", "federaser", "retrain", "reset", "lora"),
    *("resnet18", "mnist", "npz", "optuna", "random", "asha", "~/x", "~nobody/x", "s3://b/x", "no", "1e-2", "a\0b"),
    *("\ud800", "\x1b[31m", "[/red]", "猫", "a\nb", "x" * 300, ""),
]
NUMBERS = [0, 1, 2, 3, 5, 10, 50, -1, 2**70, 10**400, 0.0, 0.5, 1.0, 1e-2, 0.99, 1e308, float("inf"), float("nan")]
PLAIN = st.sampled_from([*WORDS, *NUMBERS, None, True, False, [0], [1, 0], [1, 1], ["fc3"], [], {}, {"a": 1}])
JUNK = PLAIN | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
SLIPS = st.sampled_from(["unlearn.layer", "lr", "data", "", ".", "unlearn.lr.x", "train", "unlearn"])


def rarely(strange: st.SearchStrategy[Any], usual: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly the second: what has one mistake gets further than what has ten."""
    return st.integers(0, 11).flatmap(lambda chance: strange if chance == 7 else usual)


def values_of(key: str) -> st.SearchStrategy[Any]:
    """What a field may be set to, and rarely anything."""
    kind = FIELDS[key]
    words = [word for word in re.findall(r"[\w-]+", kind) if word not in ("int", "float", "str", "list", "of", "bool")]
    usual = [None if word == "null" else word for word in words if word != "mapping"]
    usual += [1, 2, 3] * ("int" in kind) + [0.1, 0.5, 1e-2] * ("float" in kind) + [True, "no"] * ("bool" in kind)
    usual += [[0], [1, 0]] * ("list of int" in kind) + [["fc3"], ["fc1", "conv2"]] * ("list of str" in kind)
    usual += {"data.name": ["mnist", "npz"], "model.name": ["simplevit"], "unlearn.method": ["finetune", "puf"]}.get(
        key, []
    )
    usual += ["~/here"] * (key in PATHS) + [{"patch": 7}] * ("mapping" in kind)
    return rarely(JUNK, st.sampled_from(usual or ["word"]))


FIELD = rarely(SLIPS, st.sampled_from(sorted(FIELDS)))
SETTINGS = st.lists(FIELD, max_size=4, unique=True).flatmap(
    lambda keys: st.fixed_dictionaries({key: values_of(key) if key in FIELDS else JUNK for key in keys})
)


def nest(fields: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in fields.items():
        section, _, name = key.partition(".")
        if name and isinstance(found.setdefault(section, {}), dict):
            found[section][name] = value
        else:
            found[section] = value
    return found


RUNS = SETTINGS.map(nest)
BASES = rarely(JUNK, RUNS)
LISTED = FIELD.flatmap(
    lambda key: st.tuples(
        st.just(key),
        rarely(st.just("gird"), st.sampled_from(["grid", "choice"])),
        st.lists(values_of(key) if key in FIELDS else JUNK, min_size=1, max_size=3, unique_by=repr),
    )
)
RANGED = st.tuples(
    st.sampled_from([key for key, kind in FIELDS.items() if "int" in kind or "float" in kind]),
    st.sampled_from([kind for kind in KINDS if kind not in ("grid", "choice")]),
    st.sampled_from([[1, 4], [0.1, 0.9], [1, 6, 2], [0.1, 0.9, 0.2], [0.01, 0.02], [3, 1], [0, 1]]),
)
SPACES = st.lists(rarely(RANGED, LISTED) | RANGED, min_size=1, max_size=3).map(
    lambda found: {key: {kind: values} for key, kind, values in found}
)
SWEEPS = st.fixed_dictionaries(
    {"space": rarely(JUNK, SPACES)},
    optional={
        "base": BASES,
        "search": rarely(JUNK, st.sampled_from(["grid", "random", "optuna"])),
        "samples": rarely(JUNK, st.integers(1, 9)),
        "seeds": rarely(JUNK, st.just([0, 1])),
        "objectives": rarely(JUNK, st.dictionaries(st.sampled_from([*METRICS, "x"]), st.sampled_from(["max", "min"]))),
        "scheduler": rarely(JUNK, st.just("none")),
        "max_trials": rarely(JUNK, st.integers(5, 2000)),
        "output": rarely(JUNK, st.just({"dir": "~/s", "store": None})),
    },
)


def entries(*names: str) -> st.SearchStrategy[Any]:
    described = st.fixed_dictionaries(
        {"label": rarely(JUNK, st.sampled_from(["a", "b"])), "set": rarely(JUNK, SETTINGS)}
    )
    return rarely(
        JUNK, st.lists(rarely(JUNK, st.sampled_from(names) | described), min_size=1, max_size=3, unique_by=repr)
    )


COMPARISONS = st.fixed_dictionaries(
    {"methods": entries("fused", "retrain", "federaser", "nto"), "scenarios": entries("class", "client", "exclusive")},
    optional={
        "base": BASES,
        "seeds": rarely(JUNK, st.just([0, 1])),
        "audit": rarely(JUNK, st.just({"shadows": 1})),
        "output": rarely(JUNK, st.just({"dir": "~/c"})),
        "quick": rarely(JUNK, SETTINGS),
    },
)


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, bytes, list[str]]:
    """A kind of file, its content, and overrides."""
    kind = draw(st.sampled_from(["run", "sweep", "compare"]))
    text = dump(draw({"run": RUNS, "sweep": SWEEPS, "compare": COMPARISONS}[kind]))
    change = draw(rarely(st.sampled_from(["tab", "again", "cut", "end", "word", "text", "bytes"]), st.just("")))
    place = draw(st.integers(0, max(0, len(text) - 1)))
    lines = text.splitlines(keepends=True)
    content = {
        "tab": text[:place] + "\t" + text[place:],
        "again": text + (lines[place % len(lines)] if lines else ""),
        "cut": text[:place],
        "end": "\ufeff" + text.replace("\n", "\r\n"),
        "word": text[:place]
        + draw(st.sampled_from(["{", "]", ": ", "*a", "&a ", "<<: ", "---\n", "!", "%"]))
        + text[place:],
        "text": draw(st.text(max_size=40)),
    }.get(change, text).encode("utf-8", "surrogatepass")
    if change == "bytes":
        content = draw(st.binary(max_size=40))
    override = SETTINGS.map(lambda fields: [f"{key}={json.dumps(value)}" for key, value in fields.items()])
    return kind, content, draw(st.just([]) | override | rarely(st.lists(st.text(max_size=12), max_size=2), st.just([])))


def tried(kind: str, content: bytes, overrides: list[str]) -> None:
    """A run's or a comparison's file is checked, a sweep's also planned: it works or ends with one line and code 2."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"{kind}.yaml"
        file.write_bytes(content)
        sets = [part for override in overrides for part in ("--set", override)]
        if kind == "sweep":
            code, out, errors = command("plan", file, "--no-time", *sets)
            assert code in (0, 2), errors
            if code == 0:
                assert out
                return
            assert len(errors.splitlines()) == 1, errors
            assert errors.startswith("fused-ray: ")
            return
        try:
            {"run": RunConfig, "compare": CompareConfig}[kind].from_yaml(file, overrides)
        except FusedRayError:
            assert len(one_line(kind, file, *sets)) > len("fused-ray: ")
            assert os.listdir(folder) == [file.name]


TRY = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@given(documents())
@settings(max_examples=100, **TRY)
def test_whatever_is_written_works_or_is_refused_in_one_line(document: tuple[str, bytes, list[str]]) -> None:
    tried(*document)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@given(documents())
@settings(max_examples=2000, **TRY)
def test_two_thousand_of_them(document: tuple[str, bytes, list[str]]) -> None:
    tried(*document)
