"""SQL for whose each row is: one named query a table, with the root's key of each of its rows.

Each table's query joins that of its parent, so that a chain of any length is read once, in hash joins.
"""

from __future__ import annotations

import functools
from typing import Collection, Dict, List, Mapping, NamedTuple, Sequence, Tuple, Union

from migration.discovery.references import Link, names
from migration.discovery.source import Source
from migration.model import Ownership, Root, Way, any_of, assert_never
from migration.sql import qualified, quote

WHOSE = quote("#root")  # no column of anybody's is called so


class Ways(NamedTuple):
    """By which ways two of a table's references lead to a root, row by row.

    ``rows``: of the table. ``found``: by each way, rows that it gives a root to. ``missed``: by each way, rows that
    it gives none to and another one does. ``differ``: rows to which two ways give different roots. ``nobody``: rows
    to which none gives one. ``common``: rows to which some of the ways, the ends, all give the same.
    """

    rows: int
    found: Tuple[int, ...]
    missed: Tuple[int, ...]
    differ: int
    nobody: int
    common: int


class Leaving(NamedTuple):
    """Of one reference: rows of a root that name another's row or nobody's, and rows of others or of nobody that name a root's."""

    to_others: int
    to_nobody: int
    from_others: int
    from_nobody: int


class Belonging:
    """Asks the data whose rows are, by the ownership of the tables that are decided."""

    def __init__(
        self,
        source: Source,
        root: Root,
        links: Sequence[Link],
        conditions: Mapping[Tuple[str, Ownership], Union[Link, str]],
    ) -> None:
        """``conditions``: of tables with ``where()``, the reference that says the same, or SQL of a root on the row ``t``."""
        self.conditions = conditions
        self.source = source
        self.root = root
        self._rules: Dict[str, Ownership] = {}
        self._links: Dict[Tuple[str, Tuple[str, ...]], Dict[str, Link]] = {}
        self._needed: Dict[str, Dict[str, None]] = {}
        for link in links:
            key = link.key
            self._links.setdefault((key.table, tuple(sorted(key.columns))), {})[key.parent] = link
            self._needed.setdefault(key.parent, {}).update(dict.fromkeys(key.parent_columns))
        self._needed.setdefault(root.name, {})[root.key] = None

    def rule(self, table: str) -> Ownership:
        return self._rules[table]

    @property
    def decided(self) -> Collection[str]:
        return self._rules.keys()

    def decide(self, table: str, rule: Ownership) -> None:
        """From now on, rows of the table belong as ``rule`` says; the tables that it names are decided before."""
        self._rules[table] = rule

    @functools.cached_property
    def _same(self) -> str:
        """SQL with two places: whether two keys of the root are the same."""
        key = self.source.catalog.column(self.root.name, self.root.key)
        return self.source.db.equality(key, key).sql("{0}", "{1}")

    def _name(self, table: str) -> str:
        return "whose_%d" % self.source.catalog.relations[table].oid

    def _link(self, table: str, rule: Ownership) -> Link:
        link = self.conditions.get((table, rule))
        if isinstance(link, Link):
            return link
        parent = self.root.name if rule.parent is None else rule.parent
        return self._links[table, tuple(sorted(rule.columns))][parent]

    def _whose(self, table: str, rule: Ownership, joins: List[str], used: Dict[str, None]) -> str:
        """SQL of the root's key of a row ``t``; adds the joins that it needs and the tables that these read."""
        way = rule.way
        if way is Way.ROOT:
            return qualified("t", self.root.key)
        condition = self.conditions.get((table, rule))
        if isinstance(condition, str):
            return "(%s)" % condition
        if way is Way.OWNED or way is Way.CHILD or condition is not None:
            link = self._link(table, rule)
            alias = "p%d" % len(joins)
            parent = link.key.parent
            joins.append("LEFT JOIN %s %s ON %s" % (self._name(parent), alias, _matches(link, alias)))
            used[parent] = None
            return "%s.%s" % (alias, WHOSE)
        if way is Way.WHERE:
            key = self.source.catalog.column(self.root.name, self.root.key)
            return "NULL::%s" % key.type  # of whom, only the operator knows
        if way is Way.ANY:
            return "coalesce(%s)" % ", ".join(
                self._whose(table, part, joins, used) for part in rule.ways if part.way is not Way.REFERENCED
            )
        if way is Way.ALL:
            ends = [self._whose(table, part, joins, used) for part in rule.ways]
            alike = " AND ".join(self._same.format(ends[0], end) for end in ends[1:])
            return "CASE WHEN %s THEN %s END" % (alike, ends[0])
        if way in (Way.SHARED, Way.REFERENCED, Way.UNDECIDED):
            raise AssertionError(way)  # of no root, or not known
        assert_never(way)

    def _with(self, tables: Mapping[str, None]) -> str:
        """``WITH`` these tables and those that they belong by, parents first."""
        made: Dict[str, str] = {}

        def make(table: str) -> None:
            if table in made:
                return
            joins: List[str] = []
            used: Dict[str, None] = {}
            whose = self._whose(table, self._rules[table], joins, used)
            for parent in used:
                make(parent)
            columns = ["t." + quote(name) for name in self._needed.get(table, ())]
            made[table] = "{} AS (SELECT {} AS {} FROM {} {})".format(
                self._name(table),
                ", ".join([*columns, whose]),
                WHOSE,
                self.source.rows_of(table, "t"),
                " ".join(joins),
            )

        for table in tables:
            make(table)
        return "WITH " + ", ".join(made.values())

    def compare(self, table: str, ways: Sequence[Ownership], ends: Sequence[Ownership] = ()) -> Ways:
        """Compare the roots that several ways give to the rows of a table. ``ends``: of these ways."""
        joins: List[str] = []
        used: Dict[str, None] = {}
        whose = [self._whose(table, way, joins, used) for way in ways]
        other = [
            " OR ".join(
                "NOT " + self._same.format(first, second)
                for number, first in enumerate(whose)
                for second in whose[number + 1 :]
            )
            or "false"
        ]
        same = [whose[ways.index(end)] for end in ends]
        common = " AND ".join(self._same.format(same[0], end) for end in same[1:]) or "false"
        missed = ["%s IS NULL AND coalesce(%s) IS NOT NULL" % (one, ", ".join(whose)) for one in whose]
        counted = [
            "count(*)",
            *("count(%s)" % one for one in whose),
            *("count(*) FILTER (WHERE %s)" % condition for condition in (*missed, *other)),
            "count(*) FILTER (WHERE coalesce(%s) IS NULL)" % ", ".join(whose),
            "count(*) FILTER (WHERE %s)" % common,
        ]
        row = self.source.db.rows(
            "{} SELECT {} FROM {} {}".format(
                self._with(used), ", ".join(counted), self.source.rows_of(table, "t"), " ".join(joins)
            )
        )[0]
        end = 1 + len(whose)
        return Ways(row[0], row[1:end], row[end : end + len(whose)], *row[-3:])

    def leaving(self, table: str, links: Sequence[Link]) -> Tuple[int, List[Leaving]]:
        """The rows of a table, and for each of its references to tables of roots those whose ends are not one root's."""
        joins: List[str] = []
        used: Dict[str, None] = {}
        mine = self._whose(table, self._rules[table], joins, used)
        partly = self._whose(table, _by_any(self._rules[table]), joins, used)
        counted = ["count(*)"]
        for link in links:
            key = link.key
            alias = "r%d" % len(joins)
            used[key.parent] = None
            theirs = "%s.%s" % (alias, WHOSE)
            joins.append("LEFT JOIN %s %s ON %s" % (self._name(key.parent), alias, _matches(link, alias)))
            present = " AND ".join("t.%s IS NOT NULL" % quote(name) for name in key.columns)
            if link.when:
                present += " AND (%s)" % link.when
            differ = "NOT " + self._same.format(mine, theirs)
            counted += [
                "count(*) FILTER (WHERE %s)" % condition
                for condition in (
                    differ,
                    "%s IS NOT NULL AND %s IS NULL AND %s" % (partly, theirs, present),
                    differ,
                    "%s IS NOT NULL AND %s IS NULL" % (theirs, mine),
                )
            ]
        row = self.source.db.rows(
            "{} SELECT {} FROM {} {}".format(
                self._with(used), ", ".join(counted), self.source.rows_of(table, "t"), " ".join(joins)
            )
            if used
            else "SELECT count(*) FROM %s" % self.source.rows_of(table, "t")
        )[0]
        return row[0], [Leaving(*row[start : start + 4]) for start in range(1, len(row), 4)]


def _by_any(rule: Ownership) -> Ownership:
    """The row of a join table as a root's where one of its ends is."""
    return any_of(*rule.ways) if rule.way is Way.ALL else rule


def _matches(link: Link, parent: str) -> str:
    """SQL condition: the row ``t`` names the row of this alias."""
    return names(link.key, parent) + (" AND (%s)" % link.when if link.when else "")
