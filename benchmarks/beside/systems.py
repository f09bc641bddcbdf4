"""The systems that are compared: an environment for each, made when it is first wanted, and their processes."""

from __future__ import annotations

import importlib.metadata
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

HERE = Path(__file__).parents[1]
PEERS = HERE / "peers"
SAMPLED = 0.1
"""Seconds between two looks at the memory."""
LONGEST = 1800
"""Seconds that a process may take."""


class BenchError(Exception):
    """A system cannot be measured."""


class TooLateError(BenchError):
    """A system took too long."""


@dataclass(frozen=True)
class System:
    """One that is compared: its name in tables, its script, and what its environment holds."""

    name: str
    script: Path
    key: str = ""
    """Of an environment of its own: peers/KEY.txt has its packages. Without, it runs in this one."""
    python: tuple[int, int] = (3, 10)
    """The least version that it runs on."""

    def interpreter(self, cache: Path) -> Path:
        """The Python that it runs in. Raises BenchError where the machine has none that will do."""
        return environment(self, cache) if self.key else Path(sys.executable)

    def version(self) -> str:
        """What is installed, in words."""
        if not self.key:
            return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "ray", "numpy"))
        wanted = (PEERS / f"{self.key}.txt").read_text().split()
        return ", ".join(each.replace("==", " ") for each in wanted if not each.startswith("#"))


OURS = System("fused_ray", HERE / "ours_rounds.py")
PLAIN = System("plain loop", PEERS / "plain_rounds.py")
FLOWER = System("Flower 1.42", PEERS / "flower_rounds.py", "flower")
PFL = System("pfl-research 0.6", PEERS / "pfl_rounds.py", "pfl")
BLAZEFL = System("BlazeFL 2.0", PEERS / "blazefl_rounds.py", "blazefl", (3, 12))
RELEASED = System("released FUSED code", PEERS / "released_rounds.py", "released", (3, 11))
SYSTEMS = (OURS, PLAIN, FLOWER, PFL, BLAZEFL)
"""Those that train whole models."""


def environment(system: System, cache: Path) -> Path:
    """The interpreter of a peer's environment; made anew where its packages are others by now."""
    folder, wanted = cache / system.key, (PEERS / f"{system.key}.txt").read_text()
    stamp, python = folder / "installed.txt", folder / "bin" / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    base = _interpreter(system)
    print(f"making an environment for {system.name} in {folder}", flush=True)
    subprocess.run([base, "-m", "venv", "--clear", folder], check=True)
    # where wheels are is said as for every other install of the project
    further = shlex.split(os.environ.get("PIP_ARGS", ""))
    arguments = ["install", "--quiet", "-r", str(PEERS / f"{system.key}.txt"), *further]
    done = subprocess.run([python, "-m", "pip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{system.name}: pip says: {done.stderr.strip().splitlines()[-1]}")
    stamp.write_text(wanted)
    return python


def _interpreter(system: System) -> str:
    if sys.version_info[:2] >= system.python:
        return sys.executable
    for minor in range(system.python[1], system.python[1] + 3):
        found = shutil.which(f"python3.{minor}")
        # a name on the path may stand for a version that is not there
        if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
            return found
    raise BenchError(f"{system.name} needs Python {system.python[0]}.{system.python[1]}, which is not at hand")


@dataclass
class Outcome:
    """What a process printed, and what was seen of it."""

    lines: list[dict[str, Any]]
    first: float
    """Seconds from its start until its first round was over."""
    memory: int | None = None
    """Bytes of it and all its children at the most, in its last round; PSS, so what they share counts once."""
    rounds: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self.rounds = [line["seconds"] for line in self.lines if "seconds" in line]


def run(
    system: System, cache: Path, arguments: Sequence[object], watched: int | None = None, longest: float = LONGEST
) -> Outcome:
    """One process of a system from its start to its end. In round `watched` its memory is looked at, if given.

    Raises TooLateError where that takes longer than `longest`, seconds, and BenchError with the end of what it said
    where it fails.
    """
    python = system.interpreter(cache)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, open(Path(folder) / "errors", "w+") as errors:
        told = {**os.environ, "PYTHONPATH": str(PEERS), "RAY_TMPDIR": folder, "RAY_worker_niceness": "0"}
        told |= {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0"}
        if not system.key:
            told["PYTHONPATH"] += f"{os.pathsep}{HERE.parent}"
        command = [str(python), str(system.script), *map(str, arguments)]
        began = time.perf_counter()
        process = subprocess.Popen(
            command, env=told, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
        )
        late = threading.Timer(longest, _end, [process.pid])
        late.start()
        try:
            lines, first, memory = _follow(process, began, watched)
            code = process.wait()
        finally:
            late.cancel()
            _end(process.pid)
            process.wait()
        if code and time.perf_counter() - began > longest:
            raise TooLateError(f"{' '.join(command)} was not over after {longest:g} s")
        if code or not lines:
            errors.seek(0)
            said = "\n".join(errors.read().strip().splitlines()[-15:])
            raise BenchError(f"{' '.join(command)} ended with {code}:\n{said}")
    return Outcome(lines, first, memory)


def _follow(
    process: subprocess.Popen[str], began: float, watched: int | None
) -> tuple[list[dict[str, Any]], float, int | None]:
    assert process.stdout is not None
    lines: list[dict[str, Any]] = []
    first, watch = 0.0, None
    for text in process.stdout:
        if not text.startswith("{"):
            continue  # what a library says
        lines.append(json.loads(text))
        first = first or time.perf_counter() - began
        if watched is not None and lines[-1].get("round") == watched - 1:
            watch = Watch(process.pid)
        elif watch is not None:
            watch.end()
    return lines, first, watch.most if watch else None


def _end(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


class Watch:
    """Looks at the memory of a process and its children until it is ended; `most` are bytes."""

    def __init__(self, pid: int) -> None:
        self.most, self._ended = 0, threading.Event()
        self._root = psutil.Process(pid)
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._ended.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ended.wait(SAMPLED):
            self.most = max(self.most, memory(self._root))


def memory(root: psutil.Process) -> int:
    """Bytes of a process and all below it now: PSS, in which shared pages are shared out."""
    total = 0
    for process in [root, *root.children(recursive=True)]:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return total
