"""The building of a new database and the check of its soundness, each by itself."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import List

import pytest

from migration.errors import TargetError
from migration.sqlite import building, connecting, integrity
from migration.sqlite.schema import count_rows, differences, read_schema

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


OWN = "CREATE TABLE own (id INTEGER PRIMARY KEY, name TEXT DEFAULT (hex(randomblob(8))));"


@pytest.mark.parametrize(
    ("script", "own"),
    [
        (SCRIPT, 0),
        (
            SCRIPT
            + OWN
            + "/* ; */ INSERT INTO own (id) VALUES (1), (2); INSERT OR IGNORE INTO own (id) VALUES (2)",
            2,
        ),
        (OWN + "INSERT INTO own (id) VALUES (1); INSERT INTO own (id) VALUES (2); " + SCRIPT, 2),
        (OWN + "INSERT INTO own (id) VALUES (1); UPDATE own SET name = hex(randomblob(8));" + SCRIPT, 1),
        (OWN + "INSERT INTO own (id) VALUES (1); INSERT OR REPLACE INTO own (id) VALUES (1);" + SCRIPT, 1),
        ("BEGIN;" + SCRIPT + OWN + "INSERT INTO own (id) VALUES (1); COMMIT;", 1),
        (
            "CREATE VIRTUAL TABLE own USING fts5(name); INSERT INTO own VALUES (hex(randomblob(8)));"
            + SCRIPT,
            1,
        ),
        (SCRIPT + OWN + "INSERT INTO own (id) VALUES (1) ON CONFLICT DO UPDATE SET id = 3;", 1),
        (SCRIPT + OWN + "INSERT INTO own (id) VALUES (:a);", 1),
        (SCRIPT + OWN + "INSERT INTO own (id) SELECT 1 WHERE 'A' LIKE 'a';", 1),
        (SCRIPT + "CREATE TABLE own AS SELECT 1 AS id, hex(randomblob(8)) AS name;", 1),
        (
            OWN
            + "CREATE TEMP TABLE ids AS SELECT 1 AS id; INSERT INTO own (id) SELECT id FROM ids;"
            + SCRIPT,
            1,
        ),
        (
            OWN
            + "CREATE TEMP TABLE ids AS SELECT 1 AS id;"
            + SCRIPT
            + "INSERT INTO own (id) SELECT id FROM ids",
            1,
        ),
        (
            SCRIPT
            + OWN
            + "CREATE TRIGGER no BEFORE INSERT ON own WHEN new.id = 7 BEGIN SELECT RAISE(IGNORE); END;"
            "PRAGMA ignore_check_constraints = ON; INSERT INTO own (id) VALUES (7), (8)",
            1,
        ),
        (
            OWN
            + "CREATE TRIGGER more AFTER INSERT ON own WHEN new.id < 3 BEGIN INSERT INTO own (id) VALUES (new.id + 1); END;"
            "INSERT INTO own (id) VALUES (2);" + SCRIPT,
            2,
        ),
    ],
)
def test_each_database_is_what_the_schema_makes(script: str, own: int, tmp_path: Path) -> None:
    file = tmp_path / "schema.sql"
    file.write_text("PRAGMA user_version = 7;" + script, encoding="utf-8")
    schema, names = read_schema(file), set()
    for number in range(3):
        path = tmp_path / ("%d.db" % number)
        with contextlib.closing(building.create(path, schema)) as made:
            made.execute("COMMIT")
            assert made.execute("PRAGMA user_version").fetchone() == (7,)
            assert list(differences(made, schema)) == []
            assert count_rows(made) == schema.rows
            names.update(made.execute("SELECT name FROM own").fetchall() if own else [])
    assert len(names) == 3 * own


def numbers(folder: Path, rows: int) -> Path:
    """A database whose check takes a while."""
    database = folder / "numbers.db"
    with contextlib.closing(sqlite3.connect(str(database))) as connection, connection:
        connection.execute("CREATE TABLE numbers (n INTEGER, text TEXT CHECK (text NOT LIKE '%y%y'))")
        connection.execute(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?)"
            " INSERT INTO numbers SELECT i, i || 'y text of a number' FROM n",
            (rows,),
        )
    return database


def test_interrupt_while_the_thread_starts_closes_nothing_under_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = numbers(tmp_path, 60_000)
    threads: List[threading.Thread] = []
    start = threading.Thread.start
    moments = random.Random(1)

    def interrupted(thread: threading.Thread) -> None:
        threads.append(thread)
        start(thread)
        time.sleep(0.01 * moments.random())  # SQLite looks for longer
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    for _ in range(100):
        with pytest.raises(KeyboardInterrupt), integrity.looked_through(database):
            pytest.fail("the interrupt is lost")
    assert threads
    for thread in threads:
        thread.join()


def test_interrupt_ends_what_sqlite_is_looking_at(tmp_path: Path) -> None:
    with connecting.opened(numbers(tmp_path, 1_000_000)) as database:
        with pytest.raises(KeyboardInterrupt), integrity.looking_through(
            database, integrity.found_in
        ) as looking:
            time.sleep(0.002)
            raise KeyboardInterrupt
        assert "interrupted" in str(looking.exception())
