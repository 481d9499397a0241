"""What is known of a database before anything is decided: its catalog, unique keys, sizes, and what is no table."""

from __future__ import annotations

import difflib
from typing import Dict, FrozenSet, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from migration.discovery.words import stem
from migration.errors import UsageError
from migration.model import Column, ForeignKey, Kind, Root
from migration.postgres.catalog import Catalog, within
from migration.postgres.snapshot import Snapshot
from migration.sql import qualified

Columns = Tuple[str, ...]


class Source(NamedTuple):
    """``unique``: the columns of each unique index, NULL or not. ``estimated``: rows, as the last ANALYZE counted them;
    ``bytes_``: what they fill.

    ``empty``: tables without a row. ``no_tables``: views and the like, and what they are. ``foreign``: tables of other
    servers, and those of ``--exclude``. ``heirs``: tables that are read as part of the one that they inherit from → that
    one. ``excluded``: tables of ``--exclude``. ``without``: table → columns of ``--exclude``.
    """

    db: Snapshot
    catalog: Catalog
    unique: Mapping[str, Tuple[Columns, ...]]
    estimated: Mapping[str, int]
    bytes_: Mapping[str, int]
    empty: FrozenSet[str]
    no_tables: Mapping[str, str]
    foreign: FrozenSet[str]
    heirs: Mapping[str, str]
    excluded: FrozenSet[str] = frozenset()
    without: Mapping[str, FrozenSet[str]] = {}

    @property
    def tables(self) -> List[str]:
        """Tables that config has to name: none of an extension, none that is read with its parent."""
        return [
            name
            for name, relation in self.catalog.relations.items()
            if not relation.extension and name not in self.heirs
        ]

    @property
    def readable(self) -> List[str]:
        """Those of them whose rows may be looked at here."""
        return [
            name for name in self.tables if name not in self.foreign and name not in self.catalog.unreadable
        ]

    def unique_columns(self, table: str) -> List[Column]:
        """Columns that tell its rows apart, each by itself."""
        unique = (names[0] for names in self.unique.get(table, ()) if len(names) == 1)
        return [self.catalog.column(table, name) for name in dict.fromkeys(unique)]

    def reference(self, table: str, column: str, parent: str, key: str) -> ForeignKey:
        """What a column refers to that no foreign key connects, compared as the export compares it."""
        equality = self.db.equality_with(
            self.catalog.column(parent, key), table, self.catalog.column(table, column)
        )
        return ForeignKey(table, (column,), parent, (key,), (equality,))

    def rows_of(self, table: str, alias: str) -> str:
        """SQL of the table under an alias, without those that inherit from it and stand for themselves."""
        apart = [
            self.catalog.relations[name].oid for name in self.catalog.heirs(table) if name not in self.heirs
        ]
        quoted = self.db.quoted(table)
        if not apart:
            return "%s %s" % (quoted, alias)
        return "(SELECT * FROM %s t WHERE %s) %s" % (quoted, within("t", sorted(apart)), alias)

    def may_be_null(self, table: str, columns: Iterable[str]) -> bool:
        return not all(self.catalog.column(table, name).not_null for name in columns)

    def is_unique(self, table: str, columns: Iterable[str]) -> bool:
        """Whether no two rows have the same values in these columns, NULLs aside."""
        given = set(columns)
        return any(set(key) <= given for key in self.unique.get(table, ()))

    def single_key(self, table: str) -> Optional[Column]:
        """The one column that tells the rows of a table apart."""
        key = self.catalog.primary_keys.get(table) or self.catalog.keys.get(table, ())
        return self.catalog.column(table, key[0]) if len(key) == 1 else None


_SIZES = """
SELECT coalesce(pg_partition_root(c.oid), c.oid)::bigint, sum(greatest(c.reltuples, 0))::bigint,
       sum(pg_relation_size(c.oid))::bigint
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
GROUP BY 1
"""

_UNIQUE = """
SELECT i.indrelid::bigint,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY u (num, i)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.num
             WHERE u.i <= i.indnkeyatts ORDER BY u.i)
FROM pg_index i
WHERE i.indisunique AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND i.indrelid >= 16384::oid
ORDER BY i.indrelid, i.indisprimary DESC, i.indexrelid
"""

_OTHERS = """
SELECT c.oid::bigint, n.nspname, c.relname, c.relkind::text
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('v', 'm', 'f') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
ORDER BY n.nspname, c.relname
"""
_NO_TABLE = {"v": "view", "m": "materialized view"}
_AT_ONCE = 100  # tables looked at in one query


def read_source(db: Snapshot) -> Source:
    """Read the whole catalog, in a fixed number of queries but for the look at which tables are empty."""
    catalog = db.catalog
    names = {relation.oid: name for name, relation in catalog.relations.items()}
    unique: Dict[str, List[Columns]] = {}
    for oid, columns in db.rows(_UNIQUE):
        if oid in names:
            unique.setdefault(names[oid], []).append(tuple(columns))
    others, sizes = db.rows(_OTHERS), db.rows(_SIZES)
    foreign = frozenset(names[oid] for oid, _, _, kind in others if kind == "f" and oid in names)
    return Source(
        db,
        catalog,
        {name: tuple(keys) for name, keys in unique.items()},
        {names[oid]: rows for oid, rows, _ in sizes if oid in names},
        {names[oid]: size for oid, _, size in sizes if oid in names},
        frozenset(_empty(db, [name for name in names.values() if name not in foreign])),
        {
            name if schema == db.schema else schema + "." + name: _NO_TABLE[kind]
            for _, schema, name, kind in others
            if kind != "f"
        },
        foreign,
        _read_with_parent(catalog),
    )


def _empty(db: Snapshot, tables: Sequence[str]) -> Iterator[str]:
    """Tables without rows; one that may not be read counts as not empty."""
    listed = [
        name for name in tables if name not in db.catalog.unreadable and db.catalog.columns.get(name, ())
    ]
    yield from (name for name, _ in _each(db, listed, "SELECT %d, 0 WHERE NOT EXISTS (SELECT FROM %s)"))
    yield from (name for name in tables if not db.catalog.columns.get(name, ()))


_SMALL = 16 << 20  # bytes of a table that is counted and not estimated


def count_small(source: Source, tables: Sequence[str]) -> Dict[str, int]:
    """The rows of those tables that are quickly counted and may be read."""
    small = [
        name
        for name in tables
        if name not in source.catalog.unreadable
        and name not in source.foreign
        and name not in source.empty
        and source.bytes_.get(name, 0) <= _SMALL
    ]
    found = {name: 0 for name in tables if name in source.empty}
    found.update(_each(source.db, small, "SELECT %d, count(*) FROM %s"))
    return found


def _each(db: Snapshot, tables: Sequence[str], query: str) -> Iterator[Tuple[str, int]]:
    """Table → a number, by a query with places for the table's number and its name; many in one round trip."""
    for start in range(0, len(tables), _AT_ONCE):
        some = tables[start : start + _AT_ONCE]
        asked = " UNION ALL ".join(query % (number, db.quoted(name)) for number, name in enumerate(some))
        yield from ((some[number], found) for number, found in db.rows(asked))


def _read_with_parent(catalog: Catalog) -> Dict[str, str]:
    """Tables that add no column to the one they inherit from. One with columns of its own stands for itself."""
    found: Dict[str, str] = {}
    parents = [name for name, relation in catalog.relations.items() if not relation.parents]
    for name in [*parents, *(name for name in catalog.relations if name not in parents)]:
        for heir in sorted(catalog.heirs(name)):
            if name not in found and not catalog.own_columns(heir, name):
                found.setdefault(heir, name)
    return found


# The root


def schema_of_root(db: Snapshot, given: str) -> Tuple[str, str]:
    """The schema whose tables go by their bare names, and the root's name then. Raises UsageError if there is none."""
    rows = db.rows(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition"
        " AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') ORDER BY n.nspname <> 'public', 1, 2"
    )
    if not rows:
        raise UsageError("the database has no tables", "check the database's name in --postgres-url")
    found = [(schema, name) for schema, name in rows if given in (name, schema + "." + name)]
    if not found:
        raise UsageError("no table %s in the database" % given, _similar(given, rows))
    schema, name = found[0]
    if given == name and len(found) > 1 and schema != "public":
        raise UsageError(
            "several tables are called %s" % given,
            "--root " + " or ".join("%s.%s" % pair for pair in found),
        )
    usual = "public" if schema != "public" and any(place == "public" for place, _ in rows) else schema
    return usual, name if usual == schema else schema + "." + name


def _similar(given: str, rows: Sequence[Tuple[str, str]]) -> str:
    shown = {pair: pair[1] if pair[0] == "public" else "%s.%s" % pair for pair in rows}
    close = difflib.get_close_matches(given.lower(), [name.lower() for _, name in rows], 5, 0.6)
    alike = [
        shown[schema, name] for schema, name in rows if name.lower() in close or stem(name) == stem(given)
    ]
    return "%s: %s; case counts" % (
        "similar" if alike else "there are",
        ", ".join(alike or list(shown.values())[:10]),
    )


def leave_out(source: Source, root: Root, given: Sequence[str]) -> Source:
    """The source without the tables and columns that ``--exclude`` names. Raises UsageError for one that is not there."""
    tables, columns = set(), {root.name: {root.key, root.named_by}}
    for name in given:
        table, _, column = name.rpartition(".")
        if name == root.name or column in columns[root.name] and table == root.name:
            raise UsageError(
                "--exclude %s: without it nothing says whose data it is" % name,
                "choose another --root, or another column with --named-by",
            )
        if name in source.tables:
            tables.add(name)
        elif table in source.tables and source.catalog.has(table, (column,)):
            columns.setdefault(table, set()).add(column)
        else:
            raise UsageError(
                "--exclude %s: there is no such table or column" % name,
                "write TABLE or TABLE.COLUMN as discover.py shows them; case counts",
            )
    columns[root.name] -= {root.key, root.named_by}
    return source._replace(
        foreign=source.foreign | tables,
        excluded=frozenset(tables),
        without={table: frozenset(names) for table, names in columns.items()},
    )


USUAL_NAMES = (
    "email",
    "username",
    "name",
    "slug",
    "login",
    "handle",
    "email_address",
    "user_name",
    "subdomain",
)


def find_root(source: Source, table: str, named_by: Optional[str]) -> Root:
    """The root's key, and the column that names its rows. Raises UsageError where there is none, or several."""
    called = " ".join(stem(source.catalog.relations[table].name)) or "user"
    return Root(table, _root_key(source, table), _naming_column(source, table, named_by), called)


def _root_key(source: Source, table: str) -> str:
    key = source.single_key(table)
    if key is not None:
        return key.name
    named = [
        columns
        for columns in source.unique.get(table, ())
        if len(columns) == 1 and not source.may_be_null(table, columns)
    ]
    if not named:
        raise UsageError(
            "table %s has no key of one column" % table,
            "its rows must be told apart by one column that is unique and NOT NULL; choose another --root",
        )
    referred = [link.parent_columns for link in source.catalog.foreign_keys if link.parent == table]
    return max(named, key=referred.count)[0]


def _is_text(column: Column) -> bool:
    return column.kind is Kind.TEXT


def _naming_column(source: Source, table: str, named_by: Optional[str]) -> str:
    columns = {column.name: column for column in source.catalog.columns[table]}
    if named_by is not None:
        if named_by not in columns:
            raise UsageError(
                "table %s has no column %s" % (table, named_by), "it has " + ", ".join(sorted(columns))
            )
        if not source.is_unique(table, [named_by]) and _has_equals(source, table, named_by):
            raise UsageError(
                "several rows of %s have the same %s" % (table, named_by),
                "name a column that tells them apart: --named-by COLUMN, the key if there is no other",
            )
        return named_by
    unique = [name for name in columns if source.is_unique(table, [name]) and _is_text(columns[name])]
    key = source.single_key(table)
    for usual in USUAL_NAMES:
        for name in columns:
            if name.lower() == usual and (
                name in unique or (_is_text(columns[name]) and not _has_equals(source, table, name))
            ):
                return name
    unique = [name for name in unique if key is None or name != key.name]
    if len(unique) == 1:
        return unique[0]
    raise UsageError(
        "%s of table %s tells its rows apart by a name"
        % ("no text column" if not unique else "more than one column", table),
        "--named-by " + (" or ".join(unique) if unique else "COLUMN, one whose values are unique"),
    )


def _has_equals(source: Source, table: str, column: str) -> bool:
    name = qualified("t", column) + '::text COLLATE "C"'
    sql = "SELECT EXISTS (SELECT FROM %s t WHERE %s IS NOT NULL GROUP BY %s HAVING count(*) > 1)"
    return bool(source.db.value(sql % (source.db.quoted(table), name, name)))
