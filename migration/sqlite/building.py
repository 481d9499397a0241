"""The new database: created from the schema, filled in one transaction, synced once at the end."""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from migration.errors import MigrationError, SourceError
from migration.files import create_private, sync_path
from migration.sql import quote
from migration.sqlite import connecting
from migration.sqlite.errors import errors, failed
from migration.sqlite.schema import Schema, in_memory, parted

log = logging.getLogger(__name__)


@contextlib.contextmanager
def building(staged: Path, schema: Schema, path: Path) -> Iterator[sqlite3.Connection]:
    """Create the database that is to become the one at ``path``; closed after the block."""
    with errors(path):
        database = create(staged, schema)
    with contextlib.closing(database), errors(
        path
    ):  # closing would free the room whose lack is to be found out
        yield database


class Start(NamedTuple):
    """What each user's database begins with: the bytes of a file, and statements to be executed in it."""

    file: bytes
    rows: Sequence[str]


_starts: Dict[Schema, Start] = {}  # of the newest schema


def create(staged: Path, schema: Schema) -> sqlite3.Connection:
    """A new private database with the schema, in an open transaction.

    Nobody needs it after a crash until it is published, so it is synced once, at the end.
    """
    start = _starts.get(schema)
    with create_private(staged, exclusive=True) as file:
        file.write(start.file if start else b"")
    connection = sqlite3.connect(str(staged), isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")
    if start is None:
        parts = parted(schema)
        script, rows = parts or (schema.script, [])
        with in_memory(script) as made:
            made.backup(connection)  # on the disk, each statement would be a transaction of its own
        start = Start(staged.read_bytes(), rows)
        if parts is not None:
            _starts.clear()
            _starts[schema] = start
    connection.execute("PRAGMA foreign_keys = OFF")  # checked as a whole before the commit
    connection.execute("PRAGMA cache_size = %d" % -connecting.CACHE)
    connection.execute("BEGIN")
    for sql in start.rows:
        connection.execute(sql)
    return connection


def defer_indexes(connection: sqlite3.Connection) -> List[str]:
    """Drop secondary indexes and triggers; returns the SQL that creates them again.

    Loading without them is about twice as fast, and no trigger changes migrated rows.
    """
    found = connection.execute(
        "SELECT type, name, sql FROM sqlite_master"
        " WHERE type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY rowid"
    ).fetchall()
    for kind, name, _ in found:
        connection.execute("DROP %s %s" % (kind.upper(), quote(name)))
    return [sql for _, _, sql in found]


def insert(
    connection: sqlite3.Connection, table: str, names: Sequence[str], rows: Iterator[Sequence[object]]
) -> None:
    """Insert rows up to the first that SQLite refuses: that is the last one taken from ``rows``.

    OR FAIL, whatever ON CONFLICT the schema says: no row is left out or replaced without a word, and SQLite keeps no
    journal of each statement.
    """
    connection.executemany(
        "INSERT OR FAIL INTO {} ({}) VALUES ({})".format(
            quote(table), ", ".join(map(quote, names)), ", ".join("?" * len(names))
        ),
        rows,
    )


def set_row_1(
    connection: sqlite3.Connection, table: str, values: Sequence[Tuple[str, object]], called: str
) -> None:
    """Set columns of row 1, which the schema may have made already. ``called``: ``Root.called``."""
    try:
        _set_row_1(connection, table, values)
    except sqlite3.DataError as error:
        raise too_large("%s of the %s" % (table, called), dict(values), error) from error


def _set_row_1(connection: sqlite3.Connection, table: str, values: Sequence[Tuple[str, object]]) -> None:
    names = ", ".join(quote(name) for name, _ in values)
    if connection.execute("SELECT count(*) FROM %s WHERE id = 1" % quote(table)).fetchone() == (0,):
        connection.execute(
            "INSERT INTO {} (id{}) VALUES (1{})".format(
                quote(table), names and ", " + names, ", ?" * len(values)
            ),
            [value for _, value in values],
        )
    elif values:
        connection.execute(
            "UPDATE {} SET {} WHERE id = 1".format(
                quote(table), ", ".join(quote(name) + " = ?" for name, _ in values)
            ),
            [value for _, value in values],
        )


def too_large(row: str, values: Mapping[str, object], error: sqlite3.DataError) -> MigrationError:
    """The error for a row that SQLite has no room for: neither a value nor a row may have more than a billion bytes.

    Source: https://www.sqlite.org/limits.html (1)
    """
    sizes = {
        column: len(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
        for column, value in values.items()
        if isinstance(value, (str, bytes))
    }
    column = max(sizes, key=lambda name: sizes[name])
    return SourceError(
        "%s, column %s: SQLite has no room for this value of %d bytes: %s"
        % (row, column, sizes[column], error),
        "make it smaller in PostgreSQL, or leave the column behind: dropped=(...) of its table in config.py",
    )


def create_deferred(database: sqlite3.Connection, sql: str) -> None:
    """Create an index or a trigger that ``defer_indexes`` has dropped. Raises MigrationError (exit 5)."""
    try:
        database.execute(sql)
    except sqlite3.IntegrityError as error:
        raise failed(
            "the rows do not fit an index of the schema: %s" % error,
            "correct the rows in PostgreSQL and export again, or the index in the schema file: "
            + " ".join(sql.split()),
        ) from error
    found = _INSERT_TRIGGER.match(sql)
    if found:
        log.warning(
            "trigger %s did not run for the imported rows: bring what it keeps up to date (a full-text table: "
            "INSERT INTO name(name) VALUES('rebuild'))",
            found[1],
        )


_INSERT_TRIGGER = re.compile(
    r"\s*CREATE\s+(?:TEMP\s+|TEMPORARY\s+)?TRIGGER\s+(?:IF\s+NOT\s+EXISTS\s+)?(\S+)\s+(?:BEFORE\s+|AFTER\s+)?INSERT\s+ON\b",
    re.IGNORECASE,
)


def finish(connection: sqlite3.Connection, staged: Path, schema: Schema) -> None:
    """Set the journal mode that the schema asks for, close the database and sync its file to the disk."""
    wanted = re.findall(r"PRAGMA\s+journal_mode\s*=\s*'?(\w+)", schema.script, re.IGNORECASE)
    connection.execute("PRAGMA journal_mode = %s" % (wanted[-1] if wanted else "DELETE"))
    connection.close()
    sync_path(staged)
