"""What the sets of a user's rows are called, the columns that they have, and how their rows are matched."""

from __future__ import annotations

import functools
from typing import Callable, Dict, List, Mapping, Tuple

from migration.model import Equality, ForeignKey
from migration.postgres.ownership import Owned, conjunction
from migration.postgres.references import matches, present
from migration.postgres.ways import Node, Ways
from migration.sql import qualified


class SetColumns:
    """The columns of the sets of one user's rows, and conditions on them."""

    def __init__(self, owned: Owned, skip: bool) -> None:
        self.owned = owned
        self.ways = Ways(owned, skip)
        self.references = owned.references
        self.catalog = owned.catalog
        self.tables = owned.tables
        self._ways = owned.references.ways
        self._numbers = {name: number for number, name in enumerate(self.tables)}
        self._equalities: Dict[Tuple[str, str], Equality] = {}
        self.whens = [key for key in self.references.exported if key.when]

    def number(self, table: str) -> int:
        return self._numbers[table]

    def name(self, node: Node) -> str:
        return "%s%d" % ("b" if node.brought else "o" if node.own else "s", self.number(node.table))

    def exported(self, table: str) -> str:
        """The name of the set of all rows of a table that are exported."""
        return ("x%d" if Node(table, True) in self.ways.nodes else "s%d") % self.number(table)

    def place(self, table: str, column: str) -> str:
        """A column's name in a set: none that a table's column could have beside it."""
        return "c%d" % [known.name for known in self.catalog.columns[table]].index(column)

    def columns(self, table: str) -> Callable[[str], str]:
        return lambda column: "t." + self.place(table, column)

    @functools.cached_property
    def kept(self) -> Mapping[str, List[str]]:
        """The columns that each set has: those of keys and references."""
        keys = [
            *self.references.exported,
            *self.references.source,
            *(way for way in self._ways.values() if way is not None),
            *(way for name in self.tables for way in self.references.ways_of(name)),
        ]
        kept = {name: set(self.catalog.keys[name]) for name in self.tables}
        for key in keys:
            kept.get(key.table, set()).update(key.columns)
            kept.get(key.parent, set()).update(key.parent_columns)
        return {
            name: [column.name for column in self.catalog.columns[name] if column.name in kept[name]]
            for name in self.tables
        }

    def joined(self, key: ForeignKey, parent: str = "p", child: str = "t") -> str:
        """SQL condition: a row of a set is referred to by a row of another."""
        return matches(
            key,
            lambda column: "%s.%s" % (parent, self.place(key.parent, column)),
            lambda column: "%s.%s" % (child, self.place(key.table, column)),
            parent + ".o",
            child + ".o",
            self._when(key, child),
        )

    def refers(self, key: ForeignKey, child: str = "t") -> str:
        """SQL condition: a row of a set refers to something by a key."""
        return conjunction(
            [
                present("%s.%s" % (child, self.place(key.table, name)) for name in key.columns),
                self._when(key, child) or "true",
            ]
        )

    def _when(self, key: ForeignKey, alias: str) -> str:
        return "%s.w%d" % (alias, self.whens.index(key)) if key.when else ""

    def named_by(self, key: ForeignKey) -> str:
        """SQL condition: row ``p`` of a set is referred to by row ``t`` of a table."""
        return matches(
            key,
            lambda column: "p." + self.place(key.parent, column),
            functools.partial(qualified, "t"),
            "p.o",
            "t.tableoid",
        )

    def names(self, key: ForeignKey) -> str:
        """SQL condition: row ``p`` of a set refers to row ``t`` of a table."""
        return matches(
            key,
            functools.partial(qualified, "t"),
            lambda column: "p." + self.place(key.table, column),
            "t.tableoid",
            "p.o",
            self._when(key, "p"),
        )

    def is_same(self, name: str, member: str, row: str) -> str:
        """SQL condition: a row of a set is the row of the table."""
        if not self.catalog.keys[name]:
            return "%s.r = %s" % (member, identity(row))
        return self._same_key(name, member, functools.partial(qualified, row))

    def is_same_member(self, name: str, member: str, row: str) -> str:
        """SQL condition: rows of two sets of a table that has a key are one."""
        return self._same_key(name, member, lambda column: "%s.%s" % (row, self.place(name, column)))

    def _same_key(self, name: str, member: str, other: Callable[[str], str]) -> str:
        return " AND ".join(
            self._key_equality(name, column).sql("%s.%s" % (member, self.place(name, column)), other(column))
            for column in self.catalog.keys[name]
        )

    def _key_equality(self, name: str, column: str) -> Equality:
        if (name, column) not in self._equalities:
            known = self.catalog.column(name, column)
            self._equalities[name, column] = self.owned.db.equality(known, known)
        return self._equalities[name, column]


def identity(alias: str) -> str:
    """SQL expression: what tells a row apart from all others under a snapshot, in partitions too."""
    return "concat({0}.tableoid, {0}.ctid)".format(alias)
