"""Configurations as people bring them: each works, or is refused in one line that says where and how to mend it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fused_ray import (
    CompareConfig,
    RunConfig,
    SweepConfig,
)
from fused_ray.config.yaml_text import dump, parsed
from fused_ray.runs.directory import RunDirectory
from tests.brought.commands import COMPARISON, RUN, SWEEP, command, one_line, refused

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


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
