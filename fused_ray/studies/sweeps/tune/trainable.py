"""Tune's side of a trial: thin, without PyTorch and without a CPU of its own; a step is a round of its runner's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError

from fused_ray.engine.reason import reason
from fused_ray.studies.sweeps import rows
from fused_ray.studies.sweeps.trials import Trial

POINT = "point"
"""The one key of Tune's grid over a fixed list of trials."""


class SweepTrial(tune.Trainable):
    """Tune's side of a trial: a step is a round."""

    def setup(self, config: dict[str, Any], broker: Any = None, trials: Mapping[int, Trial] | None = None) -> None:
        """`trials` is the fixed list by number; None where they are proposed."""
        self._broker, self._trials = broker[0], trials
        self._runner: Any = None
        self._number, self._rounds = -1, 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._runner, self._rounds = None, 0
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        if self._runner is None:
            trial = self._trials[self.config[POINT]["trial"]] if self._trials is not None else None
            self._runner, begun = ray.get(self._broker.begin.remote(self.trial_id, trial, dict(self.config)))
            self._number = begun.number
            if begun.config is None:
                return self._report({**rows.report({}), "status": f"{rows.UNSUPPORTED}{begun.reason}"})
        try:
            while (report := ray.get(self._runner.report.remote(self._rounds))) is None:
                pass
        except RayError as error:
            report = {**rows.report({}), "status": f"{rows.FAILED}its worker died: {reason(error)}"}
        self._rounds += 1
        return self._report(report)

    def _report(self, report: dict[str, Any]) -> dict[str, Any]:
        # an optimum is sought among what can be run: NaN tells a searcher that this cannot
        return {**report, "trial": self._number, "done": "status" in report}
