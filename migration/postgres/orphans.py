"""References between rows that are exported and rows that are not: dangling, left behind, skipped."""

from __future__ import annotations

import functools
from typing import Callable, Dict, Iterable, List, NamedTuple, Sequence, Tuple

from migration.errors import MigrationError, SourceError
from migration.model import ForeignKey
from migration.postgres.catalog import Catalog
from migration.postgres.ownership import MANY, Owned, Sets, identity
from migration.postgres.references import present
from migration.sql import literal, qualified

LISTED_ORPHANS = 20


class Orphans(NamedTuple):
    """Rows with a reference between exported and not exported rows: how many, and the first few.

    ``sample``: the key of a row, and its reference.
    """

    table: str
    columns: Tuple[str, ...]
    parent: str
    rows: int
    sample: Tuple[Tuple[str, str], ...]


class Search:
    """Finds such rows of one user.

    ``left_out``: with ``skip``, table → the rows (``identity``) of which a reference leads to no exported row.

    Raises MigrationError (exit 3) where the user's own row is one of them.
    """

    def __init__(self, owned: Owned, skip: bool) -> None:
        self.owned = owned
        self.sets = Sets(owned)
        self.db = owned.db
        self.catalog = owned.catalog
        self.tables = owned.tables
        self.references = owned.references
        self.skip = skip
        self._broken = self._broken_references() if skip else []
        left_out: Dict[str, Dict[str, None]] = {}
        for number, row in self._broken:
            left_out.setdefault(self.references.exported[number].table, {})[row] = None
        self.left_out = {name: tuple(left_out[name]) for name in self.tables if name in left_out}
        if owned.settings.root.name in self.left_out:
            raise self._user_left_out()

    def _user_left_out(self) -> MigrationError:
        keys = [self.references.exported[number] for number, _ in self._broken]
        key = next(key for key in keys if key.table == self.owned.settings.root.name)
        columns = ", ".join(key.columns)
        return SourceError(
            "the user's own row cannot be left out: %s leads to no exported row of %s"
            % (columns, key.parent),
            "correct it in PostgreSQL, or add %s to dropped=(...) of %s in config.py and take it out of the SQLite schema"
            % (", ".join('"%s"' % name for name in key.columns), key.table),
        )

    def orphans(self) -> List[Orphans]:
        """Every reference from an owned row to a row that is not exported, table by table, parents first."""
        if self.skip:
            rows: Dict[int, List[str]] = {}
            for number, row in self._broken:
                rows.setdefault(number, []).append(row)
            sources = {
                number: "%s t WHERE %s"
                % (self.sets.name(self.references.exported[number].table), among(listed, "t.r"))
                for number, listed in rows.items()
            }
        else:
            sources = {
                number: self._dangling_from(key)
                for number, key in enumerate(self.references.exported)
                if key != self.references.ways[key.table]
            }
        keys = {number: self.references.exported[number] for number in sources}
        tests = [
            _Test(key, sources[number], self.sets.columns(key.table), "t.r") for number, key in keys.items()
        ]
        order = list(self.tables)
        tests.sort(key=lambda test: order.index(test.key.table))
        tables = {name for test in tests for name in (test.key.table, test.key.parent)}
        return self._found(self.sets.clause(tables, identities=self.skip), tests)

    def left_behind(self) -> List[Orphans]:
        """Rows that are not exported but refer to rows of the user's own."""
        tests = [
            _Test(key, self._left_behind_from(key), functools.partial(qualified, "t"), identity("t"))
            for key in self.references.source
            if self._may_be_left_behind(key)
        ]
        tables = {name for test in tests for name in (test.key.table, test.key.parent)}
        return self._found(self.sets.clause(tables), tests)

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
                self.owned.owned(self.tables[key.table]),
            )
            for number, key in enumerate(keys)
        )
        return {
            "%s (%s) → %s" % (keys[number].table, ", ".join(keys[number].columns), keys[number].parent): rows
            for number, rows in (self.db.rows(counts) if keys else ())
            if rows
        }

    def _broken_references(self) -> List[Tuple[int, str]]:
        """Each reference that makes a row an orphan, directly or through its parents: its number, and the row.

        A row is met once for each reference, so a cycle has an end.
        """
        if not self.references.exported:
            return []
        dangling = self.db.value(
            "{}SELECT sum(n) FROM ({}) counted (n)".format(
                self.sets.clause(self.tables),
                " UNION ALL ".join(
                    "SELECT count(*) FROM " + self._dangling_from(key) for key in self.references.exported
                ),
            )
        )
        if not dangling:
            return []
        edges, starts = [], []
        for number, key in enumerate(self.references.exported):
            edges.append(
                "SELECT {}, {}, unnest(a.r), {}, unnest(a.p)"
                " FROM (SELECT array_agg(t.r), array_agg(p.r) FROM {} t JOIN {} p ON {}) a (r, p)".format(
                    number,
                    self.sets.number(key.table),
                    self.sets.number(key.parent),
                    self.sets.name(key.table),
                    self.sets.name(key.parent),
                    self.sets.joined(key),
                )
            )
            starts.append(
                "SELECT {}, {}, t.r FROM {}".format(
                    number, self.sets.number(key.table), self._dangling_from(key)
                )
            )
        # Make the planner expect few edges and many rows, so that it hashes the edges once.
        starts.append("SELECT 0, 0, '' FROM (SELECT json_each('{}') FROM %s) j" % MANY)
        with self.db.hashing():
            return self.db.rows(
                "{}, edge (k, n, r, parent_n, parent_r) AS MATERIALIZED ({}), broken (k, n, r) AS (({}) UNION SELECT e.k, e.n, e.r"
                " FROM edge e JOIN broken b ON b.n = e.parent_n AND b.r = e.parent_r) SELECT k, r FROM broken".format(
                    self.sets.clause(self.tables, identities=True).rstrip(),
                    " UNION ALL ".join(edges),
                    " UNION ALL ".join(starts),
                )
            )

    def _dangling_from(self, key: ForeignKey) -> str:
        return "{} t WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {})".format(
            self.sets.name(key.table),
            present(map(self.sets.columns(key.table), key.columns)),
            self.sets.name(key.parent),
            self.sets.joined(key),
        )

    def _left_behind_from(self, key: ForeignKey) -> str:
        """FROM clause: rows ``t`` that are not the user's and refer to one that is."""
        return (
            "{} t WHERE {} AND EXISTS (SELECT FROM {} p WHERE {} AND {}) AND {} AND ({}) IS NOT TRUE".format(
                self.db.quoted(key.table),
                present(qualified("t", name) for name in key.columns),
                self.sets.name(key.parent),
                self.sets.named_by(key),
                self.sets.is_own(self.tables[key.parent], "p"),
                self.owned.within(key.table, "t"),
                self.sets.member(self.tables[key.table]),
            )
        )

    def _may_be_left_behind(self, key: ForeignKey) -> bool:
        return (
            key.table in self.tables
            and key.parent in self.tables
            and key != self.references.ways[key.table]
            and self.references.ways[key.table] is not None
            and self.sets.is_own(self.tables[key.parent], "p") != "false"
        )

    def _found(self, sets: str, tests: Sequence[_Test]) -> List[Orphans]:
        """Count the rows of each test, and look at the first of them all: two queries."""
        if not tests:
            return []
        counts = self.db.rows(
            "{}SELECT i, n FROM ({}) counted (i, n) WHERE n > 0 ORDER BY i".format(
                sets,
                " UNION ALL ".join(
                    "SELECT %d, count(*) FROM %s" % (number, test.source) for number, test in enumerate(tests)
                ),
            )
        )
        shown, listed = 0, []
        for number, rows in counts:
            if shown < LISTED_ORPHANS:
                key, source, column, row = tests[number]
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
        for number, row, reference in self.db.rows(sets + " UNION ALL ".join(listed)) if listed else ():
            samples.setdefault(number, []).append((row, reference))
        return [
            Orphans(key.table, key.columns, key.parent, rows, tuple(samples.get(number, ())))
            for number, rows in counts
            for key in [tests[number].key]
        ]


class _Test(NamedTuple):
    """A search for rows ``t`` by a reference.

    ``source`` is its FROM clause, ``column`` names a column of ``t``, ``row`` the row's identity.
    """

    key: ForeignKey
    source: str
    column: Callable[[str], str]
    row: str


def among(rows: Sequence[str], row: str) -> str:
    """SQL condition: an identity is one of many."""
    listed = literal(" ".join(rows))
    return "EXISTS (SELECT FROM unnest(string_to_array(%s, ' ')) b (r) WHERE b.r = %s)" % (listed, row)


def row_name(catalog: Catalog, table: str, column: Callable[[str], str], row: str) -> str:
    """SQL expression: a row's key as text; where the table has none, the row's place, which holds nobody's data."""
    keys = catalog.keys[table] or catalog.primary_keys.get(table, ())
    return text(map(column, keys)) if keys else "'ctid ' || pg_catalog.substring(%s, '[(].*')" % row


def text(columns: Iterable[str]) -> str:
    """SQL expression: values as one text."""
    return " || ', ' || ".join(column + "::text" for column in columns)
