"""Fields may still be called by older names, wherever a field may be named; whoever does is told the present one."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fused_ray import CompareConfig, RunConfig, SweepConfig
from fused_ray.config import FederationConfig
from fused_ray.config.older_names import OldName
from fused_ray.errors import ConfigError
from fused_ray.runs.directory import RunDirectory
from fused_ray.runs.start import prepare_resume
from fused_ray.studies.start import changed

OLD, NEW = (
    ("federation.cpus_per_client", "federation.gpus_per_client"),
    ("federation.actor_cpus", "federation.actor_gpus"),
)
NOTE = r"federation\.cpus_per_client is called federation\.actor_cpus now$"
KEYS = (
    "a75adad00c547d64ea3726407118001c7384c32a3caa1221b8ea86f0144b4dda",
    "9ee0e7f25d16c90529d6fcc1cb5838c08d5fca1741a7b364675de70a268f48f9",
)
"""Of the default configuration, as they were before the names changed."""
SEEDS: dict[str, Any] = {"seeds": [0], "space": {}}
STUDY: dict[str, Any] = {"methods": ["fused"], "scenarios": ["class"]}


def yaml_file(values: str) -> Callable[[Path], RunConfig]:
    def read(folder: Path) -> RunConfig:
        (folder / "c.yaml").write_text(values)
        return RunConfig.from_yaml(folder / "c.yaml")

    return read


@pytest.mark.parametrize(
    "make",
    [
        yaml_file("federation: {cpus_per_client: 0.5}"),
        lambda _: RunConfig.from_dict({"federation": {"cpus_per_client": 0.5}}),
        lambda _: RunConfig.from_dict({"federation": {"cpus_per_client": 0.5}}, preset="paper"),
        lambda _: RunConfig.from_dict({}, ["federation.cpus_per_client=0.5"]),
        lambda _: RunConfig(federation={"cpus_per_client": 0.5}),
        lambda _: RunConfig(federation=FederationConfig(cpus_per_client=0.5)),
        lambda _: CompareConfig.from_dict(STUDY | {"base": {"federation": {"cpus_per_client": 0.5}}}).base,
        lambda _: CompareConfig.from_dict(STUDY, ["base.federation.cpus_per_client=0.5"]).base,
        lambda _: CompareConfig.from_dict(STUDY | {"quick": {"base.federation.cpus_per_client": 0.5}}, quick=True).base,
        lambda _: (
            CompareConfig.from_dict(
                STUDY | {"scenarios": [{"label": "class", "set": {"federation.cpus_per_client": 0.5}}]}
            ).cells[0].base
        ),
        lambda _: SweepConfig.from_dict(SEEDS | {"base": {"federation": {"cpus_per_client": 0.5}}}).base,
        lambda _: SweepConfig.from_dict(SEEDS, ["base.federation.cpus_per_client=0.5"]).base,
    ],
)  # fmt: skip
def test_an_older_name_does_what_the_present_one_does(make: Callable[[Path], RunConfig], tmp_path: Path) -> None:
    with pytest.warns(OldName, match=r"federation\.cpus_per_client is called (\w+\.)*federation\.actor_cpus now$"):
        federation = make(tmp_path).federation
    assert (federation.actor_cpus, federation.actor_gpus) == (0.5, "auto")


@pytest.mark.parametrize("names", [OLD, NEW])
def test_the_present_names_alone_are_written(names: tuple[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OldName)
        config = RunConfig.from_dict({}, [f"{names[0]}=2", f"{names[1]}=0.25"])
    assert "actor_cpus: 2.0\n  actor_gpus: 0.25\n" in config.to_yaml()
    assert "per_client: auto" not in config.to_yaml()


def test_present_names_are_taken_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RunConfig.from_dict({"federation": {"actor_cpus": 2}}, ["federation.actor_gpus=0"])


@pytest.mark.filterwarnings("ignore::fused_ray.config.older_names.OldName")
def test_both_names_may_say_the_same_but_not_two_things() -> None:
    same = {"federation": {"cpus_per_client": 2, "actor_cpus": 2}}
    assert RunConfig.from_dict(same).federation.actor_cpus == 2
    with pytest.raises(ConfigError) as error:
        RunConfig.from_dict({"federation": {"gpus_per_client": 1, "actor_gpus": 0.5}}, source="c.yaml")
    assert str(error.value) == (
        "c.yaml: federation.actor_gpus: it is 0.5, and 1 by its older name gpus_per_client; leave one out"
    )


@pytest.mark.filterwarnings("ignore::fused_ray.config.older_names.OldName")
def test_what_is_said_later_wins_by_whichever_name() -> None:
    for file, line in ((OLD[0], NEW[0]), (NEW[0], OLD[0])):
        values = {"federation": {file.partition(".")[2]: 2}}
        assert RunConfig.from_dict(values, [f"{line}=3"]).federation.actor_cpus == 3


@pytest.mark.filterwarnings("ignore::fused_ray.config.older_names.OldName")
def test_names_change_no_key() -> None:
    keys = {
        (c.pretrain_key(), c.retrain_key())
        for c in (RunConfig(), *(RunConfig.from_dict({}, [f"{name}=1"]) for name in (*OLD, *NEW)))
    }
    assert keys == {KEYS}


def test_a_run_of_older_names_goes_on_without_a_word(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", RunConfig())
    written = directory.path / "config.yaml"
    text = (
        written.read_text().replace("actor_cpus: auto", "cpus_per_client: 0.5").replace("actor_gpus", "gpus_per_client")
    )
    written.write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _, config = prepare_resume(directory.path)
        assert (config.federation.actor_cpus, config.federation.actor_gpus) == (0.5, "auto")
        assert prepare_resume(directory.path, ["federation.actor_cpus=1"])[1].federation.actor_cpus == 1
    with pytest.warns(OldName, match=NOTE):
        assert prepare_resume(directory.path, ["federation.cpus_per_client=1"])[1].federation.actor_cpus == 1


@pytest.mark.filterwarnings("ignore::fused_ray.config.older_names.OldName")
def test_no_dimension_of_a_sweep_by_either_name() -> None:
    for name in (OLD[0], NEW[0]):
        with pytest.raises(ConfigError, match=r"set base\.federation\.actor_cpus$"):
            SweepConfig.from_dict({"space": {name: {"grid": [1, 2]}}})


def test_the_command_line_shows_it_as_a_note() -> None:
    words = ("run", "--set", "federation.cpus_per_client=0.5", "--set", "federation.clients=0")
    done = subprocess.run([sys.executable, "-m", "fused_ray", *words], capture_output=True, text=True)
    note, error = done.stderr.splitlines()
    assert note == "note: federation.cpus_per_client is called federation.actor_cpus now"
    assert error.startswith("fused-ray: federation.clients: ")


def test_a_study_goes_on_under_an_older_name_with_a_note() -> None:
    started = CompareConfig.from_dict({"methods": ["fused"], "scenarios": ["class"]})
    with pytest.warns(OldName, match="base.federation.cpus_per_client is called base.federation.actor_cpus now"):
        config = changed(started, ["base.federation.cpus_per_client=0.5"], (), "comparison")
    assert config.base.federation.actor_cpus == 0.5
    with pytest.raises(ConfigError, match="goes on with the configuration"):
        changed(started, ["base.federation.clients=5"], (), "comparison")
