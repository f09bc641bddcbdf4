"""Options that several commands share, and a group of commands of which one needs no name."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fused_ray.cli import completion
from fused_ray.config.preset import presets
from fused_ray.config.suggest import did_you_mean
from fused_ray.storage.mirror import in_words

if TYPE_CHECKING:
    from fused_ray.storage.folder import Folder

Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a config field, such as unlearn.layers=2.",
        autocompletion=completion.of_settings,
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Put these fields under the file's: {', '.join(presets('run'))}.",
        autocompletion=completion.of_presets("run"),
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")
]


RUNS_FAILED = 3
"""The exit code of a study that is finished, but for runs of it that failed."""


def print_json(content: Any) -> None:
    """Print one JSON document; a number that is not finite, which JSON has not, is null."""
    print(in_words(json.dumps(_finite(content), allow_nan=False)))


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def end(study: Folder, *, as_json: bool) -> None:
    """What a command that finished a study does last: print its result.json if asked, and exit with what came of it."""
    if as_json:
        print_json(study.result)
    if study.result["failed"]:
        raise typer.Exit(RUNS_FAILED)


class DefaultGroup(TyperGroup):
    """`group ...` means `group start ...`, unless another of its commands is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing and not args:  # a shell asks what may come
            return super().parse_args(ctx, args)
        named = bool(args) and args[0] in self.commands
        near = "" if named or not args or os.path.exists(args[0]) else did_you_mean(args[0], self.commands)
        if near:
            raise typer.BadParameter(f"there is no file and no command {args[0]!r}{near}")
        return super().parse_args(ctx, args if named else ["start", *args])

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """Its own commands, and what may stand behind the one that needs no name."""
        start: Any = self.commands["start"]
        with start.make_context("start", [], parent=ctx, resilient_parsing=True) as inner:
            return [*super().shell_complete(ctx, incomplete), *start.shell_complete(inner, incomplete)]
