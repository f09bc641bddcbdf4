"""Doing what a page says, from top to bottom."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

import pytest

from fused_ray.cli.app import main
from tests.docs.blocks import Block, blocks, commands
from tests.docs.commands import check
from tests.docs.table import LONG, SMALL, Row, row_of


class Person(Protocol):
    """Who follows a page."""

    def fused_ray(self, arguments: list[str], row: Row) -> None: ...

    def python(self, block: Block, row: Row) -> None: ...


class Hasty:
    """In this process and the current folder, with `small` before the fields that the page sets."""

    def __init__(self, small: dict[str, list[str]] = SMALL) -> None:
        self.small = small

    def fused_ray(self, arguments: list[str], row: Row) -> None:
        command, *rest = arguments
        if command in row.later:
            check(["fused-ray", *arguments])
            return
        small = [] if "--resume" in rest else self.small.get(command, [])
        with pytest.raises(SystemExit) as ended:
            main([command, *small, *rest])
        assert ended.value.code == 0, arguments

    def python(self, block: Block, row: Row) -> None:
        text = block.text
        for old, new in row.instead.items():
            assert old in text, f"{block}: the row replaces {old}, which is not there"
            text = text.replace(old, new)
        exec(compile(text, str(block), "exec"), {"__name__": "__main__"})


class Patient:
    """Word by word, in processes of their own; but for the commands in `LONG`, cut down to minutes."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, {**os.environ, **environment}

    def fused_ray(self, arguments: list[str], row: Row) -> None:
        small = [] if "--resume" in arguments else LONG.get(arguments[0], [])
        self.run("-m", "fused_ray", *arguments, *small)

    def python(self, block: Block, row: Row) -> None:
        self.run("-c", block.text)

    def run(self, *arguments: str) -> None:
        command = [sys.executable, *arguments]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def follow(page: str, folder: Path, person: Person) -> None:
    """Write the files of the page into the folder, run its programs there, and check its other commands.

    Nothing of the folder stays importable: the next page, or another test, may have a module of the same name.
    """
    path = list(sys.path)
    try:
        _follow(page, folder, person)
    finally:
        sys.path[:] = path
        for name, module in list(sys.modules.items()):
            if (file := getattr(module, "__file__", None)) and Path(file).is_relative_to(folder):
                del sys.modules[name]


def _follow(page: str, folder: Path, person: Person) -> None:
    found = [block for block in blocks(page) if row_of(block).how == "runs"]
    for number, block in enumerate(found):
        row = row_of(block)
        if block.file:
            (folder / block.file).write_text(block.text, encoding="utf-8")
            used = any(Path(block.file).stem in later.text for later in found[number + 1 :])
            assert used, f"{block}: no later command of the page uses the file"
        elif block.language == "sh":
            for words in commands(block.text, folder):
                if words[0] == "fused-ray":
                    person.fused_ray(words[1:], row)
                else:
                    check(words)
        else:
            assert block.language == "python", f"{block}: its first line must name the file that it is: # NAME.yaml"
            person.python(block, row)
