"""docs/schemas.md says what the tables' schemas say, and what result.json holds."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("docs_schemas", DOCS / "schemas.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_that_of_the_schemas(script: Any) -> None:
    assert (DOCS / "schemas.md").read_text() == "\n".join(script.page()) + "\n"


def test_no_column_is_without_meaning_or_named_twice(script: Any) -> None:
    for schema, _ in script.TABLES.values():
        assert len(set(schema.names)) == len(schema.names)
        assert all(field.metadata[b"doc"] for field in schema)
