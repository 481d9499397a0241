"""Count every table's rows by whose they are, for all roots at once: what no root's file can hold is counted here, too.

A table is counted root by root if each of its rows belongs to one root at most: its owner column says whose the row is, or
a chain of parents does. Where rows may come into several files in other ways, each row is told with its roots.
"""

from __future__ import annotations

import enum
import functools
import json
from typing import Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import msgspec

from migration.model import ForeignKey, Kind, Way
from migration.postgres.all_roots import TOLD, AllRoots
from migration.postgres.catalog import apart_from, is_listed, read_with, within
from migration.postgres.ownership import next_alias
from migration.postgres.references import References, matches
from migration.postgres.snapshot import Snapshot
from migration.postgres.ways import Node
from migration.settings import Settings
from migration.sql import literal, qualified
from migration.sqlite.schema import Schema

_decode = msgspec.json.decode

FIRST = 3  # keys that are named of the rows with the same reason

SHARED = "shared"  # a class of rows, not a reason
NOBODYS = "nobody's, by config.py"
UNREFERENCED = "no exported row refers to it"


class Whose(enum.Enum):
    """How a table's rows are counted. The text of a table that is not migrated is the reason."""

    ONE = ""  # each row is of one root at most, or shared
    ALL = "shared"  # each row is everybody's
    SEVERAL = "in several"  # each row may be of several roots
    EXCLUDED = "excluded by config.py"
    UNRELATED = "unrelated, by config.py"
    EXTENSION = "of an extension"
    UNLISTED = "in no list of config.py"


class Counted(NamedTuple):
    """A table: ``source`` is a FROM clause with its rows as ``t``; ``root`` and ``reason`` are SQL.

    ``root``: the key of the root whose the row is, as text; NULL where it is nobody's, for the ``reason``. Not of Whose.SEVERAL,
    where the ``reason`` is that of each row that has no root.
    """

    table: str
    whose: Whose
    source: str
    condition: str
    root: str = "NULL::text"
    reason: str = "''"


class EachRow(NamedTuple):
    """A row, and either its root, the reason why it has none, or neither: everybody's.

    ``content``: the SHA256 of its values, where it has no key.
    """

    row: str
    root: Optional[str]
    reason: Optional[str]
    content: Optional[str]


class Nobodys(NamedTuple):
    """Rows that are no root's: why, how many, and the first keys."""

    reason: str
    rows: int
    first: Sequence[str]


class Counting:
    """Counts the tables of a database under one snapshot."""

    def __init__(self, db: Snapshot, settings: Settings, schema: Schema) -> None:
        self.db = db
        self.settings = settings
        self.catalog = db.catalog
        self.references = References(db, settings, schema)
        self._all = AllRoots(self.references, settings.skip_orphans)

    @functools.cached_property
    def tables(self) -> List[Counted]:
        """Every table, partitions as a part of theirs, and heirs that are read with another table as a part of that."""
        declared = self.references.tables
        together = {heir for name in declared for heir in read_with(self.settings, self.catalog, name)}
        found = [self._declared(name) for name in declared]
        found += [
            self._other(name) for name in sorted(self.catalog.relations) if name not in {*declared, *together}
        ]
        return found

    def _other(self, name: str) -> Counted:
        if is_listed(name, self.settings.excluded_tables):
            whose = Whose.EXCLUDED
        elif is_listed(name, self.settings.unrelated_tables):
            whose = Whose.UNRELATED
        else:
            whose = Whose.EXTENSION if self.catalog.relations[name].extension else Whose.UNLISTED
        heirs = [self.catalog.relations[heir].oid for heir in self.catalog.heirs(name)]
        return Counted(name, whose, self.db.quoted(name) + " t", within("t", sorted(heirs)))

    def _declared(self, name: str) -> Counted:
        table = self.references.tables[name]
        condition = self._own_rows(name, "t")
        source = self.db.quoted(name) + " t"
        reason = UNREFERENCED if table.ownership.way is Way.REFERENCED else NOBODYS
        several = Counted(name, Whose.SEVERAL, source, condition, reason=literal(reason))
        if Node(name, True) in self._all.ways.nodes or not self._has_single_keys:
            return several
        if table.ownership.way is Way.SHARED:
            return Counted(name, Whose.ALL, source, condition, reason=literal(SHARED))
        alias = "t"
        reasons: List[str] = []
        while table.ownership.way is Way.CHILD and table.name != table.ownership.parent:
            key = self.references.way(table, table.ownership)
            parent = next_alias(alias)
            if (
                key.when
                or key.exact
                or not self._is_single(key)
                or len(reasons) > len(self.references.tables)
            ):
                return several
            source += self._joined(key, parent, alias)
            reasons.append(
                "WHEN %s IS NULL THEN %s"
                % (qualified(parent, key.parent_columns[0]), literal("no row of " + key.parent))
            )
            table, alias = self.references.tables[key.parent], parent
        rule = table.ownership
        if rule.way is Way.ROOT:
            root = qualified(alias, self.settings.root.key)
            reasons.append("ELSE 'no key'" if reasons else "WHEN true THEN 'no key'")
        elif rule.way is Way.OWNED:
            key = self.references.way(table, rule)
            if key.exact:
                return several
            parent = next_alias(alias)
            source += self._joined(key, parent, alias)
            root = qualified(parent, self.settings.root.key)
            nobody = SHARED if rule.or_shared else "owner is NULL"
            reasons.append(
                "WHEN %s IS NULL THEN %s ELSE 'owner is no root'"
                % (qualified(alias, key.columns[0]), literal(nobody))
            )
        else:
            return several
        return Counted(name, Whose.ONE, source, condition, root + "::text", "CASE %s END" % " ".join(reasons))

    def _joined(self, key: ForeignKey, parent: str, child: str) -> str:
        names = functools.partial(qualified, parent), functools.partial(qualified, child)
        on = matches(key, *names, parent + ".tableoid", child + ".tableoid")
        return " LEFT JOIN {} {} ON {} AND {}".format(
            self.db.quoted(key.parent), parent, on, self._own_rows(key.parent, parent)
        )

    def _own_rows(self, table: str, alias: str) -> str:
        return within(alias, apart_from(self.settings, self.catalog, table))

    @functools.cached_property
    def _has_single_keys(self) -> bool:
        """Whether no two roots have the same key."""
        root = self.settings.root
        return self._are_single(root.name, (root.key,))

    def _is_single(self, key: ForeignKey) -> bool:
        """Whether a row names one parent at most, which config's own references do not guarantee."""
        return key in self.references.source or self._are_single(key.parent, key.parent_columns)

    def _are_single(self, table: str, columns: Sequence[str]) -> bool:
        names = [qualified("t", name) for name in columns]
        sql = "SELECT NOT EXISTS (SELECT FROM {} t WHERE {} AND {} GROUP BY {} HAVING count(*) > 1)".format(
            self.db.quoted(table),
            self._own_rows(table, "t"),
            " AND ".join("%s IS NOT NULL" % name for name in names),
            ", ".join(names),
        )
        return bool(self.db.value(sql))

    def rows(self, counted: Counted) -> Optional[int]:
        """PostgreSQL's own count of the table's rows; None if the role may not see all of them."""
        if not self._is_readable(counted.table):
            return None
        name = self.db.quoted(counted.table)
        return int(self.db.value("SELECT count(*) FROM %s t WHERE %s" % (name, counted.condition)))

    def _is_readable(self, table: str) -> bool:
        return bool(
            self.db.value(
                "SELECT has_schema_privilege(n.oid, 'USAGE') AND has_any_column_privilege(c.oid, 'SELECT')"
                " AND NOT row_security_active(c.oid)"
                " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = %d"
                % self.catalog.relations[table].oid
            )
        )

    def nobodys(self, counted: Counted) -> List[Nobodys]:
        """The rows of a table of Whose.ONE that are no root's, by reason. Shared ones too, as SHARED."""
        sql = "SELECT {}, count(*) FROM {} WHERE {} AND {} IS NULL GROUP BY 1 ORDER BY 1".format(
            counted.reason, counted.source, counted.condition, counted.root
        )
        return [
            Nobodys(
                reason,
                rows,
                ()
                if reason == SHARED
                else self.first(
                    counted, "%s IS NULL AND %s = %s" % (counted.root, counted.reason, literal(reason))
                ),
            )
            for reason, rows in self.db.rows(sql)
        ]

    def of_roots(self) -> Iterator[Tuple[str, Mapping[int, int]]]:
        """Each root's key, with rows by the table's place in ``tables``; streamed in the order of their UTF-8 bytes."""
        parts = [
            "SELECT %s, %d, count(*) FROM %s WHERE %s GROUP BY 1"
            % (counted.root, number, counted.source, counted.condition)
            for number, counted in enumerate(self.tables)
            if counted.whose is Whose.ONE
        ]
        if not parts:
            return
        query = (
            "SELECT pg_catalog.json_build_array(c.root, pg_catalog.json_object_agg(c.n, c.rows))"
            " FROM (%s) c (root, n, rows) WHERE c.root IS NOT NULL"
            " GROUP BY c.root ORDER BY pg_catalog.convert_to(c.root, 'UTF8')" % " UNION ALL ".join(parts)
        )
        for line in self.db.stream(query):
            root, rows = json.loads(line)
            yield root, {int(number): count for number, count in rows.items()}

    # Row by row: a row is called as ``AllRoots.row`` says

    def each_row(self, counted: Counted, roots: Optional[Sequence[str]] = None) -> Iterator[EachRow]:
        """Every row of a table, or those of ``roots``. Of Whose.SEVERAL without their roots, which ``pairs`` has."""
        condition = counted.condition
        if roots is not None:
            listed = ", ".join("(%s)" % literal(root) for root in roots)
            condition += " AND %s IN (VALUES %s)" % (counted.root, listed)
        return self._rows(counted, condition)

    def everybodys(self, counted: Counted) -> Iterator[EachRow]:
        """The shared rows of a table."""
        shared = "%s IS NULL AND %s = %s" % (counted.root, counted.reason, literal(SHARED))
        return self._rows(counted, "%s AND %s" % (counted.condition, shared))

    def _rows(self, counted: Counted, condition: str) -> Iterator[EachRow]:
        reason = "CASE WHEN {} IS NULL THEN nullif({}, {}) END".format(
            counted.root, counted.reason, literal(SHARED)
        )
        content = "NULL::text"
        if not self.has_key(counted):
            content = self._all.named_by(counted.table, self.named_by(counted))
        query = "SELECT pg_catalog.json_build_array(%s, %s, %s, %s) FROM %s WHERE %s" % (
            self._all.row(counted.table),
            counted.root,
            reason,
            content,
            counted.source,
            condition,
        )
        for line in self.db.stream(query):
            yield EachRow(*_decode(line))

    def has_key(self, counted: Counted) -> bool:
        return bool(self.catalog.keys[counted.table])

    def named_by(self, counted: Counted) -> Sequence[str]:
        """The columns by which a row is found in a file: its key, or all that stand there as they are."""
        keys = self.catalog.keys[counted.table]
        cut = {
            name
            for key in self.references.exported
            if key.table == counted.table and self._all.ways.leaving(key) == "cut"
            for name in key.columns
        }
        columns = self.catalog.columns[counted.table]
        spaced = (Kind.JSON, Kind.STRUCTURE)  # their white space may be another
        return keys or [each.name for each in columns if each.kind not in spaced and each.name not in cut]

    def shows_keys(self, counted: Counted) -> bool:
        """Whether rows are called by a key that can be shown, and not by a SHA256."""
        return self._all.shows_keys(counted.table)

    def pairs(self, sizes: Mapping[str, int]) -> Iterator[Tuple[int, str, Optional[str]]]:
        """The rows of tables of Whose.SEVERAL, by the table's place in ``tables``, and each of their roots; None: everybody's.

        ``sizes``: table → rows.
        """
        numbers = [number for number, counted in enumerate(self.tables) if counted.whose is Whose.SEVERAL]
        names = [self.tables[number].table for number in numbers]
        with self.db.hashing():
            for query in self._all.pairs(names, sizes):
                for line in self.db.stream(query):
                    place, row, root = _decode(line)
                    yield numbers[place], row, root

    def first_of(self, counted: Counted, roots: Sequence[str]) -> Sequence[str]:
        """The first keys of these roots' rows."""
        return self.first(counted, "%s IN (%s)" % (counted.root, ", ".join(map(literal, roots))))

    def first_of_others(self, counted: Counted) -> Sequence[str]:
        """The first keys of a table that is not migrated, if the role may read them."""
        oid = self.catalog.relations[counted.table].oid
        may = self.db.value("SELECT has_table_privilege(%d::oid, 'SELECT')" % oid)
        return self.first(counted) if may else ()

    def first(self, counted: Counted, condition: str = "true") -> Sequence[str]:
        """The first keys of a table's rows, as JSON writes them; none where it has no primary key of TOLD."""
        key = self.catalog.primary_keys.get(counted.table, ())
        if not key or any(self.catalog.column(counted.table, name).kind not in TOLD for name in key):
            return ()
        names = [qualified("t", name) for name in key]
        sql = "SELECT {} FROM {} WHERE {} AND {} ORDER BY {} LIMIT {}".format(
            ", ".join("pg_catalog.to_json(%s) #>> '{}'" % name for name in names),
            counted.source,
            counted.condition,
            condition,
            ", ".join(names),
            FIRST,
        )
        return [", ".join(map(str, row)) for row in self.db.rows(sql)]
