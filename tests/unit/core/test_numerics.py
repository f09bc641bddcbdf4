"""The numeric fingerprint repeats itself, in this process and in another."""

from __future__ import annotations

import os
import subprocess
import sys

from fused_ray.core.numerics import fingerprint, identity

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
