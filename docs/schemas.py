"""Writes docs/schemas.md, what every column of every table means: python docs/schemas.py > docs/schemas.md"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from fused_ray.data.summary import MANY_CLIENTS
from fused_ray.storage.schemas import CLIENTS, HELD, ROUNDS, SIMULATED
from fused_ray.studies.comparisons.rows import SCHEMA as RESULTS
from fused_ray.studies.comparisons.rows import TIMES as RESULTS_TIMES
from fused_ray.studies.scaling.rows import MEASURED, MODEL, PAPER, POINTS
from fused_ray.studies.sweeps.rows import SCHEMA as TRIALS
from fused_ray.studies.sweeps.rows import TIMES as TRIALS_TIMES

TABLES = {
    "rounds.parquet": (
        ROUNDS,
        "In a run's directory, a row per finished round. Read the folder as one table. In a finished run with a "
        f"deployment (docs/deployment.md) come behind: {', '.join(f'`{name}`' for name in SIMULATED.names)}.",
    ),
    "clients.parquet": (CLIENTS, "In a run's directory, a row per finished round and client. Likewise a folder."),
    "held.parquet": (HELD, f"In a run's directory, a row per client, for the first {MANY_CLIENTS:,} clients."),
    "results.parquet": (
        RESULTS,
        "In a comparison's directory, a row per method, scenario and seed. Behind these columns comes one for every "
        "figure of `audit.metrics`: `metric_` and its name, a double. Where `deployment.profile` is set, between them "
        f"stand {', '.join(f'`{name}`' for name in RESULTS_TIMES.names)} (docs/deployment.md).",
    ),
    "trials.parquet": (
        TRIALS,
        "In a sweep's directory, a row per trial and round. Where `deployment.profile` is set, these columns come "
        f"behind: {', '.join(f'`{name}`' for name in TRIALS_TIMES.names)}.",
    ),
    "measured.parquet": (MEASURED, "In a scaling study's directory, a row per measured round, or run that failed."),
    "points.parquet": (
        POINTS,
        "In a scaling study's directory, a row per point; it comes at the end, as the next two.",
    ),
    "model.parquet": (MODEL, "In a scaling study's directory, a row per parameter of the cost model."),
    "paper.parquet": (PAPER, "In a scaling study's directory, a row per cluster on paper, number of clients, payload."),
}
RESULT = {
    "schema": "version of these fields",
    "version": "version of the package",
    "seed": "the run's seed",
    "started": "when the run was first started, UTC",
    "starts": "how many starts it took; more than 1 after an interruption",
    "ended": "when it was finished, UTC",
    "wall_seconds": "wall seconds of the start that finished it",
    "placement": "`actors`, `nodes` and `devices`, and under `workers` those that are alike: `node`, `device`, "
    "`torch`, what each reserved of `cpus` and `gpus` on Ray, and how many `actors`",
    "adapter.heal_values": "how many of the adapter's `values` heal (`unlearn.heal`): nothing chose them",
    "deployment": "only where `deployment.profile` is set: what docs/deployment.md tells",
    "notes": "what the user was told of the whole run, callbacks that were switched off among it",
    "failures_of_model": "those of them in the pre-training of M_r, an earlier run's too (`pretrain.from`)",
    "failures": "how often a client was left out of a round because it had failed (`federation.on_failure=skip`); "
    "unless it is 0, the run is not bit-reproducible",
    "retries": "how often clients' work was done again because its actor had died",
    "audit_metrics": "of `audit.metrics` and of docs/anew.md, each with `name`, `value`, `better` and `meaning`",
    "audit_metrics_failed": "metrics that could not be taken, each with the reason in one line",
    "audit_answers": "what further metrics that ask a question found: `name`, `passes` (null: it cannot tell), and "
    "`said`, one sentence (docs/audit.md)",
}
"""Of result.json, what docs/results.md does not tell of."""
ENVIRONMENT = {
    "format": "what kind of folder it is, and its version",
    "name": "host name of the machine that made the folder",
    "python": "version of Python there",
    "platform": "operating system",
    "processor": "model of the processor",
    "cores": "its logical cores, whatever share of them was used",
    "gpus": "names of its NVIDIA cards",
    "packages": "versions of this package and of what its results depend on",
    "revision": "git revision of the code, with `+changes` where files differ from it; null outside a checkout",
    "drivers": "the same of every driver: once each, and once more where it was another machine or version at a later "
    "start; `since` is when it was first there, UTC",
    "nodes": "the same of every node that clients ran on, but `revision`, with `node`, its identifier in the tables",
}
"""Of environment.json."""


def page() -> Iterator[str]:
    """The lines of docs/schemas.md."""
    yield "# Tables and their columns"
    yield ""
    yield "Version 1. Later versions add columns and fields, and take none away. Made by `docs/schemas.py`."
    for name, (schema, about) in TABLES.items():
        yield from ("", f"## {name}", "", about, "", "| column | type | meaning |", "|---|---|---|")
        yield from map(_row, schema)
    yield from ("", "## result.json of a run", "", "| field | meaning |", "|---|---|")
    yield from (f"| `{name}` | {meaning} |" for name, meaning in RESULT.items())
    yield from ("", "## environment.json of a run", "", "| field | meaning |", "|---|---|")
    yield from (f"| `{name}` | {meaning} |" for name, meaning in ENVIRONMENT.items())


def _row(field: pa.Field) -> str:
    meaning = field.metadata[b"doc"].decode().replace("|", r"\|")
    return f"| `{field.name}` | {field.type} | {meaning} |"


if __name__ == "__main__":
    print("\n".join(page()))
