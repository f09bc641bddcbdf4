"""Every message that docs/troubleshooting.md explains is one that the program has."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "troubleshooting.md"
GAP = "…"


def messages() -> list[str]:
    """What stands in the first column of the tables of messages."""
    tables = re.findall(r"^\| message \|.*\n\|.*\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    return [found for table in tables for found in re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)]


@cache
def texts() -> tuple[str, ...]:
    """All texts in the code of the package, with a gap where a value is put in."""
    found = set()
    for path in (ROOT / "fused_ray").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else GAP for part in node.values]
                found.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return tuple(found)


def known(message: str) -> bool:
    """Whether one text of the code has the words of a message, in their order."""
    return any(in_order(message.split(GAP), text) for text in texts())


def in_order(words: list[str], text: str) -> bool:
    """Whether the words stand in the text, one behind the other."""
    at = 0
    for word in words:
        found = text.find(word, at)
        if found < 0:
            return False
        at = found + len(word)
    return True


def test_every_message_is_in_the_code() -> None:
    assert len(messages()) > 50
    assert [message for message in messages() if not known(message)] == []


def test_no_row_is_without_its_message() -> None:
    tables = re.findall(r"^\| message \|.*\n\|.*\n((?:\|.*\n)+)", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sum(len(table.splitlines()) for table in tables) == len(messages())


def test_words_that_the_program_never_says_are_found() -> None:
    assert not known("there is no run or folder …")
    assert known("pretrain.from: there is no run or file …")
