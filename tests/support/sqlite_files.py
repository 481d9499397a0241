"""SQLite files that a run would replace, reading them, and breaking what they promise."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Iterator, List, Tuple

from migration.settings import Settings

OLD_ROWS = [("what was there before",), ("and more of it",)]


def make_old_database(path: Path) -> bytes:
    """A database that a run would replace, as an application leaves it; returns its bytes."""
    database = sqlite3.connect(str(path))
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE old (note)")
    database.executemany("INSERT INTO old VALUES (?)", OLD_ROWS)
    database.commit()
    database.close()
    return path.read_bytes()


def change(path: Path, *statements: str) -> None:
    """Change a database as another program does, a transaction a statement."""
    with contextlib.closing(sqlite3.connect(str(path), isolation_level=None)) as database:
        for statement in statements:
            database.execute(statement)


def rows_of(path: Path, sql: str) -> list:
    assert path.is_file(), path  # connecting would make it
    database = sqlite3.connect(str(path))
    try:
        return database.execute(sql).fetchall()
    finally:
        database.close()


@contextlib.contextmanager
def lawless(settings: Settings) -> Iterator[sqlite3.Connection]:
    """The database without NOT NULL and triggers, so that every damage can be made; they are put back."""
    database = sqlite3.connect(str(settings.sqlite_path))
    rules = database.execute(
        "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql NOTNULL"
    ).fetchall()
    triggers = database.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        database.execute("DROP TRIGGER " + name)
    set_rules(database, [(name, sql.replace(" NOT NULL", "")) for name, sql in rules])
    database.close()
    database = sqlite3.connect(str(settings.sqlite_path))
    yield database
    for _, sql in triggers:
        database.execute(sql)
    set_rules(database, rules)
    database.close()


def set_rules(database: sqlite3.Connection, rules: List[Tuple[str, str]]) -> None:
    database.execute("PRAGMA writable_schema = ON")
    for name, sql in rules:
        database.execute("UPDATE sqlite_master SET sql = ? WHERE name = ? AND type = 'table'", (sql, name))
    (version,) = database.execute("PRAGMA schema_version").fetchone()
    database.execute("PRAGMA schema_version = %d" % (version + 1))
    database.commit()
