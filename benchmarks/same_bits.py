"""Did a change of the code move a bit? Hashes of 24 small runs: methods x scenarios x pools, embedded data.

    python benchmarks/same_bits.py [--out hashes.json]     run them and write what they came to
    python benchmarks/same_bits.py --against hashes.json   run them and compare; exit code 1 if any differs

The hashes of one machine say nothing about another one's, whose floating point may differ: write and compare on one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from safetensors.numpy import load_file

from fused_ray import RunConfig, run

SMALL = (
    *("data.limit=1200", "federation.clients=6", "train.batch_size=32", "output.plots=none", "audit.enabled=false"),
    *("pretrain.rounds=3", "unlearn.rounds=2", "retrain.rounds=2", "data.partition=iid"),
)
RUNS = {
    "fused, class": ("forget.scenario=class",),
    "fused, client": ("forget.scenario=client",),
    "fused, sample": ("forget.scenario=sample",),
    "fused, exclusive": ("forget.scenario=exclusive", "data.partition=dirichlet"),
    "fused, random mask, int8": ("unlearn.mask=random", "unlearn.start=zero", "unlearn.wire=int8"),
    "fused, lora": ("unlearn.adapter=lora", "unlearn.rank=4"),
    "finetune, sample": ("unlearn.method=finetune", "forget.scenario=sample"),
    "federaser, client": ("unlearn.method=federaser", "forget.scenario=client"),
    "eraseclient, client": ("unlearn.method=eraseclient", "forget.scenario=client"),
    "exactfun, class": ("unlearn.method=exactfun",),
    "not, class": ("unlearn.method=not",),
    "puf, client": ("unlearn.method=puf", "forget.scenario=client"),
}
POOLS = ("local", "ray")
HASHES = ("base", "unlearned", "restored")


def hashes() -> Iterator[tuple[str, dict[str, str | None]]]:
    """Name and hashes of every run."""
    with tempfile.TemporaryDirectory() as folder:
        for pool in POOLS:
            for number, (name, fields) in enumerate(RUNS.items()):
                where = (f"engine.backend={pool}", f"output.dir={folder}/{pool}-{number}")
                result = run(RunConfig.from_dict({}, [*SMALL, *fields, *where]))
                retrained = {"retrained": digest(Path(folder, f"{pool}-{number}", "retrained.safetensors"))}
                yield f"{name}, {pool}", {key: result["hash"][key] for key in HASHES} | retrained


def digest(path: Path) -> str:
    """SHA-256 of the arrays in a safetensors file, by name."""
    arrays = load_file(path)
    return hashlib.sha256(b"".join(name.encode() + arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("hashes.json"))
    parser.add_argument("--against", type=Path, help="hashes of an earlier state of the code")
    given = parser.parse_args()
    found = dict(hashes())
    if given.against is None:
        given.out.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{len(found)} runs, written to {given.out}")
        return
    earlier = json.loads(given.against.read_text())
    moved = [name for name in found if found[name] != earlier.get(name)]
    print(f"{len(found) - len(moved)} of {len(found)} runs have the bits of {given.against}", *moved, sep="\n  moved: ")
    sys.exit(bool(moved))


if __name__ == "__main__":
    main()
