"""What one sees first: the README's picture, help of the command and of the package, answers to mistakes."""

from __future__ import annotations

import pydoc
import re

import pytest

import fused_ray
from fused_ray.cli.app import main
from tests.docs.blocks import ROOT, blocks

SCREEN = 36
"""Lines of a terminal."""


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[object, str, str]:
    """Exit code, standard output and standard error."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    return ended.value.code, *capsys.readouterr()


def test_the_readme_starts_with_a_picture_of_a_run() -> None:
    title, picture, *_ = (ROOT / "README.md").read_text(encoding="utf-8").split("\n\n")
    assert title == "# fused_ray"
    found = re.fullmatch(r"!\[.+\]\((docs/images/.+\.(?:svg|png))\)", picture)
    assert found, picture
    assert (ROOT / found[1]).stat().st_size < 100_000


def test_the_first_run_is_that_of_the_demo() -> None:
    asked = next(block for block in blocks("docs/first-run.md") if block.text.startswith("forget:"))
    assert (ROOT / "examples" / "demo.yaml").read_text(encoding="utf-8").endswith(asked.text)


@pytest.mark.parametrize("asked", [(), ("--help",), ("-h",), ("--debug",)])
def test_without_arguments_there_is_help(asked: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = answer(capsys, *asked)
    assert (code, err) == (0, "")
    for command in ("init", "run", "compare", "sweep", "--version"):
        assert command in out
    assert len(out.splitlines()) <= SCREEN


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "--version") == (0, f"fused-ray {fused_ray.__version__}\n", "")


def test_help_of_the_package_fits_two_screens_and_names_what_there_is() -> None:
    text = pydoc.plain(pydoc.render_doc(fused_ray))
    assert len(text.splitlines()) <= 2 * SCREEN
    assert max(len(line) for line in text.splitlines() if "__init__" not in line) <= 80  # FILE has the place
    public = {
        *("CompareConfig", "FusedRayError", "RunConfig", "SweepConfig", "audit_run", "compare", "load_comparison"),
        *("load_run", "load_sweep", "resume", "resume_comparison", "resume_sweep", "run", "sweep"),
    }
    for name in public:
        assert re.search(rf"\b{name}\b", text), name
        assert callable(getattr(fused_ray, name))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["show"], "Missing argument 'folder'; see fused-ray show --help"),
        (["help"], "No such command 'help'; see fused-ray --help"),
        (["rum"], "No such command 'rum'. Did you mean 'run'?"),
        (["sweep", "shwo"], "Invalid value: there is no file and no command 'shwo'; did you mean show?"),
        (
            ["run", "--set", "forget.classes=T-shirt"],
            "forget.classes: write whole numbers, such as [0, 2] (given: 'T-shirt')",
        ),
    ],
)
def test_a_mistake_is_answered_with_what_to_do(
    arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = answer(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err == f"fused-ray: {line}\n"
