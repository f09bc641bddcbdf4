"""A small sweep in Python, and its front: what accuracy and bytes are traded for each other.

python examples/sweep_and_front.py     (embedded data, one process, no Ray; results in runs/small-sweep)
"""

from __future__ import annotations

from typing import Any

from fused_ray import RunConfig, load_sweep, sweep

BASE = RunConfig.from_dict(
    {
        "data": {"limit": 1000},
        "federation": {"clients": 4},
        "pretrain": {"rounds": 10},
        "unlearn": {"rounds": 3},
        "engine": {"backend": "local"},
    }
)
SPACE = {
    "unlearn.layers": {"grid": [1, 2]},  # K, how many layers the adapter changes
    "unlearn.sparsity": {"grid": [0.5, 0.9]},  # the share of their entries that it leaves alone
}


def line(setting: dict[str, Any]) -> str:
    """A setting of the front: what it is, what it sends in all, and how well it does."""
    values = ", ".join(f"{key.removeprefix('unlearn.')} {value}" for key, value in setting["values"].items())
    figures = f"RA {setting['ra']:.3f}, FA {setting['fa']:.3f}"
    return f"{setting['bytes_up_total']:>9,.0f} B   {figures}   {values}, {setting['rounds']} rounds"


def main() -> None:
    # The model that must forget, and the retrained one, are made once for all four trials.
    result = sweep(BASE, SPACE, output={"dir": "runs/small-sweep"}, overwrite=True)

    # No other setting is at least as good in RA, FA and bytes, and better in one. Every round counts as a setting.
    (case,) = result["cases"]
    print("front:")
    for setting in case["front"]:
        print(line(setting))

    # Candidates are audited, best first, until one of them is `forgotten`.
    for setting in case["audited"]:
        print(f"audited: {line(setting)}: {setting['verdict']}")
    print(f"recommended: {line(case['recommended']) if case['recommended'] else 'nothing'}")
    print(f"because: {case['reason']}")

    # All figures, a row per trial and round, for pandas or anything else that reads Arrow.
    table = load_sweep("runs/small-sweep").table
    print(f"{table.num_rows} rows with {table.num_columns} columns in runs/small-sweep/trials.parquet")


if __name__ == "__main__":
    main()
