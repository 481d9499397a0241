"""Which columns connect tables: the ways by which rows belong to a user, and all references between exported tables."""

from __future__ import annotations

import functools
from typing import Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

import psycopg2

from migration.errors import MigrationError, UsageError
from migration.model import Equality, ForeignKey, Ownership, Reference, Table, Way
from migration.postgres.catalog import read_with
from migration.postgres.declared import parent_key, undeclared_key
from migration.postgres.snapshot import Snapshot
from migration.settings import Settings
from migration.sqlite.mapping import target_of
from migration.sqlite.schema import Schema


class References:
    """The references of the tables that config declares.

    ``ways``: table → the reference by which its rows belong to a user or to a parent; None where there is not one.
    ``source``: PostgreSQL's foreign keys, without duplicates.
    ``exported``: those of both databases and of config, between exported tables, by columns that SQLite has.
    """

    def __init__(self, db: Snapshot, settings: Settings, schema: Schema) -> None:
        self.db = db
        self.catalog = db.catalog
        self.settings = settings
        self.tables: Mapping[str, Table] = {table.name: table for table in settings.tables}
        self.ways = {name: self._way(table) for name, table in self.tables.items()}
        self.exported = self._exported(schema)

    def _way(self, table: Table) -> Optional[ForeignKey]:
        """The one reference by which rows of a table belong to a user or to a parent; None where there is not one."""
        rule = table.ownership
        return self.way(table, rule) if rule.way in (Way.ROOT, Way.OWNED, Way.CHILD) else None

    def way(self, table: Table, rule: Ownership) -> ForeignKey:
        """The reference by which rows belong to a user or to a parent, of one part of a table's ownership."""
        users = self.settings.root
        if rule.parent is not None:
            key = parent_key(table.name, rule, self.settings, self.catalog)
        else:
            key = ForeignKey(table.name, (rule.columns[0],), users.name, (users.key,))
        return self._comparable(
            next((known for known in self.source if known[:4] == key[:4] and not key.when), key)
        )

    def ways_of(self, table: str) -> List[ForeignKey]:
        """The references to parents of all parts of a table's ownership."""
        declared = self.tables[table]
        return [self.way(declared, part) for part in declared.ownership.parts if part.way is Way.CHILD]

    def _exported(self, schema: Schema) -> List[ForeignKey]:
        """The references of both databases and of config, between exported tables, by columns that SQLite has."""
        dropped = {name: self._dropped(table, schema) for name, table in self.tables.items()}
        declared = [way for name in self.tables for way in self.ways_of(name)]
        found: Dict[Tuple[object, ...], ForeignKey] = {}
        for key in (*self.source, *declared, *self.undeclared, *self._target_references(schema)):
            if (
                key.table in self.tables
                and key.parent in self.tables
                and self.catalog.has(key.table, key.columns)
                and self.catalog.has(key.parent, key.parent_columns)
                and not dropped[key.table] & set(key.columns)
            ):
                found.setdefault((*key[:4], key.when), key)
        keys = list(found.values())
        when = {
            key[:4] for key in keys if key.when
        }  # what SQLite or child_of says of these holds for some rows only
        known = {key[:4] for key in self.source}
        return [self._comparable(key) for key in keys if key.when or key[:4] in known or key[:4] not in when]

    def _dropped(self, table: Table, schema: Schema) -> Set[str]:
        """The columns whose references SQLite has no use for: the owner's too, unless it has that and a table of users."""
        dropped = set(table.all_dropped)
        root = self.tables.get(self.settings.root.name)
        held = schema.columns.get(target_of(table, schema), {})
        if table.owner is not None and table.owner not in table.dropped and not (root and root.becomes):
            dropped -= {table.owner} if table.owner.lower() in held else set()
        return dropped

    @functools.cached_property
    def undeclared(self) -> Sequence[ForeignKey]:
        """The references of config.REFERENCES that PostgreSQL does not declare."""
        return [
            self._comparable(undeclared_key(reference, self.catalog))
            for reference in self.settings.references
            if not any(_is_meant(reference, key) for key in self.source)
        ]

    def is_named(self, key: ForeignKey) -> bool:
        """Whether an entry of config.REFERENCES says what becomes of a reference."""
        return any(
            reference.leaving is not None and _is_meant(reference, key)
            for reference in self.settings.references
        )

    def leaving(self, key: ForeignKey) -> str:
        """What becomes of a reference that leads to no exported row."""
        for reference in self.settings.references:
            if reference.leaving is not None and _is_meant(reference, key):
                return reference.leaving
        return self.settings.leaving

    def require_sql(self, root_key: str) -> None:
        """Have PostgreSQL read the conditions of config. Raises MigrationError (exit 2) for one that it refuses."""
        conditions = [
            ("config.TABLES, %s: where" % name, name, part.texts[0])
            for name, table in self.tables.items()
            for part in table.ownership.parts
            if part.way is Way.WHERE
        ]
        conditions += [
            ("config.REFERENCES, %s: when" % reference, reference.table, reference.when)
            for reference in self.settings.references
            if reference.when is not None
        ]
        for what, table, condition in conditions:
            sql = "SELECT FROM {0} t WHERE ({1}\n) IS TRUE AND CASE WHEN {1}\n THEN true END LIMIT 0"  # whole in itself
            try:
                self.db.rows(sql.format(self.db.quoted(table), condition.replace("{root}", root_key)))
            except psycopg2.errors.InsufficientPrivilege:
                raise
            except (psycopg2.ProgrammingError, psycopg2.DataError) as error:
                raise refused_sql(what, error) from error

    @functools.cached_property
    def _heirs(self) -> Mapping[str, str]:
        """The tables that are read with the one that they inherit from → that one."""
        return {heir: name for name in self.tables for heir in read_with(self.settings, self.catalog, name)}

    @functools.cached_property
    def source(self) -> Sequence[ForeignKey]:
        """PostgreSQL's foreign keys without duplicates; those of inheriting tables count as the parent table's."""
        relations, families = self.catalog.relations, set(self._heirs.values())
        found: Dict[Tuple[object, ...], ForeignKey] = {}
        for key in self.catalog.foreign_keys:
            table, parent = (self._heirs.get(name, name) for name in (key.table, key.parent))
            exact = ((relations[key.table].oid, relations[key.parent].oid),) if parent in families else ()
            ours = key._replace(table=table, parent=parent)
            known = found.setdefault(ours[:4], ours)
            found[ours[:4]] = known._replace(exact=known.exact + exact)
        return list(found.values())

    def _target_references(self, schema: Schema) -> Iterator[ForeignKey]:
        """SQLite's foreign keys, by the names that tables and columns have in PostgreSQL: there, case counts."""
        tables = {target_of(table, schema).lower(): name for name, table in self.tables.items()}
        for key in schema.foreign_keys:
            table, parent = tables.get(key.table.lower()), tables.get(key.parent.lower())
            if table is not None and parent is not None:
                mine, theirs = (
                    {
                        column.name.lower(): column.name
                        for column in sorted(
                            self.catalog.columns[name],
                            key=lambda column: column.name not in self.tables[name].dropped,
                        )
                    }
                    for name in (table, parent)
                )
                yield ForeignKey(
                    table,
                    tuple(mine.get(name.lower(), name) for name in key.columns),
                    parent,
                    tuple(theirs.get(name.lower(), name) for name in key.parent_columns),
                )

    def _comparable(self, key: ForeignKey) -> ForeignKey:
        if key.equalities:
            return key
        pairs = [
            self._equality(key.parent, theirs, key.table, mine)
            for theirs, mine in zip(key.parent_columns, key.columns)
        ]
        return key._replace(equalities=tuple(pairs))

    def _equality(self, parent: str, theirs: str, table: str, mine: str) -> Equality:
        key = self.catalog.column(parent, theirs)
        found = self.db.equality_with(key, table, self.catalog.column(table, mine))
        if found.forms:
            return found
        known, other = self.catalog.collation(parent, theirs), self.catalog.collation(table, mine)
        if known is not None and other is not None and known != other:
            return found._replace(collation=known.name)  # as for a foreign key
        return found


def refused_sql(what: str, error: Exception) -> MigrationError:
    """What PostgreSQL says of a condition in config.py."""
    return UsageError(
        "%s is refused by PostgreSQL: %s" % (what, str(error).partition("\n")[0]),
        "the row is t, {root} the root's key; tables, types and functions need their schema, as in public.members",
    )


def matches(
    key: ForeignKey,
    parent: Callable[[str], str],
    child: Callable[[str], str],
    parent_table: str,
    child_table: str,
    when: str = "",
) -> str:
    """SQL condition: a row names another by a key. Given are names of columns of both, and of the oids of their tables.

    ``when``: SQL of the key's own condition on the row.
    """
    tests = [
        equality.sql(parent(theirs), child(mine))
        for equality, theirs, mine in zip(key.equalities, key.parent_columns, key.columns)
    ]
    if key.exact:
        tests.append(
            "({child} NOT IN ({oids}) OR ({child}, {parent}) IN ({pairs}))".format(
                child=child_table,
                parent=parent_table,
                oids=", ".join(str(oid) for oid, _ in key.exact),
                pairs=", ".join("(%d, %d)" % pair for pair in key.exact),
            )
        )
    if key.when:
        tests.append("(%s\n)" % (when or key.when))
    return " AND ".join(tests)


def present(columns: Iterable[str]) -> str:
    """SQL condition: no part of a reference is NULL, so that it refers to something."""
    return " AND ".join("%s IS NOT NULL" % column for column in columns)


def _is_meant(reference: Reference, key: ForeignKey) -> bool:
    """Whether an entry of config.REFERENCES is about a reference."""
    if (reference.table, reference.parent, reference.when or "") != (key.table, key.parent, key.when):
        return False
    if not reference.parent_names:
        return sorted(reference.names) == sorted(key.columns)
    return sorted(zip(reference.names, reference.parent_names)) == sorted(
        zip(key.columns, key.parent_columns)
    )
