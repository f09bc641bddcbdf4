"""What stands in a page, by the standard library's parser."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "hr", "img", "input"}
SHAPES = {"path", "rect"}


class Read(HTMLParser):
    """A page's tables by caption, headings, charts, text, and what it would load."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        """By caption, rows of cells, the head first."""
        self.headings: list[str] = []
        self.charts: dict[str, list[str]] = {}
        """By title, what is said of its points and cells."""
        self.text: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        """Tag, name, value."""
        self.open: list[str] = []
        self._rows: list[list[str]] = []
        self._tips: list[str] = []
        self._said = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self._rows = []
        elif tag == "tr":
            self._rows.append([])
        elif tag == "svg":
            self._tips = []
        if tag in ("th", "td", "caption", "h1", "h2", "h3", "title"):
            self._said = ""
        self._tips += [value or "" for name, value in attrs if name == "data-tip"]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag in ("th", "td"):
            self._rows[-1].append(self._said)
        elif tag == "caption":
            self.tables[self._said] = self._rows
        elif tag in ("h1", "h2", "h3"):
            self.headings.append(self._said)
        elif tag == "title" and "svg" in self.open:
            self.charts[self._said] = self._tips

    def handle_data(self, data: str) -> None:
        self._said += data
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    @property
    def said(self) -> str:
        """All text."""
        return " ".join(" ".join(self.text).split())

    def column(self, caption: str, name: str) -> dict[str, str]:
        """A column of a table by what its rows are called."""
        head, *rows = self.tables[caption]
        return {row[0]: row[head.index(name)] for row in rows}
