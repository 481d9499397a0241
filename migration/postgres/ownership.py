"""Which rows are a user's: ownership as SQL conditions, and as sets made once for a whole query.

All SQL names its operators: what ``=`` finds depends on the search_path, and a type's own may not be there.
"""

from __future__ import annotations

import functools
from typing import Callable, Collection, Dict, List, Mapping, Optional, Set, Tuple

from migration.model import ForeignKey, Table
from migration.postgres.catalog import apart_from, within
from migration.postgres.operators import are_written_alike
from migration.postgres.references import References, matches
from migration.postgres.users import User
from migration.sql import literal, qualified


class Owned:
    """Conditions on the rows of one user."""

    def __init__(self, references: References, user: User) -> None:
        self.references = references
        self.user = user
        self.db = references.db
        self.catalog = references.catalog
        self.settings = references.settings
        self.tables = references.tables
        self._ways = references.ways

    def owned(self, table: Table, alias: str = "t") -> str:
        """SQL condition on an alias: the row is the user's, or shared with them."""
        way = self._ways[table.name]
        conditions = [self.within(table.name, alias)]
        if way is not None and way.columns == (table.owner,):
            conditions.append(self.is_owner(table, alias))
        elif way is not None:
            conditions.append(self._leads_to_owned(way, alias))
        return " AND ".join(condition for condition in conditions if condition != "true") or "true"

    def within(self, table: str, alias: str) -> str:
        """Exclude rows of inheriting tables that are migrated as tables of their own."""
        return within(alias, self._apart.get(table, ()))

    def is_owner(self, table: Table, alias: str) -> str:
        mine = self.mine(table, alias)
        if table.ownership.or_shared:
            return "(%s OR %s IS NULL)" % (mine, qualified(alias, str(table.owner)))
        return mine

    @functools.cached_property
    def _apart(self) -> Mapping[str, List[int]]:
        """Table → oids of the tables that inherit from it and are not read with it, where there are some."""
        apart = {name: apart_from(self.settings, self.catalog, name) for name in self.tables}
        return {name: oids for name, oids in apart.items() if oids}

    def mine(self, table: Table, alias: str = "t") -> str:
        """Compare the owner column with the user's key in the key's type, which may be wider than the column's."""
        way, users = self._ways[table.name], self.settings.root
        assert way is not None
        key = "{}::{}".format(literal(self.user.id), self.catalog.column(users.name, users.key).type)
        return way.equalities[0].sql(key, qualified(alias, way.columns[0]))

    def _leads_to_owned(self, key: ForeignKey, alias: str) -> str:
        parent = _next_alias(alias)
        return "EXISTS (SELECT FROM {} {} WHERE {} AND {})".format(
            self.db.quoted(key.parent),
            parent,
            matches(
                key,
                functools.partial(qualified, parent),
                functools.partial(qualified, alias),
                parent + ".tableoid",
                alias + ".tableoid",
            ),
            self.owned(self.tables[key.parent], parent),
        )

    @functools.cached_property
    def owner_texts(self) -> Dict[str, Tuple[str, ...]]:
        """Table → the texts that its owner column has for the user's key, where equal keys may differ as text."""
        found = {}
        for name, table in self.tables.items():
            if table.owner is None or self._has_one_text(table.name, table.owner):
                continue
            texts = self.db.rows(
                "SELECT DISTINCT to_json({}) #>> '{{}}' FROM {} t WHERE {} AND {}".format(
                    qualified("t", table.owner),
                    self.db.quoted(name),
                    self.within(name, "t"),
                    self.mine(table),
                )
            )
            found[name] = tuple(sorted(text for (text,) in texts))
        return found

    def _has_one_text(self, table: str, column: str) -> bool:
        """Whether equal values of a column, and of the users' key, are the same text."""
        users = self.settings.root
        key = self.catalog.column(users.name, users.key)
        collations = (self.catalog.collation(users.name, users.key), self.catalog.collation(table, column))
        return are_written_alike(key, self.catalog.column(table, column)) and all(
            collation is None or collation.deterministic for collation in collations
        )


class Sets:
    """The keys and references of the rows of a table that are the user's, each made once for a whole query."""

    def __init__(self, owned: Owned) -> None:
        self.owned = owned
        self.references = owned.references
        self.catalog = owned.catalog
        self.tables = owned.tables
        self._ways = owned.references.ways

    def clause(self, tables: Collection[str], identities: bool = False) -> str:
        """WITH clause of the sets of these tables and of those that they belong to.

        The planner is made to expect some rows in each: of one row, which it may expect where a user is newer than
        its statistics, it would look through the others once for each that is there.
        ``identities``: with column ``r`` in all of them. Reading it takes SELECT on the whole table, not on its columns.
        """
        families = {name for key in self.references.source if key.exact for name in (key.table, key.parent)}
        needed: Set[str] = set()
        for name in tables:
            way: Optional[ForeignKey]
            while name not in needed:
                needed.add(name)
                way = self._ways[name]
                if way is None or way.parent == name:
                    break
                name = way.parent
        made = []
        for name, table in self.tables.items():
            if name in needed:
                columns = ["%s AS %s" % (qualified("t", c), self.place(name, c)) for c in self._kept(name)]
                if identities or not self.catalog.keys[name]:
                    columns.append(identity("t") + " AS r")
                if name in families:
                    columns.append("t.tableoid AS o")
                rows = "SELECT %s FROM %s t WHERE %s AND %s" % (
                    ", ".join(columns),
                    self.owned.db.quoted(name),
                    self.owned.within(name, "t"),
                    self.member(table),
                )
                nulls = ", ".join(["NULL"] * len(columns))
                made.append("%s AS (%s UNION ALL SELECT %s FROM %s)" % (self.name(name), rows, nulls, MANY))
        return "WITH RECURSIVE %s " % ", ".join(made)

    def member(self, table: Table) -> str:
        """As ``owned``, on alias ``t``, by the set of the table's parent."""
        way = self._ways[table.name]
        if way is None:
            return "true"
        if way.columns == (table.owner,):
            return self.owned.is_owner(table, "t")
        return "EXISTS (SELECT FROM {} p WHERE {})".format(self.name(way.parent), self.named_by(way))

    def number(self, table: str) -> int:
        return list(self.tables).index(table)

    def name(self, table: str) -> str:
        return "s%d" % self.number(table)

    def place(self, table: str, column: str) -> str:
        """A column's name in a set: none that a table's column could have beside it."""
        return "c%d" % [known.name for known in self.catalog.columns[table]].index(column)

    def columns(self, table: str) -> Callable[[str], str]:
        return lambda column: "t." + self.place(table, column)

    def _kept(self, table: str) -> List[str]:
        """The columns that a set has: those of keys and references."""
        keys = [
            *self.references.exported,
            *self.references.source,
            *(way for way in self._ways.values() if way is not None),
        ]
        kept = set(self.catalog.keys[table])
        kept.update(name for key in keys if key.table == table for name in key.columns)
        kept.update(name for key in keys if key.parent == table for name in key.parent_columns)
        return [column.name for column in self.catalog.columns[table] if column.name in kept]

    def joined(self, key: ForeignKey, parent: str = "p", child: str = "t") -> str:
        """SQL condition: a row of a set is referred to by a row of another."""
        return matches(
            key,
            lambda column: "%s.%s" % (parent, self.place(key.parent, column)),
            lambda column: "%s.%s" % (child, self.place(key.table, column)),
            parent + ".o",
            child + ".o",
        )

    def named_by(self, key: ForeignKey) -> str:
        """SQL condition: row ``p`` of a set is referred to by row ``t`` of a table."""
        return matches(
            key,
            lambda column: "p." + self.place(key.parent, column),
            functools.partial(qualified, "t"),
            "p.o",
            "t.tableoid",
        )

    def is_own(self, table: Table, alias: str) -> str:
        """SQL condition on a row of a set: it is the user's own, and not shared with others."""
        way = self._ways[table.name]
        if way is None:
            return "false"
        if way.columns == (table.owner,):
            shared = table.ownership.or_shared
            return "%s.%s IS NOT NULL" % (alias, self.place(table.name, way.columns[0])) if shared else "true"
        parent = _next_alias(alias)
        own = self.is_own(self.tables[way.parent], parent)
        if own in ("true", "false"):
            return own
        return "EXISTS (SELECT FROM {} {} WHERE {} AND {})".format(
            self.name(way.parent), parent, self.joined(way, parent, alias), own
        )


def _next_alias(alias: str) -> str:
    """Of the row that the row of an alias refers to: t, t1, t2 …"""
    return "%s%d" % (alias[0], int(alias[1:] or 0) + 1)


MANY = "json_each('{}')"  # no rows, of which the planner expects a hundred


def identity(alias: str) -> str:
    """SQL expression: what tells a row apart from all others under a snapshot, in partitions too."""
    return "concat({0}.tableoid, {0}.ctid)".format(alias)
