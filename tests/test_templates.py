"""Compiled templates are kept where Python keeps compiled modules: a help, and never a reason to fail or to be stale."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from migration import templates


def rendered(path: Path) -> str:
    templates.template.cache_clear()  # as a new process
    return templates.template(path).render(number=3)


@pytest.fixture()
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", None)
    (tmp_path / "__pycache__").mkdir()
    path = tmp_path / "page.html.j2"
    path.write_text("rows: {{ number }}", encoding="utf-8")
    return path


def kept(path: Path) -> Path:
    (found,) = (path.parent / "__pycache__").iterdir()
    return found


def test_compiled_template_is_kept_and_a_changed_one_compiled_again(path: Path) -> None:
    assert rendered(path) == "rows: 3"
    first = kept(path).read_bytes()
    assert rendered(path) == "rows: 3"
    assert kept(path).read_bytes() == first
    path.write_text("lines: {{ number }}", encoding="utf-8")
    assert rendered(path) == "lines: 3"


@pytest.mark.parametrize("size", [0, 1, 20, 40, 60, 100])
def test_damaged_file_is_not_used(size: int, path: Path) -> None:
    rendered(path)
    kept(path).write_bytes(kept(path).read_bytes()[:size])
    assert rendered(path) == "rows: 3"


def test_folder_that_is_missing_stops_nothing(path: Path) -> None:
    (path.parent / "__pycache__").rmdir()
    assert rendered(path) == "rows: 3"
