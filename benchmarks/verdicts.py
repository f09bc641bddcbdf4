"""Is the verdict right where the answer is known? Constructed models, judged like any other.

    python benchmarks/verdicts.py [--scenarios class ...] [--seeds 100 ...] [--set KEY=VALUE ...]

For every scenario and seed a base run pre-trains and retrains by the defaults, and two more models are retrained from
other initial weights. Then each constructed model is audited with probes, and a table says how often each verdict
came. A second retrained model must be forgotten, an adapter of the output layer alone never.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fused_ray import RunConfig, load_run, resume, run
from fused_ray.audit.control import SHIFT
from fused_ray.audit.report import Subject, audit
from fused_ray.audit.verdict import WORDS
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config import AuditConfig
from fused_ray.core import state
from fused_ray.core.adapter import random_masks, start_values
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fedavg, fused
from fused_ray.core.pools import LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.state import Arrays
from fused_ray.runs import audits
from fused_ray.runs.execute import prepared
from fused_ray.seeding import generator

SETTINGS = AuditConfig(probes=True, retrained=3)
EXPECTED = {
    "does nothing": {"not forgotten", "damaged"},  # what flipped labels damaged stays so
    "random values on all layers": {"damaged", "not forgotten"},
    "one output bias": {"shallow", "not forgotten", "damaged"},
    "fresh model, 3 rounds": {"damaged"},
    "output layer alone, negated, 5 rounds": {"shallow", "not forgotten", "damaged"},
    "second retrained model": {"forgotten"},
    "third retrained model": {"forgotten"},
    "model at chance": {"damaged"},
    "nothing to forget before": {"vacuous"},
    "all layers negated": {"damaged"},
    "no retrained model": {"unjudged"},
}
"""By constructed case the verdicts that are right."""


def base_run(scenario: str, seed: int, folder: Path, fields: list[str]) -> Path:
    path = folder / f"{scenario}-{seed}"
    fixed = [f"forget.scenario={scenario}", f"seed={seed}", f"output.dir={path}", "output.plots=false"]
    if path.exists():
        resume(path)
    else:
        run(RunConfig.from_dict({}, [*fixed, "unlearn.method=retrain", "audit.enabled=false", *fields]))
    return path


def subjects(path: Path) -> Iterator[tuple[str, Subject]]:
    """The constructed cases of a base run."""
    base = load_run(path)
    config = base.config
    data, scenario = prepared(config)
    pool = LocalPool(config, data, scenario)
    recorder = audits.AuditRecorder(config, SETTINGS, base, "audit", lambda _: None, lambda: False)
    federation = Federation(config, data, scenario, pool, recorder)
    base.lock(60)
    trained = audits.train(federation, SETTINGS)
    base.unlock()
    retrained = path / "retrained.safetensors"
    yardstick = audits.yardstick(config, path, data, scenario, SETTINGS, trained, retrained)
    before, layers = yardstick.before, federation.anatomy.layers
    assert yardstick.retrained is not None

    def case(name: str, after: Arrays, by: Yardstick = yardstick) -> tuple[str, Subject]:
        return name, Subject(yardstick=by, method=name, after=after)

    everywhere = random_masks(config.seed, before, layers, 1.0)
    noise = generator(config.seed, "verdicts/noise").normal(scale=0.1, size=everywhere.size).astype(np.float32)
    yield case("does nothing", before)
    yield case("random values on all layers", everywhere.apply(before, noise))
    yield case("one output bias", biased(before, layers[-1], yardstick))
    yield case("fresh model, 3 rounds", fresh(federation, before, 3))
    yield case("output layer alone, negated, 5 rounds", head_only(federation, before, layers[-1]))
    # judged like somebody else's model: the others are those that it is not
    second, third = yardstick.others
    yield case("second retrained model", second, replace(yardstick, others=[third]))
    yield case("third retrained model", third, replace(yardstick, others=[second]))
    yield case("model at chance", fresh(federation, before, 0))
    yield case("nothing to forget before", second, replace(yardstick, before=yardstick.retrained))
    yield case("all layers negated", everywhere.apply(before, start_values(everywhere, before, "negate", "")))
    yield case("no retrained model", second, replace(yardstick, retrained=None, others=()))


def biased(model: Arrays, layer: str, yardstick: Yardstick) -> Arrays:
    """The one-number control as a model."""
    bias = model[f"{layer}.bias"].copy()
    bias[np.unique(yardstick.space.scenario.views["fa"].labels)] -= SHIFT
    return {**model, f"{layer}.bias": bias}


def fresh(federation: Federation, like: Arrays, rounds: int) -> Arrays:
    """A new model that learned from what stays for a few rounds."""
    start = state.flatten(fedavg.initial(federation, "fresh"))
    inside = replace(federation, recorder=MemoryRecorder())
    return state.unflatten(fedavg.fedavg(inside, start, "fresh", "retained", rounds).payload, like)


def head_only(federation: Federation, base: Arrays, layer: str) -> Arrays:
    """M_f of an adapter of half of the output layer."""
    values = federation.config.model_dump(mode="json", by_alias=True)
    values["unlearn"] = {"layers": [layer], "sparsity": 0.5, "mask": "random", "start": "negate", "rounds": 5}
    federation.pool.install(state.flatten(base))
    inside = replace(federation, config=RunConfig.from_dict(values), recorder=MemoryRecorder())
    return fused.unlearn(inside, base).state


def judged(path: Path, show: Callable[[str], None]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, subject in subjects(path):
        report = audit(subject)
        index = report["index"] or {}
        show(f"{path.name:14} {name:38} {report['verdict']:14} index {index.get('value')} {report['sentence']}")
        for finding in report["findings"]:
            show(f"{'':14} - {finding['name']}: {finding['sentence']}")
        yield name, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", default=["class", "client", "sample", "exclusive"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[100, 101, 102, 103, 104])
    parser.add_argument("--folder", type=Path, default=Path("runs/verdicts"))
    parser.add_argument("--set", nargs="*", default=[], dest="fields")
    given = parser.parse_args()
    counts: dict[tuple[str, str], Counter[str]] = {}
    for scenario in given.scenarios:
        for seed in given.seeds:
            for name, report in judged(base_run(scenario, seed, given.folder, given.fields), print):
                counts.setdefault((scenario, name), Counter())[report["verdict"]] += 1
    print(f"\n| case | {' | '.join(given.scenarios)} | right |\n{'|---' * (len(given.scenarios) + 2)}|")
    for name, right in EXPECTED.items():
        found = [counts[scenario, name] for scenario in given.scenarios]
        cells = [", ".join(f"{word} {count[word]}" for word in WORDS if count[word]) for count in found]
        good, of = sum(c[word] for c in found for word in right), sum(sum(c.values()) for c in found)
        print(f"| {name} | {' | '.join(cells)} | {good} of {of} |")


if __name__ == "__main__":
    main()
