"""What the documentation tells people to type: fenced blocks, tables of commands, and commands in the text.

A fence names its language: `sh`, `python`, `yaml`, or `text` for what a program prints. A block whose first line is a
comment with a file's name (`# shapes.yaml`) is that file. A table whose first column is headed `command` is a block
of `sh`.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = [
    *("README.md", "CONTRIBUTING.md", "cluster/README.md"),
    *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.md"))),
]
LANGUAGES = {"sh", "python", "yaml", "text"}

_FENCE = re.compile(r"^```(?P<language>.*)\n(?P<text>(?s:.*?))^```$", re.MULTILINE)
_TABLE = re.compile(r"^\| command \|.*\n\|.*\n(?P<rows>(?:\|.*\n)+)", re.MULTILINE)
_ROW = re.compile(r"^\| `(.+?)` \|", re.MULTILINE)
_IN_TEXT = re.compile(r"`((?:fused-ray|python|make) [^`]+)`")
_PROGRAMS = ("docker", "fused-ray", "kubectl", "make", "pip", "pytest", "python", "python3", "ray", "sbatch", "sed",
             "tensorboard")  # fmt: skip
_STAND_IN = """#!/bin/bash
printf -v words '%s\\x1f' "${0##*/}" "$@"
printf '%s\\x1e' "$words" >> "$COMMANDS"
"""


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line} ({self.text.splitlines()[0]})"

    @property
    def file(self) -> str | None:
        """The file that the block is, if its first line names one."""
        match = re.match(r"# ([\w-]+\.\w+)\b", self.text)
        return match[1] if match else None


def blocks(page: str) -> list[Block]:
    """The blocks of a page, from top to bottom."""
    text = (ROOT / page).read_text(encoding="utf-8")
    found = [(match.start(), match["language"].strip(), match["text"]) for match in _FENCE.finditer(text)]
    for match in _TABLE.finditer(text):
        found.append((match.start(), "sh", "".join(f"{row}\n" for row in _ROW.findall(match["rows"]))))
    return [Block(page, text.count("\n", 0, at) + 1, language, inside) for at, language, inside in sorted(found)]


def commands_in_text(page: str) -> list[str]:
    """Commands between backquotes, outside of blocks."""
    text = _TABLE.sub("", _FENCE.sub("", (ROOT / page).read_text(encoding="utf-8")))
    return [" ".join(found.split()) for found in _IN_TEXT.findall(text)]


def commands(snippet: str, folder: Path) -> list[list[str]]:
    """The words of each command of a shell snippet, as bash reads them; nothing but bash is run.

    Stand-ins that write down their arguments take the place of all programs, in `folder`/.venv/bin. Raises
    AssertionError where bash fails, or for a program without one.
    """
    programs, log = folder / ".venv" / "bin", folder / ".commands"
    programs.mkdir(parents=True, exist_ok=True)
    for name in _PROGRAMS:
        (programs / name).write_text(_STAND_IN)
        (programs / name).chmod(0o755)
    log.write_text("")
    done = subprocess.run(
        ["/bin/bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", snippet],
        cwd=folder, env={"PATH": str(programs), "COMMANDS": str(log)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), f"{snippet}\n{done.stderr}"
    return [record.split("\x1f")[:-1] for record in log.read_text().split("\x1e")[:-1]]


def scratch(folder: Path) -> Path:
    """The folder as the root of a checkout that nobody has run anything in."""
    for name in ("benchmarks", "cluster", "constraints.txt", "examples"):
        os.symlink(ROOT / name, folder / name)
    return folder
