"""The docs site: every page is in its navigation, it builds without a warning, and it loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import ROOT
from tests.pages.chromium import PROGRAM, Page, in_a_tab

needs_mkdocs = pytest.mark.skipif(find_spec("mkdocs") is None, reason="the extra docs is not installed")
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="chromium is not installed: apt-get install chromium")
PAGES = [
    path.relative_to(ROOT).as_posix()
    for pattern in ("*.md", "cluster/*.md", "docs/**/*.md")
    for path in sorted(ROOT.glob(pattern))
]
SOURCES = ("docs", "cluster", "examples", "benchmarks", *(path.name for path in ROOT.glob("*.md")), "NOTICE", "LICENSE")


def listed(nav: Any) -> Iterator[str]:
    """The paths of a navigation, those of a folder's pages one by one."""
    if isinstance(nav, dict):
        nav = list(nav.values())
    if isinstance(nav, list):
        for part in nav:
            yield from listed(part)
    elif nav.endswith("/"):
        yield from (path.relative_to(ROOT).as_posix() for path in (ROOT / nav).glob("*.md"))
    else:
        yield nav


def test_every_page_is_in_the_navigation_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(listed(nav)) == sorted(PAGES)


def build(folder: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """MkDocs on the mkdocs.yml of a folder."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(site)],
        cwd=folder, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert (done.returncode, "WARNING" in done.stderr) == (0, False), done.stderr
    return folder


class Loaded(HTMLParser):
    """The addresses that a browser loads by itself to show a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found.append(given.get("src") or "")
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(given.get("href") or "")


def elsewhere(address: str) -> bool:
    return re.match(r"(\w+:)?//", address) is not None


def test_an_address_of_another_host_is_found() -> None:
    text = (
        '<link rel="stylesheet" href="https://fonts.net/x.css"><script src="//x.js"></script><a href="https://a.net">'
    )
    assert [address for address in Loaded(text).found if elsewhere(address)] == ["https://fonts.net/x.css", "//x.js"]
    assert not elsewhere("../assets/x.js")


@needs_mkdocs
@pytest.mark.slow
def test_the_site_has_every_page_and_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in PAGES:
        name = re.sub(r"README\.md$", "index.html", page).replace(".md", ".html")
        assert (site / name).is_file(), page
    pages = [*site.rglob("*.html")]
    assert len(pages) > len(PAGES)
    for path in pages:
        loaded = Loaded(path.read_text(encoding="utf-8")).found
        assert loaded
        assert [address for address in loaded if elsewhere(address)] == [], path
    for path in site.rglob("*.css"):
        assert not re.search(r"@import|url\([\"']?(\w+:)?//", path.read_text(encoding="utf-8")), path


@needs_mkdocs
@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize("name", ["index.html", "docs/first-run.html", "docs/architecture.html"])
def test_a_browser_fetches_the_site_alone(site: Path, name: str) -> None:
    async def look(page: Page) -> None:
        await page.open(site / name, 1280)
        assert len(page.requested) > 3
        assert [url for url in page.requested if not url.startswith((site.resolve().as_uri(), "data:", "blob:"))] == []
        assert await page.value("[...document.images].every(image => image.complete && image.naturalWidth > 0)")

    in_a_tab(look)


@needs_mkdocs
@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "text", "said"),
    [
        ("docs/howto.md", "[nowhere](nowhere.md)", "nowhere.md"),
        ("docs/howto.md", "[no such part](data.md#no-such-part)", "no-such-part"),
        ("docs/forgotten.md", "# Not in the navigation", "docs/forgotten.md"),
    ],
)
def test_a_mistake_is_an_error(page: str, text: str, said: str, tmp_path: Path) -> None:
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    with (tmp_path / page).open("a", encoding="utf-8") as file:
        file.write(f"\n{text}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    assert said in done.stderr
