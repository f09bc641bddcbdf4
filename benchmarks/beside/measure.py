"""The parts of the benchmark. Each gives rows: what was measured, of which system, repeat by repeat."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from beside import tasks
from beside.systems import (
    BLAZEFL,
    FLOWER,
    OURS,
    PLAIN,
    RELEASED,
    SYSTEMS,
    BenchError,
    Outcome,
    System,
    TooLateError,
    run,
)

LENET = 44_426
"""Values of a LeNet on Fashion-MNIST."""
PATIENCE = 600
"""Seconds after which a system's empty rounds of many clients are given up."""


@dataclass(frozen=True)
class Row:
    """One figure of one system: a value a repeat, in the order of the repeats."""

    part: str
    case: str
    system: str
    measure: str
    unit: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Setting:
    """How a benchmark is run."""

    pairs: int
    cache: Path
    """Where the peers' environments are."""
    folder: Path
    """Where tasks are written."""
    quick: bool = False
    """A trial that everything works: few images, few clients; its figures say nothing."""
    cifar10: str | None = None
    """The folder with CIFAR-10 as Parquet."""
    released: Path | None = None
    """A checkout of the code that was released with the FUSED paper."""
    missing: dict[str, str] = field(default_factory=dict)
    """Systems that cannot be measured here, with the reason; filled as it is found out."""

    def there(self, systems: Sequence[System]) -> list[System]:
        """Those of the systems that this machine can run."""
        for system in systems:
            if system.name not in self.missing:
                try:
                    system.interpreter(self.cache)
                except BenchError as error:
                    self.missing[system.name] = str(error)
                    print(f"left out: {error}", flush=True)
        return [system for system in systems if system.name not in self.missing]


Repeats = dict[tuple[str, str, str, str], list[float]]
"""Values by case, system, measure and unit."""


def _rows(part: str, repeats: Repeats) -> list[Row]:
    return [Row(part, *key, tuple(values)) for key, values in repeats.items()]


def alternately(setting: Setting, systems: Sequence[System], pairs: int) -> Iterator[tuple[int, System]]:
    """A B C A B C ...: every system once in a repeat, so that a slow hour of the machine hits all of them."""
    there = setting.there(systems)
    for repeat in range(pairs):
        for system in there:
            print(f"  {repeat + 1} of {pairs}: {system.name}", flush=True)
            yield repeat, system


def trained(setting: Setting, case: str, task: Path, systems: Sequence[System], rounds: int, pairs: int) -> Repeats:
    """Rounds of training: the first warms up, in the last the memory is looked at, those between count."""
    found: Repeats = {}
    for _, system in alternately(setting, systems, pairs):
        outcome = run(system, setting.cache, ["full", task, rounds], watched=rounds)
        add(found, (case, system.name, "round", "s"), middle(outcome.rounds[1:-1]))
        add(found, (case, system.name, "accuracy after the last round", "share"), outcome.lines[-1]["accuracy"])
        add(found, (case, system.name, "memory", "GB"), (outcome.memory or 0) / 1e9)
    return found


def add(found: Repeats, key: tuple[str, str, str, str], value: float) -> None:
    found.setdefault(key, []).append(value)


def middle(values: Sequence[float]) -> float:
    """The median, of an even number the lower one."""
    return sorted(values)[(len(values) - 1) // 2]


def full(setting: Setting) -> list[Row]:
    """Full Fashion-MNIST, LeNet, 50 clients."""
    fields = [*tasks.FASHION, *(["data.limit=5000"] if setting.quick else [])]
    task = tasks.write(setting.folder / "full", fields, "lenet")
    rounds = 3 if setting.quick else 5
    return _rows("full", trained(setting, "50 clients", task, SYSTEMS, rounds, setting.pairs))


def empty(setting: Setting) -> list[Row]:
    """Rounds in which clients add a constant to a LeNet's values, and the start before the first of them."""
    found: Repeats = {}
    for clients in (50, 200) if setting.quick else (50, 1_000, 10_000):
        case = f"{clients:,} clients"
        for repeat, system in alternately(setting, SYSTEMS, setting.pairs):
            slow = system in (FLOWER, BLAZEFL)
            if slow and clients == 10_000 and repeat:
                continue  # minutes a round; said on the page
            rounds = 2 if slow and clients > 50 else 4
            try:
                outcome = run(system, setting.cache, ["empty", clients, LENET, rounds], longest=PATIENCE)
            except TooLateError as error:
                print(f"  {error}", flush=True)
                add(found, (case, system.name, f"{rounds} rounds, at least", "s"), PATIENCE)
                continue
            add(found, (case, system.name, "round", "s"), middle(outcome.rounds[1:]))
            if clients == 50:
                add(found, (case, system.name, "start", "s"), outcome.first)
    return _rows("empty", found)


def payload(setting: Setting) -> list[Row]:
    """The same with 10 clients and payloads of several sizes."""
    sizes = [1_000, 100_000] if setting.quick else [10**exponent for exponent in range(3, 8)]
    found: Repeats = {}
    rounds = 3
    for _, system in alternately(setting, SYSTEMS, setting.pairs):
        listed = ",".join(map(str, sizes))
        outcome = run(system, setting.cache, ["empty", 10, listed, rounds])
        for index, size in enumerate(sizes):
            own = outcome.rounds[index * rounds : (index + 1) * rounds]
            add(found, (f"{size:,} values", system.name, "round", "s"), middle(own[1:]))
    return _rows("payload", found)


def fused(setting: Setting) -> list[Row]:
    """Rounds of FUSED against a full one, and against the bare arithmetic of what it trains."""
    fields = [*tasks.FASHION, *(["data.limit=5000"] if setting.quick else [])]
    task = tasks.write(setting.folder / "fused", fields, "lenet")
    suffix = tasks.write(setting.folder / "suffix", [*fields, "unlearn.layers=[fc3]"], "lenet", "retained")
    rounds = 3 if setting.quick else 5
    found: Repeats = {}
    for _, system in alternately(setting, (OURS, PLAIN), setting.pairs):
        if system is PLAIN:
            outcome = run(system, setting.cache, ["suffix", suffix, rounds])
            add(found, ("fc3", system.name, "round", "s"), middle(outcome.rounds[1:]))
            continue
        told = run(system, setting.cache, ["fused", task, rounds])
        for case in ("fc3", "default"):
            _adapted(found, case, system.name, told)
    return _rows("fused", found)


def released(setting: Setting) -> list[Row]:
    """Rounds of FUSED against those of the code released with its paper, which adapts conv1 and fc3 by LoRA."""
    fields = [*tasks.FASHION, *(["data.limit=5000"] if setting.quick else [])]
    task = tasks.write(setting.folder / "fused", fields, "lenet")
    retained = tasks.write(setting.folder / "retained", [*fields, "unlearn.layers=[fc3]"], "lenet", "retained")
    found: Repeats = {}
    case = "a round of unlearning"
    for _, system in alternately(setting, (OURS, RELEASED), min(setting.pairs, 3)):
        if system is RELEASED:
            lines = run(system, setting.cache, ["fused", retained, 3, setting.released]).lines[1:]
            for key, measure in (("seconds", "round"), ("train", "its training"), ("evaluate", "its evaluation")):
                add(found, (case, system.name, measure, "s"), middle([line[key] for line in lines]))
            continue
        outcome = run(system, setting.cache, ["fused", task, 3])
        for label, measure in (("default", "round"), ("fc3", "round, fc3 alone")):
            lines = [x for x in outcome.lines if (x.get("case"), x.get("phase")) == (label, "unlearn")]
            add(found, (case, system.name, measure, "s"), middle([line["seconds"] for line in lines[1:]]))
    return _rows("released", found)


def _adapted(found: Repeats, case: str, name: str, outcome: Outcome) -> None:
    """What the lines of one adapter say: rounds, and the price of it."""
    lines = [line for line in outcome.lines if line.get("case") == case]
    of: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        if "phase" in line:
            of.setdefault(line["phase"], []).append(line)
    layers: str = next(line["layers"] for line in lines if "layers" in line)
    what = case if case == layers else f"{case}: {layers}"
    whole = middle([line["seconds"] for line in of["pretrain"][1:]])
    first, *cached = (line["seconds"] for line in of["unlearn"])
    add(found, (what, name, "full round", "s"), whole)
    for phase in sorted(of.keys() - {"pretrain", "unlearn"}):
        add(found, (what, name, f"before the first round: {phase}", "s"), sum(line["seconds"] for line in of[phase]))
    add(found, (what, name, "first round", "s"), first)
    add(found, (what, name, "round", "s"), middle(cached))
    add(found, (what, name, "full round / round", "times"), whole / middle(cached))
    add(found, (what, name, "values", "values"), of["unlearn"][0]["values"])
    sent = {"bytes_up": "up a round", "bytes_down": "down a round", "bytes_once": "down once"}
    for key, direction in sent.items():
        add(found, (what, name, f"sent {direction}, a client", "bytes"), of["unlearn"][0][key])


def published(setting: Setting) -> list[Row]:
    """The CIFAR-10 tasks that BlazeFL and pfl-research published."""
    place = [f"data.root={setting.cifar10}", *(["data.limit=5000"] if setting.quick else [])]
    definitions = (
        ("BlazeFL's: 100 clients, 5 epochs", [*tasks.BLAZEFL, *place], "lenet", 3),
        ("pfl's: 50 of 1,000 clients", [*tasks.PFL, *place], "dropout", 6),
    )
    found: Repeats = {}
    for number, (case, fields, net, rounds) in enumerate(definitions):
        if setting.quick:
            fields = [*fields, "train.local_epochs=1"]
        task = tasks.write(setting.folder / f"published{number}", fields, net)
        found |= trained(setting, case, task, SYSTEMS, 3 if setting.quick else rounds, min(setting.pairs, 3))
    return _rows("published", found)


def step(setting: Setting) -> list[Row]:
    """A training step on one core: arithmetic a second, against the core's own matrix product."""
    task = tasks.write(setting.folder / "step", tasks.FASHION, "lenet")
    found: Repeats = {}
    for _, system in alternately(setting, (OURS,), setting.pairs):
        lines = run(system, setting.cache, ["step", task, 10]).lines[1:]
        case, rate, peak = "LeNet, batch 64", *(middle([line[key] for line in lines]) for key in ("gflops", "peak"))
        add(found, (case, system.name, "step", "ms"), 1000 * middle([line["seconds"] for line in lines]))
        add(found, (case, system.name, "arithmetic", "GFLOP/s"), rate)
        add(found, (case, system.name, "peak of this core", "GFLOP/s"), peak)
        add(found, (case, system.name, "share of the peak", "share"), rate / peak)
    return _rows("step", found)


PARTS: dict[str, Callable[[Setting], list[Row]]] = {
    each.__name__: each for each in (full, empty, payload, fused, published, step, released)
}


def versions(setting: Setting, found: Sequence[Row]) -> dict[str, str]:
    """What each measured system is made of, and why others are missing."""
    there = {row.system for row in found}
    made = {system.name: system.version() for system in (*SYSTEMS, RELEASED) if system.name in there}
    return made | {f"{name} left out": reason for name, reason in setting.missing.items()}
