"""Tune's side of a trial: thin, without PyTorch and without a CPU of its own; a step is a round of its runner's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ray
from ray import tune
from ray.exceptions import RayError

from fused_ray.engine.reason import reason
from fused_ray.studies.status import FAILED, unsupported

POINT = "point"
"""The one key of Tune's grid over a fixed list of runs."""


class StudyTrial(tune.Trainable):
    """Tune's side of a run of a study: a step is a round."""

    def setup(
        self,
        config: dict[str, Any],
        broker: Any = None,
        items: Mapping[int, Any] | None = None,
        nothing: Mapping[str, Any] | None = None,
        announced: bool = False,
    ) -> None:
        """`items` is the fixed list by number, None where the broker chooses; `nothing` a report without figures.

        `announced`: the first report tells which run was chosen.
        """
        self._broker, self._items, self._nothing, self._announced = broker[0], items, nothing or {}, announced
        self._runner: Any = None
        self._number, self._rounds = -1, 0

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._runner, self._rounds = None, 0
        self.config = new_config
        return True

    def step(self) -> dict[str, Any]:
        if self._runner is None:
            item = self._items[self.config[POINT]["trial"]] if self._items is not None else None
            self._runner, begun = ray.get(self._broker.begin.remote(self.trial_id, item, dict(self.config)))
            self._number = begun.number
            if begun.config is None:
                return self._report({**self._nothing, "status": unsupported(begun.reason)})
            if self._announced:
                return self._report(dict(self._nothing))
        try:
            while (report := ray.get(self._runner.report.remote(self._rounds))) is None:
                pass
        except RayError as error:
            report = {**self._nothing, "status": f"{FAILED}its worker died: {reason(error)}"}
        self._rounds += 1
        return self._report(report)

    def _report(self, report: dict[str, Any]) -> dict[str, Any]:
        # an optimum is sought among what can be run: NaN tells a searcher that this cannot
        return {**report, "trial": self._number, "done": "status" in report}
