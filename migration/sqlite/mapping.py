"""Which source column becomes which SQLite column; every table and column accounted for."""

from __future__ import annotations

import functools
import re
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import msgspec

from migration.bundle.damage import damaged
from migration.bundle.reading import Reader
from migration.decoding import JSON_NULLS, undeclared
from migration.errors import UsageError
from migration.json_text import members
from migration.model import USER_DATA, Column, Family, Table
from migration.settings import Settings
from migration.sqlite.schema import Schema, TargetColumn


class Copied(NamedTuple):
    """A column that is migrated: where it comes from and where it goes."""

    source: Column
    target: TargetColumn


class TableMapping(NamedTuple):
    """A table's columns: those copied, in source order, and those left behind.

    ``generated``: those that SQLite makes itself, to be compared with the source's.
    """

    table: str
    target: str
    copied: Tuple[Copied, ...]
    dropped: Tuple[Column, ...]
    generated: Tuple[Copied, ...] = ()


def target_of(table: Table, schema: Schema) -> str:
    """The SQLite table that a table becomes: case does not count there, and it has no schemas.

    ``billing.invoices`` becomes ``billing_invoices`` where SQLite has that, else ``invoices``.
    """
    name = table.target
    present = {known.lower(): known for known in schema.columns}
    for candidate in (name, name.replace(".", "_"), name.rpartition(".")[2]):
        if candidate.lower() in present:
            return present[candidate.lower()]
    return name


def require_own_targets(settings: Settings, schema: Schema) -> None:
    """Refuse two tables that would become the same SQLite table. Raises MigrationError (exit 2)."""
    known: Dict[str, str] = {}
    for table in settings.tables:
        target = target_of(table, schema)
        other = known.setdefault(target, table.name)
        if other != table.name:
            raise UsageError(
                "tables %s and %s of config.py would both become table %s of SQLite"
                % (other, table.name, target),
                "give each its own CREATE TABLE in %s: a table of another schema is called schema_table there"
                % schema.path,
            )


def require_nameable(table: str, columns: Iterable[str], advice: str) -> None:
    """Refuse names that a record's JSON cannot have as they are, of all its columns. Raises MigrationError (exit 2)."""
    columns = list(columns)
    unnameable = [name for name in columns if re.search(r'["\\\x00-\x1f]', name)]
    if unnameable:  # the decoder of records takes names only that JSON writes as they are
        raise UsageError(
            "the name of a column of %s has a quote, backslash or control character: %s"
            % (table, ", ".join(map(ascii, unnameable))),
            advice,
        )
    if JSON_NULLS in columns:
        raise UsageError(
            "a column of %s is called %s, which has a meaning of its own in the bundle" % (table, JSON_NULLS),
            advice,
        )


def map_columns(table: Table, columns: Sequence[Column], schema: Schema) -> TableMapping:
    """Pair the columns by name. Raises MigrationError (exit 2) naming each that is not accounted for."""
    return _map_columns(table, tuple(columns), schema)


@functools.lru_cache(maxsize=256)
def _map_columns(table: Table, columns: Tuple[Column, ...], schema: Schema) -> TableMapping:
    target = target_of(table, schema)
    if target not in schema.columns:
        raise UsageError(
            "table %s is in config but not in the SQLite schema" % target,
            "add its CREATE TABLE to %s" % schema.path,
        )
    require_nameable(
        table.name,
        (column.name for column in columns),
        "rename the column in PostgreSQL and in the SQLite schema",
    )
    places = schema.columns[target]
    copied, dropped, homeless, generated = [], [], [], []
    kept = {column.name.lower() for column in columns if column.name not in table.dropped}
    eclipsed = {name for name in table.dropped if name.lower() in kept}  # SQLite's column is another one's
    for column in columns:
        if column.name in eclipsed:
            dropped.append(column)
            continue
        place = places.get(column.name.lower())
        if place is not None and not (table.becomes and place.name.lower() == "id"):
            copied.append(Copied(column, place))
        elif column.name.lower() in schema.generated[target]:
            generated.append(Copied(column, schema.generated[target][column.name.lower()]))
        else:
            dropped.append(column)
            if place is None and column.name not in table.all_dropped:
                homeless.append(column.name)
    if homeless:
        raise UsageError(
            "SQLite has no place for %s" % ", ".join("%s.%s" % (table.name, name) for name in homeless),
            "add the column%s to table %s in %s, or to dropped=(...) of %s in config.py"
            % ("" if len(homeless) == 1 else "s", target, schema.path, table.name),
        )
    twice = [pair.source.name for pair in copied if sum(pair.target == other.target for other in copied) > 1]
    if twice:
        raise UsageError(
            "columns of %s differ only in case, which SQLite does not tell apart: %s"
            % (table.name, ", ".join(twice)),
            "rename one of them in PostgreSQL, or add it to dropped=(...) of %s in config.py" % table.name,
        )
    _require_whole_number(table, copied, schema)
    given = {pair.target.name for pair in copied}
    missing = [place.name for place in places.values() if place.required and place.name not in given]
    if missing and columns and not table.becomes:  # an empty file of a bundle without types has no columns
        raise UsageError(
            "SQLite requires %s, which the source lacks"
            % ", ".join("%s.%s" % (target, name) for name in missing),
            "give the column a DEFAULT, or drop NOT NULL, in %s" % schema.path,
        )
    return TableMapping(table.name, target, tuple(copied), tuple(dropped), tuple(generated))


def _require_whole_number(table: Table, copied: Sequence[Copied], schema: Schema) -> None:
    """An INTEGER PRIMARY KEY takes nothing else, and SQLite would only say "datatype mismatch"."""
    keys = [place for place in schema.columns[target_of(table, schema)].values() if place.key]
    row_id = keys[0] if len(keys) == 1 and keys[0].type.upper() == "INTEGER" else None
    for source, target in copied:
        if target == row_id and source.kind.family not in (Family.WHOLE, Family.NUMBER, Family.UNDECLARED):
            raise UsageError(
                "%s.%s is of type %s, and INTEGER PRIMARY KEY in SQLite"
                % (table.name, source.name, source.type),
                "declare it TEXT PRIMARY KEY in %s; or, where everybody has one row that becomes row 1, write"
                ' becomes=row_one("%s", member="…") in its entry in config.py' % (schema.path, table.target),
            )


def map_all(
    settings: Settings, columns: Mapping[str, Sequence[Column]], schema: Schema
) -> "Tuple[TableMapping, ...]":
    """The mappings of all tables, in their order. Raises MigrationError (exit 2)."""
    require_own_targets(settings, schema)
    return tuple(map_columns(table, columns[table.name], schema) for table in settings.tables)


def columns_of(export: Reader, settings: Settings, schema: Schema) -> Dict[str, Tuple[Column, ...]]:
    """The source columns of every table: the manifest's, or those of its first record where it says none.

    A table without any record cannot tell, and is taken to have the columns that SQLite has.
    """
    found = dict(export.manifest.columns)
    user_data = export.user_data()
    for table in settings.tables:
        if table.name in found:
            continue
        if table.becomes is not None:
            found[table.name] = undeclared(_member_names(user_data.get(table.member)))
        else:
            decode = msgspec.json.Decoder(Dict[str, msgspec.Raw]).decode
            first = next(export.records(table.file, decode), schema.columns.get(target_of(table, schema), {}))
            found[table.name] = undeclared([name for name in first if name != JSON_NULLS])
    return found


def key_of(table: Table, columns: Sequence[Column], keys: Mapping[str, Tuple[str, ...]]) -> Tuple[str, ...]:
    """The key columns of a table: those in ``keys``, else "id"; () if the table lacks one of them."""
    key = keys.get(table.name, ("id",))
    return key if set(key) <= {column.name for column in columns} else ()


def _member_names(record: Optional[bytes]) -> List[str]:
    if record is None:
        return []
    try:
        return list(members(record))
    except (ValueError, RecursionError) as error:
        raise damaged("%s is damaged: %s" % (USER_DATA, error)) from error
