"""The Arrow schemas of a run's tables. Each column's meaning and unit is in its field's metadata."""

from __future__ import annotations

import pyarrow as pa

from fused_ray.core.metrics import HALVES


def _field(name: str, kind: pa.DataType, doc: str) -> pa.Field:
    return pa.field(name, kind, metadata={"doc": doc})


_BOTH = [
    _field(
        "phase", pa.string(), "pretrain, rank, saliency, replay, unlearn or retrain; or one of a method of your own"
    ),
    _field("round", pa.int32(), "round within the phase, from 1"),
]

TIME = pa.timestamp("us", tz="UTC")
"""A moment, to the microsecond."""
_VIEWS = ("ra", "fa", "ca")
MOST_CONFUSED = 100
"""Classes of which a table has every pair."""
METRICS = (*_VIEWS, *(f"{view}_{half}" for half in HALVES for view in _VIEWS))
"""Columns of accuracies."""

ROUNDS = pa.schema(
    [
        *_BOTH,
        _field("started_at", TIME, "when the round began, by the driver's clock"),
        _field("train_seconds", pa.float64(), "wall seconds until all clients' updates were there"),
        _field("aggregate_seconds", pa.float64(), "wall seconds of the driver's averaging"),
        _field("evaluate_seconds", pa.float64(), "wall seconds of the evaluation"),
        _field(
            "ra",
            pa.float64(),
            "accuracy of the new global model on the retained test view; null where none is made (rank)",
        ),
        _field("fa", pa.float64(), "accuracy on the forgotten test view; null likewise"),
        _field("ca", pa.float64(), "accuracy on the overlapping class; null outside the exclusive scenario"),
        *(
            _field(f"{view}_{half}", pa.float64(), f"{view} on {what}")
            for half, what in HALVES.items()
            for view in _VIEWS
        ),
        _field(
            "class_accuracy",
            pa.list_(pa.float64()),
            "accuracy on the test images of each class; null where no model is made",
        ),
        _field(
            "confusion",
            pa.list_(pa.int64()),
            "in a phase's last round, by true class and then by predicted one, how many test images; null elsewhere, "
            f"and with more than {MOST_CONFUSED} classes",
        ),
        _field("loss", pa.float64(), "mean training loss an example over the round; null where nobody counted"),
        _field("bytes_up_total", pa.int64(), "protocol bytes that all clients together uploaded, too late or not"),
        _field("bytes_down_total", pa.int64(), "protocol bytes that all clients together received"),
        _field("bytes_up_client", pa.int64(), "protocol bytes that each client uploaded"),
        _field("bytes_down_client", pa.int64(), "protocol bytes that each client received, but for bytes_once"),
        _field("bytes_up", pa.int64(), "bytes_up_total by its older name"),
        _field("bytes_down", pa.int64(), "bytes_down_total by its older name"),
        _field(
            "bytes_once",
            pa.int64(),
            "those of bytes_down that are sent once: which entries a mask holds, and M_r to a client that lacks it and "
            "is sent no whole model in the round",
        ),
        _field("clients_expected", pa.int32(), "clients that should take part: all that were asked"),
        _field("clients_received", pa.int32(), "clients whose update arrived, in time or not"),
        _field("clients_used", pa.int32(), "clients whose update is in the mean"),
        _field("examples_shown", pa.int64(), "training examples that all clients were shown, repeats counted"),
        _field("retries", pa.int32(), "how often clients' work was done again because its actor had died"),
        _field("memory", pa.int64(), "bytes of the driver's process in RAM after the round; 0: not told"),
    ]
)

CLIENTS = pa.schema(
    [
        *_BOTH,
        _field("client", pa.int32(), "client, from 0"),
        _field("client_name", pa.string(), "what its owner's partition calls it; null where that is its number"),
        _field("node", pa.string(), "the Ray node where it was computed; local: in the run's own process"),
        _field("device", pa.string(), "what it was computed on: cpu or cuda"),
        _field("attempt", pa.int32(), "which attempt gave it, from 1; the earlier ones died with their actor"),
        _field("started_at", TIME, "when its work began, by its worker's clock"),
        _field("examples", pa.int64(), "training examples, the client's weight in the mean"),
        _field("train_seconds", pa.float64(), "wall seconds of the client's training"),
        _field("aggregate_seconds", pa.float64(), "wall seconds of checking and adding its update"),
        _field("ra", pa.float64(), "the global model's ra, its classes weighted as in the client's D_r"),
        _field("fa", pa.float64(), "the global model's fa, its classes weighted as in the client's D_u; null if empty"),
        _field("loss", pa.float64(), "mean training loss an example"),
        _field("update_norm", pa.float64(), "L2 norm of the change that the client made"),
        _field("values_changed", pa.int64(), "values that the client changed"),
        _field("bytes_up_client", pa.int64(), "protocol bytes that the client uploaded"),
        _field("bytes_down_client", pa.int64(), "protocol bytes that it received, what is sent once included"),
        _field("bytes_up", pa.int64(), "bytes_up_client by its older name"),
        _field("bytes_down", pa.int64(), "bytes_down_client by its older name"),
        _field("worker", pa.int64(), "number of the process that computed it, on its node"),
        _field("memory", pa.int64(), "bytes of that process in RAM when the client was done; 0: not told"),
    ]
)

HELD = pa.schema(
    [
        _field("client", pa.int32(), "client, from 0"),
        _field("client_name", pa.string(), "what its owner's partition calls it; null where that is its number"),
        _field("held", pa.list_(pa.int64()), "training examples of each class, by the labels that clients train on"),
        _field("to_forget", pa.list_(pa.int64()), "those of them that must be forgotten"),
    ]
)

SIMULATED = pa.schema(
    [
        _field(
            "simulated_seconds",
            pa.float64(),
            "seconds on the devices of `deployment`; null: a client failed, so not known",
        ),
        _field(
            "waited_seconds",
            pa.float64(),
            "those of them until somebody was there, or everybody whom the method asks by name; null likewise",
        ),
    ]
)
"""Columns of rounds.parquet behind those of ROUNDS, in a finished run with a deployment."""
