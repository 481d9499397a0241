"""The building of a new database and the check of its soundness, each by itself."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from migration.errors import TargetError
from migration.sqlite import building, integrity
from migration.sqlite.schema import read_schema

SCRIPT = """
CREATE TABLE parents (id INTEGER PRIMARY KEY, name TEXT NOT NULL ON CONFLICT IGNORE);
CREATE TABLE children (id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents (id));
CREATE UNIQUE INDEX by_name ON parents (name);
CREATE TRIGGER renames AFTER UPDATE ON parents BEGIN SELECT 1; END;
"""


@pytest.fixture
def new(tmp_path: Path) -> sqlite3.Connection:
    schema = tmp_path / "schema.sql"
    schema.write_text(SCRIPT, encoding="utf-8")
    return building.create(tmp_path / "new.db", read_schema(schema))


def test_indexes_and_triggers_are_gone_while_rows_are_loaded_and_come_back(new: sqlite3.Connection) -> None:
    objects = "SELECT type, name FROM sqlite_master WHERE type IN ('index', 'trigger')"
    deferred = building.defer_indexes(new)
    assert new.execute(objects).fetchall() == []
    for sql in deferred:
        building.create_deferred(new, sql)
    assert new.execute(objects).fetchall() == [("index", "by_name"), ("trigger", "renames")]


def test_rows_that_do_not_fit_an_index_are_refused(new: sqlite3.Connection) -> None:
    index, _ = building.defer_indexes(new)
    building.insert(new, "parents", ["id", "name"], iter([(1, "same"), (2, "same")]))
    with pytest.raises(TargetError, match="do not fit an index"):
        building.create_deferred(new, index)


def test_refused_row_is_the_last_one_taken_whatever_the_schema_says_of_conflicts(
    new: sqlite3.Connection,
) -> None:
    rows = iter([(1, "a"), (2, None), (3, "c")])
    with pytest.raises(sqlite3.IntegrityError):
        building.insert(new, "parents", ["id", "name"], rows)
    assert list(rows) == [(3, "c")]
    assert new.execute("SELECT id FROM parents").fetchall() == [(1,)]


def test_dangling_reference_is_refused_by_name(new: sqlite3.Connection, tmp_path: Path) -> None:
    building.insert(new, "children", ["id", "parent"], iter([(7, 8)]))
    new.execute("COMMIT")
    with pytest.raises(
        TargetError, match="children 7: parent leads to no row of parents"
    ), integrity.looked_through(tmp_path / "new.db"):
        pass


def test_broken_page_is_refused(new: sqlite3.Connection, tmp_path: Path) -> None:
    building.insert(new, "parents", ["id", "name"], iter([(n, "%d" % n + "x" * 100) for n in range(500)]))
    new.execute("COMMIT")
    new.close()
    with open(str(tmp_path / "new.db"), "r+b") as file:
        file.seek(4096 * 6)
        file.write(b"\xff" * 2048)
    with pytest.raises((TargetError, sqlite3.DatabaseError)), integrity.looked_through(tmp_path / "new.db"):
        pass
