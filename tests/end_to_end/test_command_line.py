"""The command line as a user meets it: every mistake is one line and exit code 2, and nothing is overwritten."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import load_file, save_file

from fused_ray import FusedRayError, RunConfig, load_run, run
from tests.brought.commands import command

SMALL = [
    "engine.backend=local",
    "federation.clients=4",
    "data.limit=400",
    "pretrain.rounds=2",
    "unlearn.rounds=2",
    "unlearn.selection=critical",
    "unlearn.mask=random",
    "output.plots=false",
]


def fused_ray(*arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fused_ray", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def fields(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 2, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("fused-ray: ")
    return lines[0]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "small"
    run(RunConfig.from_dict({}, [*SMALL, f"output.dir={path}"]))
    return path


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("unlearn.layers=9", "unlearn.layers"),
        ("unlearn.layers=[fc9]", "fc9"),
        ("unlearn.sparsity=1.5", "unlearn.sparsity"),
        ("train.lr=fast", "train.lr"),
        ("trian.lr=0.1", "trian"),
        ("forget.classes=[12]", "class 12"),
        ("forget.classes=[0,1,2,3,4,5,6,7,8,9]", "nothing to remember"),
        ("forget.clients=[99]", "forget.clients"),
        ("forget.scenario=half", "forget.scenario"),
        ("data.name=imagenet", "imagenet"),
        ("data.root=/nowhere", "data.root"),
        ("pretrain.from=/nowhere", "pretrain.from"),
        ("federation.clients=5000", "federation.clients"),
        ("seed=-1", "seed"),
        ("nonsense", "nonsense"),
    ],
)
def test_a_wrong_setting_is_one_line_within_two_seconds(tmp_path: Path, setting: str, named: str) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = fused_ray("run", *fields(f"output.dir={tmp_path / 'run'}", setting))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert named in one_line(done)
    assert not (tmp_path / "run").exists()
    # processor seconds: what the answer takes on an idle machine, whatever else this one is doing
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_reset_of_two_whole_layers_is_refused(tmp_path: Path) -> None:
    reset = fields("unlearn.start=reset", "unlearn.sparsity=0", "unlearn.layers=2", f"output.dir={tmp_path / 'r'}")
    assert "no gradient" in one_line(fused_ray("run", *reset))


def test_an_existing_folder_is_left_alone(tmp_path: Path, finished: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    for extra in ([], ["--overwrite"]):
        line = one_line(fused_ray("run", *fields(*SMALL, f"output.dir={tmp_path / 'mine'}"), *extra))
        assert "mine" in line
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    before = (finished / "result.json").read_bytes()
    assert "--overwrite" in one_line(fused_ray("run", *fields(*SMALL, f"output.dir={finished}")))
    assert (finished / "result.json").read_bytes() == before


def test_a_run_is_not_replaced_by_one_that_begins_with_it(finished: Path) -> None:
    before = (finished / "result.json").read_bytes()
    for extra in ([], ["--overwrite"]):
        line = one_line(
            fused_ray("run", *fields(*SMALL, f"pretrain.from={finished}", f"output.dir={finished}"), *extra)
        )
        assert "pretrain.from" in line
    assert (finished / "result.json").read_bytes() == before


def test_a_run_is_replaced_whole(tmp_path: Path) -> None:
    place = f"output.dir={tmp_path / 'run'}"
    for seed in (0, 1):
        run(RunConfig.from_dict({}, [*SMALL, place, f"seed={seed}"]), overwrite=True)
        assert load_run(tmp_path / "run").config.seed == seed
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("command", ["show", "restore", "run --resume"])
def test_what_is_no_run_directory_is_refused(tmp_path: Path, command: str) -> None:
    assert "no such folder" in one_line(fused_ray(*command.split(), tmp_path / "none"))
    (tmp_path / "other").mkdir()
    assert "no run directory" in one_line(fused_ray(*command.split(), tmp_path / "other"))


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = fused_ray("run", "--debug", *fields("seed=-1"))
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_a_loss_that_is_not_finite_names_client_and_round(tmp_path: Path) -> None:
    done = fused_ray("run", *fields(*SMALL, "train.lr=900", f"output.dir={tmp_path / 'run'}"))
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert "client 0, pretrain round 1" in line
    assert "learning rate" in line


def test_json_is_the_last_thing_on_standard_output(finished: Path) -> None:
    done = fused_ray("show", finished, "--json")
    assert json.loads(done.stdout) == load_run(finished).result


def test_result_and_tables_have_what_is_promised(finished: Path) -> None:
    result = load_run(finished).result
    for name in ("before", "after", "retrained"):
        assert {"ra", "fa"} <= set(result["metrics"][name])
    assert isinstance(result["vacuous"], bool)
    assert len(result["layers"]["ranking"]) == 5
    assert result["hash"]["base"] == result["hash"]["restored"] != result["hash"]["unlearned"]
    rounds = pq.read_table(finished / "rounds.parquet").to_pylist()
    assert [(r["phase"], r["round"]) for r in rounds] == [
        ("pretrain", 1), ("pretrain", 2), ("rank", 1), ("unlearn", 1), ("unlearn", 2), ("retrain", 1), ("retrain", 2),
    ]  # fmt: skip
    clients = pq.read_table(finished / "clients.parquet").to_pylist()
    assert len(clients) == 7 * 4
    assert all(row["values_changed"] > 0 for row in clients if row["phase"] == "unlearn")
    upload = sum(row["bytes_up"] for row in clients if row["phase"] == "unlearn" and row["round"] == 1)
    assert upload == next(r["bytes_up"] for r in rounds if r["phase"] == "unlearn")


def test_apply_and_restore_in_fresh_processes(finished: Path, tmp_path: Path) -> None:
    hashes = load_run(finished).result["hash"]
    applied = fused_ray("apply", finished, "--out", tmp_path / "forgot.safetensors")
    assert hashes["unlearned"] in applied.stdout
    restored = fused_ray("restore", finished, "--out", tmp_path / "back.safetensors")
    assert hashes["base"] in restored.stdout
    base, forgot = load_file(finished / "base.safetensors"), load_file(tmp_path / "forgot.safetensors")
    back = load_file(tmp_path / "back.safetensors")
    assert all(base[name].tobytes() == back[name].tobytes() for name in base)
    changed = [name for name in base if base[name].tobytes() != forgot[name].tobytes()]
    chosen = load_run(finished).result["layers"]["chosen"]
    assert {name.rpartition(".")[0] for name in changed} == set(chosen)


def test_a_cleaned_run_does_all_that_it_did_before(finished: Path, tmp_path: Path) -> None:
    run_, model = Path(shutil.copytree(finished, tmp_path / "run")), tmp_path / "model.safetensors"
    hashes, before = load_run(run_).result["hash"], load_run(run_).result

    def said(*words: object) -> str:
        code, out, errors = command(*words)
        assert code == 0, errors
        return out

    shown = said("show", run_)
    files = {path: path.stat().st_size for path in run_.rglob("*") if path.is_file()}
    told = said("clean", run_, "--delete").splitlines()[-1]
    gone = {path.relative_to(run_).as_posix(): size for path, size in files.items() if not path.exists()}
    assert {*gone} == {f"checkpoints/{phase}.safetensors" for phase in ("pretrain", "unlearn", "retrain")}
    assert told == f"freed {sum(gone.values()) / 1000:.1f} KB"
    assert said("show", run_) == shown
    assert hashes["unlearned"] in said("apply", run_, "--out", model)
    assert hashes["base"] in said("restore", run_)
    assert "report.html" in said("report", run_)
    assert "the same bits" in said("diff", finished, run_)
    assert json.loads(said("run", "--resume", run_, "--json")) == before
    few = fields("audit.relearn_steps=2", "audit.relearn_repeats=1")
    judged = json.loads(said("audit", run_, *few, "--json"))
    assert judged["verdict"]
    assert judged["hash"] == hashes


def test_a_changed_model_file_is_noticed(finished: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    state = load_file(copy / "base.safetensors")
    state["fc3.bias"] = state["fc3.bias"] + np.float32(1)
    save_file(state, copy / "base.safetensors")
    for words in (["restore", copy], ["apply", copy, "--out", tmp_path / "m.safetensors"]):
        one_line(fused_ray(*words))


def test_a_second_request_takes_the_model_of_an_earlier_run(finished: Path, tmp_path: Path) -> None:
    changes = [
        f"output.dir={tmp_path / 'second'}",
        f"pretrain.from={finished}",
        "forget.classes=[3]",
        "retrain.rounds=0",
    ]
    result = run(RunConfig.from_dict({}, [*SMALL, *changes]))
    assert result["hash"]["base"] == load_run(finished).result["hash"]["base"]
    assert result["metrics"]["retrained"] is None
    assert result["vacuous"] is None
    phases = {row["phase"] for row in load_run(tmp_path / "second").table("rounds").to_pylist()}
    assert phases == {"rank", "unlearn"}


def test_the_model_and_the_mask_are_sent_once(finished: Path, tmp_path: Path) -> None:
    fields = ["unlearn.layers=[fc3]", "unlearn.mask=saliency", "unlearn.saliency=forget", "unlearn.budget=18"]
    fields += ["retrain.rounds=0"]
    place = [f"pretrain.from={finished}", f"output.dir={tmp_path / 'run'}"]
    result = run(RunConfig.from_dict({}, [*SMALL, *fields, *place]))
    rounds = load_run(tmp_path / "run").table("rounds").to_pylist()
    clients = load_run(tmp_path / "run").table("clients").to_pylist()
    model = load_run(finished).result["bytes"]["pretrain"]["down_per_client_per_round"]
    mask, bytes_ = result["adapter"]["mask_bytes"], result["bytes"]
    assert mask > 0
    assert [(row["phase"], row["round"]) for row in rounds] == [("saliency", 1), ("unlearn", 1), ("unlearn", 2)]
    gradient, first, second = rounds
    assert gradient["bytes_down"] == gradient["bytes_once"] == gradient["clients_used"] * model
    late = first["clients_used"] - gradient["clients_used"]  # who has nothing to forget is sent M_r later
    assert first["bytes_once"] == first["clients_used"] * mask + late * model
    assert second["bytes_once"] == 0
    usual = 8 + 64 + 4 * 18
    assert first["bytes_down"] - first["bytes_once"] == second["bytes_down"] == first["clients_used"] * usual
    assert (bytes_["unlearn"]["down_per_client_per_round"], bytes_["saliency"]["down_per_client_per_round"]) == (
        usual,
        0,
    )
    assert bytes_["unlearn"]["down_total"] == first["bytes_down"] + second["bytes_down"]
    for row in rounds:
        own = [r["bytes_down"] for r in clients if (r["phase"], r["round"]) == (row["phase"], row["round"])]
        assert (len(own), sum(own)) == (row["clients_used"], row["bytes_down"])


def test_pretraining_that_was_another_is_not_gone_back_over(finished: Path, tmp_path: Path) -> None:
    fields = [f"pretrain.from={finished}", "forget.scenario=client", "forget.poison=false", "train.lr=0.1"]
    fields += ["unlearn.method=eraseclient"]
    with pytest.raises(FusedRayError, match=r"eraseclient goes back over pre-training, and cannot change train\.lr"):
        run(RunConfig.from_dict({}, [*SMALL, *fields, f"output.dir={tmp_path / 'run'}"]))


def test_a_model_of_the_users_own_must_fit(finished: Path, tmp_path: Path) -> None:
    state: dict[str, Any] = load_file(finished / "base.safetensors")
    own = tmp_path / "own.safetensors"
    save_file(state, own)
    shared = [*SMALL, f"pretrain.from={own}", "retrain.rounds=0", "unlearn.layers=[fc3]"]
    result = run(RunConfig.from_dict({}, [*shared, f"output.dir={tmp_path / 'fits'}"]))
    assert result["hash"]["base"] == load_run(finished).result["hash"]["base"]
    assert result["layers"]["ranking"] == []
    del state["fc3.bias"]
    save_file(state, own)
    with pytest.raises(FusedRayError, match=r"no tensor fc3\.bias"):
        run(RunConfig.from_dict({}, [*shared, f"output.dir={tmp_path / 'misfit'}"]))


def test_resume_may_not_change_what_is_computed(finished: Path) -> None:
    assert "seed=3" in one_line(fused_ray("run", "--resume", finished, "--set", "seed=3"))


def test_init_writes_a_config_that_is_all_defaults(tmp_path: Path) -> None:
    assert "No such file" in one_line(fused_ray("init", tmp_path / "none" / "config.yaml"))
    assert fused_ray("init", tmp_path / "c.yaml").returncode == 0
    assert RunConfig.from_yaml(tmp_path / "c.yaml") == RunConfig()
    one_line(fused_ray("init", tmp_path / "c.yaml"))


def test_init_writes_a_preset_out(tmp_path: Path) -> None:
    assert fused_ray("init", "--preset", "paper", tmp_path / "c.yaml").returncode == 0
    assert RunConfig.from_yaml(tmp_path / "c.yaml") == RunConfig.from_yaml(None, preset="paper")
    lines = (tmp_path / "c.yaml").read_text().splitlines()
    assert lines[0] == "# fused_ray configuration; every field is at its default, but for what the preset paper says."
    assert "preset paper, default null)" in lines[lines.index('  start: "zero"') - 1]
    assert "preset" not in lines[lines.index("  momentum: 0.9") - 1]


def test_a_run_takes_a_preset(finished: Path, tmp_path: Path) -> None:
    own = ["engine.backend=local", "unlearn.rounds=1", "retrain.rounds=0", "output.plots=false", "audit.enabled=false"]
    given = fields(*own, f"pretrain.from={finished}", f"output.dir={tmp_path / 'run'}")
    done = fused_ray("run", "--preset", "paper", "--json", *given)
    assert done.returncode == 0, done.stderr
    adapter = json.loads(done.stdout)["adapter"]
    assert (adapter["mask"], adapter["start"], adapter["lr"], adapter["mask_bytes"]) == ("random", "zero", 0.2, 0)
    assert "there is no preset 'nope'" in one_line(fused_ray("run", "--preset", "nope"))
    assert "give nothing but --set" in one_line(fused_ray("run", "--resume", tmp_path / "run", "--preset", "paper"))


def test_the_documented_configuration_is_the_real_one(tmp_path: Path) -> None:
    fused_ray("init", tmp_path / "c.yaml")
    documented = Path(__file__).parents[2] / "docs" / "configuration.yaml"
    assert documented.read_text() == (tmp_path / "c.yaml").read_text(), "run: make docs"


def test_data_shows_who_holds_what(tmp_path: Path) -> None:
    done = fused_ray("data", "--picture", tmp_path / "p.png", *fields("federation.clients=3", "data.limit=300"))
    assert "Ankle boot" in done.stdout
    assert (tmp_path / "p.png").read_bytes()[:4] == b"\x89PNG"


def test_any_text_is_shown_on_a_terminal_that_knows_ascii_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, place = np.array(["[bold]cat", "[/dog]", "猫", "$x$"]), tmp_path / "[red]猫.npz"
    images = np.arange(240 * 64, dtype=np.uint32).reshape(240, 8, 8).astype(np.uint8)
    labels = np.arange(240) % 4
    with open(place, "wb") as file:
        np.savez(file, train_images=images, train_labels=labels, test_images=images, test_labels=labels,
                 class_names=names)  # fmt: skip
    (tmp_path / "own.py").write_text(
        "from torch import nn\n"
        "class 猫(nn.Sequential):\n"
        "    def __init__(self, shape, classes):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, classes))\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    own = ["data.name=npz", f"data.root={place}", "model.factory=own:猫", "federation.clients=3", "pretrain.rounds=1"]
    own += ["retrain.rounds=1", "unlearn.layers=1", "unlearn.rounds=1", "engine.backend=local"]
    own += ["audit.enabled=false", "output.plots=none"]
    path = tmp_path / "[/runs]猫"
    done = fused_ray("run", *fields(*own, "forget.classes=[0, 2]", f"output.dir={path}"))
    assert done.returncode == 0, done.stderr
    assert rf"fused-ray: {tmp_path}/[/runs]\u732b" in done.stderr
    assert r"Forgetting classes 0 ([bold]cat), 2 (\u732b) (npz, own:\u732b, 3 clients" in done.stdout
    assert rf"Everything is in {tmp_path}/[/runs]\u732b;" in done.stdout


@pytest.mark.slow
def test_ten_runs_in_one_process_leave_nothing_behind(tmp_path: Path) -> None:
    import psutil

    tiny = [*SMALL, "pretrain.rounds=1", "unlearn.rounds=1", "retrain.rounds=0", "unlearn.layers=[fc3]"]
    run(RunConfig.from_dict({}, [*tiny, f"output.dir={tmp_path / 'first'}"]))
    process = psutil.Process()
    files, memory = process.num_fds(), process.memory_info().rss
    others = set(process.children(recursive=True))  # of tests before this one
    for number in range(10):
        run(RunConfig.from_dict({}, [*tiny, f"output.dir={tmp_path / str(number)}"]))
    assert process.num_fds() <= files + 5  # a Ray that this process is connected to opens some of its own
    assert process.memory_info().rss - memory < 100e6
    assert set(process.children(recursive=True)) <= others
