"""Options that several commands share, and a group of commands of which one needs no name."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from fused_ray.config.preset import presets
from fused_ray.config.suggest import did_you_mean

if TYPE_CHECKING:
    from fused_ray.storage.folder import Folder

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a config field, such as unlearn.layers=2."),
]
Preset = Annotated[
    str | None,
    typer.Option(metavar="NAME", help=f"Put these fields under the file's: {', '.join(presets('run'))}."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print result.json last on standard output.")]


RUNS_FAILED = 3
"""The exit code of a study that is finished, but for runs of it that failed."""


def end(study: Folder, *, as_json: bool) -> None:
    """What a command that finished a study does last: print its result.json if asked, and exit with what came of it."""
    if as_json:
        print(json.dumps(study.result))
    if study.result["failed"]:
        raise typer.Exit(RUNS_FAILED)


class DefaultGroup(TyperGroup):
    """`group ...` means `group start ...`, unless another of its commands is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        named = bool(args) and args[0] in self.commands
        near = "" if named or not args or os.path.exists(args[0]) else did_you_mean(args[0], self.commands)
        if near:
            raise typer.BadParameter(f"there is no file and no command {args[0]!r}{near}")
        return super().parse_args(ctx, args if named else ["start", *args])
