"""Hooks of MkDocs: the site's pages are this repository's files, at the places where they are.

So a link means the same on the site and on a Git host. A file that a page links to, and that is no page, comes along.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PAGES = ("*.md", "cluster/*.md", "docs/**/*.md")
"""Where pages are."""
_LINK = re.compile(r"\]\((?!\w+:)([^)#\s]+)")


def on_config(config: MkDocsConfig) -> None:
    """A folder in the navigation, named with a slash at its end, becomes its pages; README.md first, by its name."""
    config.nav = opened(config.nav)


def opened(nav: Any) -> Any:
    """A part of the navigation with the pages of its folders."""
    if isinstance(nav, list):
        return [opened(part) for part in nav]
    if isinstance(nav, dict):
        return {title: opened(part) for title, part in nav.items()}
    if not nav.endswith("/"):
        return nav
    pages = sorted((ROOT / nav).glob("*.md"), key=lambda path: (path.name != "README.md", path.name))
    return [path.relative_to(ROOT).as_posix() for path in pages]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The theme's own files, the pages, and what these link to."""
    theme = [file for file in files if file.src_dir != config.docs_dir]
    pages = [path.relative_to(ROOT).as_posix() for pattern in PAGES for path in sorted(ROOT.glob(pattern))]
    linked = {path for page in pages for path in links(page)} - set(pages)
    found = [File(path, str(ROOT), config.site_dir, config.use_directory_urls) for path in [*pages, *sorted(linked)]]
    return Files([*theme, *found])


def links(page: str) -> Iterator[str]:
    """The files of the repository that a page links to or shows."""
    for target in _LINK.findall((ROOT / page).read_text(encoding="utf-8")):
        path = (ROOT / page).parent / target
        if path.is_file():
            yield path.resolve().relative_to(ROOT).as_posix()
