"""Columns that name rows of several tables: the types in the data that no Reference of config.py means."""

from __future__ import annotations

import re
from typing import Dict, Iterator, List, Mapping, Sequence

import psycopg2

from migration.discovery.details import Details
from migration.model import Reference
from migration.postgres.polymorphic import conditions, rows_unmeant
from migration.postgres.snapshot import Snapshot
from migration.sql import qualified, quote

_MOST = 50  # types; where there are more, the column says something else
_MANY = "more than %d" % _MOST
_TYPES = "types of rows that no Reference means, "
_REFUSED = "PostgreSQL refuses the when of a Reference, "


def without_reference(db: Snapshot, references: Sequence[Reference]) -> Dict[str, Details]:
    """Table → for each column that names rows of several tables its types for which no ``when`` holds, a line each.

    Reads these tables. A condition that PostgreSQL refuses is named.
    """
    found: Dict[str, Details] = {}
    for column, whens in conditions(references).items():
        table, columns = column
        if table not in db.catalog.relations or not db.catalog.has(table, columns):
            continue
        by = "by " + ", ".join(columns)
        shown = "pg_catalog.concat_ws(', ', %s)" % ", ".join(_types(db, table, whens) or ["''"])
        rows = rows_unmeant(db, column, whens)
        try:
            sql = "SAVEPOINT types; SELECT %s FROM %s GROUP BY 1 ORDER BY 1 LIMIT %d"
            types = db.rows(sql % (shown, rows, _MOST + 1))
        except psycopg2.errors.InsufficientPrivilege:
            raise
        except (psycopg2.ProgrammingError, psycopg2.DataError) as error:
            found.setdefault(table, {})[_REFUSED + by] = str(error).partition("\n")[0]
            db.rows("ROLLBACK TO SAVEPOINT types; SELECT 1")
            continue
        if types:
            texts = [_MANY] if len(types) > _MOST else sorted(text for (text,) in types)
            found.setdefault(table, {})[_TYPES + by] = "\n".join(texts)
    return found


def _types(db: Snapshot, table: str, whens: Sequence[str]) -> List[str]:
    """SQL of the columns that the conditions look at."""
    return [
        qualified("t", column.name)
        for column in db.catalog.columns[table]
        for name in [r"\bt\.(%s|%s\b)" % (re.escape(quote(column.name)), re.escape(column.name))]
        if any(re.search(name, when) for when in whens)
    ]


def new_types(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    """A line for each type that was not there, by the details of a table."""
    for name in now:
        if name.startswith(_REFUSED):
            yield "%s: %s" % (name, now[name])
        elif name.startswith(_TYPES):
            known = before.get(name, "").split("\n")
            new = [text for text in now[name].split("\n") if text not in known]
            yield from ("%s: a new one, %s" % (name, text) for text in new if known != [_MANY])


def is_of_types(detail: str) -> bool:
    return detail.startswith((_TYPES, _REFUSED))
