"""The command line: argv -> RunConfig -> run. Neither PyTorch nor Ray is imported until a command needs them."""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from fused_ray import __version__
from fused_ray.cli import comparisons as cli_compare
from fused_ray.cli import completion
from fused_ray.cli import house as cli_house
from fused_ray.cli import reports as cli_reports
from fused_ray.cli import scaling as cli_scale
from fused_ray.cli import sweeps as cli_sweep
from fused_ray.cli import watch as cli_watch
from fused_ray.cli.options import AsJson, Overrides, Preset, print_json
from fused_ray.cli.settings import Seeds, SettingsCommand, whole_numbers
from fused_ray.config import RunConfig, describe
from fused_ray.config.kinds import COMPARISON, RUN, SCALING, SWEEP
from fused_ray.config.older_names import OldName
from fused_ray.config.paths import expanded, remote
from fused_ray.errors import FusedRayError, Interrupted, out_of_memory
from fused_ray.stopping import TERMINATED, sigterm_as_ctrl_c
from fused_ray.storage.mirror import in_words

app = typer.Typer(
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    help="Reversible federated unlearning with sparse adapters, simulated on Ray.",
)

ConfigFile = Annotated[Path | None, typer.Argument(help="YAML file; unset: all defaults.", show_default=False)]
RunFolder = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
_FORMAT = warnings.formatwarning
_Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def _show_version(asked: bool) -> None:
    if asked:
        print(f"fused-ray {__version__}")
        raise typer.Exit


_Version = Annotated[
    bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
]


@app.callback()
def _common(debug: _Debug = False, version: _Version = False) -> None:
    """Options of every command; `main` reads --debug from argv itself, so that it also works behind a command."""


@app.command(cls=SettingsCommand)
def run(
    config: ConfigFile = None,
    set_: Overrides = None,
    preset: Preset = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this interrupted run.")] = None,
    seeds: Seeds = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier run in output.dir.")] = False,
    as_json: AsJson = False,
) -> None:
    """Pre-train, unlearn, compare with a retrained model, take it back."""
    from fused_ray.runs.display import show_progress
    from fused_ray.runs.report import show_result
    from fused_ray.runs.start import execute, prepare, prepare_resume

    if resume is not None:
        if config is not None or preset or seeds or overwrite:
            raise typer.BadParameter("--resume goes on with the run's own configuration; give nothing but --set")
        directory, settings = prepare_resume(resume, set_ or [])
    else:
        settings = RunConfig.from_yaml(config, set_ or [], preset)
        if seeds is not None:
            cli_compare.run_over_seeds(settings, whole_numbers(seeds), overwrite=overwrite, as_json=as_json)
            return
        directory, settings = prepare(settings, overwrite=overwrite)
    if (directory.path / "result.json").exists():
        result = directory.result
    else:
        with directory.attempt(), show_progress(directory.path) as listener:
            result = execute(directory, settings, listener)
    show_result(directory.path, settings, result, to_error=as_json)
    if as_json:
        print_json(result)


@app.command()
def show(
    folder: Annotated[Path, typer.Argument(help="Of a run or a study.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show the result of a run or a study, or how far it has come."""
    from fused_ray.storage.folder import kind_of_folder

    shows: dict[str, Callable[[Path, bool], None]] = {
        RUN: _show_run,
        SWEEP: cli_sweep.show,
        COMPARISON: cli_compare.show,
        SCALING: cli_scale.show,
    }
    shows[kind_of_folder(folder)](folder, as_json)


def _show_run(folder: Path, as_json: bool) -> None:
    from fused_ray.runs.display import show_unfinished, so_far
    from fused_ray.runs.report import show_result
    from fused_ray.runs.start import load_run

    directory = load_run(folder)
    if not (directory.path / "result.json").exists():
        show_unfinished(directory, to_error=as_json)
        if as_json:
            print_json(so_far(directory))
        return
    show_result(directory.path, directory.config, directory.result, to_error=as_json)
    if as_json:
        print_json(directory.result)


@app.command(cls=SettingsCommand)
def audit(
    run: RunFolder,
    full: Annotated[
        bool, typer.Option(help="Also train shadow models and two more retrained ones, and ask docs/audit.md.")
    ] = False,
    set_: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Judge a finished run's model once more, inside its features too.

    With --full it is held against chance as well.

    What trains most is asked for by number: --set audit.swap=1, audit.klom=20, audit.ruli=12.
    """
    from fused_ray.runs.display import show_progress
    from fused_ray.runs.report import show_result
    from fused_ray.runs.start import audit_run, load_to_audit

    directory = load_to_audit(run)
    with show_progress(directory.path) as listener:
        result = audit_run(run, full=full, overrides=set_ or (), listener=listener)
    show_result(directory.path, directory.config, result, to_error=as_json)
    if as_json:
        print_json(result)


@app.command()
def apply(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="Where to write M_f, the model that forgot.")],
    as_json: AsJson = False,
) -> None:
    """Write the model that forgot, M_f = M_r + A_f, as safetensors."""
    from fused_ray.runs.export import apply_adapter

    sha256 = apply_adapter(run, out)
    if as_json:
        print_json({"model": "M_f", "out": str(out), "sha256": sha256})
    else:
        print(f"{out}: M_f, sha256 {sha256}")


@app.command()
def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    reversible: Annotated[
        bool,
        typer.Option("--reversible", help="Also write M_r, which remembers, and the adapter, for PEFT if it is LoRA."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the model that forgot as a folder for plain PyTorch."""
    from fused_ray.runs.export import export_folder

    sha256 = export_folder(run, out, reversible)
    if as_json:
        print_json({"model": "M_f", "out": str(out), "sha256": sha256})
    else:
        print(f"{out}: M_f, sha256 {sha256}; {out / 'README.md'} tells how to load it without fused_ray")


@app.command()
def restore(
    run: RunFolder,
    out: Annotated[Path | None, typer.Option(help="Where to write M_r; unset: only prove that it is back.")] = None,
    as_json: AsJson = False,
) -> None:
    """Take the adapter off again: prove that M_r is back, bit for bit."""
    from fused_ray.runs.export import restore_base

    sha256 = restore_base(run, out)
    if as_json:
        print_json({"model": "M_r", "out": out and str(out), "sha256": sha256})
    else:
        print(f"{out or remote(run) or run}: M_r is back bit for bit, sha256 {sha256}")


@app.command()
def init(
    out: Annotated[Path, typer.Argument(help="Where to write the commented config.")] = Path("fused_ray.yaml"),
    preset: Preset = None,
) -> None:
    """Write a commented configuration, every field as it is by default.

    With --preset, as that has it.
    """
    out = expanded(out)
    if os.path.exists(out):
        raise FusedRayError(f"{out} exists already; name another file")
    try:
        out.write_text(_commented(preset), encoding="utf-8")
    except OSError as error:
        raise FusedRayError(f"{out} cannot be written: {error.strerror}") from None
    print(f"wrote {out}; run it with: fused-ray run {out}")


@app.command(cls=SettingsCommand)
def data(
    config: ConfigFile = None,
    set_: Overrides = None,
    picture: Annotated[Path | None, typer.Option(help="Draw who holds what into this PNG.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show who holds what, and what of it must be forgotten."""
    from fused_ray.data import datasets, scenarios, summary
    from fused_ray.runs import clients
    from fused_ray.runs.screen import Notes, make_screen

    settings = RunConfig.from_yaml(config, set_ or [])
    loaded = datasets.load(settings.data, settings.seed)
    scenario = scenarios.build(settings, loaded)
    names = loaded.class_names
    Notes(make_screen(to_error=as_json))((*loaded.notes, *scenario.notes))
    rows, sha256 = summary.rows(scenario, loaded), scenario.partition_sha256
    clients.show_clients(rows, names, sha256, to_error=as_json)
    if picture is not None:
        clients.picture(scenario, names, expanded(picture))
        print(f"drew {picture}", file=sys.stderr if as_json else sys.stdout)
    if as_json:
        print_json({"classes": names, "clients": rows, "partition_sha256": sha256})


app.command()(cli_reports.report)
app.command()(cli_house.ls)
app.command()(cli_house.diff)
app.command()(cli_house.clean)
app.command()(cli_watch.watch)
app.command(cls=SettingsCommand)(cli_sweep.plan)
app.add_typer(cli_sweep.app, name="sweep")
app.add_typer(cli_compare.app, name="compare")
app.add_typer(cli_scale.app, name="scale")


def _commented(preset: str | None) -> str:
    """Every field with its docstring line and default, or what the preset says instead, as YAML."""
    values = RunConfig.from_yaml(None, preset=preset).model_dump(mode="json", by_alias=True)
    but = f", but for what the preset {preset} says" if preset else ""
    lines = [f"# fused_ray configuration; every field is at its default{but}.", ""]
    section = ""
    for key, kind, default, doc in describe():
        head, _, name = key.rpartition(".")
        if head != section:
            lines += ["", f"{head}:"]
            section = head
        value = json.dumps(values[head][name] if head else values[name])
        told = kind if value == default else f"{kind}; preset {preset}, default {default}"
        indent = "  " if head else ""
        lines += [f"{indent}# {doc} ({told})", f"{indent}{name or key}: {value}"]
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Entry point.

    Exit codes: 0 done, 2 a mistake that one line explains, 3 a study is finished but runs of it failed, 130 Ctrl-C, 143
    SIGTERM, 1 a fault.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # what a terminal has no sign for is no reason to fail
    given = [argument for argument in given if argument != "--debug"] or ["--help"]
    if completion.ASKED in os.environ:
        completion.glue(os.environ)
    with sigterm_as_ctrl_c() as received:
        code = _run(given, debug)
    sys.exit(TERMINATED if received and code == Interrupted.exit_code else code)


def _run(given: list[str], debug: bool) -> int:
    """Do what a command line says; the exit code. Raises what is no mistake of the user's."""
    warnings.formatwarning = _as_line
    try:
        # an exit that a command asks for comes back as its code
        code = app(given, prog_name="fused-ray", standalone_mode=False)
        if code == Interrupted.exit_code:  # what typer makes of KeyboardInterrupt, without a word
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except Exception as error:
        reported = _report(error, debug)
        if reported is None:
            raise
        return reported
    except KeyboardInterrupt:
        print("fused-ray: interrupted", file=sys.stderr)
        return Interrupted.exit_code


def _as_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as it is shown: one about the user's own words as a note, without the place in the code."""
    if issubclass(category, OldName):
        return f"note: {message}\n"
    return _FORMAT(message, category, filename, lineno, line)


def _report(error: Exception, debug: bool) -> int | None:
    """Print an error's one line and return the exit code; None if it is none that a user can mend."""
    import traceback

    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort):
        print("fused-ray: interrupted", file=sys.stderr)
        return Interrupted.exit_code
    raised, error = error, out_of_memory(error) or error
    message: Any = error if isinstance(error, FusedRayError) else getattr(error, "format_message", lambda: None)()
    if message is None:
        return None
    if debug:
        traceback.print_exception(raised)
    if (context := getattr(error, "ctx", None)) and not str(message).endswith("?"):  # it ends in "did you mean" already
        message = f"{str(message).rstrip('.')}; see {context.command_path} --help"
    line = in_words(" ".join(str(message).split()))  # others' errors, quoted in it, may be of several lines
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)
    print(f"fused-ray: {line}", file=sys.stderr)
    return error.exit_code if isinstance(error, FusedRayError) else 2
