"""What PostgreSQL says of its tables, and whether config accounts for every one of them."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Collection, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from migration.errors import SourceError, UsageError
from migration.model import Column, ForeignKey, Way
from migration.postgres.kinds import Type
from migration.printing import of_all
from migration.python_text import columns_text, text
from migration.settings import Settings

LISTED = 10


class Relation(NamedTuple):
    """A table; ``parents``: oids of those that it inherits from. ``extension``: it belongs to one."""

    schema: str
    name: str
    oid: int
    parents: Tuple[int, ...] = ()
    extension: bool = False


class Collation(NamedTuple):
    """Of a column of text: its name in SQL, and whether only equal texts are equal by it."""

    name: str
    deterministic: bool


@dataclass(frozen=True)
class Catalog:
    """What PostgreSQL says of its tables. Tables outside the schema appear as ``schema.table``.

    ``keys``: the columns that tell the rows of a table apart: its primary key, else a unique key that cannot be
    NULL, else (). Then only the whole row does, and several rows may be equal.
    ``values``: table → column → its type, where that has to be rendered in a way of its own, or asked about.
    ``collations``: table → column → its collation, where it has one.
    """

    relations: Mapping[str, Relation]
    columns: Mapping[str, Tuple[Column, ...]]
    primary_keys: Mapping[str, Tuple[str, ...]]
    keys: Mapping[str, Tuple[str, ...]]
    foreign_keys: Tuple[ForeignKey, ...]
    unreadable: Tuple[str, ...]
    values: Mapping[str, Mapping[str, Type]] = field(default_factory=dict)
    collations: Mapping[str, Mapping[str, Collation]] = field(default_factory=dict)

    def column(self, table: str, name: str) -> Column:
        return next(column for column in self.columns[table] if column.name == name)

    def collation(self, table: str, column: str) -> Optional[Collation]:
        return self.collations.get(table, {}).get(column)

    def has(self, table: str, columns: Sequence[str]) -> bool:
        return set(columns) <= {column.name for column in self.columns.get(table, ())}

    @functools.cached_property
    def _children(self) -> Mapping[int, List[str]]:
        found: Dict[int, List[str]] = {}
        for name, relation in self.relations.items():
            for parent in relation.parents:
                found.setdefault(parent, []).append(name)
        return found

    def heirs(self, table: str) -> Set[str]:
        """The tables that inherit from a table, directly or not. Partitions are part of their table and none of these."""
        found: Set[str] = set()
        waiting = [table]
        while waiting:
            for heir in self._children.get(self.relations[waiting.pop()].oid, ()):
                if heir not in found:
                    found.add(heir)
                    waiting.append(heir)
        return found

    def own_columns(self, heir: str, table: str) -> List[str]:
        """The columns that a table has beside those that it inherits from another."""
        inherited = {column.name for column in self.columns.get(table, ())}
        return [column.name for column in self.columns.get(heir, ()) if column.name not in inherited]


# Accounting for tables


def account_for_tables(settings: Settings, catalog: Catalog) -> None:
    """Stop where a table is missing, unreadable or declared nowhere, or is declared as what it is not.

    Raises MigrationError: exit 3 for what PostgreSQL lacks or refuses, exit 2 for what config does.
    """
    declared = declared_tables(settings)
    missing = [name for name in declared if name not in catalog.columns]
    if missing:
        raise SourceError(
            "PostgreSQL has no table %s in schema %s" % (", ".join(missing), settings.postgres_schema),
            "check the database's name and POSTGRES_SCHEMA; name the table itself, not a view of it; take a table"
            " that your deployment never had, or that has no columns, out of config.TABLES",
        )
    unreadable = [name for name in declared if name in catalog.unreadable]
    if unreadable:
        raise SourceError(
            "no permission to read %s" % ", ".join(unreadable),
            "as the tables' owner: GRANT SELECT ON %s TO %s;"
            % (
                ", ".join(settings.postgres_schema + "." + name for name in unreadable),
                settings.postgres.get("user", "the role"),
            ),
        )
    _require_declarations(settings, catalog)
    _require_unrelated(settings, catalog)
    _require_whole_heirs(settings, catalog)


def declared_tables(settings: Settings) -> List[str]:
    """The tables that are migrated."""
    return [table.name for table in settings.tables]


def is_listed(table: str, names: Sequence[str]) -> bool:
    """Whether a list of config's names a table, or its schema as ``schema.*``."""
    return table in names or ("." in table and table.partition(".")[0] + ".*" in names)


def _require_declarations(settings: Settings, catalog: Catalog) -> None:
    """Every table must be migrated, excluded or unrelated; where config has no UNRELATED_TABLES, only those with a way to
    the root, and those that migrated rows refer to.

    An inheriting table counts as its parent, unless it has extra columns.
    """
    declared = set(declared_tables(settings))
    known = declared | {
        name
        for name, relation in catalog.relations.items()
        if relation.extension
        or is_listed(name, settings.excluded_tables)
        or is_listed(name, settings.unrelated_tables)
    }
    inherited = {
        heir
        for name in known
        for heir in catalog.heirs(name)
        if name in declared or not catalog.own_columns(heir, name)
    }
    unknown = [name for name in sorted(catalog.relations) if name not in known | inherited]
    users = user_tables(catalog, settings)
    theirs = [name for name in unknown if name in users]
    if not settings.every_table:
        needed = {key.parent for key in _kept_references(settings, catalog)}
        unknown = [name for name in unknown if name in needed]
    if theirs:
        raise UsageError(
            "%s data that config does not account for: table %s"
            % (of_all(settings.root.called), ", ".join(theirs)),
            "\n     ".join(_advice(name, settings, catalog) for name in theirs[:LISTED]),
        )
    if unknown:
        raise UsageError(
            "tables that config does not account for: %s" % ", ".join(unknown),
            "\n     ".join(_advice(name, settings, catalog) for name in unknown[:LISTED]),
        )


def user_tables(catalog: Catalog, settings: Settings) -> Set[str]:
    """Tables that are users' by config or by their owner column, those with a foreign-key path to them, and their heirs."""
    found = {
        table.name
        for table in settings.tables
        if any(part.way in (Way.OWNED, Way.CHILD, Way.ROOT, Way.WHERE) for part in table.ownership.parts)
    }
    found.add(settings.root.name)
    owner = usual_owner(settings)
    if owner is not None:
        found |= {name for name in catalog.columns if _has_owner(name, owner, settings, catalog)}
    children: Dict[str, Set[str]] = {}
    for key in catalog.foreign_keys:
        children.setdefault(key.parent, set()).add(key.table)
    waiting = list(found)
    while waiting:
        name = waiting.pop()
        more = (children.get(name, set()) | catalog.heirs(name)) - found
        found |= more
        waiting.extend(more)
    return found - {settings.root.name}


def usual_owner(settings: Settings) -> Optional[str]:
    """The column by which most tables of config belong to the root: others that have it are taken for the root's too."""
    return usual([str(table.owner) for table in settings.tables if table.ownership.way is Way.OWNED])


def usual(columns: Sequence[str]) -> Optional[str]:
    """The name that more than half of the columns have, and two at least."""
    found = max(columns, key=columns.count, default="")
    return found if 1 < columns.count(found) > len(columns) // 2 else None


def _has_owner(table: str, owner: str, settings: Settings, catalog: Catalog) -> bool:
    """Whether a table has the usual owner column, and neither as its key nor as a reference, which leads where it leads."""
    return (
        catalog.has(table, (owner,))
        and catalog.primary_keys.get(table) != (owner,)
        and not any(key.table == table and owner in key.columns for key in catalog.foreign_keys)
    )


def _advice(table: str, settings: Settings, catalog: Catalog) -> str:
    """What to write into config.py for a table that stands nowhere there."""
    entry = ownership_advice(table, settings, catalog)
    if entry is not None:
        return (
            'add Table("%s", %s) to config.TABLES to migrate it, or "%s" to config.EXCLUDED_TABLES to leave it behind'
            % (table, entry, table)
        )
    referring = [key for key in catalog.foreign_keys if key.parent == table and key.table != table]
    if any(key.table in declared_tables(settings) for key in referring):
        return 'add Table("%s", shared()) to config.TABLES: rows of %s refer to it' % (
            table,
            ", ".join(sorted({key.table for key in referring})),
        )
    return (
        'add "%s" to config.UNRELATED_TABLES if it is nobody\'s, to config.EXCLUDED_TABLES to leave it behind, or'
        ' Table("%s", …) to config.TABLES to migrate it' % (table, table)
    )


def ownership_advice(table: str, settings: Settings, catalog: Catalog) -> Optional[str]:
    """``owned_by(…)`` or ``child_of(…)`` by the foreign keys of a table; None where they do not tell."""
    keys = [key for key in catalog.foreign_keys if key.table == table and key.parent != table]
    for key in keys:
        if key.parent == settings.root.name and key.parent_columns == (settings.root.key,):
            return 'owned_by("%s")' % key.columns[0]
    owner = usual_owner(settings)
    declared = {key.columns for key in keys}
    if owner is not None and catalog.has(table, (owner,)) and (owner,) not in declared:
        return 'owned_by("%s")' % owner
    users = user_tables(catalog, settings) | {settings.root.name}
    for key in sorted(keys, key=lambda key: key.parent not in declared_tables(settings)):
        if key.parent in users:
            return child_advice(key)
    return None


def child_advice(key: ForeignKey) -> str:
    return "child_of(%s, %s)" % (text(key.parent), columns_text(key.columns))


def _kept_references(settings: Settings, catalog: Catalog) -> List[ForeignKey]:
    """The foreign keys of migrated tables by columns that are not dropped."""
    dropped = {table.name: set(table.dropped) for table in settings.tables}
    return [
        key
        for key in catalog.foreign_keys
        if key.table in dropped and not dropped[key.table] & set(key.columns)
    ]


def _require_unrelated(settings: Settings, catalog: Catalog) -> None:
    """Tables in UNRELATED_TABLES must have no foreign key to users, and no migrated table may refer to them."""
    listed = [name for name in catalog.relations if is_listed(name, settings.unrelated_tables)]
    users = user_tables(catalog, settings)
    declared = declared_tables(settings)
    references = _kept_references(settings, catalog)
    theirs = of_all(settings.root.called)
    with_heirs = {heir: name for name in reversed(listed) for heir in (*catalog.heirs(name), name)}
    for name, named in with_heirs.items():
        if name in declared or is_listed(name, settings.excluded_tables):
            continue
        if name in users:
            raise UsageError(
                "config.UNRELATED_TABLES names %s, which is %s data" % (name, theirs)
                if name == named
                else "table %s is %s data; it inherits from %s, which config.UNRELATED_TABLES names"
                % (name, theirs, named),
                _advice(name, settings, catalog),
            )
        for key in references:
            if key.parent == name:
                raise UsageError(
                    "config.UNRELATED_TABLES names %s, and rows of %s refer to it by %s"
                    % (name, key.table, ", ".join(key.columns)),
                    'add Table("%s", shared()) to config.TABLES, or %s to dropped=(...) of %s'
                    % (name, ", ".join('"%s"' % column for column in key.columns), key.table),
                )


def _require_whole_heirs(settings: Settings, catalog: Catalog) -> None:
    """An inheriting table that config does not name is read with its parent; it must not have extra columns."""
    known: Dict[str, str] = {}
    for name in declared_tables(settings):
        for heir in sorted(read_with(settings, catalog, name)):
            other = known.setdefault(heir, name)
            if other != name:
                raise UsageError(
                    "table %s inherits from %s and from %s: its rows would be migrated twice"
                    % (heir, other, name),
                    'add Table("%s", …) to config.TABLES, or "%s" to config.EXCLUDED_TABLES' % (heir, heir),
                )
            more = catalog.own_columns(heir, name)
            if more:
                raise UsageError(
                    "table %s inherits from %s and has columns of its own: %s"
                    % (heir, name, ", ".join(more)),
                    'add Table("%s", …) to config.TABLES, or "%s" to config.EXCLUDED_TABLES; without them its rows'
                    " would be migrated as rows of %s" % (heir, heir, name),
                )


def read_with(settings: Settings, catalog: Catalog, table: str) -> Set[str]:
    """The heirs of a table whose rows are read as its own: those that config does not name, nor a table between."""
    heirs = catalog.heirs(table)
    declared = declared_tables(settings)
    for heir in catalog.heirs(table):
        if heir in declared or is_listed(heir, (*settings.excluded_tables, *settings.unrelated_tables)):
            heirs -= {heir} | catalog.heirs(heir)
    return heirs


def apart_from(settings: Settings, catalog: Catalog, table: str) -> List[int]:
    """The oids of the heirs of a table that are not read with it."""
    together = read_with(settings, catalog, table)
    return sorted(catalog.relations[heir].oid for heir in catalog.heirs(table) - together)


def within(alias: str, apart: Collection[int]) -> str:
    """SQL condition: the row is in none of the tables of these oids."""
    return "%s.tableoid NOT IN (%s)" % (alias, ", ".join(map(str, apart))) if apart else "true"
