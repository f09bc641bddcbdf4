"""Reports in a real browser: nothing is logged, nothing asked for, nothing is wider than the window, keys reach all.

AXE may name axe-core's axe.min.js; then pages are looked at by its rules, too.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from fused_ray.studies.pages import write
from tests.pages import results
from tests.pages.chromium import PROGRAM, Page, in_a_tab

pytestmark = [
    pytest.mark.timeout(900),
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed: apt-get install chromium"),
]
KINDS: dict[str, Callable[[Path], Path]] = {
    "run": results.small_run,
    "comparison": results.comparison,
    "sweep": results.sweep,
    "scaling": results.scaling,
}
OLD = Path(__file__).parents[1] / "unit" / "runs"
WIDTHS = (1280, 768, 390)
AXE = os.environ.get("AXE")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A report of each kind, of an earlier run, and of all together."""
    folder = tmp_path_factory.mktemp("pages")
    made = {kind: make(folder / kind) for kind, make in KINDS.items()}
    made["old"] = shutil.copytree(OLD / "old_run", folder / "old")
    found = {}
    for kind, places in {**{kind: [place] for kind, place in made.items()}, "all": list(made.values())}.items():
        began = time.monotonic()
        found[kind] = Path(write(places, folder / f"{kind}.html"))
        took, size = time.monotonic() - began, found[kind].stat().st_size
        print(f"{kind}: {took:.2f} s, {size / 1000:.0f} KB")
        assert size < 3_000_000
    return found


@pytest.mark.parametrize("kind", [*KINDS, "old", "all"])
def test_a_page_is_quiet_and_fits_every_window(pages: dict[str, Path], kind: str) -> None:
    file = pages[kind]

    async def look(page: Page) -> None:
        for width in WIDTHS:
            for dark in (False, True):
                page.logged.clear()
                page.requested.clear()
                await page.open(file, width, dark)
                assert page.logged == []
                assert [url for url in page.requested if not url.startswith("data:")] == [file.resolve().as_uri()]
                assert await page.value("document.documentElement.scrollWidth <= innerWidth")
                background = await page.value("getComputedStyle(document.body).backgroundColor")
                assert background == ("rgb(16, 21, 27)" if dark else "rgb(244, 246, 249)")
                if AXE and (width, dark) in ((1280, False), (390, True)):
                    await page.value(Path(AXE).read_text() + "; true")
                    rules = "axe.run().then(found => found.violations.map(each => [each.impact, each.id, each.help]))"
                    assert await page.value(rules) == []

    in_a_tab(look)


@pytest.mark.parametrize("kind", ["run", "comparison"])
def test_the_keyboard_reaches_every_control(pages: dict[str, Path], kind: str) -> None:
    async def look(page: Page) -> None:
        await page.open(pages[kind], 768)
        wanted = "a[href], button, summary, svg.chart, [tabindex='0']"
        await page.value(
            f'window.all = [...document.querySelectorAll("{wanted}")].filter(each => each.checkVisibility()); true'
        )
        count = await page.value("window.all.length")
        await page.value("window.seen = new Set(); true")
        for _ in range(count):
            await page.press("Tab")
            await page.value("window.seen.add(document.activeElement); true")
        assert await page.value("window.all.filter(each => !window.seen.has(each)).length") == 0

    in_a_tab(look)


def test_points_tell_tables_sort_and_colours_turn(pages: dict[str, Path]) -> None:
    async def look(page: Page) -> None:
        await page.open(pages["comparison"], 1280)
        await page.value("document.querySelector('svg.chart').focus(); true")
        await page.press("ArrowRight")
        assert await page.value("document.getElementById('tip').textContent") == (
            "good\nRA 0.700, FA 0.100\nup 60.0 KB in all"
        )
        assert await page.value("document.getElementById('said').textContent.startsWith('good')")
        table = "[...document.querySelectorAll('table')].find(each => each.caption.textContent.startsWith('Pareto'))"
        first = f"{table}.tBodies[0].rows[0].cells[4].textContent"
        assert await page.value(first) == "60.0 KB"
        for order, expected in (("ascending", "50.0 KB"), ("descending", "60.0 KB")):
            await page.value(f"{table}.tHead.rows[0].cells[4].querySelector('button').focus(); true")
            await page.press("Enter")
            assert await page.value(f"{table}.tHead.rows[0].cells[4].getAttribute('aria-sort')") == order
            assert await page.value(first) == expected
        await page.value("document.getElementById('theme').click(); true")
        assert await page.value("getComputedStyle(document.body).backgroundColor") == "rgb(16, 21, 27)"
        assert await page.value("document.getElementById('theme').textContent") == "Light"

    in_a_tab(look)
