"""Text on the screen: nothing of it is markup, nothing of it is lost, whatever the terminal can show."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, TextIO

import pytest

from fused_ray.runs.screen import (
    Notes,
    Screen,
    fits,
    make_screen,
    make_table,
    progress_screen,
    shown,
    size,
    sparkline,
)

AWKWARD = [
    "[bold]cat",
    "[/dog]",
    "猫",
    ":smile:",
    "a\x1b[31mb",
    "[link=x]y[/link]",
    "c\\[d]",
    "\u202eevil",
    "tab\there",
]
VISIBLE = [
    "[bold]cat",
    "[/dog]",
    "猫",
    ":smile:",
    r"a\x1b[31mb",
    "[link=x]y[/link]",
    "c\\[d]",
    r"\u202eevil",
    r"tab\x09here",
]


def on(terminal: TextIO, width: int = 80) -> Screen:
    screen = Screen(terminal)
    screen.width = width
    return screen


@pytest.mark.parametrize(
    ("text", "encoding", "expected"),
    [
        ("猫 cat ±1", "utf-8", "猫 cat ±1"),
        ("猫 cat ±1", "ascii", r"\u732b cat +-1"),
        ("é", "latin-1", "é"),
        ("猫é", "latin-1", r"\u732bé"),
        ("fused †", "ascii", "fused +"),
        ("two\nlines", "ascii", "two\nlines"),
        ("path \udcff", "utf-8", r"path \udcff"),  # a file name that is not UTF-8
        ("\U0001f408", "ascii", r"\U0001f408"),
        ("a\x00b\x7f", "utf-8", r"a\x00b\x7f"),
        ("\u00a0\u3000", "utf-8", "\u00a0\u3000"),  # spaces are no control characters
    ],
)
def test_every_sign_is_shown_somehow(text: str, encoding: str, expected: str) -> None:
    assert shown(text, encoding) == expected
    expected.encode(encoding)


def test_text_is_no_markup_in_lines_tables_and_notes(terminal: Any) -> None:
    stream = terminal()
    screen = on(stream, 300)
    for text in AWKWARD:
        screen.say(text)
    screen.print(make_table(AWKWARD, [AWKWARD], left=AWKWARD))
    notes = Notes(screen)
    notes(AWKWARD)
    notes(AWKWARD)
    lines = stream.text.splitlines()
    assert lines[:9] == VISIBLE
    head, _, body = lines[9:12]
    for cell in VISIBLE:
        assert cell in head
        assert cell in body
    assert lines[12:] == [f"note: {text}" for text in VISIBLE]


def test_a_terminal_without_the_signs_shows_escapes_in_straight_columns(terminal: Any) -> None:
    stream = terminal("ascii")
    screen = on(stream)
    screen.print(make_table(["name", "figure"], [["猫", "0.5 ± 0.1"], ["dog †", "1"]], left=["name"]))
    assert stream.text.splitlines() == [
        "name        figure",
        "------------------",
        r"\u732b  0.5 +- 0.1",
        "dog +            1",
    ]


def test_cells_go_on_in_the_next_line_and_lose_nothing(terminal: Any) -> None:
    stream = terminal()
    screen = on(stream, 40)
    name = "a-name-of-fifty-letters-without-any-break-in-it-ok"
    table = make_table(["name", "figure"], [[name, "0.123"]], left=["name"])
    assert not fits(screen, table)
    screen.print(table)
    lines = stream.text.splitlines()
    assert max(map(len, lines)) <= 40
    assert "".join(line.split()[0] for line in lines[2:]) == name
    assert lines[2].endswith("0.123")
    screen.width = 60
    assert fits(screen, table)


def test_long_lines_are_left_to_the_terminal(terminal: Any) -> None:
    stream = terminal()
    on(stream, 20).say("/a/path/[that]/is/longer/than/the/terminal is wide")
    assert stream.text == "/a/path/[that]/is/longer/than/the/terminal is wide\n"


def test_sentences_are_broken_between_words_on_a_terminal_alone(terminal: Any) -> None:
    for tty, expected in ((True, ["one two", "[three]", "four"]), (False, ["one two [three] four"])):
        stream = terminal(tty=tty)
        on(stream, 10).tell("one two [three] four")
        assert [line.rstrip() for line in stream.text.splitlines()] == expected


def test_a_log_is_wide_and_a_set_width_is_obeyed(terminal: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal())
    monkeypatch.delenv("COLUMNS", raising=False)
    assert make_screen().width >= 160
    monkeypatch.setenv("COLUMNS", "80")
    assert make_screen().width == 80


@pytest.mark.parametrize(
    ("count", "expected"), [(0, "0 B"), (999, "999 B"), (6_628, "6.6 KB"), (35_560_000, "35.6 MB")]
)
def test_sizes(count: int, expected: str) -> None:
    assert size(count) == expected


def test_progress_in_ascii_is_shown_and_noise_goes_to_the_log(tmp_path: Path) -> None:
    """In a process of its own: what is tested is what becomes of its standard error."""
    place = tmp_path / "[bold]猫"
    place.mkdir()
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom fused_ray.runs.screen import progress_screen\n"
        f"with progress_screen(Path({str(place)!r})) as screen:\n"
        "    os.write(2, b'noise')\n    screen.say('猫 [/dog] ±')\nprint('after', file=sys.stderr)"
    )
    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode("ascii").splitlines() == [
        rf"fused-ray: {tmp_path}/[bold]\u732b",
        r"\u732b [/dog] +-",
        "after",
    ]
    assert (place / "ray.log").read_bytes() == b"noise"


def test_progress_where_standard_error_has_no_descriptor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_screen(tmp_path) as screen:
        screen.say("[x]")
    assert stream.getvalue().splitlines() == [f"fused-ray: {tmp_path}", "[x]"]


def test_a_sparkline_has_eighths_of_one() -> None:
    """0 and 1/16 are in the first eighth, 1/8 begins the second, 15/16 and 1 are in the last."""
    line = sparkline([0.0, 1 / 16, 1 / 8, 0.5, None, 15 / 16, 1.0])
    assert line == "▁▁▂▅ ██"
    assert shown(line, "ascii") == "__.~ ##"
    assert sparkline([number / 8 for number in range(8)]) == "▁▂▃▄▅▆▇█"
    assert sparkline([]) == ""
