"""Commands with `--set KEY=VALUE`, which say how it is written where it came otherwise: `--set KEY VALUE`, say."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from fused_ray.errors import ConfigError

_FIELD = re.compile(r"[a-z_]+(\.[a-z_]+)*=")
"""How a word begins that is a field and its value."""


Seeds = Annotated[
    str | None,
    typer.Option("--seeds", metavar="N ...", help="Run with each of these seeds; show means and spreads over them."),
]


def whole_numbers(text: str) -> list[int]:
    """What stood behind `--seeds`, `0 1 2` or `0,1,2`. Raises ConfigError."""
    words = text.replace(",", " ").split()
    if not words or not all(word.isdecimal() for word in words):
        raise ConfigError(f"--seeds: write whole numbers, as in --seeds 0 1 2 (given: {text})")
    return [int(word) for word in words]


class SettingsCommand(TyperCommand):
    """A command with `--set`. Raises ConfigError with the words as they should be."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # half a line, of which a shell asks how it may go on
            return super().parse_args(ctx, args)
        args = _seeds_together(args)
        with_value = {name for option in self.params for name in option.opts if not getattr(option, "is_flag", True)}
        _check(args, with_value)
        return super().parse_args(ctx, args)


def _seeds_together(words: Sequence[str]) -> list[str]:
    """The numbers behind --seeds as one word, however they were written."""
    words = list(words)
    if "--seeds" in words:
        place = words.index("--seeds") + 1
        numbers = list(takewhile(lambda word: re.fullmatch(r"[\d,]+", word), words[place:]))
        words[place : place + len(numbers)] = [" ".join(numbers)] if numbers else []
    return words


def _check(words: Sequence[str], with_value: Collection[str]) -> None:
    """`with_value` are the options behind which a value stands."""
    number = 0
    while number < len(words) and words[number] != "--":
        word, rest = words[number], words[number + 1 :]
        number += 1
        if word.startswith("--set="):
            _check_setting(word.removeprefix("--set="), rest)
        elif word in with_value:
            number += 1
            if word == "--set" and rest:
                _check_setting(rest[0], rest[1:])
        elif _FIELD.match(word) and not os.path.exists(word):
            raise ConfigError(f"{word} is a setting: write --set {shlex.quote(_meant(word, rest))}")


def _check_setting(text: str, rest: Sequence[str]) -> None:
    if (meant := _meant(text, rest)) != text:
        raise ConfigError(f"--set takes KEY=VALUE as one word: write --set {shlex.quote(meant)}")


def _meant(text: str, rest: Sequence[str]) -> str:
    """The setting that a word begins, with what belongs to it of the words behind."""
    key, equals, value = text.partition("=")
    if not equals:
        key, _, value = text.partition(":")  # as in a file
    behind = list(takewhile(lambda word: not word.startswith("--"), rest))
    if not equals and not value and behind and behind[0].startswith("="):
        behind[:1] = [behind[0][1:]] if len(behind[0]) > 1 else []
    # KEY= alone is null, and the configuration's file may follow
    if not value and behind and not (os.path.isfile(behind[0]) if equals else behind[0].endswith((".yaml", ".yml"))):
        value = behind.pop(0)
    for count in range(len(behind) + 1):
        whole = " ".join([value, *behind[:count]])
        if sum(map(whole.count, "[{")) <= sum(map(whole.count, "]}")):
            value = whole  # what a shell took apart between brackets
            break
    return f"{key}={value}" if equals else f"{key.strip() or 'KEY'}={value.strip() or 'VALUE'}"
