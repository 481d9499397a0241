"""Columns that name rows of several tables: rows of a type that config.py does not know."""

from __future__ import annotations

from typing import Dict, Iterator, List, Sequence, Tuple

import psycopg2

from migration.model import Reference
from migration.postgres.references import present, refused_sql
from migration.postgres.snapshot import Snapshot
from migration.printing import counted
from migration.settings import Settings
from migration.sql import qualified

Column = Tuple[str, Tuple[str, ...]]  # the table, and the columns that name a row


def unmeant(db: Snapshot, settings: Settings) -> Iterator[str]:
    """A line for each such column with rows, of whomever, for which no reference's ``when`` holds. Reads the whole table.

    Raises MigrationError (exit 2) for a condition that PostgreSQL refuses.
    """
    ways = {table.name: table.ownership for table in settings.tables}
    for column, whens in conditions(settings.references).items():
        table, columns = column
        if not any(tuple(sorted(way.columns)) == columns for way in ways[table].parts):
            continue
        try:
            rows = db.value("SELECT count(*) FROM " + rows_unmeant(db, column, whens))
        except psycopg2.errors.InsufficientPrivilege:
            raise
        except (psycopg2.ProgrammingError, psycopg2.DataError) as error:
            raise refused_sql(
                "config.REFERENCES, %s (%s): when" % (table, ", ".join(columns)), error
            ) from error
        if rows:
            yield (
                "%s of %s, of whomever, stay behind: what they name by %s is of a type for which config.REFERENCES has no"
                " Reference(…, when=…)" % (counted(rows, "row"), table, ", ".join(columns))
            )


def conditions(references: Sequence[Reference]) -> Dict[Column, List[str]]:
    """The columns that name rows of several tables, and SQL of when they name one of each."""
    found: Dict[Column, List[str]] = {}
    for reference in references:
        if reference.when:
            column = reference.table, tuple(sorted(reference.names))
            found.setdefault(column, []).append(reference.when)
    return found


def rows_unmeant(db: Snapshot, column: Column, whens: Sequence[str]) -> str:
    """FROM clause: rows ``t`` that name something by these columns, for which none of the conditions holds."""
    table, columns = column
    return "%s t WHERE %s AND NOT (%s)" % (
        db.quoted(table),
        present(qualified("t", name) for name in columns),
        " OR ".join("((%s\n) IS TRUE)" % when for when in whens),
    )
