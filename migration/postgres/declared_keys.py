"""Keys that config declares for tables to which PostgreSQL gives none, proved by the data."""

from __future__ import annotations

import dataclasses
from typing import Any, Callable, Iterable, List, Tuple

from psycopg2 import errors as pg

from migration.errors import SourceError, UsageError
from migration.model import Table
from migration.postgres.catalog import Catalog
from migration.sql import qualified, quote


def with_declared_keys(
    catalog: Catalog, tables: Iterable[Table], ask: Callable[[str], List[Tuple[Any, ...]]]
) -> Catalog:
    """The catalog with config's ``key=(…)`` of tables that have no key of PostgreSQL's own. ``ask`` runs a query.

    All rows are looked at, not only the user's: rows are told apart by the key from those of others too.

    Raises MigrationError: exit 2 where PostgreSQL lacks a column or cannot compare it, 3 where rows are equal in the key.
    """
    keys = dict(catalog.keys)
    for table in tables:
        if not table.key or table.name not in keys:
            continue
        missing = [name for name in table.key if not catalog.has(table.name, (name,))]
        if missing:
            raise UsageError(
                "config.TABLES, %s: column %s of its key is not in PostgreSQL"
                % (table.name, ", ".join(missing)),
                "correct key=(…), or leave it away: equal rows are counted then",
            )
        if keys[table.name] or table.name in catalog.unreadable:
            continue
        _require_unique(catalog, table, ask)
        keys[table.name] = table.key
    return dataclasses.replace(catalog, keys=keys)


def _require_unique(catalog: Catalog, table: Table, ask: Callable[[str], List[Tuple[Any, ...]]]) -> None:
    relation = catalog.relations[table.name]
    columns = [qualified("t", name) for name in table.key]
    sql = "SELECT count(*), coalesce(sum(n) FILTER (WHERE lacking), 0), coalesce(sum(n) FILTER (WHERE NOT lacking), 0)"
    sql += " FROM (SELECT count(*) AS n, {} AS lacking FROM {} t GROUP BY {} HAVING count(*) > 1 OR {}) d"
    lacking = " OR ".join("bool_or(%s IS NULL)" % column for column in columns)
    where = quote(relation.schema) + "." + quote(relation.name)
    try:
        ((found, without, equal),) = ask(sql.format(lacking, where, ", ".join(columns), lacking))
    except pg.UndefinedFunction as error:
        raise UsageError(
            "config.TABLES, %s: PostgreSQL does not compare values of its key (%s)"
            % (table.name, ", ".join(table.key)),
            "leave key=(…) away: equal rows are counted then",
        ) from error
    if found:
        raise SourceError(
            "key=(%s) of %s in config.TABLES does not tell its rows apart: %d rows share theirs with others, %d have a NULL in it"
            % (", ".join(table.key), table.name, equal, without),
            "name more columns, or leave key=(…) away: equal rows are counted then",
        )
