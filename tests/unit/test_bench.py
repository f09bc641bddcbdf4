"""The benchmark beside the peers, but for the peers: tasks, processes, and where figures go."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
PEERS = ROOT / "benchmarks" / "peers"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Its modules, as its own process sees them."""
    monkeypatch.syspath_prepend(str(PEERS))
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import bench as main
    import common
    import plain_rounds
    from beside import measure, page, systems, tasks

    return SimpleNamespace(
        main=main, measure=measure, page=page, systems=systems, tasks=tasks, common=common, plain=plain_rounds
    )


def rows(bench: Any, **seconds: tuple[float, ...]) -> list[Any]:
    names = {"ours": "fused_ray", "plain": "plain loop", "flower": "Flower 1.42"}
    return [
        bench.measure.Row("full", "50 clients", names[name], "round", "s", values) for name, values in seconds.items()
    ]


# --- where figures go ------------------------------------------------------------------------------------


def test_a_part_replaces_its_own_rows_alone(bench: Any, tmp_path: Path) -> None:
    path = tmp_path / "new" / "figures.parquet"
    other = bench.measure.Row("step", "LeNet", "fused_ray", "step", "ms", (4.0,))
    bench.page.merge(path, "step", [other], "one machine", {"fused_ray": "torch 1"}, "2026-01-01")
    for values in ((9.0, 9.0), (3.0, 1.0, 2.5)):
        bench.page.merge(path, "full", rows(bench, ours=values), "another", {}, "2026-01-02")
    step, full = bench.page.read(path)
    assert (step["part"], step["machine"], json.loads(step["versions"])) == (
        "step",
        "one machine",
        {"fused_ray": "torch 1"},
    )
    assert full["values"] == [3.0, 1.0, 2.5]
    assert [full[name] for name in ("median", "least", "most", "repeats")] == [2.5, 1.0, 3.0, 3]
    assert [row["part"] for row in bench.page.in_order([step, full], ["full", "step"])] == ["full", "step"]


def test_ratios_are_of_neighbours(bench: Any, tmp_path: Path) -> None:
    """Their median, 0.5, is not the ratio of the medians, 2 / 8."""
    path = tmp_path / "figures.parquet"
    found = rows(bench, ours=(1.0, 2.0, 9.0), plain=(8.0, 4.0, 18.0), flower=(2.0,))
    bench.page.merge(path, "full", found, "", {}, "")
    kept = bench.page.read(path)
    assert bench.page.ratios(kept, "full", "50 clients", "plain loop") == [0.125, 0.5, 0.5]
    assert bench.page.ratios(kept, "full", "50 clients", "Flower 1.42") == [0.5]
    assert bench.page.ratios(kept, "full", "50 clients", "pfl-research 0.6") == []


def test_the_page(bench: Any, tmp_path: Path) -> None:
    path, page = tmp_path / "figures.parquet", tmp_path / "page.md"
    bench.page.merge(
        path,
        "full",
        [
            *rows(bench, ours=(1.0, 2.0, 9.0), plain=(8.0, 4.0, 18.0), flower=(2.0,)),
            bench.measure.Row("full", "50 clients", "plain loop", "memory", "GB", (1.25,)),
        ],
        "a machine",
        {"fused_ray": "torch 1"},
        "2026-01-02",
    )
    page.write_text(f"Before.\n\n{bench.page.BEGIN}\nold\n{bench.page.END}\n\nAfter.\n")
    for _ in range(2):
        bench.page.write(page, bench.page.markdown(bench.page.read(path), {"full": "What it is."}))
    assert (
        page.read_text()
        == f"""Before.

{bench.page.BEGIN}

![Rounds beside the peers](images/benchmarks.png)

## Targets

| what | wanted | measured | met |
|---|---|---|---|
| a full round, over the plain loop's | at most 0.95 | 0.5 (0.125 to 0.5) | yes |
| a full round, over Flower's | at most 0.75 | 0.5 | yes |
| a full round, over pfl-research's | at most 0.95 | not measured | |
| a full round, over a cached one on fc3 | at least 15 | not measured | |

## full

What it is.

| case | measure | fused_ray | plain loop | Flower 1.42 |
|---|---|---|---|---|
| 50 clients | round, s | 2 (1 to 9) | 8 (4 to 18) | 2 |
| 50 clients | fused_ray's round / this one's |  | 0.5 (0.125 to 0.5) | 0.5 |
| 50 clients | memory, GB |  | 1.25 |  |

Measured 2026-01-02; a machine. fused_ray: torch 1.

{bench.page.END}

After.
"""
    )


@pytest.mark.parametrize(("times", "met"), [((15.0, 14.0, 16.0), "yes"), ((14.9,), "no")])
def test_a_miss_is_said(bench: Any, tmp_path: Path, times: tuple[float, ...], met: str) -> None:
    path = tmp_path / "figures.parquet"
    row = bench.measure.Row("fused", "fc3", "fused_ray", "full round / round", "times", times)
    bench.page.merge(path, "fused", [row, *rows(bench, ours=(1.0,), plain=(1.0,))], "", {}, "")
    lines = list(bench.page.markdown(bench.page.read(path), {}))
    assert next(line for line in lines if "on fc3" in line).endswith(f"| {met} |")


def test_the_plot_has_every_part(bench: Any, tmp_path: Path) -> None:
    path, plot = tmp_path / "figures.parquet", tmp_path / "images" / "plot.png"
    bench.page.merge(path, "full", rows(bench, ours=(1.0, 2.0), plain=(3.0, 5.0)), "", {}, "")
    for part, cases in {"empty": {"1,000 clients": 0.5, "50 clients": 0.25}, "payload": {"10,000 values": 4.0}}.items():
        found = [bench.measure.Row(part, case, "fused_ray", "round", "s", (value,)) for case, value in cases.items()]
        bench.page.merge(path, part, found, "", {}, "")
    bars, empty, payload = bench.page.plotted(bench.page.read(path)).axes
    assert [bar.get_height() for bar in bars.patches] == [1.5, 4.0]
    assert empty.lines[0].get_xydata().tolist() == [[50, 0.25], [1000, 0.5]]
    assert payload.lines[0].get_xydata().tolist() == [[10_000, 4.0]]
    bench.page.draw([], plot)
    assert plot.read_bytes().startswith(b"\x89PNG")


# --- the systems -----------------------------------------------------------------------------------------


def foreign(text: str) -> set[str]:
    """What a module takes from this project."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add("." if node.level else str(node.module).partition(".")[0])
    return found & {"fused_ray", "benchmarks", "beside", "."}


def test_the_peers_take_nothing_from_this_project() -> None:
    assert len(list(PEERS.glob("*.py"))) > 5
    assert {path.name: found for path in PEERS.glob("*.py") if (found := foreign(path.read_text()))} == {}
    assert foreign("def f():\n    from fused_ray.core import state\nfrom . import x") == {"fused_ray", "."}


def test_every_peer_has_a_script_and_pinned_packages(bench: Any) -> None:
    for system in (*bench.systems.SYSTEMS, bench.systems.RELEASED):
        assert system.script.exists()
        if system.key:
            lines = (PEERS / f"{system.key}.txt").read_text().split()
            assert "torch==2.13.0" in lines
            assert all("==" in line for line in lines)


def script(tmp_path: Path, text: str, bench: Any) -> Any:
    (tmp_path / "rounds.py").write_text(text)
    return bench.systems.System("a system", tmp_path / "rounds.py")


def test_a_process_is_followed_and_its_memory_watched(bench: Any, tmp_path: Path) -> None:
    """A child's 64 MiB count as well; the words that a library prints do not matter."""
    child = "import time; held = bytearray(64 << 20); held[::4096] = bytes([1]) * len(held[::4096])"
    child += "; print(flush=True); time.sleep(20)"
    system = script(
        tmp_path,
        "import json, subprocess, sys, time\nprint('a library speaks')\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "for number in (1, 2):\n    time.sleep(0.8)\n"
        "    print(json.dumps({'round': number, 'seconds': number * int(sys.argv[1])}), flush=True)\nchild.kill()\n",
        bench,
    )
    outcome = bench.systems.run(system, tmp_path, [7], watched=2)
    assert outcome.rounds == [7, 14]
    assert outcome.first >= 0.8
    assert outcome.memory > 64 << 20
    assert bench.systems.run(script(tmp_path, "print('{}')", bench), tmp_path, []).memory is None


def test_a_system_that_fails_says_why(bench: Any, tmp_path: Path) -> None:
    system = script(tmp_path, "raise SystemExit('no memory left')", bench)
    with pytest.raises(bench.systems.BenchError, match="ended with 1:\nno memory left"):
        bench.systems.run(system, tmp_path, [])


def test_a_system_that_takes_too_long_is_given_up(bench: Any, tmp_path: Path) -> None:
    system = script(tmp_path, "import time\nprint('{}', flush=True)\ntime.sleep(30)", bench)
    with pytest.raises(bench.systems.TooLateError, match=r"was not over after 0.5 s"):
        bench.systems.run(system, tmp_path, [], longest=0.5)


def test_a_peer_without_its_python_is_left_out(bench: Any, tmp_path: Path) -> None:
    later = bench.systems.System("Later", Path("later.py"), "blazefl", (3, 99))
    setting = bench.measure.Setting(1, tmp_path, tmp_path)
    assert setting.there([bench.systems.OURS, later]) == [bench.systems.OURS]
    assert setting.missing == {"Later": "Later needs Python 3.99, which is not at hand"}
    row = bench.measure.Row("full", "", "fused_ray", "round", "s", (1.0,))
    assert bench.measure.versions(setting, [row])["Later left out"].startswith("Later needs")


# --- the tasks -------------------------------------------------------------------------------------------


def test_a_task_is_what_fused_ray_trains(bench: Any, tmp_path: Path) -> None:
    from fused_ray import RunConfig
    from fused_ray.data import datasets, scenarios

    fields = ["data.name=fashion-mnist-mini", "data.limit=200", "federation.clients=4", "train.lr=0.5"]
    folder = bench.tasks.write(tmp_path / "task", fields, "lenet")
    config = RunConfig.from_dict({}, fields)
    data = datasets.load(config.data, 0)
    held = scenarios.build(config, data).held
    task = bench.common.task(str(folder))
    assert (task.clients, task.per_round, task.lr, task.net) == (4, 4, 0.5, "lenet")
    assert task.chosen(3) == [0, 1, 2, 3]
    for client in range(4):
        images, labels = task.share(client)
        pixels = data.train_images[held[client]] / 255
        np.testing.assert_allclose(images.numpy(), (pixels - data.mean[0]) / data.std[0], rtol=0, atol=1e-5)
        np.testing.assert_array_equal(labels.numpy(), data.train_labels[held[client]])
    model = task.model()
    before = bench.common.correct(model, *task.test)
    task.learn(model, *task.share(0))
    assert 0 <= before <= len(task.test[1])
    assert not np.array_equal(model.fc3.weight.detach().numpy(), task.weights["fc3.weight"].numpy())


def test_what_stays_of_a_class_is_another_task(bench: Any, tmp_path: Path) -> None:
    fields = ["data.name=fashion-mnist-mini", "data.limit=200", "federation.clients=4", "unlearn.lr=0.25"]
    task = bench.common.task(str(bench.tasks.write(tmp_path / "task", fields, "lenet", "retained")))
    labels = np.concatenate([task.share(client)[1].numpy() for client in range(4)])
    assert set(labels.tolist()) == set(range(1, 10))
    assert (task.lr, task.weight_decay) == (0.25, 0.0)


def test_the_plain_loop_shares_out_and_adds_up(bench: Any) -> None:
    assert bench.plain.split([0, 1, 2, 3], np.array([10, 40, 30, 25])) == [[1, 0], [2, 3]]
    total = bench.plain.Adder().answer(np.array([1.0, 2.0], np.float32), [5, 6, 7])
    np.testing.assert_allclose(total, [3.003, 6.003], rtol=1e-6)


# --- the command -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "full,fast"], "--only: there is no part 'fast'; there are full, empty,"),
        (["--only", "published"], "published needs --cifar10 FOLDER"),
        (["--only", "step", "--cifar10", "nowhere"], "--cifar10: there is no folder nowhere"),
        (["--pairs", "0"], "--pairs: at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    bench: Any, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bench.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        bench.main.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {said}")
