"""The contract of partitions as properties, and each kind's statistics against what theory says of it."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fused_ray.config import DataConfig
from fused_ray.data import partitions
from fused_ray.data.partitions import check, digest
from fused_ray.errors import DataError

KINDS = ("iid", "dirichlet", "pathological")
LABELS = np.repeat(np.arange(10), 300)


def shuffled(labels: Any, seed: int) -> Any:
    return np.random.default_rng(seed).permutation(labels)


def partition(*given: Any) -> Any:
    """Who holds what alone."""
    return partitions.partition(*given).parts


def counts(parts: Any, labels: Any) -> Any:
    """Examples per client and class."""
    return np.array([np.bincount(labels[part], minlength=10) for part in parts])


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    clients=st.integers(1, 12),
    alpha=st.sampled_from([1e-3, 0.1, 1.0, 100.0]),
    per_client=st.integers(1, 6),
    min_examples=st.integers(1, 8),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_partition_keeps_the_contract_or_says_why_not(
    kind: Any, sizes: list[int], clients: int, alpha: float, per_client: int, min_examples: int, seed: int
) -> None:
    labels = shuffled(np.repeat(np.arange(len(sizes)), sizes), 0)
    config = DataConfig(partition=kind, alpha=alpha, classes_per_client=per_client, min_examples=min_examples)
    try:
        parts = partition(config, clients, labels, seed)
    except DataError as error:
        refusal = str(error)
    else:
        refusal = ""
    if refusal:  # only the pathological kind may fail where there are examples enough
        assert kind == "pathological" or clients * min_examples > len(labels)
        return
    assert len(parts) == clients
    assert all(part.dtype == np.int64 and len(part) >= min_examples for part in parts)
    assert all((np.diff(part) > 0).all() for part in parts)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(labels)))
    again = partition(config, clients, labels, seed)
    assert digest(again) == digest(parts)
    if kind == "pathological":
        assert all(len(np.unique(labels[part])) <= per_client for part in parts)


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_is_another_partition(kind: Any) -> None:
    config = DataConfig(partition=kind)
    assert len({digest(partition(config, 10, LABELS, seed)) for seed in range(5)}) == 5


def test_iid_sizes_and_mix() -> None:
    parts = partition(DataConfig(partition="iid"), 7, LABELS, 0)
    assert sorted(map(len, parts)) == [428, 428, 428, 429, 429, 429, 429]
    # hypergeometric: 428 of 3000 with 300 of a class: mean 42.8, deviation 5.7; 5 deviations over 70 cells
    assert abs(counts(parts, LABELS) - 3000 / 70).max() < 5 * 5.7


@pytest.mark.parametrize("alpha", [0.5, 1.0, 10.0])
def test_dirichlet_shares_have_their_mean_and_variance(alpha: float) -> None:
    clients, labels = 10, np.repeat(np.arange(10), 2000)
    shares = np.concatenate(
        [
            counts(partition(DataConfig(alpha=alpha, min_examples=1), clients, labels, seed), labels).T / 2000
            for seed in range(100)
        ]
    )  # 1,000 classes x 10 clients
    assert shares.sum(axis=1) == pytest.approx(np.ones(1000))
    mean, total = 1 / clients, alpha * clients
    variance = mean * (1 - mean) / (total + 1)
    assert shares.mean(axis=0) == pytest.approx(np.full(clients, mean), abs=5 * (variance / 1000) ** 0.5)
    assert shares.var() == pytest.approx(variance, rel=0.12)


def test_the_skew_grows_as_alpha_falls() -> None:
    def largest_share(alpha: float) -> float:
        held = counts(partition(DataConfig(alpha=alpha), 10, LABELS, 0), LABELS)
        return float((held.max(axis=1) / held.sum(axis=1)).mean())

    assert largest_share(0.05) > largest_share(0.5) + 0.1 > largest_share(100.0) + 0.2


@pytest.mark.parametrize("alpha", [1e-6, 0.01, 0.1])
def test_a_small_alpha_with_many_clients_still_fills_everyone(alpha: float) -> None:
    labels = shuffled(np.repeat(np.arange(10), 1000), 1)
    parts = partition(DataConfig(alpha=alpha, min_examples=10), 50, labels, 0)
    assert min(map(len, parts)) >= 10


@pytest.mark.parametrize(("alpha", "clients"), [(0.05, 10), (1.0, 60), (1.0, 100)])  # draws 1 to 6, and none of 100
def test_draws_that_are_made_at_once_are_those_that_are_made_in_turn(
    alpha: float, clients: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = DataConfig(alpha=alpha, min_examples=20)
    in_turn = [partition(config, clients, LABELS, seed) for seed in range(5)]
    monkeypatch.setattr(partitions, "_LARGE", 0)
    monkeypatch.setattr(partitions.os, "cpu_count", lambda: 7)
    at_once = [partition(config, clients, LABELS, seed) for seed in range(5)]
    assert [digest(one) for one in at_once] == [digest(one) for one in in_turn]


def test_no_slack_at_all_is_possible() -> None:
    parts = partition(DataConfig(alpha=0.1, min_examples=60), 50, LABELS, 0)
    assert [len(part) for part in parts] == [60] * 50


def test_pathological_classes_and_sizes() -> None:
    for clients, per_client in ((50, 2), (10, 1), (20, 3), (5, 10)):
        config = DataConfig(partition="pathological", classes_per_client=per_client, min_examples=1)
        held = counts(partition(config, clients, LABELS, 3), LABELS)
        assert ((held > 0).sum(axis=1) == per_client).all()
        # all classes are equally large and equally often held, hence all clients equally large
        assert (abs(held.sum(axis=1) - 3000 / clients) <= per_client).all()


def test_what_cannot_be_done_says_what_to_change() -> None:
    with pytest.raises(DataError, match=r"federation.clients or data.min_examples"):
        partition(DataConfig(min_examples=100), 31, LABELS, 0)
    with pytest.raises(DataError, match=r"data.classes_per_client or federation.clients"):
        partition(DataConfig(partition="pathological", classes_per_client=2), 4, LABELS, 0)


V = lambda *values: np.array(values, np.int64)  # noqa: E731


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        pytest.param((V(0, 1), V(1, 2, 3)), "exactly once", id="held twice"),
        pytest.param((V(0, 1), V(3)), "exactly once", id="lost"),
        pytest.param((V(0, 1), V(2, 4)), "exactly once", id="foreign"),
        pytest.param((V(1, 0), V(2, 3)), "order", id="unordered"),
        pytest.param((V(0, 1, 2), V(3)), "client 1 .* fewer", id="short"),
    ],
)
def test_check_notices(parts: Any, message: str) -> None:
    check((V(0, 3), V(1, 2)), 4, 2)
    with pytest.raises(DataError, match=message):
        check(parts, 4, 2)


def test_the_digest_tells_partitions_apart() -> None:
    assert digest((V(1),)) == hashlib.sha256(b"1\n" + b"\1" + bytes(7)).hexdigest()
    different = [(V(0, 1), V(2)), (V(0), V(1, 2)), (V(2), V(0, 1)), (V(0, 1, 2),), (V(0, 1, 2), V())]
    assert len({digest(parts) for parts in different}) == len(different)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("iid", "320c59cc50e7d097a652e6e3db582544fb7ab453d1582c4be9d0fb169be195ea"),
        ("pathological", "6ff6403adcea518eedc14b572a3a14ffceb22039bf5e3130d594612bb9754a2d"),
    ],
)
def test_partitions_from_raw_bits_never_change(kind: Any, expected: str) -> None:
    """These two need no draws from distributions, so their hashes outlive versions of NumPy."""
    assert digest(partition(DataConfig(partition=kind), 10, LABELS, 0)) == expected
