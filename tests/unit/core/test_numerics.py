"""The numeric fingerprint repeats itself, in this process and in another."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
from threadpoolctl import threadpool_limits

from fused_ray.core.numerics import dot, fingerprint, identity, norm

PROGRAM = """
import torch
torch.set_num_threads(1)
from fused_ray.core.numerics import fingerprint
print(fingerprint())
"""


def test_the_fingerprint_repeats_itself():
    first = fingerprint()
    assert len(first) == 64
    assert fingerprint() == first


def test_the_fingerprint_is_the_same_in_another_process():
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=240)
    assert found.stdout.strip() == fingerprint()


def test_an_identity_names_the_process_and_where_it_is():
    found = identity("node 7")
    assert (found.node, found.pid, found.device, found.fingerprint) == ("node 7", os.getpid(), "cpu", fingerprint())


def test_norms_and_products_by_hand_and_with_any_number_of_threads():
    assert norm(np.array([3, 4], np.float32)) == 5.0
    assert dot(np.array([1.5, -2.0]), np.array([2.0, 0.25])) == 2.5
    values = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
    found = set()
    for threads in (1, 2):
        with threadpool_limits(threads):
            found.add((norm(values), dot(values, values[::-1])))
    assert len(found) == 1
