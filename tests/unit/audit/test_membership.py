"""The attacks find members of a model that learned noise by heart, and nobody in one that never saw them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from fused_ray import models
from fused_ray.audit.membership import LOW_FPR, Adversary, Membership, Sample, attack, draw, features, prepare, usual
from fused_ray.audit.outputs import forgotten, logits
from fused_ray.audit.shadow import Shadow, train_shadows
from fused_ray.core.methods import fedavg
from fused_ray.core.state import flatten, read
from fused_ray.errors import DataError
from fused_ray.seeding import permutation
from fused_ray.types import IntVector, Payload
from fused_ray.types import TestView as View

# --- by hand -----------------------------------------------------------------------------------------------


def test_features_by_hand() -> None:
    """p = (1/8, 3/8, 1/2), label 1."""
    scores = np.log(np.array([[1, 3, 4]], np.float32))
    entropy = -(1 / 8 * math.log(1 / 8) + 3 / 8 * math.log(3 / 8) + 1 / 2 * math.log(1 / 2))
    expected = [-math.log(3 / 8), math.log(3 / 5), 1 / 2, entropy, math.log(3 / 4)]
    assert features(scores, np.array([1])).tolist() == [pytest.approx(expected)]


def test_confidence_keeps_its_digits_near_certainty() -> None:
    found = features(np.array([[0, 90, 0], [0, 95, 0]], np.float32), np.array([1, 1]))
    assert found[:, 1].tolist() == pytest.approx([90 - math.log(2), 95 - math.log(2)])


def test_attack_by_hand() -> None:
    """Of the nine pairs the member has the larger score in eight; two of three members are above all others."""
    found = attack(np.array([0.9, 0.8, 0.3, 0.7, 0.2, 0.1]), np.array([1, 1, 1, 0, 0, 0], bool))
    assert found.auc == pytest.approx(8 / 9)
    assert found.tpr is None  # 1% of three non-members is nobody


def test_tpr_allows_one_false_alarm_in_two_hundred() -> None:
    """Of 199 others, 198 is above 197.5, so its p-value is 2/200; above 196.5 are two, so its is 3/200."""
    found = attack(np.concatenate([[500, 197.5, 196.5, 195], np.arange(199.0)]), np.arange(203) < 4)
    assert found.tpr == 2 / 4


def test_tpr_with_equal_scores() -> None:
    """Of ten members and 199 others, one each has the score 3, 2 and 1, the rest has 0: p = 2/200 and 3/200, ..."""
    found = attack(np.array([3.0, 2, 1, *[0] * 7, 3, 2, 1, *[0] * 196]), np.arange(209) < 10)
    assert found.tpr == 1 / 10


def test_tpr_of_constant_scores_is_nothing() -> None:
    found = attack(np.ones(400), np.arange(400) < 200)
    assert (found.auc, found.tpr) == (0.5, 0)


@pytest.mark.parametrize(("others", "tpr"), [(98, None), (99, 1.0)])
def test_one_in_a_hundred_cannot_be_told_among_fewer(others: int, tpr: float | None) -> None:
    assert attack(np.arange(1.0 + others), np.arange(1 + others) == others).tpr == tpr


def test_what_is_usual_comes_from_the_same_models_on_both_sides() -> None:
    """Three shadow models, two pairs: the first pair's member was seen by the last two, the second's by none."""
    said = np.array([[1.0, 2, 10, 20], [3, 4, 30, 40], [8, 9, 80, 90]])
    seen = np.array([[False, False], [True, False], [True, False]])
    assert usual(said, seen).tolist() == [1, 5, 10, 50]


def test_nothing_is_usual_where_all_saw_the_member() -> None:
    found = usual(np.array([[1.0, 2, 10, 20], [3, 4, 30, 40]]), np.array([[True, True], [True, False]]))
    assert np.isnan(found).tolist() == [True, False, True, False]
    assert found[[1, 3]].tolist() == [4, 40]


# --- who is attacked ---------------------------------------------------------------------------------------

SCENARIOS = [
    ["forget.scenario=class", "forget.classes=[0,3]"],
    ["forget.scenario=exclusive"],
    ["forget.scenario=client", "forget.clients=[1]"],
    ["forget.scenario=client", "forget.clients=[1]", "forget.poison=false"],
    ["forget.scenario=sample"],
    ["forget.scenario=sample", "forget.poison=false"],
]


@pytest.mark.parametrize("overrides", SCENARIOS, ids=" ".join)
def test_both_sides_are_alike_but_for_membership(world: Any, overrides: list[str]) -> None:
    made = world(*overrides)
    sample, data, scenario = draw(made.space), made.data, made.scenario
    assert len(sample.members) == len(sample.others) > 50
    assert len(np.unique(sample.members)) == len(np.unique(sample.others)) == len(sample.members)
    assert np.isin(sample.members, forgotten(scenario)).all()
    assert np.array_equal(sample.member_labels, scenario.train_labels[sample.members])
    inside = Counter(zip(data.train_labels[sample.members].tolist(), sample.member_labels.tolist(), strict=True))
    outside = Counter(zip(data.test_labels[sample.others].tolist(), sample.other_labels.tolist(), strict=True))
    assert inside == outside
    # nobody was trained on the others: no image of them is one of the training set
    seen = {image.tobytes() for image in data.train_images}
    assert not [i for i in sample.others.tolist() if data.test_images[i].tobytes() in seen]


def test_nobody_like_the_forgotten(world: Any) -> None:
    """All that carries the trigger shows the target's own class, whose triggered test images `fa` leaves out."""
    made = world("data.limit=200", "forget.scenario=sample", "forget.target=3")
    gone = np.flatnonzero(made.data.train_labels == 3)
    kept = tuple(np.setdiff1d(part, gone) for part in made.scenario.held)
    with pytest.raises(DataError, match="no test image is like"):
        draw(replace(made, scenario=replace(made.scenario, retained=kept, poisoned=gone)).space)


# --- models that learned by heart, and models that never saw ------------------------------------------------


@dataclass(frozen=True)
class Memory:
    world: Any
    overfitted: Payload
    retrained: Payload
    shadows: list[Shadow]


def noisy(made: Any, held: IntVector, gone: IntVector) -> Any:
    """One client holds some examples; those to forget have shuffled labels, and so have all test images for `fa`."""
    labels = made.data.train_labels.copy()
    labels[gone] = labels[gone][permutation(len(gone), 0, "noise/train")]
    other = made.data.test_labels[permutation(len(made.data.test_labels), 0, "noise/test")]
    scenario = replace(
        made.scenario,
        held=(held,),
        retained=(np.setdiff1d(held, gone),),
        train_labels=labels,
        views={**made.scenario.views, "fa": View(np.arange(len(other)), other)},
        poisoned=gone,
    )
    return replace(made, scenario=scenario)


@pytest.fixture(scope="module")
def large(world: Any) -> Any:
    return world(
        "data.limit=null", "federation.clients=1", "train.lr=0.02", "train.local_epochs=40", "pretrain.rounds=1"
    )


@pytest.fixture(scope="module")
def memory(large: Any) -> Memory:
    """300 examples, half of them noise, forty times over."""
    made = noisy(large, np.arange(300), np.arange(0, 300, 2))
    federation = made.federation
    start = flatten(fedavg.initial(federation, "pretrain"))
    overfitted, retrained = fedavg.pretrain(federation, start), fedavg.retrain(federation, start)
    return Memory(made, overfitted.payload, retrained.payload, train_shadows(federation, start, 2, 1))


def found_by(membership: Membership) -> list[float]:
    assert membership.shadow is not None
    assert membership.gaussian is not None
    return [membership.loss.auc, membership.shadow.auc, membership.gaussian.auc]


def test_an_overfitted_model_gives_its_members_away(memory: Memory) -> None:
    space = memory.world.space
    membership = prepare(space, memory.shadows).attack(space, memory.overfitted)
    assert membership.examples > 100
    assert min(found_by(membership)) > 0.8
    assert membership.shadow is not None
    assert membership.shadow.tpr is not None
    assert membership.shadow.tpr > 0.05


def test_a_retrained_model_does_not(memory: Memory) -> None:
    space = memory.world.space
    membership = prepare(space, memory.shadows).attack(space, memory.retrained)
    assert max(abs(auc - 0.5) for auc in found_by(membership)) < 0.1  # three standard errors of so few


def test_nobody_is_found_in_a_model_that_never_saw_them(memory: Memory, large: Any) -> None:
    """Others, attacked in the overfitted and in the retrained model of the three hundred."""
    held = np.arange(300, 3_300)
    space = noisy(large, held, held[::2]).space
    shadows = [Shadow(shadow.payload, shadow.members, held) for shadow in memory.shadows]
    known = prepare(memory.world.space, memory.shadows)
    adversary = replace(prepare(space, shadows[:0]), classifier=known.classifier)
    for payload in (memory.overfitted, memory.retrained):
        membership = adversary.attack(space, payload)
        assert membership.examples > 1_000
        assert membership.loss.auc == pytest.approx(0.5, abs=0.05)
        assert membership.shadow is not None
        assert membership.shadow.auc == pytest.approx(0.5, abs=0.05)
        assert membership.shadow.tpr is not None
        assert membership.shadow.tpr < 0.05


def random_roles(large: Any, seed: int) -> Any:
    """Embedded images but the three hundred, dealt anew: which are in D_u and which are test images is chance."""
    data = large.data
    images = np.concatenate([data.train_images[300:], data.test_images])
    labels = np.concatenate([data.train_labels[300:], data.test_labels])
    order = permutation(len(labels), seed, "roles")
    test, train = np.split(order[:6_000], [2_000])
    dealt = replace(
        data,
        train_images=images[train],
        train_labels=labels[train],
        test_images=images[test],
        test_labels=labels[test],
    )
    config = large.config.model_copy(update={"seed": seed})
    held = np.arange(len(train))
    return noisy(replace(large, config=config, data=dealt), held, held[::2])


def halved(shadow: Shadow, held: IntVector, seed: int, number: int) -> Shadow:
    """The same model, said to have seen a random half of what is held; it has seen none of it."""
    half = np.sort(permutation(len(held), seed, f"half/{number}")[: len(held) // 2])
    return Shadow(shadow.payload, half, np.setdiff1d(held, half))


def confidences(space: Any, payload: Payload, sample: Sample) -> Any:
    """Of the members, then of the others [2n]."""
    inside = features(logits(space, payload, "train", sample.members), sample.member_labels)
    outside = features(logits(space, payload, "test", sample.others), sample.other_labels)
    return np.concatenate([inside, outside])[:, 1]


def unequal(space: Any, payload: Payload, shadows: list[Shadow]) -> float:
    """TPR of the Gaussian attack where a non-member is compared with all shadow models, a member with fewer."""
    sample = draw(space)
    n = len(sample.members)
    without = np.array([[*~np.isin(sample.members, shadow.members), *[True] * n] for shadow in shadows])
    said = np.stack([confidences(space, shadow.payload, sample) for shadow in shadows])
    known = without.any(0)
    mean = (said * without).sum(0)[known] / without.sum(0)[known]
    tpr = attack(confidences(space, payload, sample)[known] - mean, (np.arange(2 * n) < n)[known]).tpr
    assert tpr is not None
    return tpr


def test_chance_finds_nobody(memory: Memory, large: Any) -> None:
    """Nobody is a member: AUC .5 and TPR 1%, each within four standard errors of chance, by every attack.

    Asking more shadow models about non-members than about members finds twice as many.
    """
    found, control, examples = [], [], 0
    for seed in range(6):
        space = random_roles(large, seed).space
        shadows = [halved(shadow, space.scenario.held[0], seed, k) for k, shadow in enumerate(memory.shadows)]
        membership = prepare(space, shadows).attack(space, memory.overfitted)
        assert membership.shadow is not None
        assert membership.gaussian is not None
        found.append([(a.auc, a.tpr) for a in (membership.loss, membership.shadow, membership.gaussian)])
        control.append(unequal(space, memory.overfitted, shadows))
        examples += membership.examples * 3 // 4  # both shadow models saw a quarter
    aucs, tprs = np.mean(np.array(found, float), 0).T
    off = 4 * math.sqrt(2 * LOW_FPR * (1 - LOW_FPR) / examples)  # of two shares
    assert aucs.tolist() == pytest.approx([0.5] * 3, abs=4 / math.sqrt(6 * examples))
    assert tprs.tolist() == pytest.approx([LOW_FPR] * 3, abs=off)
    assert np.mean(control) > LOW_FPR + off


def test_telling_shadow_models_apart_does_not_help(memory: Memory, large: Any) -> None:
    """One of two models is said to have seen three in four examples, the other one in four; both have seen none."""
    made = random_roles(large, 0)
    held, data = made.scenario.held[0], made.data
    models = memory.overfitted, memory.retrained
    shadows = [Shadow(models[0], held[:3_000], held[3_000:]), Shadow(models[1], held[3_000:], held[:3_000])]
    classifier = prepare(made.space, shadows).classifier
    assert classifier is not None
    rows = np.arange(len(data.test_labels))
    likely = [
        classifier.predict_proba(features(logits(made.space, model, "test", rows), data.test_labels))[:, 1].mean()
        for model in models
    ]
    assert likely == pytest.approx([0.5, 0.5], abs=0.05)


def test_what_cannot_be_learned_is_left_out(memory: Memory) -> None:
    """Shadow models that have seen everything show no non-members."""
    space = memory.world.space
    seen = [Shadow(shadow.payload, np.arange(300), np.arange(0)) for shadow in memory.shadows]
    membership = prepare(space, seen).attack(space, memory.overfitted)
    assert (membership.shadow, membership.gaussian) == (None, None)


def test_the_attacker_is_the_same_each_time(memory: Memory) -> None:
    space = memory.world.space
    first, second = (prepare(space, memory.shadows).attack(space, memory.overfitted) for _ in range(2))
    assert first == second


def test_without_shadows_the_loss_alone_is_used(memory: Memory) -> None:
    space = memory.world.space
    membership = prepare(space).attack(space, memory.overfitted)
    assert membership.shadow is None
    assert membership.gaussian is None
    assert membership.loss.auc > 0.8
    assert membership.strongest is membership.loss


def test_few_forgotten_examples_are_judged_by_all(memory: Memory) -> None:
    """Ten that both shadow models have seen teach nothing; the classifier has learned from the rest, and finds them."""
    scenario = memory.world.scenario
    gone = np.intersect1d(memory.shadows[0].members, memory.shadows[1].members)
    gone = np.intersect1d(gone, scenario.poisoned)[:10]
    few = replace(scenario, retained=(np.setdiff1d(scenario.held[0], gone),))
    space = replace(memory.world, scenario=few).space
    membership = prepare(space, memory.shadows).attack(space, memory.overfitted)
    assert membership.examples <= 10
    assert membership.shadow is not None
    assert membership.shadow.auc > 0.8
    assert membership.gaussian is None  # no shadow model is without them


class Uncertain:
    """A classifier that takes the entropy, the fourth feature, for its score."""

    def decision_function(self, seen: Any) -> Any:
        return seen[:, 3]


def test_each_attack_uses_a_score_of_its_own(forgetting: Any) -> None:
    """The loss, turned round; what the classifier says; the confidence above what is usual, where that is known."""
    space, sample = forgetting.space, draw(forgetting.space)
    n, model = len(sample.members), models.initialise("lenet", (1, 28, 28), 10, 0, "init")
    seen = np.concatenate(
        [
            features(logits(space, read(model), "train", sample.members), sample.member_labels),
            features(logits(space, read(model), "test", sample.others), sample.other_labels),
        ]
    )
    member, usual = np.arange(2 * n) < n, np.random.default_rng(0).normal(0, 0.1, 2 * n)
    usual[[0, 3, n]] = np.nan
    known = ~np.isnan(usual)
    scores = {"loss": -seen[:, 0], "shadow": seen[:, 3], "gaussian": (seen[:, 1] - usual)}
    found = Adversary(sample, Uncertain(), usual).attack(space, read(model))
    assert found.examples == n
    assert found.strongest is found.shadow
    for name, score in scores.items():
        others = [attack(sign * seen[:, k], member).auc for k in range(5) for sign in (-1, 1)]
        expected = attack(score[known], member[known]) if name == "gaussian" else attack(score, member)
        assert getattr(found, name) == expected
        # the loss and the confidence stand in one order; nothing else gives the same figure
        assert sum(abs(auc - expected.auc) < 1e-3 for auc in others) == {"loss": 2, "shadow": 1, "gaussian": 0}[name]
