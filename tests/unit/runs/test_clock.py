"""The clock on runs: simulated seconds as worked out by hand, no bit of what is trained, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fused_ray import CompareConfig, RunConfig, compare, load_comparison, load_run, resume, run
from fused_ray.config import ModelConfig
from fused_ray.config.deployment import DeploymentConfig
from fused_ray.core.deployment import drawn
from fused_ray.errors import ConfigError, FusedRayError, Interrupted, RunDirectoryError
from fused_ray.models.cost import cost
from fused_ray.runs.clock import Simulated, imagined
from fused_ray.runs.report import in_words
from fused_ray.studies.status import DONE
from fused_ray.studies.sweeps.front import cases
from fused_ray.studies.sweeps.rows import SCHEMA, TIMES, of_trial
from fused_ray.studies.sweeps.rows import table as sweep_table
from fused_ray.studies.sweeps.tables import layouts
from fused_ray.studies.sweeps.trials import Trial

OWN = {
    "profile": "own", "ms_per_sample": 10.0, "down_mbps": 8.0, "up_mbps": 4.0, "latency_s": 0.5, "server_s": 2.0,
}  # fmt: skip
SMALL: dict[str, Any] = {
    "data": {"limit": 200, "partition": "iid"},
    "federation": {"clients": 4},
    "train": {"batch_size": 16, "local_epochs": 2},
    "pretrain": {"rounds": 2},
    "unlearn": {"rounds": 3, "layers": ["fc3"], "mask": "random"},
    "retrain": {"rounds": 3},
    "audit": {"enabled": False},
    "engine": {"backend": "local"},
    "output": {"plots": "none"},
}
LENET = 172_800 + 307_200 + 61_440 + 20_160 + 1_680
"""Operations of LeNet on 28 x 28: 2 * kernel * inputs * outputs * places of each convolution, 2 * in * out else."""


def made(path: Path, **more: Any) -> Any:
    run(RunConfig.from_dict({**SMALL, **more}, [f"output.dir={path}"]))
    return load_run(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made(tmp_path_factory.mktemp("clock") / "plain")


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return made(tmp_path_factory.mktemp("clock") / "timed", deployment=OWN)


def test_the_clock_changes_no_bit_and_without_it_there_is_no_column(plain: Any, timed: Any) -> None:
    assert timed.result["hash"] == plain.result["hash"]
    assert timed.result["pretrain_key"] == plain.result["pretrain_key"]
    assert timed.config.retrain_key() == plain.config.retrain_key()
    assert {*timed.rounds.column_names} - {*plain.rounds.column_names} == {"simulated_seconds", "waited_seconds"}
    assert timed.result.keys() - plain.result.keys() == {"deployment"}
    assert timed.rounds.column("fa").equals(plain.rounds.column("fa"))


def test_a_round_lasts_as_long_as_its_slowest_client_and_the_server(timed: Any) -> None:
    """Forward passes of 10 ms; all of LeNet learns in pre-training, of its operations fc3's alone with the adapter."""
    sizes: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
    for row in timed.clients.to_pylist():
        client = (row["examples"], row["bytes_down"], row["bytes_up"])
        sizes.setdefault((row["phase"], row["round"]), []).append(client)
    for row in timed.rounds.to_pylist():
        passes = 1 + 2 * (1_680 / LENET) if row["phase"] == "unlearn" else 3
        slowest = max(
            2 * examples * 0.01 * passes + 8 * down / 8e6 + 8 * up / 4e6 + 0.5 + 0.5
            for examples, down, up in sizes[row["phase"], row["round"]]
        )
        assert row["simulated_seconds"] == pytest.approx(slowest + 2.0)


def test_the_result_adds_them_up(timed: Any) -> None:
    told, rows = timed.result["deployment"], timed.rounds.to_pylist()
    of = {p: sum(r["simulated_seconds"] for r in rows if r["phase"] == p) for p in ("pretrain", "unlearn", "retrain")}
    assert told["profile"] == "own"
    assert told["pretrain_seconds"] == pytest.approx(of["pretrain"])
    assert told["simulated_seconds"] == pytest.approx(of["unlearn"])
    assert told["retrain_seconds"] == pytest.approx(of["retrain"])


@pytest.mark.parametrize(
    ("after", "seconds", "line"),
    [
        (2, 61.0, "On own (simulated): 2 min in all; forgotten from round 2 on, after 61 s"),
        (None, None, "On own (simulated): 2 min in all; not forgotten for three rounds"),
        (
            1,
            9.0,
            "On own (simulated): 2 min in all, 59 s of them waiting for clients; forgotten from round 1 on, after 9 s",
        ),
    ],
)
def test_the_report_tells_it(timed: Any, after: int | None, seconds: float | None, line: str) -> None:
    told = {
        "simulated_seconds": 120.0,
        "waited_seconds": 59.0 if after == 1 else 0.0,
        "rounds_to_forget": after,
        "seconds_to_forget": seconds,
    }
    told |= {"profile": "own"}
    found = [text for text in in_words(timed.config, {**timed.result, "deployment": told}) if "simulated" in text]
    assert found == [line]


def test_rounds_and_seconds_to_forget_count_what_came_before() -> None:
    rows = [{"phase": "rank", "round": 1, "fa": None}]
    rows += [{"phase": "unlearn", "round": t + 1, "fa": fa} for t, fa in enumerate([0.5, 0.12, 0.1, 0.15, 0.1])]
    found = Simulated(rows, [100.0, 1.0, 2.0, 4.0, 8.0, 16.0], [7.0, 0.0, 0.0, 0.0, 1.0, 0.0])
    phases = ("rank", "unlearn")
    assert found.total_waited(phases) == 8.0
    assert found.to_forget(phases, "unlearn", 0.1) == {"rounds_to_forget": 2, "seconds_to_forget": 103.0}
    assert found.to_forget(phases, "unlearn", 0.0) == {"rounds_to_forget": None, "seconds_to_forget": None}
    assert found.to_forget(phases, "unlearn", None) == {"rounds_to_forget": None, "seconds_to_forget": None}
    gap = Simulated(rows, [100.0, None, 2.0, 4.0, 8.0, 16.0], [0.0] * 6)
    assert gap.to_forget(phases, "unlearn", 0.1) == {"rounds_to_forget": 2, "seconds_to_forget": None}
    assert gap.total(phases) is None


def test_any_run_can_be_imagined_elsewhere_afterwards(plain: Any) -> None:
    centre = imagined(plain, DeploymentConfig(profile="datacentre"))
    phones = imagined(plain, DeploymentConfig(profile="phones"))
    first = centre.rows[0]
    most = max(r["examples"] for r in plain.clients.to_pylist() if (r["phase"], r["round"]) == ("pretrain", 1))
    seconds = 2 * most * 3 * LENET / (312e12 / 2) + 8 * (first["bytes_down_client"] + first["bytes_up_client"]) / 1e9
    server = first["bytes_up_total"] / 1700e6
    assert centre.seconds[0] == pytest.approx(seconds + server, rel=1e-9)
    assert phones.seconds[0] > 10 * centre.seconds[0]  # type: ignore[operator]
    assert phones.seconds == imagined(plain, DeploymentConfig(profile="phones")).seconds


def test_who_is_away_makes_the_round_wait(plain: Any) -> None:
    always = imagined(plain, DeploymentConfig.model_validate(OWN))
    away = imagined(plain, DeploymentConfig.model_validate({**OWN, "availability": "cycle"}))
    phases = [drawn({"uniform": (0.0, 900.0)}, 0, "phase_s", client) for client in range(4)]
    assert any(phase >= 300 for phase in phases)
    wait = max(900 - phase if phase >= 300 else 0.0 for phase in phases)  # none of them comes as far as to be away
    assert away.seconds[0] == pytest.approx(always.seconds[0] + wait, abs=2.0)
    assert away.waited[0] == pytest.approx(wait)
    assert always.waited[0] == 0


def trace(path: Path, **columns: Any) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def test_a_trace_says_what_each_client_has(plain: Any, tmp_path: Path) -> None:
    where = trace(tmp_path / "t.parquet", client=[1, 0, 3, 2, 4], ms_per_sample=[10.0, 10.0, 1000.0, 10.0, 1e9])
    found = imagined(plain, DeploymentConfig.model_validate({**OWN, "trace": where}))
    slow = next(r for r in plain.clients.to_pylist() if r["client"] == 3)
    computing = 2 * slow["examples"] * 1.0 * 3
    link = 8 * slow["bytes_down"] / 8e6 + 8 * slow["bytes_up"] / 4e6 + 1.0
    assert found.seconds[0] == pytest.approx(computing + link + 2.0)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"client": [0, 1, 2, 3], "up_mbps": [1.0, 1.0, 0.0, 1.0]}, "up_mbps of client 2 is 0; it must be from 1e-12"),
        ({"client": [0, 1, 2, 3], "up_mbps": [1.0, None, 1.0, 1.0]}, "column up_mbps lacks a number"),
        ({"client": [0, 1, 2], "up_mbps": [1.0, 1.0, 1.0]}, "must have the clients 0 to 3"),
        ({"client": [0, 1, 2, 2], "up_mbps": [1.0] * 4}, "must have the clients 0 to 3"),
        ({"client": [0, 1, 2, 3], "speed": [1.0] * 4}, "has the columns client, speed; it takes client"),
        ({"client": ["a", "b", "c", "d"]}, "column client holds string, not numbers"),
    ],
)
def test_a_trace_that_does_not_tell_is_refused(
    plain: Any, tmp_path: Path, columns: dict[str, Any], message: str
) -> None:
    where = trace(tmp_path / "t.parquet", **columns)
    with pytest.raises(FusedRayError, match=message):
        imagined(plain, DeploymentConfig.model_validate({**OWN, "trace": where}))


def test_what_a_trace_lacks_is_unknown_before_anything_is_trained(tmp_path: Path) -> None:
    where = trace(tmp_path / "t.parquet", client=[0, 1, 2, 3], up_mbps=[1.0] * 4)
    deployment = {"profile": "own", "trace": where}
    with pytest.raises(ConfigError, match=r"deployment: ms_per_sample \(or teraflops\), down_mbps, latency_s unknown"):
        made(tmp_path / "run", deployment=deployment)
    assert not list((tmp_path / "run" / "rounds.parquet").glob("*"))


@pytest.mark.parametrize(
    ("deployment", "message"),
    [
        ({k: v for k, v in OWN.items() if k != "up_mbps"}, "up_mbps unknown"),
        ({**OWN, "up_mbps": 0}, "must be above 0"),
        ({**OWN, "teraflops": 1}, "leave one out"),
        ({**OWN, "server_mb_s": 0}, "greater than 0"),
        ({**OWN, "on_s": 100}, "on_s is said, but means nothing without availability=cycle"),
        ({**OWN, "availability": "cycle", "daily_share": 0.2}, "nothing without availability=daily"),
        ({**OWN, "deadline_s": 100}, "nothing without participation=available"),
        ({**OWN, "participation": "available", "max_wait_s": 9}, "give a deadline_s"),
        ({**OWN, "participation": "available", "deadline_s": 10, "max_wait_s": 9}, "not above it"),
        ({"up_mbps": 3}, "name a profile"),
        ({"profile": "phones", "up_mbps": {"uniform": [3, 1]}}, "is empty"),
        ({"profile": "phones", "up_mbps": {"lognormal": [3, 1], "uniform": [1, 3]}}, "write one number"),
        ({"profile": "phones", "up_mbps": {"lognormal": [3, 500]}}, "a sigma up to 10"),
        ({"profile": "phones", "ms_per_sample": 1e308}, "values from 1e-12 to 1e"),
        ({"profile": "phones", "latency_s": -1}, "at least 0"),
    ],
)
def test_what_makes_no_deployment_is_refused(deployment: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        RunConfig.from_dict({"deployment": deployment})
    assert "deployment" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_who_counts_is_up_to_the_clock_alone() -> None:
    fields = {"deployment": {"profile": "phones", "participation": "available"}, "federation": {"on_failure": "skip"}}
    with pytest.raises(ConfigError, match=r"federation\.on_failure: .* use fail or wait"):
        RunConfig.from_dict(fields)


AVAILABLE = {
    **OWN, "participation": "available", "ms_per_sample": {"uniform": [5, 40]}, "deadline_s": 4.5, "dropout": 0.2,
    "min_share": 0.25, "availability": "cycle", "off_s": 9.0, "on_s": 40.0,
}  # fmt: skip


def test_a_run_whose_clients_are_away_late_or_lost_goes_on_as_it_would_have(tmp_path: Path) -> None:
    whole = made(tmp_path / "whole", deployment=AVAILABLE, output={"plots": "none", "clients": "none"})
    rows = whole.rounds.to_pylist()
    assert any(row["clients_used"] < row["clients_received"] < row["clients_expected"] for row in rows)
    assert any(0 < row["clients_expected"] < 4 for row in rows)
    for row in rows:  # late uploads are counted, and what the lost ones received
        assert row["bytes_up_total"] == row["bytes_up_client"] * row["clients_received"]
        assert row["bytes_down_total"] == row["bytes_down_client"] * row["clients_expected"] + row["bytes_once"]
    assert whole.result["failures"] == 0
    assert not [note for note in whole.result["notes"] if "left out" in note]
    stopped = RunConfig.from_dict({**SMALL, "deployment": AVAILABLE}, [f"output.dir={tmp_path / 'stopped'}"])

    def listen(progress: Any) -> None:
        if progress.phase == "unlearn" and progress.finished == 2:
            raise Interrupted("seen enough")

    with pytest.raises(Interrupted):
        run(stopped, listener=listen)
    assert not (tmp_path / "stopped" / "result.json").exists()
    resume(tmp_path / "stopped")
    again = load_run(tmp_path / "stopped")
    assert again.result["hash"] == whole.result["hash"]
    assert again.result["deployment"] == whole.result["deployment"]
    names = ["phase", "round", "simulated_seconds", "waited_seconds", "clients_used", "clients_received", "bytes_once"]
    assert again.rounds.select(names).equals(whole.rounds.select(names))
    with pytest.raises(ConfigError, match="train it there"):
        imagined(whole, DeploymentConfig(profile="datacentre"))


def test_a_run_whose_clients_all_time_out_ends_with_what_it_began_with(tmp_path: Path) -> None:
    late = made(tmp_path / "late", deployment={**OWN, "participation": "available", "deadline_s": 0.25})
    rows = late.rounds.to_pylist()
    assert {(row["clients_expected"], row["clients_used"], row["loss"]) for row in rows} == {(4, 0, None)}
    assert {row["simulated_seconds"] for row in rows} == {0.25 + 2.0}
    assert all(row["bytes_down_total"] > 0 for row in rows)
    assert late.result["metrics"]["after"] == late.result["metrics"]["start"]
    assert late.clients.num_rows == 0
    assert [n for n in late.result["notes"] if n.startswith("pretrain: 2 of 2 rounds were abandoned, for too few")]


def test_a_run_does_not_go_on_with_another_trace(tmp_path: Path) -> None:
    """Client 3 would be late in its first rounds, client 0 in its last."""
    deployment = {**OWN, "participation": "available", "deadline_s": 30, "dropout": 0, "min_share": 0.1}
    where = trace(tmp_path / "t.parquet", client=[0, 1, 2, 3], ms_per_sample=[1.0, 1.0, 1.0, 1e6])
    values = {**SMALL, "deployment": {**deployment, "trace": where}}

    def listen(progress: Any) -> None:
        if progress.phase == "pretrain" and progress.finished == 1:
            raise Interrupted("seen enough")

    with pytest.raises(Interrupted):
        run(RunConfig.from_dict(values, [f"output.dir={tmp_path / 'run'}"]), listener=listen)
    kept = Path(where).read_bytes()
    trace(tmp_path / "t.parquet", client=[0, 1, 2, 3], ms_per_sample=[1e6, 1.0, 1.0, 1.0])
    with pytest.raises(RunDirectoryError, match=r"its clients had other devices, .* deployment\.trace"):
        resume(tmp_path / "run")
    Path(where).write_bytes(kept)
    resume(tmp_path / "run")
    rows = load_run(tmp_path / "run").clients.to_pylist()
    assert {row["client"] for row in rows if row["phase"] == "pretrain"} == {0, 1, 2}


def test_a_second_request_takes_over_who_counted(tmp_path: Path) -> None:
    first = made(tmp_path / "first", deployment=AVAILABLE)
    second = RunConfig.from_dict({"pretrain": {"from": str(tmp_path / "first")}})
    assert second.deployment == first.config.deployment
    assert second.pretrain_key() == first.config.pretrain_key()


def test_operations_are_counted_by_stage() -> None:
    counted = cost(ModelConfig(name="lenet"), (1, 28, 28), 10)
    assert counted.forward == LENET
    assert counted.share_from(["fc3"]) == pytest.approx(1_680 / LENET)
    assert counted.share_from(["fc3", "conv2"]) == pytest.approx(1 - 172_800 / LENET)
    assert counted.share_from([]) == 1


def test_attention_is_counted_whole() -> None:
    """Of 49 patches and a width of 192: 8 * 192 ** 2 weights for each, and queries by keys, and those by values."""
    counted = cost(ModelConfig(name="simplevit"), (1, 28, 28), 10)
    block = next(n for names, n in counted.stages if "blocks.0.linear1" in names)
    assert block == 2 * 49 * 8 * 192**2 + 2 * 2 * 49**2 * 192


def test_a_comparison_has_the_times_of_every_method_retraining_included(tmp_path: Path) -> None:
    base = {key: value for key, value in SMALL.items() if key not in ("audit", "output")}
    settings = {
        "base": {**base, "deployment": {"profile": "hospitals"}}, "methods": ["retrain", "fused", "not"],
        "scenarios": ["class"], "seeds": [0], "audit": {"enabled": False},
    }  # fmt: skip
    compare(CompareConfig.from_dict(settings, [f"output.dir={tmp_path / 'c'}"]))
    rows = {row["method"]: row for row in load_comparison(tmp_path / "c").rows}
    for row in rows.values():
        assert row["status"] == "done"
        assert row["deployment"] == "hospitals"
        assert json.loads(row["config"])["deployment"]["profile"] == "hospitals"
        assert row["simulated_seconds"] > 0
        assert row["waited_seconds"] == 0
    assert rows["fused"]["simulated_seconds"] < rows["not"]["simulated_seconds"]
    text = (tmp_path / "c" / "table.md").read_text()
    assert "| simulated | rounds to forget | time to forget |" in text


def test_rows_of_a_sweep_have_the_seconds_until_each_round(timed: Any, plain: Any) -> None:
    trial = Trial(0, {"unlearn.rounds": 3}, timed.config)
    found = of_trial(trial, DONE, timed, timed.result["metrics"]["retrained"])
    each = [row["simulated_seconds"] for row in timed.rounds.to_pylist() if row["phase"] == "unlearn"]
    assert [row["simulated_seconds"] for row in found] == pytest.approx([0, each[0], sum(each[:2]), sum(each)])
    assert {row["deployment"] for row in found} == {"own"}
    assert {row["rounds_to_forget"] for row in found} == {timed.result["deployment"]["rounds_to_forget"]}
    assert sweep_table(found).column_names == [*SCHEMA.names, *TIMES.names]
    without = of_trial(Trial(0, {}, plain.config), DONE, plain, None)
    assert sweep_table(without).column_names == SCHEMA.names
    (case,) = cases(found, 0.1, 0.1)
    (_, front) = layouts([case], plain.config)  # the base may have no clock where the sweep leads over deployments
    at = front.head.index("simulated")
    assert {line[at] for line in front.body} <= {f"{row['simulated_seconds']:.3g} s" for row in found}
    (bare,) = cases(of_trial(Trial(0, {}, plain.config), DONE, plain, plain.result["metrics"]["retrained"]), 0.1, 0.1)
    assert all("simulated" not in layout.head for layout in layouts([bare], timed.config))
