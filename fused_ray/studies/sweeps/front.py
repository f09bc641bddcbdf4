"""What a sweep says: settings with mean and spread over seeds, the Pareto front, and the candidates, best first.

A setting is a point of the space without its seed, and a number of rounds I, which is read off each trial's rounds. The
front and the candidates are chosen by one half of the test set; the figures to show are those on the other. A
case is what settings are compared within: all swept fields that shape the model that must forget, or what it must
forget. RA of different cases cannot be compared.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fused_ray.config.parts.methods import METHOD_SECTIONS
from fused_ray.runs.screen import size
from fused_ray.studies.pareto import unbeaten
from fused_ray.studies.status import DONE
from fused_ray.studies.sweeps.rows import ACCURACIES

Rows = Iterable[Mapping[str, Any]]
SMALLEST, NEAREST = "the smallest upload", "the nearest"
NOTHING, NOT_AUDITED = "nothing is recommended", "not audited"
_COSTS = ("bytes_up", "bytes_up_total", "seconds_total", "simulated_seconds")


@dataclass(frozen=True)
class Setting:
    """A point of the space and a number of rounds; figures are means over seeds.

    Accuracies are those on the half of the test set that is reported, but for `choosing`.
    """

    case: str
    """The swept fields that shape what is compared, as text; empty where none are swept."""
    values: Mapping[str, Any]
    """The other swept fields."""
    round: int
    seeds: tuple[int, ...]
    trials: tuple[int, ...]
    choosing: Mapping[str, float | None]
    """Accuracies on the half that is chosen by."""
    mean: Mapping[str, float | None]
    spread: Mapping[str, float]
    """Standard deviations over seeds of what has several."""
    last: bool
    """Whether the trials end with this round."""
    layers: str = ""
    """The layers that were adapted."""

    @property
    def text(self) -> str:
        """Its values in words."""
        return ", ".join(f"{short(key)} {exact(value)}" for key, value in self.values.items())

    @property
    def title(self) -> str:
        """Its values and rounds in words."""
        return ", ".join(filter(None, (self.text, f"I = {self.round}")))

    def __getitem__(self, name: str) -> float:
        mean = self.mean[name]
        assert mean is not None
        return mean

    def by(self, name: str) -> float:
        """An accuracy that it is chosen by."""
        mean = self.choosing[name]
        assert mean is not None
        return mean


@dataclass(frozen=True)
class Candidate:
    """A setting that may be recommended."""

    setting: Setting
    why: str
    """What speaks for it."""


@dataclass(frozen=True)
class Audited:
    """A setting with its verdict: the worst of its seeds'."""

    setting: Setting
    verdict: str
    sentence: str
    findings: Sequence[Mapping[str, str]] = ()
    """Each with `name` and `sentence`, of the same seed."""
    metrics: Sequence[Mapping[str, Any]] = ()
    """Figures of further metrics, each with `name`, `value` and `meaning`; means over seeds."""
    metrics_failed: Sequence[str] = ()
    """Those that could not be taken, and why."""


@dataclass(frozen=True)
class Case:
    """Everything that a sweep found in one case."""

    name: str
    settings: Sequence[Setting]
    front: Sequence[Setting] = ()
    """Not beaten in RA, FA and bytes at once by any other, fewest bytes first."""
    candidates: Sequence[Candidate] = ()
    """Best first."""
    best: str = ""
    """What the first of them is."""
    audited: Sequence[Audited] = ()
    recommended: Setting | None = None
    reason: str = ""
    """Of the recommendation, or why there is none."""

    def verdict(self, setting: Setting) -> Audited | None:
        """What the audit said of a setting; None where it was not audited."""
        return next((audited for audited in self.audited if audited.setting is setting), None)


def short(key: str) -> str:
    """A field's name as tables show it."""
    return key.removeprefix("unlearn.")


def exact(value: Any) -> str:
    """A swept value in words."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def rounded(value: Any) -> str:
    """The same as tables show it."""
    return f"{value:.4g}" if isinstance(value, float) else exact(value)


def cases(rows: Rows, ra_margin: float, fa_margin: float, seeds: int = 1) -> list[Case]:
    """What the finished trials say, case by case. Settings that lack some of their seeds are listed, no more."""
    all_cases: list[Case] = []
    settings = _settings(rows)
    for name in dict.fromkeys(setting.case for setting in settings):
        here = [setting for setting in settings if setting.case == name]
        whole = [setting for setting in here if len(setting.seeds) >= seeds]
        best, listed = candidates(whole, ra_margin, fa_margin)
        reason = f"{NOTHING}: {best}"
        if listed:
            reason = f"{best}, not audited yet: {listed[0].setting.title} ({listed[0].why})"
        all_cases.append(Case(name, here, pareto(whole), listed, best, reason=reason))
    return all_cases


def best_of(found: Iterable[Case]) -> str:
    """The first candidate there is, in words; empty without any."""
    return next((case.candidates[0].setting.text for case in found if case.candidates), "")


def settled(case: Case, concluded: Iterable[Mapping[str, Any]]) -> Case:
    """A case with the verdicts and the recommendation that result.json tells of it."""

    def setting(said: Mapping[str, Any]) -> Setting:
        return next(s for s in case.settings if (s.values, s.round) == (said["values"], said["rounds"]))

    told = next((earlier for earlier in concluded if earlier["case"] == case.name), None)
    if told is None:  # of a trial that failed when the sweep ended, and was tried again since
        return case
    audited = [
        Audited(
            *(setting(s), s["verdict"], s["verdict_sentence"], s["findings"]),
            metrics=s.get("audit_metrics", ()),  # an earlier version had none
            metrics_failed=s.get("audit_metrics_failed", ()),
        )
        for s in told["audited"]
    ]
    best = told["recommended"]
    return replace(case, audited=audited, recommended=best and setting(best), reason=told["reason"])


def _settings(rows: Rows) -> list[Setting]:
    groups: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["status"] == DONE and row["round"] is not None:
            values = json.loads(row["values"])
            shaping = {k: v for k, v in values.items() if k.partition(".")[0] not in METHOD_SECTIONS and k != "seed"}
            case = ", ".join(f"{key.rpartition('.')[2]} {exact(value)}" for key, value in shaping.items())
            rest = {k: v for k, v in values.items() if k not in shaping and k != "seed"}
            groups.setdefault((case, json.dumps(rest), row["round"]), []).append(row)
    return [_setting(case, json.loads(values), round, alike) for (case, values, round), alike in groups.items()]


def _setting(case: str, values: Mapping[str, Any], round: int, rows: Sequence[Mapping[str, Any]]) -> Setting:
    def column(name: str) -> list[float]:
        return [row[name] for row in rows if row.get(name) is not None]

    choosing = {name: column(f"{name}_choose") for name in ACCURACIES}
    reported = {name: column(f"{name}_report") for name in ACCURACIES} | {name: column(name) for name in _COSTS}
    return Setting(
        case=case,
        values=values,
        round=round,
        seeds=tuple(row["seed"] for row in rows),
        trials=tuple(row["trial"] for row in rows),
        choosing=_means(choosing),
        mean=_means(reported),
        spread={name: statistics.stdev(numbers) for name, numbers in reported.items() if len(numbers) > 1},
        last=all(row["last"] for row in rows),
        layers=" / ".join(dict.fromkeys(row["layers"] or "" for row in rows)),
    )


def _means(columns: Mapping[str, Sequence[float]]) -> dict[str, float | None]:
    return {name: statistics.fmean(values) if values else None for name, values in columns.items()}


def pareto(settings: Sequence[Setting]) -> list[Setting]:
    """Those that no other beats: none has RA no lower, FA no higher, bytes no more, and one of them better."""

    def figures(setting: Setting) -> tuple[float, float, float]:
        return -setting.by("ra"), setting.by("fa"), setting["bytes_up_total"]

    front = unbeaten(settings, figures)
    return sorted(front, key=lambda setting: (setting["bytes_up_total"], *figures(setting)))


def candidates(settings: Sequence[Setting], ra_margin: float, fa_margin: float) -> tuple[str, list[Candidate]]:
    """Settings that may be recommended, best first, and what the first is.

    Those that come near the retrained model in RA and FA, the smallest upload first; if none does, all of them, the
    nearest first. If there is nothing to choose from, why.
    """
    if not settings:
        return "no setting has figures of all its seeds", []
    compared = [setting for setting in settings if setting.choosing["ra_retrained"] is not None]
    if not compared:
        return "retraining was left out (retrain.rounds=0), so there is no standard and no verdict", []

    def missing(setting: Setting) -> float:
        """How far it is outside the two margins, in all."""
        lost = setting.by("ra_retrained") - ra_margin - setting.by("ra")
        kept = setting.by("fa") - setting.by("fa_retrained") - fa_margin
        return max(0.0, lost) + max(0.0, kept)

    within = f"RA within {100 * ra_margin:g} point(s) of retraining and FA within {100 * fa_margin:g}"
    good = [setting for setting in compared if missing(setting) <= 1e-12]
    if good:
        good.sort(key=lambda setting: (setting["bytes_up_total"], setting.by("fa"), -setting.by("ra")))
        why = f"with {within}, as {len(good)} of {len(compared)} settings"
        return SMALLEST, [Candidate(each, f"{size(each['bytes_up_total'])} in all, {why}") for each in good]
    compared.sort(key=lambda setting: (missing(setting), setting["bytes_up_total"]))
    why = f"no setting has {within}; this one misses by"
    return NEAREST, [Candidate(each, f"{why} {100 * missing(each):.1f} points in all") for each in compared]
