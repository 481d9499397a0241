"""Which root's each row is, for all roots at once and however rows belong to them: by other queries than the export's.

The sets are those of ``ways.py``. Here each is a relation of rows and roots, made by joins; the export asks for one root, with
EXISTS. References that leave the export change nothing: what they leave out, only the export knows.
"""

from __future__ import annotations

import functools
from typing import Collection, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

from migration.model import Kind, Ownership, Way
from migration.postgres import kinds
from migration.postgres.catalog import apart_from, within
from migration.postgres.ownership import Owned, conjunction
from migration.postgres.references import References, matches
from migration.postgres.set_columns import SetColumns, identity
from migration.postgres.users import User
from migration.postgres.ways import Branch, Link, Node
from migration.sql import literal, qualified

TOLD = (Kind.INTEGER, Kind.UUID, Kind.DATE)  # others may be an address, a name or the token of a session
PAIRS = 1000000  # of rows and roots that PostgreSQL holds in memory while it follows a cycle

_NOBODY = 'NULL::text COLLATE "C"'  # as the root: the row is everybody's
_KEY, _TEXT = '"the root\'s key"', '"the root\'s text"'  # no table's columns are called so


class _Source(NamedTuple):
    """Part of a FROM clause, and the root that it gives: ``may_be_all`` where that may be NULL, for everybody."""

    sql: str
    condition: str
    root: str
    may_be_all: bool


class AllRoots:
    """Queries for pairs of row and root."""

    def __init__(self, references: References, skip: bool) -> None:
        self.db = references.db
        self.references = references
        self.settings = references.settings
        self.catalog = references.catalog
        self._columns = SetColumns(Owned(references, User("", None)), skip)  # SQL of no user is asked for
        self.ways = self._columns.ways

    def row(self, table: str, alias: str = "t") -> str:
        """SQL expression: what a row is called. By its key, a JSON array as records write it, or the SHA256 of that where a
        key may tell something of somebody; by its place where it has none."""
        keys = self.catalog.keys[table]
        return '(%s COLLATE "C")' % (self.named_by(table, keys, alias) if keys else identity(alias))

    def named_by(self, table: str, columns: Sequence[str], alias: str = "t") -> str:
        """SQL expression: values of a row as a JSON array, or its SHA256."""
        values = self.catalog.values.get(table, {})
        named = [(name, qualified(alias, name)) for name in columns]
        shown = [kinds.rendered(values[name], sql) if name in values else sql for name, sql in named]
        array = "pg_catalog.json_build_array(%s)::text" % ", ".join(shown)
        if self.shows_keys(table):
            return array
        return "pg_catalog.encode(pg_catalog.sha256(pg_catalog.convert_to(%s, 'UTF8')), 'hex')" % array

    def shows_keys(self, table: str) -> bool:
        """Whether a table's rows have keys that can be shown: numbers, UUIDs and dates."""
        keys = self.catalog.keys[table]
        return bool(keys) and all(self.catalog.column(table, name).kind in TOLD for name in keys)

    def pairs(self, tables: Sequence[str], sizes: Mapping[str, int]) -> Iterator[str]:
        """Queries of JSON arrays: place in ``tables``, row, root (null: everybody's). Of such rows no other root is named.

        ``sizes``: table → rows, of all that are migrated. Several queries each are for a part of the roots, so that
        the server's memory stays flat; of everybody's rows each of them tells.
        """
        needed = self.ways.needed(tables)
        parts = [
            "SELECT %d, m.r, m.root FROM (%s) m%s"
            % (number, self._exported(table), self._not_everybodys(table))
            for number, table in enumerate(tables)
        ]
        query = "SELECT pg_catalog.json_build_array(a.n, a.r, a.root) FROM (%s) a (n, r, root)"
        for after, upto in self._spans(needed, sizes):
            yield self._clause(needed, after, upto) + query % " UNION ALL ".join(parts)

    def _exported(self, table: str) -> str:
        nodes = [node for node in (Node(table), Node(table, True)) if node in self.ways.nodes]
        names = [self._columns.name(node) for node in nodes]
        return " UNION ".join("SELECT r, root FROM " + name for name in names)

    def _not_everybodys(self, table: str) -> str:
        everybodys = [
            "SELECT r FROM %s WHERE root IS NULL" % self._columns.name(node)
            for node in (Node(table), Node(table, True))
            if node in self._may_be_all
        ]
        return (
            " LEFT JOIN (%s) a ON a.r = m.r WHERE m.root IS NULL OR a.r IS NULL" % " UNION ".join(everybodys)
            if everybodys
            else ""
        )

    # Parts of the roots

    def _spans(
        self, needed: Collection[Node], sizes: Mapping[str, int]
    ) -> Iterator[Tuple[Optional[str], Optional[str]]]:
        """Ranges of root texts: one, unless a cycle is to be followed through many rows."""
        cycling = {
            node.table
            for nodes in self.ways.order
            if self._is_cycle(nodes)
            for node in nodes
            if node in needed
        }
        rows = sum(sizes.get(name, 0) for name in cycling)
        parts = rows // PAIRS + 1
        bounds: List[Optional[str]] = [None]
        if parts > 1:
            bounds += [
                text
                for (text,) in self.db.rows(
                    "WITH %s SELECT max(r.text) FROM (SELECT %s, ntile(%d) OVER (ORDER BY %s) FROM roots) r (text, part)"
                    " GROUP BY r.part ORDER BY 1" % (self._roots(None, None), _TEXT, parts, _TEXT)
                )
            ][:-1]
        return zip(bounds, [*bounds[1:], None])

    def _roots(self, after: Optional[str], upto: Optional[str]) -> str:
        root = self.settings.root
        key = qualified("t", root.key)
        text = '(%s::text COLLATE "C")' % key
        conditions = [key + " IS NOT NULL", self._within(root.name, "t")]
        conditions += ["%s OPERATOR(pg_catalog.>) %s" % (text, literal(after))] if after is not None else []
        conditions += ["%s OPERATOR(pg_catalog.<=) %s" % (text, literal(upto))] if upto is not None else []
        return "roots ({}, {}) AS MATERIALIZED (SELECT {}, {} FROM {} t WHERE {})".format(
            _KEY, _TEXT, key, text, self.db.quoted(root.name), conjunction(conditions)
        )

    def _within(self, table: str, alias: str) -> str:
        return within(alias, apart_from(self.settings, self.catalog, table))

    # Sets

    def _clause(self, needed: Collection[Node], after: Optional[str], upto: Optional[str]) -> str:
        made = [self._roots(after, upto)]
        for nodes in self.ways.order:
            if not set(nodes) & set(needed):
                continue
            if self._is_cycle(nodes):
                made += self._cycle(nodes)
            else:
                made.append(self._set(nodes[0]))
        return "WITH RECURSIVE %s " % ", ".join(made)

    def _is_cycle(self, nodes: Sequence[Node]) -> bool:
        return len(nodes) > 1 or any(
            link.node == nodes[0] for branch in self.ways.nodes[nodes[0]] for link in branch.links
        )

    def _set(self, node: Node) -> str:
        rows = [
            self._select(
                node.table,
                sources,
                ", ".join([self.row(node.table), _root_of(sources), *self._kept(node.table)]),
            )
            for branch in self.ways.nodes[node]
            for sources in self._alternatives(node.table, branch)
        ]
        names = ", ".join(["r", "root", *self._names(node.table)])
        if not rows:
            nothing = ", ".join([self.row(node.table), _NOBODY, *self._kept(node.table)])
            rows = [self._select(node.table, [], nothing) + " AND false"]
        return "%s (%s) AS (%s)" % (
            self._columns.name(node),
            names,
            " UNION ".join(rows) if len(rows) > 1 else rows[0].replace("SELECT", "SELECT DISTINCT", 1),
        )

    def _select(self, table: str, sources: Sequence[_Source], columns: str) -> str:
        conditions = [
            self._within(table, "t"),
            *(source.condition for source in sources),
            *_agreeing(sources),
        ]
        return "SELECT {} FROM {} WHERE {}".format(
            columns,
            ", ".join([self.db.quoted(table) + " t", *(source.sql for source in sources if source.sql)]),
            conjunction(conditions),
        )

    def _names(self, table: str) -> List[str]:
        """The columns of a set by which others are linked with it."""
        names = [self._columns.place(table, name) for name in self._columns.kept[table]]
        names += ["w%d" % n for n, key in enumerate(self._columns.whens) if key.table == table]
        return [*names, *(["o"] if table in self._families else [])]

    def _kept(self, table: str) -> List[str]:
        found = [qualified("t", name) for name in self._columns.kept[table]]
        found += ["(%s\n)" % key.when for key in self._columns.whens if key.table == table]
        return [*found, *(["t.tableoid"] if table in self._families else [])]

    @functools.cached_property
    def _families(self) -> Set[str]:
        """Tables of which it counts where a row is. To ask that takes SELECT on the whole table."""
        return {name for key in self.references.source if key.exact for name in (key.table, key.parent)}

    # Ways into a set

    def _alternatives(
        self, table: str, branch: Branch, inner: Sequence[Link] = ()
    ) -> Iterator[List[_Source]]:
        """What has to be joined with the row ``t``: each a way into the set. Links of a cycle, ``inner``, are left to that."""
        found: List[List[_Source]] = [[]]
        number = 0
        for link in branch.links:
            if link not in inner:
                number += 1
                found = [[*sources, self._linked(link, "p%d" % number)] for sources in found]
        for rule in branch.rules:
            number += 1
            found = [
                [*sources, source]
                for sources in found
                for source in self._by_rule(table, rule, "u%d" % number)
            ]
        return iter(found)

    def _by_rule(self, table: str, rule: Ownership, alias: str) -> Iterator[_Source]:
        """The ways in which a rule that asks no other row of the user's holds."""
        everybodys = _Source("", "true", _NOBODY, True)
        if rule.way is Way.SHARED:
            yield everybodys
        elif rule.way is Way.WHERE:
            # apart from other tables, whose columns it could mean
            condition = rule.texts[0].replace("{root}", "roots." + _KEY)
            if condition == rule.texts[0]:
                rows = "SELECT %s FROM %s t WHERE (%s\n)" % (
                    self.row(table),
                    self.db.quoted(table),
                    condition,
                )
                yield everybodys._replace(
                    sql="(%s) %s (r)" % (rows, alias), condition="%s.r = %s" % (alias, self.row(table))
                )
                return
            rows = "SELECT %s, roots.%s FROM %s t, roots WHERE (%s\n)" % (
                self.row(table),
                _TEXT,
                self.db.quoted(table),
                condition,
            )
            same = "%s.r = %s" % (alias, self.row(table))
            yield _Source("(%s) %s (r, root)" % (rows, alias), same, alias + ".root", False)
        else:
            key = self.references.way(self.references.tables[table], rule)
            owner = qualified("t", rule.columns[0])
            is_owner = key.equalities[0].sql("%s.%s" % (alias, _KEY), owner)
            yield _Source("roots " + alias, is_owner, "%s.%s" % (alias, _TEXT), False)
            if rule.or_shared:
                yield everybodys._replace(condition=owner + " IS NULL")

    def _linked(self, link: Link, alias: str) -> _Source:
        """A row of another set with which the row ``t`` is linked."""
        name = self._columns.name(link.node)
        return _Source(
            "%s %s" % (name, alias),
            self._link(link, alias, True),
            alias + ".root",
            link.node in self._may_be_all,
        )

    def _link(self, link: Link, alias: str, is_set: bool) -> str:
        """SQL condition: ``t`` is linked with a row of another set, or of its table."""
        key, other = link.key, link.node.table
        row = functools.partial(qualified, "t")
        when = "EXISTS (SELECT FROM (SELECT %s.*) t WHERE (%s\n))" % (alias, key.when)
        if is_set:
            oid = alias + ".o"
            when = "%s.w%d" % (alias, self._columns.whens.index(key)) if key.when and not link.down else ""

            def linked(column: str) -> str:
                return "%s.%s" % (alias, self._columns.place(other, column))

        else:
            oid = alias + ".tableoid"

            def linked(column: str) -> str:
                return qualified(alias, column)

        if link.down:
            return matches(key, linked, row, oid, "t.tableoid")
        return matches(key, row, linked, "t.tableoid", oid, when if key.when else "")

    @functools.cached_property
    def _may_be_all(self) -> Set[Node]:
        """The sets of which a row may be everybody's."""
        found: Set[Node] = set()
        before = -1
        while len(found) > before:
            before = len(found)
            for node, branches in self.ways.nodes.items():
                if any(
                    all(link.node in found for link in branch.links) and all(map(_may_be_all, branch.rules))
                    for branch in branches
                ):
                    found.add(node)
        return found

    # Cycles

    def _cycle(self, nodes: Sequence[Node]) -> List[str]:
        """Rows that lead to each other: all pairs of rows that are linked, then followed from where a root leads in."""
        starts, edges = [], []
        for number, node in enumerate(nodes):
            for branch in self.ways.nodes[node]:
                inner = self.ways.inner(nodes, branch)
                for sources in self._alternatives(node.table, branch, inner):
                    columns = "%d, %s" % (number, self.row(node.table))
                    root = _root_of(sources)
                    if not inner:
                        starts.append(self._select(node.table, sources, "%s, %s" % (columns, root)))
                        continue
                    (link,) = inner
                    parent = link.node.table
                    linked = _Source(
                        self.db.quoted(parent) + " p",
                        conjunction([self._link(link, "p", False), self._within(parent, "p")]),
                        _NOBODY,
                        False,
                    )
                    columns += ", %d, %s, %s" % (nodes.index(link.node), self.row(parent, "p"), root)
                    edges.append(self._select(node.table, [*sources, linked], columns))
        first = self._columns.name(nodes[0])
        starts.append("SELECT -1, '' COLLATE \"C\", %s WHERE false" % _NOBODY)
        made = [
            "%s_e (n, r, parent_n, parent_r, root) AS MATERIALIZED (%s)" % (first, " UNION ALL ".join(edges)),
            "{0}_g (n, r, root) AS (({1}) UNION SELECT e.n, e.r, coalesce(g.root, e.root) FROM {0}_e e JOIN {0}_g g"
            " ON g.n = e.parent_n AND g.r = e.parent_r WHERE e.root IS NULL OR g.root IS NULL OR g.root = e.root)".format(
                first, " UNION ALL ".join(starts)
            ),
        ]
        for number, node in enumerate(nodes):
            columns = ", ".join(["g.r", "g.root", *self._kept(node.table)])
            made.append(
                "%s (%s) AS (SELECT %s FROM %s_g g JOIN %s t ON %s = g.r WHERE g.n = %d AND %s)"
                % (
                    self._columns.name(node),
                    ", ".join(["r", "root", *self._names(node.table)]),
                    columns,
                    first,
                    self.db.quoted(node.table),
                    self.row(node.table),
                    number,
                    self._within(node.table, "t"),
                )
            )
        return made


def _may_be_all(rule: Ownership) -> bool:
    if rule.way is Way.WHERE:
        return "{root}" not in rule.texts[0]
    return rule.way is Way.SHARED or rule.or_shared


def _root_of(sources: Sequence[_Source]) -> str:
    """SQL expression: the root that several parts name, NULL where each is everybody's."""
    roots = list(dict.fromkeys(source.root for source in sources if source.root != _NOBODY))
    return "coalesce(%s)" % ", ".join(roots) if len(roots) > 1 else roots[0] if roots else _NOBODY


def _agreeing(sources: Sequence[_Source]) -> Iterator[str]:
    """SQL conditions: the parts that all have to hold, hold for one root."""
    named = [source for source in sources if source.root != _NOBODY]
    for number, one in enumerate(named):
        for other in named[number + 1 :]:
            same = "%s = %s" % (one.root, other.root)
            either = ["%s IS NULL" % source.root for source in (one, other) if source.may_be_all]
            yield "(%s)" % " OR ".join([same, *either])
