"""Parts of training from another package: their formulas by hand, and a run with all of them at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fused_ray_plugin.training import fedyogi, geometric_median, restarts

from fused_ray import FusedRayError, RunConfig, load_run, resume, run

SMALL = (
    *("data.limit=300", "federation.clients=4", "pretrain.rounds=3", "unlearn.rounds=1", "retrain.rounds=1"),
    *("output.plots=none", "audit.enabled=false", "engine.backend=local", "unlearn.method=finetune"),
)
PARTS = {
    "train.optimiser": "fused_ray_plugin.training.rmsprop:CLIENT",
    "train.schedule": "fused_ray_plugin.training.restarts:SCHEDULE",
    "federation.server": "fused_ray_plugin.training.fedyogi:SERVER",
    "federation.aggregate": "fused_ray_plugin.training.geometric_median:AGGREGATE",
}
ALL = (*(f"{key}={part}" for key, part in PARTS.items()), "train.lr=0.002", "train.schedule_args.every=2")


def config(path: Path, *fields: str) -> RunConfig:
    return RunConfig.from_dict({}, [*SMALL, f"output.dir={path}", *fields])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(config(folder, *ALL))
    return folder


def test_they_are_part_of_the_run_and_of_what_its_model_is_known_by(finished: Path) -> None:
    found = load_run(finished)
    said = found.config.model_dump()
    assert {key: said[key.split(".")[0]][key.split(".")[1]] for key in PARTS} == PARTS
    assert [row["phase"] for row in found.rounds.to_pylist()] == [*["pretrain"] * 3, "unlearn", "retrain"]
    for key in PARTS:
        without = config(finished, *[field for field in ALL if not field.startswith((key, "train.schedule"))])
        assert without.pretrain_key() != found.config.pretrain_key()


def test_the_same_bits_after_an_interruption(finished: Path, tmp_path: Path) -> None:
    class Stop(BaseException):
        """As Ctrl-C: an ordinary exception of a listener would stop nothing."""

    def stop(progress: Any) -> None:
        if progress.phase == "pretrain" and progress.finished == 2:
            raise Stop

    with pytest.raises(Stop):
        run(config(tmp_path / "run", *ALL), listener=stop)
    assert resume(tmp_path / "run")["hash"] == load_run(finished).result["hash"]


def test_two_rounds_of_fedyogi_by_hand() -> None:
    settings = fedyogi.FedYogi(lr=1, beta1=0.5, beta2=0.5, tau=1)
    step, kept = fedyogi.step(np.array([2.0, -0.5]), {}, settings)
    # m = (1, -1/4); v = 1 is below 4 and above 1/4: it rises by 2 and falls by 1/8
    assert kept["v"] == pytest.approx([3, 0.875])
    assert step == pytest.approx([1 / (3**0.5 + 1), -0.25 / (0.875**0.5 + 1)])
    step, kept = fedyogi.step(np.array([1.0, 1.0]), kept, settings)
    assert kept["v"] == pytest.approx([2.5, 1.375])
    assert step == pytest.approx([1 / (2.5**0.5 + 1), 0.375 / (1.375**0.5 + 1)])


def test_the_geometric_median_stays_with_the_majority() -> None:
    here, there = np.zeros(2, np.float32), np.array([3, 4], np.float32)
    one = geometric_median.median([here, there], [3, 1], geometric_median.GeometricMedian(steps=1))
    assert one.tolist() == [0.75, 1]  # the mean, at distances 1.25 and 3.75
    two = geometric_median.median([here, there], [3, 1], geometric_median.GeometricMedian(steps=2))
    assert two == pytest.approx(there * (1 / 3.75) / (3 / 1.25 + 1 / 3.75))
    many = geometric_median.median([here, there], [3, 1], geometric_median.GeometricMedian(steps=50))
    assert many == pytest.approx([0, 0], abs=1e-5)


def test_restarts_by_hand() -> None:
    found = [restarts.restarts(done, 9, restarts.Restarts(every=2)) for done in range(4)]
    assert found == pytest.approx([1, 0.5, 1, 0.5])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (["train.optimiser=fused_ray_plugin.training.rmsprop:RMSprop"], "not a fused_ray.api.ClientOptimiser"),
        (["federation.server=fused_ray_plugin.training.none:SERVER"], "cannot import fused_ray_plugin.training.none"),
        (["federation.aggregate=fused_ray_plugin.training.restarts:SCHEDULE"], "not a fused_ray.api.Aggregate"),
        (["train.schedule=restartz"], "train.schedule: unknown schedule 'restartz'"),
        ([*ALL, "train.schedule_args.every=0"], "train.schedule_args.every: "),
        ([*ALL, "federation.server_args.betta1=0"], "federation.server_args.betta1: unknown key; did you mean beta1"),
        ([*ALL, "unlearn.method=exactfun"], "exactfun reckons with the plain mean"),
    ],
)
def test_what_is_wrong_with_a_part_is_one_line(tmp_path: Path, fields: list[str], said: str) -> None:
    with pytest.raises(FusedRayError) as caught:
        config(tmp_path / "run", *fields)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_does_not_fit_into_memory_is_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    fields = (f"federation.aggregate={PARTS['federation.aggregate']}", "engine.aggregate_memory_mb=0.5")
    with pytest.raises(FusedRayError, match=r"^federation.aggregate: .* 4 clients x 44,426 values x 4 bytes = 0.7 MB"):
        run(config(tmp_path / "run", *fields))
    assert not (tmp_path / "run").exists()
