"""What an attacker learns who has both models, or sees the gradients that clients send for saliency.

    python benchmarks/giveaway.py models [--scenarios class ...] [--seeds 200 ...] [--set KEY=VALUE]
    python benchmarks/giveaway.py inversion [--trials 5] [--steps 300] [--seed 200]

`models` makes a run with the defaults for each scenario and seed, in runs/giveaway, and prints what the metric
`giveaway` comes to. A run that is there is not made again.

`inversion` takes the model before of the run for the scenario `class`, and the gradient of a mean loss of one or few
training examples of a client over some layers: those that the run adapted, the output layer, or all. From these alone
it looks for images that have the same gradient (Geiping et al. 2020, arXiv 2003.14053: cosine of gradients plus total
variation, Adam; the labels are given). It prints

- label: in how many trials the label with the most negative gradient of the output bias is that of an example,
- input: the relative error of a linear layer's input as a weight's gradient over a bias's, where one example and a
  linear layer are sent,
- PSNR (dB) of the images found, and of the mean training image of their class, which needs no gradient,
- found: how many of the images are nearer to the found one than all CANDIDATES others of their class. Chance finds one
  in CANDIDATES + 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from fused_ray import RunConfig, load_run, run
from fused_ray.audit.evidence import measured
from fused_ray.audit.yardstick import Yardstick
from fused_ray.config.parts.metrics import METRICS
from fused_ray.core.layers import layer_parameters
from fused_ray.core.standard import standard
from fused_ray.core.state import flatten
from fused_ray.core.workspace import Workspace
from fused_ray.data import datasets, scenarios
from fused_ray.runs.handles import model_that_forgot
from fused_ray.seeding import derive, permutation
from fused_ray.storage.files import read_state
from fused_ray.types import IntVector

FOLDER = Path("runs/giveaway")
SCENARIOS = ("class", "client", "sample", "exclusive")
CANDIDATES = 99
SMOOTH = 1e-2
"""Weight of the total variation, which is a mean over pixels."""
LR = 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description="What models and gradients give away.")
    parts = parser.add_subparsers(dest="part", required=True)
    models = parts.add_parser("models")
    models.add_argument("--scenarios", nargs="+", default=SCENARIOS)
    models.add_argument("--seeds", nargs="+", type=int, default=[200, 201, 202])
    models.add_argument("--set", dest="fields", action="append", default=[])
    inversion = parts.add_parser("inversion")
    inversion.add_argument("--trials", type=int, default=5)
    inversion.add_argument("--steps", type=int, default=300)
    inversion.add_argument("--seed", type=int, default=200)
    given = parser.parse_args()
    if given.part == "models":
        report([made(s, seed, given.fields) for s in given.scenarios for seed in given.seeds])
    else:
        with standard():
            invert_all(made("class", given.seed, []), given.trials, given.steps)


# --- models ----------------------------------------------------------------------------------------------


def made(scenario: str, seed: int, fields: Sequence[str]) -> Path:
    """The run for a scenario and a seed, made where it is not there yet."""
    path = FOLDER / f"{scenario}-{seed}"
    if not (path / "result.json").exists():
        own = [f"forget.scenario={scenario}", f"seed={seed}", f"output.dir={path}", "output.plots=none"]
        own += ["engine.backend=local"]
        run(RunConfig.from_dict({}, [*own, *fields]), overwrite=path.exists(), progress=True)
    return path


def report(paths: Sequence[Path]) -> None:
    """A column per run, a row per figure."""
    found = [figures(path) for path in paths]
    names = list(dict.fromkeys(name for column in found for name in column))
    print("| figure | " + " | ".join(path.name for path in paths) + " |")
    print("|---|" + "---|" * len(paths))
    for name in names:
        print(f"| {name} | " + " | ".join(_told(column.get(name)) for column in found) + " |")


def figures(path: Path) -> dict[str, Any]:
    """Of a finished run: its verdict, its adapted layers, and what the metric comes to."""
    result = load_run(path).result
    retrained = read_state(path / "retrained.safetensors")
    with standard():
        space = space_of(path)
        yardstick = Yardstick(space=space, before=read_state(path / "base.safetensors"), retrained=retrained)
        model = model_that_forgot(path)
        found = measured([METRICS["giveaway"]], yardstick, model, yardstick.see(model))
    assert not found["audit_metrics_failed"], found
    named = {f["name"].removeprefix("giveaway_"): f["value"] for f in found["audit_metrics"]}
    return {"verdict": result["verdict"], "layers": "+".join(result["layers"]["chosen"]), **named}


def space_of(path: Path) -> Workspace:
    """A working model with the data and the clients of a run."""
    config = load_run(path).config
    data = datasets.load(config.data, config.seed)
    scenario = scenarios.build(config, data)
    return Workspace(config, scenarios.extended(config, data, scenario), scenario)


def _told(value: Any) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.3f}"


# --- inversion -------------------------------------------------------------------------------------------


def invert_all(path: Path, trials: int, steps: int) -> None:
    """Every number of examples and set of layers, a line each."""
    chosen, space = load_run(path).result["layers"]["chosen"], space_of(path)
    space.load(flatten(read_state(path / "base.safetensors")))
    space.model.eval()
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in space.model.named_parameters()))
    print("| examples | layers | label | input | PSNR | PSNR of the mean | found |")
    print("|---|---|---|---|---|---|---|")
    for count in (1, 4):
        for sent in (chosen, layers[-1:], layers):
            tried = [Trial(space, count, tuple(sent), number, steps).figures() for number in range(trials)]
            cells = [_mean(tried, name) for name in ("label", "input", "psnr", "mean", "found")]
            print(f"| {count} | {'+'.join(sent)} | {' | '.join(cells)} |", flush=True)


def _mean(tried: Sequence[dict[str, Any]], name: str) -> str:
    values = [figures[name] for figures in tried if figures[name] is not None]
    return f"{np.mean(values):.2g}" if values else "-"


class Trial:
    """One gradient, and what is read from it."""

    def __init__(self, space: Workspace, count: int, layers: tuple[str, ...], number: int, steps: int) -> None:
        self._space, self._steps, self._layers = space, steps, layers
        self._seed = derive(space.config.seed, f"inversion/{count}", number)
        named = dict(space.model.named_parameters())
        names = [name for layer in layers for name in layer_parameters(named, layer)]
        self._wanted = [named[name] for name in names]
        held = space.scenario.held[number % len(space.scenario.held)]
        self._rows = held[permutation(len(held), self._seed, "rows")[:count]]
        self._labels = torch.from_numpy(space.scenario.train_labels[self._rows])
        self._images = space.images("train", self._rows)
        self._sent = [g.detach() for g in self._gradient(self._images)]

    def figures(self) -> dict[str, Any]:
        found = self._inverted()
        return {
            "label": self._label(),
            "input": self._input(),
            "psnr": np.mean([self._psnr(found, image) for image in self._images]),
            "mean": np.mean([
                self._psnr(self._alike(label).mean(0, keepdim=True), image)
                for image, label in zip(self._images, self._labels.tolist(), strict=True)
            ]),
            "found": np.mean([
                self._is_nearest(found, image, label)
                for image, label in zip(self._images, self._labels.tolist(), strict=True)
            ]),
        }  # fmt: skip

    def _gradient(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        loss = F.cross_entropy(self._space.suffix(0, images), self._labels)
        return torch.autograd.grad(loss, self._wanted, create_graph=True)

    def _inverted(self) -> torch.Tensor:
        """Images [n, ...] whose gradient is like the one that was sent."""
        low, high = (self._space.normalised(np.full((1, *self._images.shape[1:]), v, np.uint8)) for v in (0, 255))
        generator = torch.Generator().manual_seed(derive(self._seed, "start") % 2**32)
        images = (0.1 * torch.randn(self._images.shape, generator=generator)).requires_grad_(True)
        optimiser = torch.optim.Adam([images], lr=LR)
        norm = torch.sqrt(sum(g.square().sum() for g in self._sent))
        for _ in range(self._steps):
            own = self._gradient(images)
            inner = sum((a * b).sum() for a, b in zip(own, self._sent, strict=True))
            cosine = inner / (norm * torch.sqrt(sum(g.square().sum() for g in own)) + 1e-12)
            across, down = images.diff(dim=3).abs().mean(), images.diff(dim=2).abs().mean()
            optimiser.zero_grad()
            (1 - cosine + SMOOTH * (across + down)).backward(inputs=[images])
            optimiser.step()
            with torch.no_grad():
                images.clamp_(low, high)
        return images.detach()

    def _label(self) -> float | None:
        """Whether the output bias's most negative gradient is that of one of the labels; None where it is not sent."""
        bias = self._sent[-1]
        if bias.shape != (self._space.data.classes,):
            return None
        return float(int(bias.argmin()) in self._labels.tolist())

    def _input(self) -> float | None:
        """Relative error of the input of the first linear layer that is sent, of one example."""
        modules = dict(self._space.model.named_modules())
        linear = [layer for layer in self._layers if isinstance(modules[layer], nn.Linear)]
        if not linear or len(self._rows) > 1:
            return None
        seen: list[torch.Tensor] = []
        layer = modules[linear[0]]
        hook = layer.register_forward_hook(lambda module, given, output: seen.append(given[0].detach()[0]))
        with torch.no_grad():
            self._space.suffix(0, self._images)
        hook.remove()
        by = {id(p): g for p, g in zip(self._wanted, self._sent, strict=True)}
        weight, bias = by[id(layer.weight)], by[id(layer.bias)]
        row = int(bias.abs().argmax())
        return float((weight[row] / bias[row] - seen[0]).norm() / seen[0].norm())

    def _alike(self, label: int) -> torch.Tensor:
        """Other training images of a class [CANDIDATES, ...]."""
        rows: IntVector = np.setdiff1d(np.flatnonzero(self._space.scenario.train_labels == label), self._rows)
        chosen = rows[permutation(len(rows), self._seed, "candidates", client=label)[:CANDIDATES]]
        return self._space.images("train", chosen)

    def _is_nearest(self, found: torch.Tensor, image: torch.Tensor, label: int) -> bool:
        def distance(one: torch.Tensor) -> float:
            return float((found - one).square().mean((1, 2, 3)).min())

        return distance(image) < min(distance(other) for other in self._alike(label))

    def _psnr(self, found: torch.Tensor, image: torch.Tensor) -> float:
        """Of the nearest of the images found, in dB of pixel values between 0 and 1."""
        std = torch.tensor(self._space.data.std).reshape(1, -1, 1, 1)
        error = ((found - image) * std).square().mean((1, 2, 3)).min()
        return float(-10 * torch.log10(error))


if __name__ == "__main__":
    main()
