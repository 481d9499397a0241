"""What a database holds beyond the schema and the user's rows: numbers in its header and rows in other tables."""

from __future__ import annotations

import collections
import contextlib
import sqlite3
from typing import Collection, Counter, Iterator, Tuple

from migration.sql import quote
from migration.sqlite.schema import Schema, SchemaDifference, count_rows, describe_columns, describe_numbers

# Functions whose value may change with each run of the schema file
CHANGEABLE = (
    "current_date",
    "current_time",
    "current_timestamp",
    "date",
    "datetime",
    "julianday",
    "random",
    "randomblob",
    "strftime",
    "time",
    "unixepoch",
)


def additions(
    database: sqlite3.Connection, schema: Schema, filled: Collection[str]
) -> Iterator[SchemaDifference]:
    """Yield rows and numbers that the schema file does not make, except in the tables that are ``filled``."""
    for name, number in describe_numbers(database).items():
        if number != schema.numbers[name]:
            message = "%s is %d, and the schema file makes it %d"
            yield SchemaDifference(message % (name, number, schema.numbers[name]), more=True)
    rows = count_rows(database, [name.lower() for name in filled])
    for table, count in rows.items():
        expected = schema.rows.get(table)
        if table == "sqlite_sequence":
            names = "SELECT count(*) FROM sqlite_sequence WHERE name NOT IN (SELECT name FROM sqlite_master)"
            if database.execute(names).fetchone() != (0,):
                yield SchemaDifference("sqlite_sequence names tables that are not there", more=True)
        elif expected is None and not table.startswith("sqlite_"):
            continue  # the table is not in the schema file, which check ``schema`` reports
        elif count != (expected or 0):
            message = "table %s has %d rows, and the schema file makes %d"
            yield SchemaDifference(message % (table, count, expected or 0), table, more=True)
        elif count and not _has_rows_of(database, schema, table):
            message = "table %s has other rows than the schema file makes"
            yield SchemaDifference(message % table, table, more=True)


def _has_rows_of(database: sqlite3.Connection, schema: Schema, table: str) -> bool:
    """Whether a table has the rows that the schema file inserts, compared by the columns that do not change with each run."""
    with _loaded(schema, False) as one, _loaded(schema, True) as other:
        names = [quote(column.name) for column in describe_columns(one, table).values()]
        fixed = [name for name in names if _rows(one, table, [name]) == _rows(other, table, [name])]
        try:
            return _rows(database, table, fixed) == _rows(one, table, fixed)
        except sqlite3.Error:  # other columns, which check ``schema`` reports
            return True


def _rows(database: sqlite3.Connection, table: str, names: Collection[str]) -> "Counter[Tuple[object, ...]]":
    return collections.Counter(
        database.execute("SELECT %s FROM %s" % (", ".join(names) or "NULL", quote(table)))
    )


@contextlib.contextmanager
def _loaded(schema: Schema, changed: bool) -> Iterator[sqlite3.Connection]:
    """The schema file, run in memory; ``changed``: with other results of functions such as random()."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        for name in CHANGEABLE if changed else ():
            database.create_function(name, -1, lambda *given: "elsewhen", deterministic=True)
        try:
            database.executescript(schema.script)
        except sqlite3.Error:  # a constraint of the schema refuses the other results
            if not changed:
                raise
        yield database
