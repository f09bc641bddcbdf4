"""What clients keep back of an int8 upload is in the checkpoint: a run that was stopped goes on to the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fused_ray import RunConfig, resume, run
from fused_ray.core.rounds import Saved
from fused_ray.errors import Interrupted
from fused_ray.runs.checkpoints import encode_saved, read_saved
from fused_ray.types import Payload

FIELDS = [
    *("federation.clients=3", "data.limit=200", "pretrain.rounds=1", "unlearn.rounds=3", "retrain.rounds=0"),
    *("unlearn.layers=[fc3]", "unlearn.wire=int8", "engine.backend=local", "output.plots=false"),
]


def stop_before(round: int) -> Any:
    def hear(progress: Any) -> None:
        if (progress.phase, progress.round) == ("unlearn", round):
            raise Interrupted("stopped")

    return hear


@pytest.mark.parametrize("round", [2, 3])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, round: int) -> None:
    expected = run(RunConfig.from_dict({}, [*FIELDS, f"output.dir={tmp_path / 'whole'}"]))
    config = RunConfig.from_dict({}, [*FIELDS, f"output.dir={tmp_path / 'stopped'}"])
    with pytest.raises(Interrupted):
        run(config, listener=stop_before(round))
    assert len(read_saved(tmp_path / "stopped" / "checkpoints" / "unlearn.safetensors").states) == 3
    found = resume(tmp_path / "stopped")
    assert found["hash"] == expected["hash"]
    assert found["bytes"] == expected["bytes"]


def test_states_come_back_from_a_checkpoint(tmp_path: Path) -> None:
    states = {client: np.array([client, -0.5], np.float32) for client in (2, 10)}
    saved = Saved(round=4, payload=Payload(np.ones(2, np.float32)), metrics={"ra": 0.5}, states=states)
    (tmp_path / "file").write_bytes(encode_saved(saved))
    found = read_saved(tmp_path / "file")
    assert (found.round, found.metrics, list(found.states)) == (4, {"ra": 0.5}, [2, 10])
    assert all(found.states[client].tobytes() == state.tobytes() for client, state in states.items())
