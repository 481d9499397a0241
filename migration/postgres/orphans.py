"""References between rows that are exported and rows that are not: dangling, left behind, skipped."""

from __future__ import annotations

import functools
import itertools
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Sequence, Tuple

from migration.errors import MigrationError, SourceError
from migration.model import ForeignKey, Way
from migration.postgres.catalog import Catalog
from migration.postgres.ownership import Owned
from migration.postgres.references import present
from migration.postgres.set_columns import identity
from migration.postgres.sets import MORE, Sets, among
from migration.postgres.ways import Node
from migration.sql import qualified

LISTED_ORPHANS = 20


class Orphans(NamedTuple):
    """Rows with a reference between exported and not exported rows: how many, and the first few.

    ``sample``: the key of a row, and its reference. ``leaving``: what becomes of them. ``to``: what they refer to.
    ``hangs``: these are rows that only come along.
    """

    table: str
    columns: Tuple[str, ...]
    parent: str
    rows: int
    sample: Tuple[Tuple[str, str], ...]
    leaving: str = "stop"
    to: str = ""
    hangs: bool = False


class Search:
    """Finds such rows of one user.

    ``left_out``: with ``skip``, table → the rows (``identity``) of which a reference leads to no exported row.

    Raises MigrationError (exit 3) where the user's own row is one of them.
    """

    def __init__(self, owned: Owned, skip: bool) -> None:
        self.owned = owned
        self.db = owned.db
        self.catalog = owned.catalog
        self.tables = owned.tables
        self.references = owned.references
        self.skip = skip
        self.all = Sets(owned, skip)
        self._broken: List[Tuple[int, str]] = []
        self.left_out: Dict[str, Tuple[str, ...]] = {}
        found = self._broken_references(self.all)
        while found:
            self._broken += found
            left_out: Dict[str, Dict[str, None]] = {}
            for number, row in self._broken:
                left_out.setdefault(self.references.exported[number].table, {})[row] = None
            self.left_out = {name: tuple(left_out[name]) for name in self.tables if name in left_out}
            if owned.settings.root.name in self.left_out:
                raise self._user_left_out()
            # Rows that only these referred to, or that belonged to the user by them alone, may leave others in turn.
            plain = all(map(self.all.ways.is_plain, self.tables))
            found = [] if plain else self._broken_references(Sets(owned, skip, self.left_out))
        self.sets = Sets(owned, skip, self.left_out) if self.left_out else self.all

    def _user_left_out(self) -> MigrationError:
        keys = [self.references.exported[number] for number, _ in self._broken]
        key = next(key for key in keys if key.table == self.owned.settings.root.name)
        columns = ", ".join(key.columns)
        return SourceError(
            "the %s's own row cannot be left out: %s leads to no exported row of %s"
            % (self.owned.settings.root.called, columns, key.parent),
            "correct it in PostgreSQL, or add %s to dropped=(...) of %s in config.py and take it out of the SQLite schema"
            % (", ".join('"%s"' % name for name in key.columns), key.table),
        )

    def orphans(self) -> List[Orphans]:
        """Every reference from an owned row to a row that is not exported, table by table, parents first."""
        rows: Dict[int, List[str]] = {}
        for number, row in self._broken:
            rows.setdefault(number, []).append(row)
        sources = {
            number: "%s t WHERE %s"
            % (self.all.exported(self.references.exported[number].table), among(listed, "t.r"))
            for number, listed in rows.items()
        }
        tests = self._tests(self.all, sources)
        found = [
            orphans._replace(leaving="skip")
            for orphans in self._counted(self.all, [tests], identities=True)[0]
        ]
        order = list(self.tables)
        return sorted([*found, *self._found.dangling], key=lambda orphans: order.index(orphans.table))

    def left_behind(self) -> List[Orphans]:
        """Rows that are not exported but refer to rows of the user's own, or hang on rows that only come along."""
        ours = "rows of the %s" % self.owned.settings.root.called
        return [
            *(found._replace(to=ours) for found in self._found.left_behind),
            *(found._replace(to="rows that come along", hangs=True) for found in self._found.hanging),
        ]

    @functools.cached_property
    def _found(self) -> _Found:
        """All that is looked for in the same sets is found by one query: of a small user, planning it is most of the work."""
        dangling, left_behind, hanging = self._dangling(), self._referring_to_own(), self._hanging()
        if self.sets is self.all:
            return _Found(*self._counted(self.all, [dangling, left_behind, hanging]))
        (behind,) = self._counted(self.all, [left_behind])
        of_dangling, of_hanging = self._counted(self.sets, [dangling, hanging])
        return _Found(of_dangling, behind, of_hanging)

    def _dangling(self) -> List[_Test]:
        sources = {
            number: self.sets.dangling_from(key)
            for number, key in enumerate([] if self.skip else self.references.exported)
            if not self._skips(key)
            and (key != self.references.ways[key.table] or Node(key.table, True) in self.sets.ways.nodes)
        }
        return self._tests(self.sets, sources)

    def _tests(self, sets: Sets, sources: Mapping[int, str]) -> List[_Test]:
        """``sources``: number of a reference → FROM clause of the rows of a set by which it leaves the export."""
        keys = {number: self.references.exported[number] for number in sources}
        tests = [_Test(key, sources[number], sets.columns(key.table), "t.r") for number, key in keys.items()]
        order = list(self.tables)
        return sorted(tests, key=lambda test: order.index(test.key.table))

    def _referring_to_own(self) -> List[_Test]:
        owns = {
            key: self.all.own_rows(key.parent)
            for key in (*self.references.source, *self.references.undeclared)
            if self._may_be_left_behind(key)
        }
        return [self._left_behind(self.all, key, *own) for key, own in owns.items() if own[1] != "false"]

    def _hanging(self) -> List[_Test]:
        return [
            self._left_behind(self.sets, key, *along)
            for key in dict.fromkeys(key for name in self.tables for key in self.references.ways_of(name))
            for along in self._come_along(key.parent)
        ]

    def _come_along(self, name: str) -> List[Tuple[str, str]]:
        """The set with the rows ``p`` of a table that come along, where there may be some, and SQL of which of it do."""
        own = self.sets.ways.own(name)
        if own != Node(name):
            is_own = self.sets.is_same_member(name, "m", "p")
            return [
                (
                    self.sets.exported(name),
                    "NOT EXISTS (SELECT FROM %s m WHERE %s)" % (self.sets.name(own), is_own),
                )
            ]
        if Node(name, True) not in self.sets.ways.nodes:
            return []
        mine, is_mine = self.sets.name(Node(name)), self.sets.is_same_member(name, "m", "p")
        return [
            (self.sets.name(Node(name, True)), "NOT EXISTS (SELECT FROM %s m WHERE %s)" % (mine, is_mine))
        ]

    def outside(self) -> Dict[str, int]:
        """Rows of the user by a reference to a table that config leaves behind: ``table (columns) → parent`` → rows."""
        keys = [
            key
            for key in self.references.source
            if key.table in self.tables
            and key.parent not in self.tables
            and not set(self.tables[key.table].all_dropped) & set(key.columns)
        ]
        counts = " UNION ALL ".join(
            "SELECT %d, count(*) FROM %s t WHERE %s AND %s"
            % (
                number,
                self.db.quoted(key.table),
                present(qualified("t", name) for name in key.columns),
                self.all.condition(self.tables[key.table]),
            )
            for number, key in enumerate(keys)
        )
        return {keys[number].name: rows for number, rows in (self.db.rows(counts) if keys else ()) if rows}

    def _leaving(self, key: ForeignKey) -> str:
        """What becomes of a reference that leads to no exported row; what was not to be brought stops the export."""
        leaving = self.references.leaving(key)
        return "stop" if leaving == "bring" else leaving

    def _skips(self, key: ForeignKey) -> bool:
        return self.skip or self.references.leaving(key) == "skip"

    def _depends(self, key: ForeignKey) -> bool:
        """Whether a row cannot be without the row that it refers to; where it may be brought all the same, it can."""
        rule = self.tables[key.table].ownership
        is_way = rule.way in (Way.CHILD, Way.ALL) and key in self.references.ways_of(key.table)
        return self._skips(key) or (is_way and Node(key.table, True) not in self.all.ways.nodes)

    def _broken_references(self, sets: Sets) -> List[Tuple[int, str]]:
        """Each reference that makes a row an orphan, directly or through its parents: its number, and the row.

        A row is met once for each reference, so a cycle has an end.
        """
        keys = list(enumerate(self.references.exported))
        skipping = [(number, key) for number, key in keys if self._skips(key)]
        if not skipping:
            return []
        tables = {name for _, key in skipping for name in (key.table, key.parent)}
        dangling = self.db.value(
            "{}SELECT sum(n) FROM ({}) counted (n)".format(
                sets.clause(tables),
                " UNION ALL ".join("SELECT count(*) FROM " + sets.dangling_from(key) for _, key in skipping),
            )
        )
        if not dangling:
            return []
        edges = [
            "SELECT {}, {}, unnest(a.r), {}, unnest(a.p)"
            " FROM (SELECT array_agg(t.r), array_agg(p.r) FROM {} t JOIN {} p ON {}) a (r, p)".format(
                number,
                sets.number(key.table),
                sets.number(key.parent),
                sets.exported(key.table),
                sets.exported(key.parent),
                sets.joined(key),
            )
            for number, key in keys
            if self._depends(key)
        ]
        starts = [
            "SELECT {}, {}, t.r FROM {}".format(number, sets.number(key.table), sets.dangling_from(key))
            for number, key in skipping
        ]
        starts.append("SELECT 0, 0, '' FROM " + MORE)
        with self.db.hashing():
            return self.db.rows(
                "{}, edge (k, n, r, parent_n, parent_r) AS MATERIALIZED ({}), broken (k, n, r) AS (({}) UNION SELECT e.k, e.n, e.r"
                " FROM edge e JOIN broken b ON b.n = e.parent_n AND b.r = e.parent_r) SELECT k, r FROM broken".format(
                    sets.clause(self.tables, identities=True).rstrip(),
                    " UNION ALL ".join(edges),
                    " UNION ALL ".join(starts),
                )
            )

    def _left_behind(self, sets: Sets, key: ForeignKey, parents: str, which: str) -> _Test:
        """A search for rows ``t`` that are neither exported nor left out, and refer to a row ``p`` of a set.

        ``which``: SQL of which of these count.
        """
        conditions = [
            present(qualified("t", name) for name in key.columns),
            "EXISTS (SELECT FROM %s p WHERE %s AND %s)" % (parents, sets.named_by(key), which),
            self.owned.within(key.table, "t"),
            sets.not_exported(self.tables[key.table]),
        ]
        if key.table in sets.left_out:
            conditions.append("NOT " + among(sets.left_out[key.table], identity("t")))
        source = "%s t WHERE %s" % (self.db.quoted(key.table), " AND ".join(conditions))
        return _Test(key, source, functools.partial(qualified, "t"), identity("t"))

    def _may_be_left_behind(self, key: ForeignKey) -> bool:
        return (
            key.table in self.tables
            and key.parent in self.tables
            and key != self.references.ways[key.table]
            and self.tables[key.table].ownership.way is not Way.SHARED
        )

    def _counted(
        self, sets: Sets, groups: Sequence[Sequence[_Test]], identities: bool = False
    ) -> List[List[Orphans]]:
        """Count the rows of each test, all in one query, and look at the first of each group in another.

        ``identities``: as for ``Sets.clause``.
        """
        tests = [test for group in groups for test in group]
        if not tests:
            return [[] for _ in groups]
        counts = dict(
            self.db.rows(
                "{}SELECT i, n FROM ({}) counted (i, n) WHERE n > 0".format(
                    self._clause(sets, tests, identities),
                    " UNION ALL ".join(
                        "SELECT %d, count(*) FROM %s" % (number, test.source)
                        for number, test in enumerate(tests)
                    ),
                )
            )
        )
        numbered, found = iter(enumerate(tests)), []
        for group in groups:
            of_group = itertools.islice(numbered, len(group))
            broken = [(test, counts[number]) for number, test in of_group if number in counts]
            found.append(self._with_samples(sets, broken, identities) if broken else [])
        return found

    def _clause(self, sets: Sets, tests: Sequence[_Test], identities: bool) -> str:
        return sets.clause({name for test in tests for name in test.key[:3:2]}, identities)

    def _with_samples(
        self, sets: Sets, broken: Sequence[Tuple[_Test, int]], identities: bool
    ) -> List[Orphans]:
        """``broken``: tests, and how many rows each has found."""
        shown, listed = 0, []
        for number, ((key, source, column, row), rows) in enumerate(broken):
            if shown < LISTED_ORPHANS:
                listed.append(
                    "(SELECT {}, {}, {} FROM {} ORDER BY 2, 3 LIMIT {})".format(
                        number,
                        row_name(self.catalog, key.table, column, row),
                        text(map(column, key.columns)),
                        source,
                        LISTED_ORPHANS - shown,
                    )
                )
                shown += rows
        samples: Dict[int, List[Tuple[str, str]]] = {}
        clause = self._clause(sets, [test for test, _ in broken], identities)
        for number, name, reference in self.db.rows(clause + " UNION ALL ".join(listed)):
            samples.setdefault(number, []).append((name, reference))
        return [
            Orphans(
                key.table, key.columns, key.parent, rows, tuple(samples.get(number, ())), self._leaving(key)
            )
            for number, ((key, _, _, _), rows) in enumerate(broken)
        ]


class _Found(NamedTuple):
    """References of exported rows that lead to no exported row; rows that are not exported by what they refer to."""

    dangling: List[Orphans]
    left_behind: List[Orphans]
    hanging: List[Orphans]


class _Test(NamedTuple):
    """A search for rows ``t`` by a reference.

    ``source`` is its FROM clause, ``column`` names a column of ``t``, ``row`` the row's identity.
    """

    key: ForeignKey
    source: str
    column: Callable[[str], str]
    row: str


def row_name(catalog: Catalog, table: str, column: Callable[[str], str], row: str) -> str:
    """SQL expression: a row's key as text; where the table has none, the row's place, which holds nobody's data."""
    keys = catalog.keys[table] or catalog.primary_keys.get(table, ())
    return text(map(column, keys)) if keys else "'ctid ' || pg_catalog.substring(%s, '[(].*')" % row


def text(columns: Iterable[str]) -> str:
    """SQL expression: values as one text."""
    return " || ', ' || ".join(column + "::text" for column in columns)
