"""How deep is the forgetting? Starts, masks and layers side by side, with relearning and distance to retraining.

    python benchmarks/depth.py run --scenario class [--seeds 0 1 2] [--settings saliency|depth] [--bases DIR ...]
                               [--shadows DIR] [--set forget.share=0.4]
    python benchmarks/depth.py report

`run` pre-trains and retrains once per scenario and seed (LeNet, full Fashion-MNIST, 50 clients), unlearns with every
setting, and measures after 0, 1 and all rounds: RA, FA, the steps to relearn half of the old FA against the retrained
model's, the Jensen-Shannon distance to that model, and membership inference (AUC) with the shadow models of a finished
comparison, or by the loss alone. It appends to runs/depth/<scenario>-<settings>.csv and goes on where it stopped.
`report` prints the tables of docs/depth.md and draws depth against bytes and the curves of relearning.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from experiment import Bench, Setting, base_run, draws, read_csv, write_csv
from matplotlib.figure import Figure

from fused_ray.audit import membership
from fused_ray.audit.distance import distance
from fused_ray.audit.outputs import logits
from fused_ray.audit.relearning import Relearning, ratio, relearn
from fused_ray.audit.shadow import Shadow, train_shadows
from fused_ray.config.parts.models import MODELS
from fused_ray.core import state
from fused_ray.core.adapter import Masks, start_values
from fused_ray.core.memory import MemoryRecorder
from fused_ray.core.methods import fedavg
from fused_ray.core.pools import ClientPool, LocalPool
from fused_ray.core.rounds import Federation
from fused_ray.core.standard import standard
from fused_ray.core.state import Arrays
from fused_ray.core.workspace import Workspace
from fused_ray.runs.checkpoints import read_saved

STEPS = 25
MARKERS = {"zero": "o", "reset": "s", "negate": "^"}
SCENARIOS = ("class", "client", "sample", "exclusive")


def saliency_settings() -> Iterator[Setting]:
    """18 values of fc3 and other numbers, by saliency and at random, zero to five rounds."""
    for values, start, mask in itertools.product((9, 18, 43, 85), ("negate", "reset"), ("saliency", "random")):
        fields = ("unlearn.layers=[fc3]", f"unlearn.budget={values}", f"unlearn.start={start}", f"unlearn.mask={mask}")
        yield Setting(f"fc3 {values} {start} {mask}", fields)
    for values, start in itertools.product((18, 85), ("negate", "reset")):
        fields = ("unlearn.layers=[fc3]", f"unlearn.budget={values}", f"unlearn.start={start}", "unlearn.mask=saliency")
        yield Setting(f"fc3 {values} {start} difference", (*fields, "unlearn.saliency=difference"))


def depth_settings() -> Iterator[Setting]:
    """Layers x start x mask, at the sizes that METHOD's figures and the paper have."""
    where = (("fc3", "[fc3]", 425), ("fc3", "[fc3]", 85), ("fc2+fc3", "[fc2, fc3]", 1101), ("all", "5", 3087))
    for (name, layers, values), start, mask in itertools.product(
        where, ("zero", "reset", "negate"), ("random", "saliency")
    ):
        fields = (f"unlearn.layers={layers}", f"unlearn.budget={values}", f"unlearn.start={start}")
        yield Setting(f"{name} {values} {start} {mask}", (*fields, f"unlearn.mask={mask}"))


def curve_settings() -> Iterator[Setting]:
    """Adapters from a thousandth to a tenth of the model, random masks: how RA grows with bytes."""
    for layers, values in (("[fc3]", 100), ("[fc3]", 425), ("[fc3]", 850), ("[fc2, fc3]", 1333), ("[fc2, fc3]", 4442)):
        for start in ("zero", "reset"):
            fields = (f"unlearn.layers={layers}", f"unlearn.budget={values}", f"unlearn.start={start}")
            if not (values == 850 and start == "reset"):
                yield Setting(f"{layers} {values} {start}", fields, rounds=10)
    for values in (1333, 4442):
        yield Setting(f"all {values} zero", ("unlearn.layers=5", f"unlearn.budget={values}"), rounds=10)


def thesis_settings() -> Iterator[Setting]:
    """The paper's sparse adapters on fc3: every start, sparsity 0.5 and 0.9, three masks."""
    for sparsity, start in itertools.product((0.5, 0.9), ("zero", "reset", "negate")):
        fields = ("unlearn.layers=[fc3]", f"unlearn.sparsity={sparsity}", f"unlearn.start={start}")
        yield Setting(f"fc3 {sparsity} {start}", fields, draws=3)


SETTINGS = {
    "saliency": saliency_settings,
    "depth": depth_settings,
    "curve": curve_settings,
    "thesis": thesis_settings,
}


class Measure:
    """RA and FA aside, what tells how deep a model forgot."""

    def __init__(self, bench: Bench, shadows: Sequence[Shadow]) -> None:
        self.bench = bench
        self.space = Workspace(bench.config, bench.data, bench.scenario)
        self._view = bench.scenario.views["fa"].indices
        retrained = bench.model("retrained")
        self._reference = logits(self.space, state.flatten(retrained), "test", self._view)
        self.standard = self.relearning(retrained)
        self._adversary = membership.prepare(self.space, shadows)
        self.mia_before, self.mia_retrained = self.mia(bench.base), self.mia(retrained)

    def relearning(self, model: Arrays) -> Relearning:
        return relearn(self.space, state.flatten(model), self.bench.before["fa"], steps=STEPS)

    def mia(self, model: Arrays) -> float:
        """AUC of telling members from non-members: by what shadow models taught, or else by the loss."""
        found = self._adversary.attack(self.space, state.flatten(model))
        return (found.shadow or found.loss).auc

    def row(self, model: Arrays) -> dict[str, Any]:
        found = self.relearning(model)
        outputs = logits(self.space, state.flatten(model), "test", self._view)
        relative = ratio(found, self.standard)
        return {
            "rea": found.accuracy,
            "steps": STEPS + 1 if found.steps is None else found.steps,
            "steps_retrained": STEPS + 1 if self.standard.steps is None else self.standard.steps,
            "ratio": "" if relative is None else relative.low or relative.high,  # a bound where one was not reached
            "js": distance(outputs, self._reference).js,
            "mia": self.mia(model),
            "mia_before": self.mia_before,
            "mia_retrained": self.mia_retrained,
            "curve": as_text(found),
            "curve_retrained": as_text(self.standard),
        }


def as_text(found: Relearning) -> str:
    """FA before the first step of relearning and after each, for a cell of a CSV file."""
    return " ".join(f"{value:.3f}" for value in found.curve)


def shadow_models(bench: Bench, pool: ClientPool, folder: Path | None) -> list[Shadow]:
    """The two shadow models that a comparison kept for this scenario and seed; none if it kept none."""
    kept = folder / bench.path.name if folder else None
    if kept is None or not kept.exists():
        return []
    recorder = MemoryRecorder({path.stem: read_saved(path) for path in kept.glob("shadow-*.safetensors")})
    federation = Federation(bench.config, bench.data, bench.scenario, pool, recorder)
    initial = state.flatten(fedavg.initial(federation, "pretrain"))
    return train_shadows(federation, initial, len(recorder.saved), bench.config.pretrain.rounds)


def measure(
    bench: Bench, settings: Iterator[Setting], done: set[tuple[str, str]], folder: Path | None
) -> Iterator[dict[str, Any]]:
    """A row per setting, draw and measured round; those that are done already are left out."""
    assert bench.retrained is not None
    input_layer = MODELS[bench.config.model.name].layers[0]
    with closing(LocalPool(bench.config, bench.data, bench.scenario)) as pool:
        judge = Measure(bench, shadow_models(bench, pool, folder))
        bench.install(pool)
        for setting in settings:
            for draw, config in draws(setting, bench):
                if (setting.name, str(draw)) in done:
                    continue
                found, recorder = bench.unlearn(config, pool)
                assert isinstance(found.adapter, Masks)
                gradient = max((r.bytes_up for r in recorder.records if r.phase == "saliency"), default=0)
                shared = {
                    "scenario": bench.config.forget.scenario,
                    "seed": bench.config.seed,
                    "setting": setting.name,
                    "draw": draw,
                    "values": found.adapter.size,
                    "once_bytes": found.mask_bytes + gradient,
                    "ra_before": bench.before["ra"],
                    "fa_before": bench.before["fa"],
                    "ra_retrained": bench.retrained["ra"],
                    "fa_retrained": bench.retrained["fa"],
                }
                start = start_values(found.adapter, bench.base, config.unlearn.start, input_layer)
                for number in range(config.unlearn.rounds + 1):
                    values = start if number == 0 else recorder.rounds["unlearn", number].payload.values
                    metrics = found.start_metrics if number == 0 else recorder.rounds["unlearn", number].metrics
                    row = shared | {"round": number, **metrics}
                    if number in (0, 1, config.unlearn.rounds):
                        row |= judge.row(found.adapter.apply(bench.base, values))
                    yield row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--scenario", choices=SCENARIOS, default="class")
    parser.add_argument("--settings", choices=tuple(SETTINGS), default="saliency")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(range(5)))
    parser.add_argument("--bases", nargs="*", type=Path, default=[], help="folders where base runs may be")
    parser.add_argument("--set", nargs="*", default=[], help="further fields of base runs that must be made")
    parser.add_argument("--shadows", type=Path, help="the folder `shadows` of a comparison with the same base runs")
    parser.add_argument("--out", type=Path, default=Path("runs/depth"))
    given = parser.parse_args()
    if given.what == "report":
        for path in sorted(given.out.glob("*.csv")):
            print(f"\n### {path.stem}\n")
            rows = read_csv(path)
            print(*report(rows), sep="\n")
            draw(rows, path.with_suffix(".png"))
            if rows[0].get("curve"):
                draw_curves(rows, path.with_name(f"{path.stem}-curves.png"))
        return
    path = given.out / f"{given.scenario}-{given.settings}.csv"
    rows: list[dict[str, Any]] = list(read_csv(path))
    with standard():
        for seed in given.seeds:
            bench = Bench.load(base_run(given.scenario, seed, [*given.bases, given.out / "bases"], fields=given.set))
            print(bench.path, bench.before, bench.retrained, flush=True)
            done = {(row["setting"], row["draw"]) for row in rows if row["seed"] == str(seed)}
            for row in measure(bench, SETTINGS[given.settings](), done, given.shadows):
                rows.append(row)
                if row.get("js") is not None:
                    told = {name: row[name] for name in ("setting", "draw", "round", "ra", "fa", "steps", "js")}
                    print(seed, *(f"{v:.3f}" if isinstance(v, float) else v for v in told.values()), flush=True)
                write_csv(path, rows)


def report(rows: list[dict[str, str]]) -> Iterator[str]:
    """A Markdown table: a line per setting and measured round, means over seeds and draws."""
    yield "| setting | values | once, B | round | RA - retrained | FA | worst FA | steps / retrained's | JS | MIA | n |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|"
    measured = [row for row in rows if row["js"]]
    for name in dict.fromkeys(row["setting"] for row in measured):
        for number in sorted({int(row["round"]) for row in measured}):
            at = [row for row in measured if row["setting"] == name and int(row["round"]) == number]
            if not at:
                continue
            gap = statistics.mean(float(r["ra"]) - float(r["ra_retrained"]) for r in at)
            fa = [float(row["fa"]) for row in at]
            steps = [float(row["ratio"]) for row in at if row["ratio"]]
            depth = f"{statistics.mean(steps):.2f} ({min(steps):.2f})" if steps else "-"
            js = statistics.mean(float(row["js"]) for row in at)
            mia = [float(row["mia"]) - float(row["mia_retrained"]) for row in at if row.get("mia")]
            yield (
                f"| {name} | {at[0]['values']} | {at[0]['once_bytes']} | {number} | {gap:+.3f} | "
                f"{statistics.mean(fa):.3f} | {max(fa):.3f} | {depth} | {js:.4f} | "
                f"{f'{statistics.mean(mia):+.3f}' if mia else '-'} | {len(at)} |"
            )


def parts(setting: str) -> tuple[str, str, str]:
    """A setting's layers and size, start, and mask (random where its name says nothing)."""
    words = setting.split(" ")
    at = next(number for number, word in enumerate(words) if word in MARKERS)
    return " ".join(words[:at]), words[at], words[at + 1] if words[at + 1 :] else "random"


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """Depth against bytes: a point per setting and measured round, mean over seeds and draws."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    points: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for row in rows:
        if row["js"] and row["ratio"]:
            _, start, mask = parts(row["setting"])
            kind = "random" if mask == "random" else "saliency"
            sent = 4.0 * int(row["values"]) + float(row["once_bytes"])
            points.setdefault((start, kind, row["round"]), []).append((sent, float(row["ratio"])))
    for (start, kind, number), found in sorted(points.items()):
        means = [(x, statistics.mean(y for at, y in found if at == x)) for x in sorted({x for x, _ in found})]
        colour = "#D55E00" if kind == "saliency" else "#0072B2"
        filled = colour if number != "0" else "none"
        axes.plot(*zip(*means, strict=True), MARKERS[start], color=colour, markerfacecolor=filled,
                  alpha=0.5 if number == "1" else 1, label=f"{start}, {kind}, round {number}")  # fmt: skip
    axes.axhline(1, color="black", linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="bytes of an adapter, with its mask and gradient, once",
             ylabel="steps to relearn half of the old FA\nagainst the retrained model's (dashed)")  # fmt: skip
    axes.set_title(path.stem)
    axes.legend(fontsize="x-small", frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(path, dpi=110)


def draw_curves(rows: list[dict[str, str]], path: Path) -> None:
    """FA while the forgotten is learned again, from the last round on: a panel per layers and size, mean over seeds."""
    last = max(int(row["round"]) for row in rows)
    shown = [row for row in rows if row["curve"] and int(row["round"]) == last]
    places = list(dict.fromkeys(parts(row["setting"])[0] for row in shown))
    figure = Figure(figsize=(3.4 * len(places), 3.6), layout="constrained")
    panels = figure.subplots(1, len(places), sharey=True, squeeze=False)[0]

    def mean(at: list[dict[str, str]], column: str) -> list[float]:
        return [statistics.mean(values) for values in zip(*(map(float, r[column].split()) for r in at), strict=True)]

    for axes, place in zip(panels, places, strict=True):
        own = [row for row in shown if parts(row["setting"])[0] == place]
        axes.plot(mean(own, "curve_retrained"), color="black", linewidth=2, label="retrained")
        for setting in dict.fromkeys(row["setting"] for row in own):
            _, start, mask = parts(setting)
            colour = "#0072B2" if mask == "random" else "#D55E00"
            line = mean([row for row in own if row["setting"] == setting], "curve")
            axes.plot(line, color=colour, marker=MARKERS[start], markevery=4, linewidth=1, label=f"{start}, {mask}")
        axes.set(title=f"{place} values", xlabel="steps of relearning")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("FA")
    panels[-1].legend(fontsize="x-small", frameon=False)
    figure.suptitle(f"{path.stem.removesuffix('-curves')}, after {last} rounds")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
