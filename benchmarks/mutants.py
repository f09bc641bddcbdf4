"""How many small faults in core/ and audit/ the unit tests notice.

    make mutants
    python benchmarks/mutants.py [--count 60] [--only fused_ray/core]

The faults are mutmut's: another operator or number, an argument left out, a value that is None. 300 of all that it
makes are drawn by a fixed seed. Words do not count: strings, annotations, what is raised or said by an assertion.
Each is tried on a copy of the package by a process forked from one that has imported PyTorch, with the tests that run
the changed function (or build a fixture with it), until one fails. docs/mutants.md lists those that no test noticed,
and why; an entry without a reason, or fewer noticed than 85%, is a failure.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import libcst as cst
import pytest
from hypothesis import HealthCheck, Phase, settings
from libcst.metadata import MetadataWrapper, PositionProvider
from mutmut.mutation.mutators import mutation_operators, operator_string

SEED = 0
COUNT = 300
ENOUGH = 0.85
SOURCES = ("fused_ray/core", "fused_ray/audit")
TESTS = ("tests/unit/core", "tests/unit/audit")
LIST = Path("docs/mutants.md")
# what the tests import and no mutant is in; forked processes find it loaded
PRELOADED = (
    *("torch", "safetensors.torch", "pyarrow.parquet", "hypothesis.extra.numpy", "PIL.Image"),
    *("sklearn.linear_model", "sklearn.metrics", "sklearn.pipeline", "sklearn.preprocessing", "torch.optim"),
)


# --- the mutants -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mutant:
    """A file with one fault: where, in which function (its first and last line), the lines old and new, the source."""

    file: str
    line: int
    function: tuple[int, int]
    change: str
    source: str


@dataclass(frozen=True)
class Fault:
    """A node of a file's tree, what stands in its place, and where. `draw` gives its place in the drawing."""

    module: cst.Module
    file: str
    line: int
    function: tuple[int, int]
    node: cst.CSTNode
    new: cst.CSTNode
    draw: str

    def made(self) -> Mutant | None:
        """The mutant; None if it is no Python."""
        source = self.module.deep_replace(self.node, self.new).code  # type: ignore[arg-type]
        try:
            compile(source, self.file, "exec")
        except SyntaxError:
            return None
        return Mutant(self.file, self.line, self.function, described(self.module.code, source), source)


class Faults(cst.CSTVisitor):
    """Collects what can be wrong in a file."""

    METADATA_DEPENDENCIES = (PositionProvider,)

    def __init__(self, file: str, module: cst.Module, seed: int) -> None:
        super().__init__()
        self.found: list[Fault] = []
        self._file, self._module, self._seed = file, module, seed
        self._functions = [(1, module.code.count("\n") + 1)]
        self._names: list[str] = []
        self._seen: Counter[str] = Counter()

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self._names.append(node.name.value)
        if isinstance(node, cst.Annotation | cst.Decorator | cst.Raise | cst.FormattedString) or names_types(node):
            return False
        if isinstance(node, cst.Assert):
            node.test.visit(self)
            return False
        if isinstance(node, cst.FunctionDef):
            self._functions.append((self._line(node.decorators[0] if node.decorators else node), self._end(node)))
        for kind, operator in mutation_operators:
            if isinstance(node, kind) and operator is not operator_string:
                for new in operator(node):
                    if not words(node, new):
                        self._add(node, new)
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if isinstance(original_node, cst.FunctionDef):
            self._functions.pop()
        if isinstance(original_node, cst.FunctionDef | cst.ClassDef):
            self._names.pop()

    def _add(self, node: cst.CSTNode, new: cst.CSTNode) -> None:
        """The drawing depends on the fault and its function alone: most stay drawn when something else changes."""
        old, other = (self._module.code_for_node(each) for each in (node, new))
        text = f"{self._seed} {self._file} {'.'.join(self._names)} {old} {other}"
        self._seen[text] += 1
        draw = hashlib.sha256(f"{text} {self._seen[text]}".encode()).hexdigest()
        outermost = self._functions[:2][-1]
        self.found.append(Fault(self._module, self._file, self._line(node), outermost, node, new, draw))

    def _line(self, node: cst.CSTNode) -> int:
        return int(self.get_metadata(PositionProvider, node).start.line)

    def _end(self, node: cst.CSTNode) -> int:
        return int(self.get_metadata(PositionProvider, node).end.line)


def names_types(node: cst.CSTNode) -> bool:
    """Whether a statement serves annotations alone: a protocol, or another name of a type, `Name = ...`."""
    if isinstance(node, cst.ClassDef):
        return any(isinstance(base.value, cst.Name) and base.value.value == "Protocol" for base in node.bases)
    return (
        isinstance(node, cst.Assign)
        and isinstance(target := node.targets[0].target, cst.Name)
        and re.fullmatch(r"_?[A-Z][a-z]\w*", target.value) is not None
    )


def words(node: cst.CSTNode, new: cst.CSTNode) -> bool:
    """Whether a change only takes a string away."""
    texts = (cst.SimpleString, cst.ConcatenatedString, cst.FormattedString)
    if isinstance(node, cst.Assign | cst.AnnAssign):
        return isinstance(node.value, texts)
    if isinstance(node, cst.Call) and isinstance(new, cst.Call):
        return any(isinstance(argument.value, texts) for argument in node.args if argument not in new.args)
    return False


def faults_of(path: Path, seed: int) -> list[Fault]:
    """All that can be wrong in a file."""
    wrapper = MetadataWrapper(cst.parse_module(path.read_text()), unsafe_skip_copy=True)
    faults = Faults(path.as_posix(), wrapper.module, seed)
    wrapper.visit(faults)
    return faults.found


def described(before: str, after: str) -> str:
    """The lines that differ, old and new."""
    old, new = before.splitlines(), after.splitlines()
    start = next(at for at in range(len(old)) if old[at : at + 1] != new[at : at + 1])
    end = next(at for at in range(len(old)) if at >= min(len(old), len(new)) - start or old[-1 - at] != new[-1 - at])
    parts = (" ".join(map(str.strip, lines[start : len(lines) - end])) for lines in (old, new))
    return " → ".join(parts)


def drawn(only: str, count: int, seed: int) -> tuple[list[Mutant], int]:
    """So many of the mutants of files below `only`, in the order of the files, and how many there are."""
    files = [path for source in SOURCES for path in sorted(Path(source).rglob("*.py")) if path.is_relative_to(only)]
    faults = sorted((fault for path in files for fault in faults_of(path, seed)), key=lambda fault: fault.draw)
    mutants = (mutant for fault in faults if (mutant := fault.made()) is not None)
    return sorted(islice(mutants, count), key=lambda mutant: (mutant.file, mutant.line)), len(faults)


# --- tests in forked processes ---------------------------------------------------------------------------


Places = set[tuple[str, int]]
"""Functions that were run: their files, and the lines where they begin."""


class Trace:
    """A pytest plugin that notes which functions each test runs, in its fixtures too, and its seconds of CPU."""

    def __init__(self, folder: Path) -> None:
        self._folder = tuple(f"{folder / source}/" for source in SOURCES)
        self._skip = len(str(folder)) + 1
        self._open: list[Places] = []
        self._fixtures: dict[Any, Places] = {}
        self._tests: dict[str, tuple[float, Places, list[Any]]] = {}

    def call(self, frame: FrameType, event: str, argument: Any) -> None:
        code = frame.f_code
        if code.co_filename.startswith(self._folder):
            for places in self._open:
                places.add((code.co_filename[self._skip :], code.co_firstlineno))

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        self._open.append(self._fixtures.setdefault(fixturedef, set()))
        try:
            return (yield)
        finally:
            self._open.pop()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        places: Places = set()
        self._open.append(places)
        started = time.process_time()
        try:
            return (yield)
        finally:
            self._open.pop()
            used = [
                fixture for name in item.fixturenames for fixture in item._fixtureinfo.name2fixturedefs.get(name, ())
            ]
            for fixture in used:
                if fixture.cached_result and remembers(fixture.cached_result[0]):
                    self._fixtures[fixture] |= places
            self._tests[item.nodeid] = time.process_time() - started, places, used

    def tests(self) -> dict[str, tuple[float, list[tuple[str, int]]]]:
        """By test its seconds and its places."""
        return {
            test: (seconds, sorted(places.union(*(self._fixtures.get(fixture, set()) for fixture in used))))
            for test, (seconds, places, used) in self._tests.items()
        }


def remembers(value: Any) -> bool:
    """Whether a fixture's value keeps what one test made it compute, so that another one only reads it."""
    return any(isinstance(found, cached_property) for found in vars(type(value)).values())


class Chosen:
    """A pytest plugin that runs the chosen tests alone and tells the first that fails."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._tests = set(tests)
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = [item for item in items if item.nodeid in self._tests]

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def run_tests(paths: Sequence[str], plugin: Any) -> int:
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--confcutdir=tests/unit"]
    # the same examples each time; a failing one is as good as the smallest
    settings.register_profile(
        "mutants",
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
        phases=[Phase.explicit, Phase.generate],
    )
    options += ["--hypothesis-profile=mutants"]
    return int(pytest.main([*options, "-o", "addopts=--import-mode=importlib", "-m", "not slow", *paths], [plugin]))


def forked(folder: Path, work: Callable[[], int], seconds: float) -> int:
    """The exit code of some work in a process of its own, whose folder is the copy; negative if a signal ended it.

    It may take so many seconds of CPU, and ten times as many by the clock, plus a minute.
    """
    pid = os.fork()
    if not pid:
        code = 99
        try:
            os.setpgid(0, 0)
            os.chdir(folder)
            sys.path.insert(0, str(folder))
            os.environ["PYTHONPATH"] = str(folder)
            resource.setrlimit(resource.RLIMIT_CPU, (int(seconds) + 1, int(seconds) + 2))
            with (folder / "log").open("w") as log:
                os.dup2(log.fileno(), 1)
                os.dup2(log.fileno(), 2)
            code = work()
        finally:
            os._exit(code)
    deadline = time.monotonic() + 10 * seconds + 60
    ended = (0, 0)
    try:
        while ended == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.02)
            ended = os.waitpid(pid, os.WNOHANG)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what the tests started too
    return os.waitstatus_to_exitcode((ended if ended[0] else os.waitpid(pid, 0))[1])


def traced(folder: Path) -> dict[str, tuple[float, list[tuple[str, int]]]]:
    """Every test's seconds and the functions that it runs; all must pass."""

    def work() -> int:
        trace = Trace(folder)
        sys.settrace(trace.call)
        code = run_tests(TESTS, trace)
        sys.settrace(None)
        (folder / "trace.json").write_text(json.dumps(trace.tests()))
        return code

    if code := forked(folder, work, 3600):
        sys.exit(f"without any mutant the tests end with code {code}:\n{(folder / 'log').read_text()[-3000:]}")
    found: dict[str, tuple[float, list[tuple[str, int]]]] = json.loads((folder / "trace.json").read_text())
    return found


def tests_for(mutant: Mutant, traces: dict[str, tuple[float, list[tuple[str, int]]]]) -> list[tuple[list[str], float]]:
    """The tests that run the mutant's function and their seconds; then the others of their files, which may share.

    Tests of the file of the same name come first, then those of the quicker files.
    """
    first, last = mutant.function
    files: dict[str, float] = {}
    direct, others = [], []
    for test, (seconds, places) in traces.items():
        if any(file == mutant.file and first <= line <= last for file, line in places):
            direct.append(test)
            files[test.partition("::")[0]] = files.get(test.partition("::")[0], 0) + seconds
    others = [test for test in traces if test.partition("::")[0] in files and test not in direct]
    order = sorted(files, key=lambda file: (Path(file).name != f"test_{Path(mutant.file).name}", files[file]))
    rank = {file: place for place, file in enumerate(order)}
    parts = [sorted(tests, key=lambda test: rank[test.partition("::")[0]]) for tests in (direct, others)]
    return [(part, sum(traces[test][0] for test in part)) for part in parts if part]


def tried(folder: Path, mutant: Mutant, tests: Sequence[str], seconds: float) -> str:
    """What noticed the mutant; empty if nothing did."""
    place, told = folder / mutant.file, folder / "failed"
    original = place.read_text()
    told.write_text("")

    def work() -> int:
        sys.dont_write_bytecode = True
        chosen = Chosen(tests)
        code = run_tests(list(dict.fromkeys(test.partition("::")[0] for test in tests)), chosen)
        told.write_text(chosen.failed)
        return code

    place.write_text(mutant.source)
    try:
        code = forked(folder, work, 3 * seconds + 20)
    finally:
        place.write_text(original)
    return "" if code == 0 else told.read_text() or ("the time limit" if code < 0 else "an import")


# --- the list --------------------------------------------------------------------------------------------

HEAD = """# Faults that no test notices

`make mutants` makes small faults in `fused_ray/core` and `fused_ray/audit`, one at a time, and looks whether a test
under `tests/unit/core` or `tests/unit/audit` fails ([the script](../benchmarks/mutants.py)). {made:,} can be made; of
the {count} drawn with seed {seed}, {noticed} were noticed, {share:.1%}. These were not:

| where | change | why no test notices it |
|---|---|---|
"""


def reasons() -> dict[tuple[str, str], str]:
    """What the list says why, by file and change."""
    found = {}
    for line in LIST.read_text().splitlines() if LIST.exists() else ():
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) == 3 and ":" in cells[0]:
            found[cells[0].strip("`").partition(":")[0], cells[1]] = cells[2]
    return found


def cell(change: str) -> str:
    return "`` " + change.replace("|", r"\|") + " ``"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT, help="how many mutants to draw")
    parser.add_argument("--only", default="fused_ray", help="the folder or file to draw from")
    parser.add_argument("--seed", type=int, default=SEED, help="of the drawing")
    given = parser.parse_args()
    chosen, made = drawn(given.only, given.count, given.seed)
    for name in PRELOADED:
        importlib.import_module(name)
    known, missed, started = reasons(), [], time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        for part in ("fused_ray", "tests"):
            shutil.copytree(part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy("pyproject.toml", folder)
        traces = traced(folder)
        print(f"{len(traces)} tests pass in {time.monotonic() - started:.0f} s; {made} mutants, {len(chosen)} drawn")
        for number, mutant in enumerate(chosen, 1):
            clock = time.monotonic()
            by = next(filter(None, (tried(folder, mutant, *part) for part in tests_for(mutant, traces))), "")
            if not by:
                missed.append(mutant)
            seconds, end = time.monotonic() - clock, f"noticed by {by}" if by else "NOT NOTICED"
            print(f"{number} {seconds:.1f} s {mutant.file}:{mutant.line} {mutant.change}: {end}", flush=True)
    share = 1 - len(missed) / len(chosen)
    rows = [(f"`{m.file}:{m.line}`", cell(m.change), known.get((m.file, cell(m.change)), "?")) for m in missed]
    text = HEAD.format(made=made, count=len(chosen), seed=given.seed, noticed=len(chosen) - len(missed), share=share)
    text += "".join(f"| {' | '.join(row)} |\n" for row in rows)
    if (given.only, given.count, given.seed) == ("fused_ray", COUNT, SEED):
        LIST.write_text(text)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"\n{text}\n{time.monotonic() - started:.0f} s, {used.ru_utime + used.ru_stime:.0f} s of one core")
    unexplained = sum(why == "?" for *_, why in rows)
    if share < ENOUGH or unexplained:
        sys.exit(f"{share:.1%} noticed, {ENOUGH:.0%} wanted; {unexplained} not noticed without a reason in {LIST}")


if __name__ == "__main__":
    main()
