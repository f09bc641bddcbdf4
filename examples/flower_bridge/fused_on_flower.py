"""FUSED's rounds of unlearning on Flower: a Strategy for the server, a ClientApp for clients, over fused_ray's core.

A client's work is a pure function of the round's values, and the server's mean is exact: so the adapter has the bits
that fused_ray's own engine gives it, however Flower places the clients, and in whatever order they answer.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from flwr.serverapp.strategy.strategy_utils import sample_nodes

from fused_ray import FusedRayError, load_run
from fused_ray.core import state
from fused_ray.core.adapter import Adapter
from fused_ray.core.aggregate import ExactSum
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fused
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation, Phase
from fused_ray.core.standard import standard
from fused_ray.core.wire import Delivery
from fused_ray.core.work import compute, round_bits
from fused_ray.core.workspace import Workspace
from fused_ray.data import datasets, scenarios
from fused_ray.storage.files import read_adapter, read_state
from fused_ray.types import FloatVector, Payload


@dataclass(frozen=True)
class Task:
    """What a run of fused_ray was made from: who holds what, M_r, the adapter's entries, the rounds that train them."""

    federation: Federation
    """On the plain loop, which evaluates for the server."""
    base: state.Arrays
    shape: Adapter
    phase: Phase
    chosen: list[str]
    """The adapted layers."""


@cache
def task_of(run: str) -> Task:
    """Of a finished run; read once in a process. Raises FusedRayError where it has what this bridge does not do."""
    folder = load_run(run)
    config = folder.config
    if config.unlearn.method != "fused" or config.unlearn.wire == "int8":
        raise FusedRayError(f"{run}: the bridge runs unlearn.method=fused, and no unlearn.wire=int8")
    data = datasets.load(config.data, config.seed)
    scenario = scenarios.build(config, data)
    base = read_state(folder.path / "base.safetensors")
    shape, _ = read_adapter(folder.path / "adapter.safetensors")
    pool = LocalPool(config, data, scenario)
    pool.install(state.flatten(base))
    federation = Federation(config, data, scenario, pool, MemoryRecorder())
    phase = fused.adapting(federation, shape, 0, Delivery(0))
    if phase.keep_updates:
        raise FusedRayError(f"{run}: the bridge averages, so it runs no federation.aggregate but the mean")
    return Task(federation, base, shape, phase, folder.result["layers"]["chosen"])


@standard()
def start_of(task: Task) -> FloatVector:
    """The adapter's values before the first round [V], made anew, with a mask's gradients if it asks for any.

    Raises FusedRayError if the adapter is not the run's.
    """
    made = fused.make_adapter(task.federation, task.base, dict.fromkeys(task.chosen), Delivery(0))
    if made.adapter.digest != task.shape.digest:
        raise FusedRayError("the adapter that was made anew is not the run's; the bridge does no unlearn.budget")
    return made.values


def record(values: FloatVector) -> ArrayRecord:
    """An adapter's values as Flower carries them."""
    return ArrayRecord([values])


def values_of(arrays: ArrayRecord) -> FloatVector:
    """The values in a record [V]."""
    (values,) = arrays.to_numpy_ndarrays()
    return np.array(values, np.float32)


# --- the server ------------------------------------------------------------------------------------------


class Fused(Strategy):
    """Asks the clients that keep data to train the adapter's values, and takes their exact mean."""

    def __init__(self, run: str) -> None:
        self.run, self.task = run, task_of(run)
        self.nodes: dict[int, int] = {}
        """Flower's nodes by client."""

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        self.nodes = self.nodes or self._ask_who(grid)
        told = ConfigRecord({"run": self.run, "round": server_round})
        return [
            Message(RecordDict({"arrays": arrays, "config": told}), self.nodes[client], MessageType.TRAIN)
            for client in self.task.phase.participants(server_round)
        ]

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[ArrayRecord, MetricRecord]:
        work, scenario = self.task.phase.work(server_round), self.task.federation.scenario
        exact = ExactSum(self.task.shape.size, *round_bits(work, scenario))
        answered = []
        for reply in replies:
            if reply.has_error():
                raise FusedRayError(f"round {server_round}: a client failed: {reply.error.reason}")
            about = reply.content["metrics"]
            exact.add(values_of(reply.content["arrays"]), int(about["examples"]))
            answered.append(int(about["client"]))
        if sorted(answered) != sorted(self.task.phase.participants(server_round)):
            raise FusedRayError(f"round {server_round}: a client is missing, or there twice")
        return record(exact.mean()), MetricRecord({"clients": len(answered), "examples": exact.weight})

    def evaluate(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """RA, FA and what else the run's scenario asks, on the server's test images: for `start(evaluate_fn=...)`."""
        return MetricRecord(dict(self.task.federation.evaluate(self.task.phase.evaluation, Payload(values_of(arrays)))))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> None:
        return None

    def summary(self) -> None:
        pass

    def _ask_who(self, grid: Grid) -> dict[int, int]:
        clients = len(self.task.federation.scenario.held)
        nodes, _ = sample_nodes(grid, clients, clients)
        questions = [Message(RecordDict(), node, MessageType.QUERY) for node in nodes]
        replies = grid.send_and_receive(questions)
        return {int(reply.content["metrics"]["client"]): reply.metadata.src_node_id for reply in replies}


# --- a client --------------------------------------------------------------------------------------------

app = ClientApp()


@cache
def space_of(run: str) -> Workspace:
    """A process's model with M_r in it, for all clients that it computes."""
    task = task_of(run)
    space = Workspace(task.federation.config, task.federation.data, task.federation.scenario)
    space.install(state.flatten(task.base))
    return space


@app.query()
def who(message: Message, context: Context) -> Message:
    """Which client a node is."""
    return Message(RecordDict({"metrics": MetricRecord({"client": _client(context)})}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train the adapter's values on what the client keeps, above the frozen M_r."""
    told, client = message.content["config"], _client(context)
    task, run = task_of(str(told["run"])), str(told["run"])
    work, before = task.phase.work(int(told["round"])), Payload(values_of(message.content["arrays"]))
    with standard():
        done = compute(space_of(run), work, before, [client], keep_updates=True)
    about = MetricRecord({"client": client, "examples": done.weight, "loss": done.reports[0].loss})
    return Message(RecordDict({"arrays": record(done.updates[client]), "metrics": about}), reply_to=message)


def _client(context: Context) -> int:
    return int(context.node_config["partition-id"])
