"""What a run shows when it is finished: the verdict first, in 80 columns, in the words of its own data."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from fused_ray.audit.rules import RULES
from fused_ray.config import RunConfig
from fused_ray.config.schedule import PHASES
from fused_ray.runs.report import OUTDATED, show_result, totals, what

HASH = "c" * 64
PATH = Path("/runs/[bold]demo")


def phase(client: int, up: int, down: int) -> dict[str, int]:
    return {
        "up_per_client_per_round": client, "down_per_client_per_round": client, "up_total": up, "down_total": down
    }  # fmt: skip


RESULT: dict[str, Any] = {
    "method": "fused",
    "data": {"class_names": ["T-shirt/top", "Trouser"]},
    "metrics": {
        "before": {"ra": 0.796, "fa": 0.755},
        "after": {"ra": 0.834, "fa": 0.0},
        "retrained": {"ra": 0.817, "fa": 0.0},
    },
    "vacuous": False,
    "layers": {"chosen": ["conv1", "conv2", "fc3"]},
    "adapter": {"values": 1633},
    "bytes": {
        "pretrain": phase(177_784, 35_556_800, 35_556_800),
        "rank": phase(112, 2_240, 3_555_680),
        "saliency": phase(0, 0, 0),
        "replay": phase(0, 0, 0),
        "unlearn": phase(6_612, 661_200, 661_200),
        "retrain": phase(177_784, 35_556_800, 35_556_800),
    },
    "seconds": {
        name: {"train": train, "aggregate": 0.5, "evaluate": 0.5}
        for name, train in zip(PHASES, (20.0, 2.0, 0.0, 0.0, 4.0, 20.0), strict=True)
    },
    "hash": {"base": HASH, "unlearned": "d" * 64, "restored": HASH},
    "reversible": True,
    "numerics": {"comparable": True},
}
JUDGED = {
    "verdict": "shallow",
    "verdict_sentence": "half of the old FA is back after 3 steps of relearning, the retrained model takes 33.",
    "verdict_rules": RULES,
    "findings": [
        {"name": "leaky", "sentence": "the attack's AUC is 0.61, the retrained model's 0.50"},
        {"name": "[head only]", "sentence": "nothing below the output layer changed"},
    ],
}
CONFIG = RunConfig.from_dict({"federation": {"clients": 20}})


def result(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(RESULT) | changes


def told(shown: Any, found: dict[str, Any], config: RunConfig = CONFIG, **terminal: Any) -> list[str]:
    lines: list[str] = shown(lambda: show_result(PATH, config, found), **terminal)
    return lines


def table(lines: list[str]) -> list[str]:
    """The lines of the table: those below its title, above the totals."""
    first = next(number for number, line in enumerate(lines) if line.startswith("Forgetting "))
    last = next(number for number, line in enumerate(lines) if line.startswith("All clients, all rounds: "))
    return lines[first + 1 : last]


@pytest.mark.parametrize("by", [{"verdict_rules": RULES - 1}, {}])
def test_a_verdict_by_other_rules_or_by_nobody_knows_which_says_so(shown: Any, by: dict[str, int]) -> None:
    old = {name: value for name, value in JUDGED.items() if name != "verdict_rules"} | by
    assert f"{OUTDATED}fused-ray audit {PATH}" in told(shown, result(**old), width=200)
    assert not any(line.startswith(OUTDATED) for line in told(shown, result(**JUDGED), width=200))


def test_the_verdict_is_the_first_word(shown: Any) -> None:
    lines = told(shown, result(**JUDGED))
    assert lines[:4] == [
        "Verdict: shallow",
        "Half of the old FA is back after 3 steps of relearning, the retrained model takes 33.",
        "- leaky: the attack's AUC is 0.61, the retrained model's 0.50",
        "- [head only]: nothing below the output layer changed",
    ]
    assert lines[4:6] == ["", "Forgetting class 0 (T-shirt/top) (fashion-mnist-mini, lenet, 20 clients, seed 0)"]
    assert not any("audited" in line or "FA went from" in line for line in lines)


def test_an_older_result_says_that_it_was_not_audited(shown: Any) -> None:
    lines = told(shown, result())
    assert lines[:2] == [
        "Forgetting: FA went from 0.755 to 0.000, retrained 0.000.",
        "not audited: fused-ray audit /runs/[bold]demo",
    ]
    vacuous = told(shown, result(vacuous=True))
    assert vacuous[0].startswith("VACUOUS: the model before (FA 0.755)")


def test_the_table_fits_80_columns_and_says_which_way_is_better(shown: Any) -> None:
    for overlap in (False, True):
        found = result()
        if overlap:
            for figures in found["metrics"].values():
                figures["ca"] = 0.25
        lines = table(told(shown, found))
        assert max(map(len, lines)) <= 80
        text = "\n".join(lines)
        assert text.count("higher") == 1 + overlap
        assert text.count("lower") == 1
        assert text.count("0.250") == 4 * overlap
        for figure in ("0.796", "0.755", "0.834", "0.000", "0.817", "177.8 KB", "6.6 KB", "20.0 s", "4.0 s"):
            assert figure in text
        words = " ".join(line[:30] for line in lines)
        assert "after: 1633" in words
        assert "retrained without" in words


def test_values_that_heal_are_told_beside_the_adapters(shown: Any) -> None:
    def of(adapter: dict[str, int]) -> str:
        return next(line for line in told(shown, result(adapter=adapter), width=200) if line.startswith("after: "))

    assert of({"values": 1633, "heal_values": 1200}).startswith(
        "after: 1633 adapter values (1200 of them heal) on conv1"
    )
    assert of({"values": 1633, "heal_values": 0}).startswith("after: 1633 adapter values on conv1")
    assert of({"values": 1633}).startswith("after: 1633 adapter values on conv1")  # an earlier version's


def test_totals_by_hand() -> None:
    """2,240 + 661,200 against 35,556,800 B up: 53.6 times; 3,555,680 + 661,200 down: 8.4 times."""
    assert list(totals(RESULT)) == [
        "All clients, all rounds: up 663.4 KB against 35.6 MB to retrain: 54 times less",
        "                         down 4.2 MB against 35.6 MB to retrain: 8.4 times less",
    ]
    dear = result()
    dear["bytes"]["unlearn"] = phase(1, 40_000_000, 32_000_000)
    assert [line.rpartition(": ")[2] for line in totals(dear)] == ["1.1 times more", "as much"]
    alone = result()
    alone["bytes"]["retrain"] = phase(0, 0, 0)
    assert next(totals(alone)) == "All clients, all rounds: up 663.4 KB"
    nothing = result()
    nothing["bytes"] |= {"rank": phase(0, 0, 0), "unlearn": phase(0, 0, 0)}
    assert next(totals(nothing)).endswith("up 0 B against 35.6 MB to retrain: nothing")


def test_retraining_is_not_held_against_itself(shown: Any) -> None:
    for fields, said in ((["unlearn.method=retrain"], False), (["unlearn.method=retrain", "unlearn.retain=0.5"], True)):
        lines = told(shown, result(method="retrain"), RunConfig.from_dict({}, fields))
        assert any(line.startswith("All clients, all rounds: ") for line in lines) == said


def test_the_audit_says_its_share(shown: Any) -> None:
    """20 + 2 + 4 + 20 s of training, a second more for each of six phases, and 13 s of audit: 20% of 65 s."""
    found = result(**JUDGED)
    found["seconds"]["audit"] = 13.0
    assert "The audit took 13 s of the 65 s that rounds and audit took (20%)." in told(shown, found)
    assert not any("audit took" in line for line in told(shown, result(**JUDGED)))


def test_a_method_that_changes_the_whole_model(shown: Any) -> None:
    found = result(method="not", adapter=None, reversible=False, layers={"chosen": []})
    lines = told(shown, found)
    assert any(line.startswith("Not reversible: the method not changed the whole model") for line in lines)
    assert not any("adapter removed" in line for line in lines)


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("hessian-reset", "Not reversible: the method hessian-reset changed the values that it reset; M_r is kept"),
        ("ridge", "Adding the sums that were subtracted gives the head of all data again: the method ridge"),
        ("fedup", "Closing it gives M_r back, bit for bit: the method fedup changed the bottleneck before the output"),
        ("a.package:METHOD", "Not reversible: the method package changed the whole model; M_r is kept"),
    ],
)
def test_what_a_method_changed_and_how_it_is_taken_back(shown: Any, method: str, said: str) -> None:
    found = result(method=method, adapter=None, reversible=False, layers={"chosen": []})
    assert any(line.startswith(said) for line in told(shown, found, width=200))


AWKWARD = ["[bold]cat", "[/dog]", "猫", "a\nb", ":smile:", "$x$"]


@pytest.mark.parametrize("name", AWKWARD)
def test_names_are_shown_as_they_are(shown: Any, name: str) -> None:
    found = result(data={"class_names": [name, "dog"]}, **JUDGED)
    lines = told(shown, found)
    title = next(line for line in lines if line.startswith("Forgetting "))
    assert f"class 0 ({name})".replace("\n", "\\n") in title
    assert "Everything is in /runs/[bold]demo;" in lines[-1]
    ascii_only = told(shown, found, encoding="ascii")
    assert len(ascii_only) == len(lines)
    assert any("\\u732b" in line for line in ascii_only) == (name == "猫")


def test_what_is_forgotten_in_words() -> None:
    def words(*settings: str, names: tuple[str, ...] = ("T-shirt", "Trouser", "2")) -> str:
        return what(RunConfig.from_dict({}, settings), names)

    assert words() == "class 0 (T-shirt)"
    assert words("forget.classes=[0, 2]") == "classes 0 (T-shirt), 2"
    assert (
        words("forget.scenario=exclusive")
        == "all that client 0 knew: class 1 (Trouser) alone, most of class 0 (T-shirt)"
    )
    assert words("forget.scenario=client", "forget.clients=[3, 4]") == "2 clients whose labels are flipped"
    assert words("forget.scenario=client", "forget.clients=3") == "1 client whose labels are flipped"
    assert words("forget.scenario=sample") == "single examples that carry a backdoor"
    assert words(names=()) == "class 0"


@pytest.mark.parametrize("word", ["unjudged", "vacuous", "damaged", "not forgotten", "shallow", "forgotten"])
def test_the_verdict_has_a_colour_on_a_terminal(terminal: Any, monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    screen = terminal(tty=True)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    show_result(PATH, CONFIG, result(**JUDGED | {"verdict": word}))
    first = screen.text.splitlines()[0]
    assert first.startswith("\x1b[1;3")
    assert f"Verdict: {word}" in first
