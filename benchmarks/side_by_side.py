"""Does a comparison gain from cells side by side? One at a time against two, alternating, on Ray.

    python benchmarks/side_by_side.py [--repeats 3]

Runs `compare --preset paper-fashion-mnist --quick` each time in a folder of its own. Seconds are those from the start
of the first cell to the end of the last audit, when the workers are up, and of the whole command. The rows must be the
same but for times.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from fused_ray import load_comparison


def rows(path: Path) -> list[dict[str, Any]]:
    """The comparison's rows without what time they took, and without the folder in their configuration."""
    timed = ("seconds", "started_at", "ended_at", "config")
    return [{k: v for k, v in row.items() if not k.startswith(timed)} for row in load_comparison(path).rows]


def seconds_of_cells(path: Path) -> float:
    """From the start of the first cell to the end of the last audit."""
    results = [json.loads(file.read_text()) for file in path.glob("cells/*/result.json")]
    begins = min(datetime.fromisoformat(result["started"]).timestamp() for result in results)
    return max(file.stat().st_mtime for file in path.glob("*/*/audit.json")) - begins


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    took: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(repeats):
            for side in took:
                path = Path(folder, f"{side}-{number}")
                settings = ["--set", f"output.dir={path}", "--set", f"max_concurrent={side}"]
                command = [sys.executable, "-m", "fused_ray", "compare", "--preset", "paper-fashion-mnist", "--quick"]
                began = time.monotonic()
                subprocess.run([*command, *settings], check=True, capture_output=True)
                took[side].append((seconds_of_cells(path), time.monotonic() - began))
                print(f"{side} at a time: cells {took[side][-1][0]:.1f} s, whole {took[side][-1][1]:.1f} s", flush=True)
            assert rows(Path(folder, f"1-{number}")) == rows(Path(folder, f"2-{number}")), "a figure differs"
    for place, what in enumerate(("cells", "whole")):
        one, two = (statistics.median(each[place] for each in took[side]) for side in took)
        print(f"{what}: {two:.1f} s / {one:.1f} s = {two / one:.2f}")


if __name__ == "__main__":
    main()
