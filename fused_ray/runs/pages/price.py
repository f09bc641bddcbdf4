"""What a run's unlearning cost against retraining: bytes, seconds, and seconds to forget on a deployment's devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fused_ray.config import schedule
from fused_ray.pages import charts
from fused_ray.pages.charts import Bar
from fused_ray.pages.parts import Chart, Part, Section, Table, Words
from fused_ray.runs.pages.known import Known
from fused_ray.runs.report import imagined_time, in_words
from fused_ray.runs.screen import size


def price(known: Known) -> Section:
    """Bars of bytes and seconds by phase, the table behind them, and the sentences of the terminal."""
    result = known.result
    sent = {phase: sums for phase, sums in result["bytes"].items() if sums["up_total"] or sums["down_total"]}
    parts: list[Part] = [*charts.only(_bytes(sent), _seconds(result, sent))]
    parts.append(_table(known, sent))
    parts += list(_forgotten(result))
    lines = [line if line[0] != " " else f"The same {line.strip()}" for line in in_words(known.config, result)]
    parts.append(Words(lines, listed=True))
    return Section("Price against retraining", parts)


def _own(phase: str) -> bool:
    return phase not in ("pretrain", "retrain")


def _bytes(sent: Mapping[str, Any]) -> Chart | None:
    bars = [
        Bar(schedule.title(phase), sums["up_total"], size(sums["up_total"]), _own(phase))
        for phase, sums in sent.items()
    ]
    about = "Protocol bytes that all clients sent up in all rounds of each phase, on a logarithmic scale."
    return charts.bars(
        "Sent up by all clients (log scale)", about, bars, log=True, legend=("whole models", "the method")
    )


def _seconds(result: Mapping[str, Any], sent: Mapping[str, Any]) -> Chart | None:
    took = {phase: result["seconds"][phase]["train"] for phase in sent}
    bars = [Bar(schedule.title(phase), value, f"{value:.1f} s", _own(phase)) for phase, value in took.items()]
    about = "Wall seconds of local training in all rounds of each phase."
    return charts.bars("Seconds of training", about, bars, legend=("whole models", "the method"))


def _table(known: Known, sent: Mapping[str, Any]) -> Table:
    each = ("up, a client and round", "down, a client and round")
    head = ("phase", "rounds", *each, "up in all", "down in all", "training", "averaging", "evaluation")
    body = []
    for phase, sums in sent.items():
        seconds = known.result["seconds"][phase]
        sizes = (
            sums[name] for name in ("up_per_client_per_round", "down_per_client_per_round", "up_total", "down_total")
        )
        times = (f"{seconds[name]:.2f} s" for name in ("train", "aggregate", "evaluate"))
        body.append((schedule.title(phase), str(len(known.phases.get(phase, ()))), *map(size, sizes), *times))
    return Table("Bytes and wall seconds by phase", head, body)


def _forgotten(result: Mapping[str, Any]) -> Iterator[Part]:
    """Simulated seconds, where the run had a deployment's clock."""
    there = result.get("deployment")
    if there is None:
        yield Words(["Seconds to forget on real devices: set deployment.profile, and they are told here."])
        return
    rows = []
    for who, prefix, whole in (("this method", "", "simulated_seconds"), ("retraining", "retrain_", "retrain_seconds")):
        rounds, until = (there.get(f"{prefix}{name}_to_forget") for name in ("rounds", "seconds"))
        forgotten = ("-", "-") if rounds is None else (str(rounds), imagined_time(until))
        rows.append((who, imagined_time(there.get(whole)), *forgotten))
    head = ("by", "in all", "rounds to forget", "time to forget")
    yield Table(f"On {there['profile']} (simulated)", head, rows)
