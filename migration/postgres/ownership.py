"""Which rows are a user's: ownership as SQL conditions on the rows of a table.

All SQL names its operators: what ``=`` finds depends on the search_path, and a type's own may not be there.
"""

from __future__ import annotations

import functools
from typing import Dict, Iterable, List, Mapping, Tuple

from migration.model import ForeignKey, Ownership, Table, Way
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

    def is_plain(self, name: str) -> bool:
        """Whether a condition on the row alone says whose it is, or one chain of parents does."""
        return self._plain[name]

    @functools.cached_property
    def _plain(self) -> Mapping[str, bool]:
        found = {}
        for name in self.tables:
            seen: List[str] = []
            while name not in seen and self.tables[name].ownership.way is Way.CHILD:
                seen.append(name)
                way = self._ways[name]
                assert way is not None
                if way.when:
                    break
                name = way.parent
            ownership = self.tables[name].ownership
            plain = name not in seen and not any(
                part.way in (Way.CHILD, Way.REFERENCED) for part in ownership.parts
            )
            found.update(dict.fromkeys([*seen, name], plain))
        return {name: found[name] for name in self.tables}

    def owned(self, table: Table, alias: str = "t") -> str:
        """SQL condition on an alias: the row of a plain table is the user's, or shared with them."""
        way = self._ways[table.name]
        conditions = [self.within(table.name, alias)]
        if table.ownership.way is not Way.CHILD:
            conditions.append(self.by_itself(table, table.ownership, alias))
        else:
            assert way is not None
            conditions.append(self._leads_to_owned(way, alias))
        return conjunction(conditions)

    def by_itself(self, table: Table, rule: Ownership, alias: str = "t") -> str:
        """SQL condition: the row is the user's by a way that asks no other row."""
        way = rule.way
        if way is Way.SHARED:
            return "true"
        if way is Way.ROOT or way is Way.OWNED:
            return self._is_owner(table, rule, alias)
        if way is Way.ANY or way is Way.ALL:
            word = " OR " if way is Way.ANY else " AND "
            return "(%s)" % word.join(self.by_itself(table, part, alias) for part in rule.ways)
        assert way is Way.WHERE, way
        condition = rule.texts[0].replace("{root}", self.root_key)
        if alias != "t":  # the condition names the row t
            return "EXISTS (SELECT FROM (SELECT %s.*) t WHERE (%s\n))" % (alias, condition)
        return "(%s\n)" % condition  # a comment in it ends with the line

    def within(self, table: str, alias: str) -> str:
        """Exclude rows of inheriting tables that are migrated as tables of their own."""
        return within(alias, self._apart.get(table, ()))

    def _is_owner(self, table: Table, rule: Ownership, alias: str) -> str:
        mine = self._holds_root(self.references.way(table, rule), alias)
        if rule.or_shared:
            return "(%s OR %s IS NULL)" % (mine, qualified(alias, rule.columns[0]))
        return mine

    @functools.cached_property
    def _apart(self) -> Mapping[str, List[int]]:
        """Table → oids of the tables that inherit from it and are not read with it, where there are some."""
        apart = {name: apart_from(self.settings, self.catalog, name) for name in self.tables}
        return {name: oids for name, oids in apart.items() if oids}

    @functools.cached_property
    def root_key(self) -> str:
        """SQL: the user's key in the key's type, which may be wider than that of a column that holds it."""
        users = self.settings.root
        return "{}::{}".format(literal(self.user.id), self.catalog.column(users.name, users.key).type)

    def mine(self, table: Table, alias: str = "t") -> str:
        """SQL condition: the owner column holds the user's key."""
        way = self._ways[table.name]
        assert way is not None
        return self._holds_root(way, alias)

    def _holds_root(self, way: ForeignKey, alias: str) -> str:
        return way.equalities[0].sql(self.root_key, qualified(alias, way.columns[0]))

    def _leads_to_owned(self, key: ForeignKey, alias: str) -> str:
        parent = next_alias(alias)
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


def conjunction(conditions: Iterable[str]) -> str:
    return " AND ".join(condition for condition in conditions if condition != "true") or "true"


def next_alias(alias: str) -> str:
    """Of the row that the row of an alias refers to: t, t1, t2 …"""
    return "%s%d" % (alias[0], int(alias[1:] or 0) + 1)
