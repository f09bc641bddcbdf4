"""The only source of randomness: every random stream is derived from (seed, purpose, round, client).

Two runs with the same configuration and seed draw the same numbers wherever and in whatever order their clients
are computed, because no stream is ever shared between two computations.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray


def derive(seed: int, purpose: str, round: int = 0, client: int = 0) -> int:
    """A 63-bit seed for one purpose, communication round and client, by hashing all four.

    Rounds count from 1; 0 stands for "not in a round", client 0 in a purpose without clients for "none".
    """
    text = f"{seed}/{purpose}/{round}/{client}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def generator(seed: int, purpose: str, round: int = 0, client: int = 0) -> np.random.Generator:
    """A NumPy generator for draws from distributions (whose streams may change between NumPy versions)."""
    return np.random.Generator(np.random.PCG64(derive(seed, purpose, round, client)))


def permutation(n: int, seed: int, purpose: str, round: int = 0, client: int = 0) -> NDArray[np.int64]:
    """A random order of 0..n-1, int64 [n]; it outlives library versions."""
    return np.argsort(bits(n, seed, purpose, round, client), kind="stable")


def bits(n: int, seed: int, purpose: str, round: int = 0, client: int = 0) -> NDArray[np.uint64]:
    """Random 64-bit numbers [n]: the raw stream of PCG64, which NumPy guarantees never to change (NEP 19)."""
    return np.random.PCG64(derive(seed, purpose, round, client)).random_raw(n)


@contextmanager
def untouched(seed: int | None = None) -> Iterator[None]:
    """Python's and NumPy's generators, which a process shares, are afterwards as before.

    Inside, they depend on `seed` alone if one is given.
    """
    before = random.getstate(), np.random.get_state()
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
