"""Who is told of a run: in order, of everything, and without being able to change or to end it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fused_ray import FusedRayError, RunConfig, load_run, resume, run
from fused_ray.config.parts.callbacks import HOOKS
from fused_ray.core.rounds import RoundRecord
from fused_ray.errors import ConfigError, Interrupted, NotWrittenError
from fused_ray.runs.events import Callback, RoundOver
from fused_ray.runs.rows import Rows
from fused_ray.storage import place
from fused_ray.studies.comparisons.rows import trained
from fused_ray.types import ClientReport, ImageData, PartialSum, Parts, Scenario
from fused_ray.types import TestView as View

SMALL = (
    *("engine.backend=local", "federation.clients=3", "data.limit=200", "output.plots=none", "train.batch_size=32"),
    *("pretrain.rounds=2", "unlearn.rounds=1", "unlearn.layers=[fc3]", "unlearn.mask=random", "retrain.rounds=0"),
    "audit.enabled=false",
)
ROUNDS = [("pretrain", 1), ("pretrain", 2), ("unlearn", 1)]


def config(path: Path, *fields: str) -> RunConfig:
    return RunConfig.from_dict({}, [*SMALL, f"output.dir={path}", *fields])


class Heard(Callback):
    """Keeps what it is told, by the name of the method."""

    def __init__(self) -> None:
        self.told: list[tuple[str, Any]] = []

    def on_run(self, event: Any) -> None:
        self.told.append(("on_run", event))

    def on_phase(self, event: Any) -> None:
        self.told.append(("on_phase", event))

    def on_round(self, event: Any) -> None:
        self.told.append(("on_round", event))

    def on_client(self, event: Any) -> None:
        self.told.append(("on_client", event))

    def on_audit(self, event: Any) -> None:
        self.told.append(("on_audit", event))

    def on_end(self, event: Any) -> None:
        self.told.append(("on_end", event))

    def events(self, name: str) -> list[Any]:
        return [event for which, event in self.told if which == name]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], Heard]:
    path, heard = tmp_path_factory.mktemp("runs") / "run", Heard()
    return path, run(config(path), callbacks=[heard]), heard


def test_all_is_told_in_order(undisturbed: Any) -> None:
    path, result, heard = undisturbed
    order = ["on_phase", *(["on_client"] * 3 + ["on_round"]) * 2, "on_phase", *["on_client"] * 3, "on_round"]
    assert [name for name, _ in heard.told] == ["on_run", *order, "on_end"]
    (begins,), (ends,) = heard.events("on_run"), heard.events("on_end")
    assert (begins.directory, begins.config, dict(begins.finished)) == (path, load_run(path).config, {})
    assert dict(begins.rounds) == {"pretrain": 2, "unlearn": 1}
    assert [(e.phase, e.rounds, e.finished) for e in heard.events("on_phase")] == [
        ("pretrain", 2, 0),
        ("unlearn", 1, 0),
    ]
    assert (ends.result, ends.error) == (result, None)


def test_rows_are_those_of_the_tables(undisturbed: Any) -> None:
    path, _, heard = undisturbed
    tables = load_run(path)
    assert [dict(event.row) for event in heard.events("on_round")] == tables.rounds.to_pylist()
    assert [dict(event.row) for event in heard.events("on_client")] == tables.clients.to_pylist()
    last = heard.events("on_round")[-1]
    assert (last.phase, last.round, last.bytes_up, last.metrics["ra"]) == (
        "unlearn",
        1,
        last.row["bytes_up"],
        last.row["ra"],
    )
    assert last.seconds == sum(last.row[f"{part}_seconds"] for part in ("train", "aggregate", "evaluate"))


def test_the_result_says_when_where_and_by_what(undisturbed: Any) -> None:
    path, result, _ = undisturbed
    assert (result["schema"], result["seed"], result["retries"], result["starts"]) == (1, 0, 0, 1)
    assert result["started"] < result["ended"]
    assert result["started"].endswith("+00:00")
    times = load_run(path).rounds.column("started_at").to_pylist()
    assert times == sorted(times)
    assert result["started"] <= times[0].isoformat() <= times[-1].isoformat() <= result["ended"]
    worker = {"node": "local", "device": "cpu", "torch": torch.__version__, "cpus": 0.0, "gpus": 0.0, "actors": 1}
    assert result["placement"] == {"actors": 1, "nodes": 1, "devices": ["cpu"], "workers": [worker]}
    assert result["notes"][0].startswith("1 worker(s) on 1 node(s)")


def test_one_that_raises_is_told_once_and_called_no_more(
    undisturbed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[str] = []

    def failing(hook: str) -> Callback:
        def fail(event: Any) -> None:
            called.append(hook)
            raise SystemExit("two\nlines") if hook == "on_round" else ValueError("two\nlines")

        bad = Callback()
        setattr(bad, hook, fail)
        return bad

    hooks = [hook for hook in HOOKS if hook != "on_audit"]
    heard = Heard()
    result = run(config(tmp_path / "run"), callbacks=[*map(failing, hooks), heard])
    kinds = ["SystemExit" if hook == "on_round" else "ValueError" for hook in hooks]
    ends = "two lines; it hears no more, everything else goes on"
    lines = [f"callbacks[{number}] (Callback): {kind}: {ends}" for number, kind in enumerate(kinds)]
    assert sorted(called) == sorted(hooks)
    assert sorted(capsys.readouterr().err.splitlines()) == lines
    assert sorted(note for note in result["notes"] if note.startswith("callbacks")) == lines[:-1]  # on_end: too late
    assert result["hash"] == undisturbed[1]["hash"]
    assert [name for name, _ in heard.told] == [name for name, _ in undisturbed[2].told]


def test_what_it_does_to_what_it_is_told_or_to_the_process_changes_nothing(undisturbed: Any, tmp_path: Path) -> None:
    class Vandal(Callback):
        def on_run(self, event: Any) -> None:
            event.config.unlearn.args["x"] = 1
            event.rounds.clear()

        def on_round(self, event: Any) -> None:
            event.row.clear()
            event.metrics["ra"] = event.metrics["fa"] = 7.0
            torch.set_num_threads(3)
            torch.set_default_dtype(torch.float64)
            np.random.seed(1)

        def on_end(self, event: Any) -> None:
            event.result.clear()

    heard, before = Heard(), np.random.get_state()[1].tolist()
    result = run(config(tmp_path / "run"), callbacks=[Vandal, heard])
    assert result["hash"] == undisturbed[1]["hash"]
    assert result["metrics"] == undisturbed[1]["metrics"]
    assert heard.events("on_end")[0].result == result == load_run(tmp_path / "run").result
    assert np.random.get_state()[1].tolist() == before
    assert torch.get_default_dtype() == torch.float32


def test_a_listener_that_raises_ends_nothing(
    undisturbed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def listen(progress: Any) -> None:
        raise BrokenPipeError("nobody reads")

    result = run(config(tmp_path / "run"), listener=listen)
    assert result["hash"] == undisturbed[1]["hash"]
    assert capsys.readouterr().err.count("the listener to progress: BrokenPipeError: nobody reads") == 1


def test_interrupted_ends_the_run_which_goes_on_to_the_same_bits(undisturbed: Any, tmp_path: Path) -> None:
    class Early(Callback):
        def on_round(self, event: Any) -> None:
            if (event.phase, event.round) == ("pretrain", 1):
                raise Interrupted("seen enough")

    first, second = Heard(), Heard()
    with pytest.raises(Interrupted, match="seen enough; continue with"):
        run(config(tmp_path / "run"), callbacks=[first, Early()])
    assert (first.told[-1][1].result, first.told[-1][1].error) == (None, "seen enough")
    mark = place.mark(tmp_path / "run")
    result = resume(tmp_path / "run", callbacks=[second])
    assert place.mark(tmp_path / "run") == mark  # or whoever holds it would take it for another folder
    assert result["hash"] == undisturbed[1]["hash"]
    assert (result["starts"], second.events("on_run")[0].finished) == (2, {"pretrain": 1})
    told = [(e.phase, e.round) for heard in (first, second) for e in heard.events("on_round")]
    assert told == ROUNDS


def test_a_row_that_cannot_be_written_ends_the_run_before_its_round_counts(undisturbed: Any, tmp_path: Path) -> None:
    """What a round's figures are is needed in the end, so a round without them is not saved."""
    path = tmp_path / "run"

    class InTheWay(Callback):
        def on_round(self, event: Any) -> None:
            (path / "rounds.parquet" / "1-pretrain-000002.parquet").mkdir()

    with pytest.raises(NotWrittenError, match="000002"):
        run(config(path), callbacks=[InTheWay()])
    shutil.rmtree(path / "rounds.parquet" / "1-pretrain-000002.parquet")
    result = resume(path)
    assert (result["hash"], result["bytes"]) == (undisturbed[1]["hash"], undisturbed[1]["bytes"])
    assert [(row["phase"], row["round"]) for row in load_run(path).rounds.to_pylist()] == ROUNDS


@pytest.mark.parametrize(
    ("fields", "callbacks", "said"),
    [
        (["engine.backend=ray"], [Callback()], "callbacks: a run on Ray .* name them in output.callbacks"),
        ([], [print], r"callbacks\[0\]: it is of type builtin_function_or_method, not an object or class with one of"),
    ],
)
def test_what_cannot_be_called_is_refused_before_a_folder_is_made(
    tmp_path: Path, fields: list[str], callbacks: list[Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(config(tmp_path / "run", *fields), callbacks=callbacks)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ("output.callbacks=[nowhere]", "output.callbacks: unknown callback 'nowhere'"),
        ("output.callbacks=[math:pi]", "output.callbacks: math:pi is of type float, not an object or class with"),
        ("output.callbacks=[no_such_module:x]", "output.callbacks: cannot import no_such_module"),
        ("audit.metrics=[agrement]", "audit.metrics: unknown metric 'agrement'; did you mean agreement?"),
        ("audit.metrics=[math:pi]", "audit.metrics: math:pi is of type float, not a fused_ray.api.Metric"),
        ("audit.metrics=[agreement, agreement]", "audit.metrics: two metrics are called agreement"),
    ],
)
def test_wrong_names_are_one_line(tmp_path: Path, field: str, said: str) -> None:
    with pytest.raises(FusedRayError) as caught:
        config(tmp_path / "run", field)
    assert str(caught.value).startswith(said), caught.value
    assert "\n" not in str(caught.value)


def test_the_base_class_has_the_methods_that_are_looked_for() -> None:
    assert tuple(name for name in vars(Callback) if name.startswith("on_")) == HOOKS


def test_rows_by_hand() -> None:
    """Two clients; client 1 at its third attempt. Of class 0 one of two images is right, of class 1 both, of 2 none
    exists; the copies with a trigger count for no class."""
    labels = np.array([0, 0, 1, 1])
    data = ImageData(
        name="",
        classes=3,
        mean=(0.5,),
        std=(0.5,),
        train_images=np.zeros((3, 1, 1, 1), np.uint8),
        train_labels=np.array([0, 1, 1]),
        test_images=np.zeros((8, 1, 1, 1), np.uint8),
        test_labels=np.concatenate([labels, labels]),
    )
    held = (np.array([0, 1]), np.array([2]))
    views = {"ra": View(np.arange(4), labels), "fa": View(np.arange(4, 8), np.zeros(4, np.int64))}
    scenario = Scenario(held, (np.array([0]), np.array([2])), data.train_labels, views, "", trigger=1)
    report = ClientReport(0, 2, 1.0, 0.5, 0.25, 3.0, 7, started_at=10.0)
    again = replace(report, client=1, examples=1, node="n", device="cuda", attempt=3)
    total = PartialSum(np.zeros(1, np.int64), np.zeros(0, np.int64), 3, (report, again))
    record = RoundRecord(
        phase="unlearn",
        round=2,
        train_seconds=1.0,
        aggregate_seconds=2.0,
        evaluate_seconds=4.0,
        metrics={"ra": 0.75},
        loss=0.25,
        bytes_up=100,
        bytes_down=30,
        once={1: 5},
        clients_expected=2,
        clients_received=2,
        clients_used=2,
    )
    over = Rows(RunConfig(), data, scenario).over(
        record, total, np.array([0, 2, 1, 1, 0, 0, 0, 0]), rounds=4, started_at=5.0
    )
    row, (first, second) = over.row, (client.row for client in over.clients)
    assert (row["bytes_up"], row["bytes_up_total"], row["bytes_up_client"]) == (200, 200, 100)
    assert (row["bytes_down"], row["bytes_down_total"], row["bytes_down_client"], row["bytes_once"]) == (65, 65, 30, 5)
    assert row["class_accuracy"] == [0.5, 1.0, None]
    assert (row["retries"], row["started_at"].timestamp(), over.seconds, over.rounds) == (2, 5.0, 7.0, 4)
    assert (first["bytes_up_client"], first["bytes_down_client"], second["bytes_down_client"]) == (100, 30, 35)
    assert (first["node"], first["device"], first["attempt"], first["started_at"].timestamp()) == (
        "local",
        "cpu",
        1,
        10.0,
    )
    assert (second["node"], second["device"], second["attempt"]) == ("n", "cuda", 3)
    assert (second["ra"], second["fa"]) == (1.0, None)


def reports(*clients: int) -> tuple[ClientReport, ...]:
    return tuple(ClientReport(client, 10 + client, 1.0, 0.5, 0.25, 3.0, 7) for client in clients)


def rows_of_a_round(output: Sequence[str], clients: Sequence[int]) -> RoundOver:
    data = ImageData(
        *("", 2, (0.5,), (0.5,), np.zeros((40, 1, 1, 1), np.uint8), np.arange(40) % 2),
        *(np.zeros((2, 1, 1, 1), np.uint8), np.arange(2)),
    )
    scenario = Scenario(
        *(Parts.owned(np.arange(40) // 4, 10), Parts.owned(np.arange(40) // 4, 10), data.train_labels),
        *({"ra": View(np.arange(2), np.arange(2)), "fa": View(np.arange(2), np.arange(2))}, ""),
    )
    given = RunConfig.from_dict({}, ["train.batch_size=5", "train.local_epochs=2", *output])
    record = RoundRecord(
        phase="pretrain",
        round=1,
        train_seconds=1.0,
        aggregate_seconds=2.0,
        evaluate_seconds=4.0,
        metrics={},
        loss=0.25,
        bytes_up=100,
        bytes_down=30,
        once={},
        **{f"clients_{what}": len(clients) for what in ("expected", "received", "used")},
    )
    total = PartialSum(np.zeros(1, np.int64), np.zeros(0, np.int64), 3, reports(*clients))
    return Rows(given, data, scenario).over(record, total, np.array([0, 0]), rounds=4, started_at=5.0)


def test_a_sample_of_clients_is_the_same_ones_in_every_round_as_far_as_they_take_part() -> None:
    def kept(*clients: int) -> list[int]:
        over = rows_of_a_round(["output.clients=sample", "output.clients_sample=3"], clients)
        return [each.client for each in over.clients]

    panel = kept(*range(10))
    assert len(panel) == 3
    assert panel == sorted(panel)
    without = [client for client in range(10) if client != panel[0]]
    assert len(kept(*without)) == 3
    assert set(panel[1:]) < set(kept(*without))
    assert kept(7, 8) == [7, 8]


def test_a_round_says_what_its_clients_were_shown_whether_they_have_rows_or_not() -> None:
    """Two epochs of 12 and of 13 examples."""
    assert rows_of_a_round(["output.clients=all"], (2, 3)).row["examples_shown"] == 50
    found = rows_of_a_round(["output.clients=none"], (2, 3))
    assert (found.row["examples_shown"], len(found.clients), found.row["clients_used"]) == (50, 0, 2)
    found = rows_of_a_round(["output.clients=sample", "output.clients_sample=1"], (2, 3))
    assert (found.row["examples_shown"], len(found.clients)) == (50, 1)
    assert found.clients[0].row["ra"] == 0.5


def test_what_a_run_trained_is_known_whatever_rows_of_clients_it_keeps(tmp_path: Path) -> None:
    found = {}
    for kept, size in (("all", 3), ("sample", 2), ("none", 0)):
        run(config(tmp_path / kept, f"output.clients={kept}", "output.clients_sample=2"))
        done = load_run(tmp_path / kept)
        assert done.clients.num_rows == size * len(ROUNDS)
        assert done.rounds.column("examples_shown").null_count == 0
        found[kept] = trained(done)
    assert [*found["all"]] == [*found["none"]] == ROUNDS
    assert found["none"] == found["sample"] == pytest.approx(found["all"])
