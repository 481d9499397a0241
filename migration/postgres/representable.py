"""Whether all values of the columns that are migrated can be kept; else the run stops before it reads them."""

from __future__ import annotations

from typing import Callable, Iterator, List, Optional, Tuple

import psycopg2

from migration.errors import MigrationError, SourceError
from migration.model import Column, Table
from migration.postgres import kinds
from migration.postgres.catalog import account_for_tables
from migration.postgres.declared import check_ownership
from migration.postgres.kinds import Type
from migration.postgres.snapshot import Snapshot
from migration.settings import Settings
from migration.sql import qualified
from migration.sqlite.mapping import map_all
from migration.sqlite.schema import Schema


def account_for(db: Snapshot, settings: Settings, schema: Schema) -> None:
    """Stop where a table or column is not accounted for. Raises MigrationError (exit 2 or 3)."""
    account_for_tables(settings, db.catalog)
    check_ownership(settings, db.catalog)
    values = list(migrated_values(db, settings, schema))
    for table, column, type_ in values:
        reason = kinds.refusal(type_)
        if reason is not None:
            raise unkept(table, column, reason, "give it another type in PostgreSQL")
    monetary = next((value for value in values if kinds.is_monetary(value[2])), None)
    if monetary is not None:
        _require_one_currency(db, *monetary[:2])


def migrated_values(db: Snapshot, settings: Settings, schema: Schema) -> Iterator[Tuple[Table, Column, Type]]:
    """The columns that SQLite gets and whose values are of no plain type, with that."""
    for table, mapped in zip(settings.tables, map_all(settings, db.catalog.columns, schema)):
        values = db.catalog.values.get(table.name, {})
        for pair in mapped.copied:
            if pair.source.name in values:
                yield table, pair.source, values[pair.source.name]


def lc_monetary(db: Snapshot, settings: Settings, schema: Schema) -> Optional[str]:
    """The setting under which money was read as numbers; None where there is no money."""
    values = migrated_values(db, settings, schema)
    if not any(kinds.is_monetary(type_) for _, _, type_ in values):
        return None
    return str(db.value("SELECT current_setting('lc_monetary')"))


def require_kept(db: Snapshot, settings: Settings, schema: Schema, condition: Callable[[Table], str]) -> None:
    """Stop at the first column with a value that cannot be kept. Raises MigrationError (exit 3)."""
    for table, column, type_ in migrated_values(db, settings, schema):
        for doubt in kinds.doubts(type_, qualified("t", column.name)):
            sql = "SELECT count(*) FROM {} t WHERE {} AND {}".format(
                db.quoted(table.name), condition(table), doubt.condition
            )
            try:
                rows = db.value(sql)
            except psycopg2.errors.InsufficientPrivilege:
                raise
            except (psycopg2.DataError, psycopg2.InternalError, psycopg2.ProgrammingError) as error:
                raise unkept(table, column, "PostgreSQL cannot read its text back", doubt.hint) from error
            if rows:
                raise unkept(table, column, "%s (rows: %d)" % (doubt.reason, rows), doubt.hint)


def suspects(
    db: Snapshot, settings: Settings, schema: Schema, condition: Callable[[Table], str]
) -> List[str]:
    """A line for each column of numbers or text, of no key, whose every value names a large object."""
    if not db.has_large_objects:
        return []
    keys = {(key.table, name) for key in db.catalog.foreign_keys for name in key.columns}
    found: List[str] = []
    for table, mapped in zip(settings.tables, map_all(settings, db.catalog.columns, schema)):
        names = [
            pair.source.name
            for pair in mapped.copied
            if pair.source.type.startswith(TAKES_OIDS)
            and pair.source.name not in db.catalog.primary_keys.get(table.name, ())
            and (table.name, pair.source.name) not in keys
        ]
        if names:
            tests = ", ".join(
                "bool_and({}::text OPERATOR(pg_catalog.=) ANY (SELECT oid::text FROM pg_catalog.pg_largeobject_metadata))".format(
                    qualified("t", name)
                )
                for name in names
            )
            ((*suspected,),) = db.rows(
                "SELECT {} FROM {} t WHERE {}".format(tests, db.quoted(table.name), condition(table))
            )
            found += [
                "%s.%s: each value is the number of a large object; if it points at that, the content stays behind"
                % (table.name, name)
                for name, all_are in zip(names, suspected)
                if all_are
            ]
    return found


def unkept(table: Table, column: Column, reason: str, advice: str) -> MigrationError:
    return SourceError(
        "cannot keep %s.%s (%s): %s" % (table.name, column.name, column.type, reason),
        '%s; or leave the column behind: take it out of the SQLite schema and add "%s" to dropped=(...) of %s in config.py'
        % (advice, column.name, table.name),
    )


TAKES_OIDS = ("integer", "bigint", "text", "character varying")


# Roles whose sessions read the same money as other numbers
_CURRENCIES = """
SELECT s.setting, coalesce(string_agg(DISTINCT pg_get_userbyid(r.setrole)::text, ', '), '')
FROM pg_settings s
LEFT JOIN (SELECT setrole, unnest(setconfig) AS given FROM pg_db_role_setting
           WHERE setrole <> 0 AND setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))) r
       ON r.given LIKE 'lc\\_monetary=%' AND (s.source LIKE '%user' OR r.given <> 'lc_monetary=' || s.setting)
WHERE s.name = 'lc_monetary' AND s.source <> 'client'
GROUP BY s.setting
"""


def _require_one_currency(db: Snapshot, table: Table, column: Column) -> None:
    """Money is a whole number whose decimal places lc_monetary alone tells: everybody's has to be the same."""
    for setting, roles in db.rows(_CURRENCIES):
        if roles:
            raise unkept(
                table,
                column,
                "what money is depends on lc_monetary, which is %s here and is set apart for %s"
                % (setting, roles),
                "say which holds: --postgres-url with ?options=-c%20lc_monetary%3D" + setting,
            )
