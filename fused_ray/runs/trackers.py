"""TensorBoard, MLflow, and Weights & Biases, each in its own way. Addresses come from their own variables."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from typing import Any

from fused_ray.config import OutputConfig
from fused_ray.config.parts.trackers import Tracker
from fused_ray.runs.tracking import Figures, Service, Subject, Tracking

FOLDER = "tensorboard"
"""Where event files go, in the run's directory."""


class TensorBoard:
    """Event files in the run's directory, written at once: what is told is there."""

    def begin(self, subject: Subject) -> None:
        from tensorboardX import RecordWriter

        place = subject.folder / FOLDER
        place.mkdir(exist_ok=True)
        # files are read in the order of their names
        self._file = RecordWriter(str(place / f"events.out.tfevents.{time.time_ns()}.{os.getpid()}"))
        self._settings = subject.settings
        self._write(file_version="brain.Event:2")
        self._file.flush()

    def log(self, figures: Figures, step: int) -> None:
        from tensorboardX.summary import scalar

        for name, value in figures.items():
            self._write(step=step, summary=scalar(name, value))
        self._file.flush()

    def conclude(self, figures: Figures, words: Mapping[str, str]) -> None:
        from tensorboardX.summary import hparams, text

        for summary in hparams(dict(self._settings), dict(figures)):
            self._write(summary=summary)
        for name, words_of_it in words.items():
            self._write(summary=text(name, words_of_it))
        self.log(figures, 0)

    def end(self, done: bool) -> None:
        self._file.close()

    def _write(self, **fields: Any) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._file.write(Event(wall_time=time.time(), **fields).SerializeToString())


class MLflow:
    """A run on the server or in the store of MLFLOW_TRACKING_URI, in the experiment of MLFLOW_EXPERIMENT_NAME."""

    def begin(self, subject: Subject) -> None:
        # a server that is down must not hold up the run for minutes, and nobody else is told of it
        _unless_set(
            MLFLOW_HTTP_REQUEST_MAX_RETRIES="1", MLFLOW_HTTP_REQUEST_TIMEOUT="10", MLFLOW_DISABLE_TELEMETRY="true"
        )
        from mlflow.entities import Param
        from mlflow.tracking import MlflowClient

        self._client = client = MlflowClient()
        experiment = _experiment(client)
        known = client.search_runs([experiment], f"tags.`fused_ray.key` = '{subject.key}'", max_results=1)
        if known:
            self._run = known[0].info.run_id
            client.update_run(self._run, status="RUNNING")
            return
        tags = {"fused_ray.key": subject.key, "fused_ray.folder": str(subject.folder)}
        tags |= {"fused_ray.study": subject.study} if subject.study else {}
        self._run = client.create_run(experiment, run_name=subject.name, tags=tags).info.run_id
        client.log_batch(self._run, params=[Param(key, str(value)) for key, value in subject.settings.items()])

    def log(self, figures: Figures, step: int) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self._client.log_batch(self._run, metrics=[Metric(name, value, now, step) for name, value in figures.items()])

    def conclude(self, figures: Figures, words: Mapping[str, str]) -> None:
        self.log(figures, 0)
        for name, text in words.items():
            self._client.set_tag(self._run, name, text)

    def end(self, done: bool) -> None:
        self._client.set_terminated(self._run, "FINISHED" if done else "KILLED")


def _experiment(client: Any) -> str:
    """The experiment that MLflow's variables name, else its default one."""
    if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "Default")
    found = client.get_experiment_by_name(name)
    if found is None:
        from mlflow.exceptions import MlflowException

        with contextlib.suppress(MlflowException):  # another run was first
            client.create_experiment(name)
        found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


class WandB:
    """A run of WANDB_PROJECT; with WANDB_MODE=offline in files of WANDB_DIR."""

    def begin(self, subject: Subject) -> None:
        _unless_set(WANDB_ERROR_REPORTING="false")
        import wandb

        # figures alone: what is printed, the command's own words, code and packages stay here
        nothing_else = {"console": "off", "x_disable_meta": True, "disable_code": True, "disable_git": True,
                        "x_save_requirements": False, "x_disable_stats": True}  # fmt: skip
        # another run of this process is left alone, and no network holds up this one for long
        apart = {"reinit": "create_new", "silent": True, "init_timeout": 30, "finish_timeout": 60}
        self._run = wandb.init(
            id=subject.key,
            name=subject.name,
            group=subject.study or None,
            config=dict(subject.settings),
            resume="allow",
            settings=wandb.Settings(**nothing_else, **apart),
        )

    def log(self, figures: Figures, step: int) -> None:
        self._run.log(dict(figures), step=step)

    def conclude(self, figures: Figures, words: Mapping[str, str]) -> None:
        self._run.summary.update({**figures, **words})

    def end(self, done: bool) -> None:
        self._run.finish(exit_code=0 if done else 1)


def _unless_set(**variables: str) -> None:
    """What a tracker reads from its variables where the user says nothing else."""
    for name, value in variables.items():
        os.environ.setdefault(name, value)


_SERVICES: Mapping[Tracker, type[Service]] = {"tensorboard": TensorBoard, "mlflow": MLflow, "wandb": WandB}


def trackers_of(output: OutputConfig) -> dict[str, Tracking]:
    """The trackers that a configuration names, by what messages call them; their packages are imported later."""
    return {f"output.trackers: {name}": Tracking(_SERVICES[name]()) for name in output.trackers}
