"""Paths, files and folders as people name them in configurations and commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from fused_ray import (
    CompareConfig,
    RunConfig,
    SweepConfig,
)
from fused_ray.config.yaml_text import parsed
from fused_ray.runs.directory import RunDirectory
from fused_ray.studies.comparisons.directory import ComparisonDirectory
from fused_ray.studies.sweeps.directory import SweepDirectory
from tests.brought.commands import COMPARISON, PATHS, RUN, SWEEP, command, one_line, refused

pytestmark = pytest.mark.usefixtures("in_a_folder_of_its_own")


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
