"""The user's rows as sets: keys and references of the rows of each table, made once for a whole query.

A query is one chain of WITH clauses over the tables that it needs, parents first. Tables that depend on each other in
a cycle are found together by recursion; temporary tables would not go with read-only transactions.
"""

from __future__ import annotations

import functools
import itertools
from typing import Callable, Collection, Dict, List, Mapping, NamedTuple, Sequence, Set, Tuple

from migration.errors import UsageError
from migration.model import Equality, ForeignKey, Ownership, Table, Way
from migration.postgres.cycles import components
from migration.postgres.ownership import Owned, conjunction
from migration.postgres.references import matches, present
from migration.sql import literal, qualified

MANY = "json_each('{}')"  # no rows, of which the planner expects a hundred


class Node(NamedTuple):
    """A set: the rows of a table that are the user's, or those that are brought."""

    table: str
    brought: bool = False


class _Link(NamedTuple):
    """A reference that leads to a row from a row of another set; ``down``: from the parent to the row that names it."""

    node: Node
    key: ForeignKey
    down: bool


class _Branch(NamedTuple):
    """One way into a set: conditions on the row ``t`` itself, and links from other sets, each of which has to be there."""

    conditions: Tuple[str, ...]
    links: Tuple[_Link, ...]


class Sets:
    """WITH clauses for one user's rows.

    ``skip``: no row is brought, as every reference that leaves the export leaves its row out. ``left_out``: table →
    rows (``identity``) that are left out.
    """

    def __init__(self, owned: Owned, skip: bool = False, left_out: Mapping[str, Sequence[str]] = {}) -> None:
        self.owned = owned
        self.references = owned.references
        self.catalog = owned.catalog
        self.tables = owned.tables
        self.left_out = left_out
        self._skip = skip
        self._ways = owned.references.ways
        self._numbers = {name: number for number, name in enumerate(self.tables)}
        self._equalities: Dict[Tuple[str, str], Equality] = {}
        self._whens = [key for key in self.references.exported if key.when]

    # Conditions on a row ``t`` of a table

    def condition(self, table: Table) -> str:
        """SQL condition on alias ``t``: the row is exported."""
        if not self.is_plain(table.name):
            return "%s AND %s" % (self.owned.within(table.name, "t"), self._contains(table.name))
        owned = self.owned.owned(table)
        if table.name not in self.left_out:
            return owned
        return "%s AND NOT %s" % (owned, among(self.left_out[table.name], identity("t")))

    def is_plain(self, name: str) -> bool:
        """Whether rows are exported by a condition that needs no set."""
        return self.owned.is_plain(name) and Node(name, True) not in self.nodes

    def needs_hashing(self, table: str) -> bool:
        """Whether the table's query looks for a cycle of several references, which hash joins alone find in linear time."""
        needed = self._needed([table])
        return any(
            set(nodes) & needed and self._is_cycle(nodes) and not self._recursive_branch(nodes)
            for nodes in self._order
        )

    def _contains(self, name: str) -> str:
        """The planner makes a semi-join of it, as it stands for itself among conditions that are all to hold."""
        return "EXISTS (SELECT FROM (%sSELECT * FROM %s) m WHERE %s)" % (
            self.clause([name]),
            self.exported(name),
            self.is_same(name, "m", "t"),
        )

    def is_same(self, name: str, member: str, row: str) -> str:
        """SQL condition: a row of a set is the row of the table."""
        key = self.catalog.keys[name]
        if not key:
            return "%s.r = %s" % (member, identity(row))
        return " AND ".join(
            self._key_equality(name, column).sql(
                "%s.%s" % (member, self.place(name, column)), qualified(row, column)
            )
            for column in key
        )

    def _key_equality(self, name: str, column: str) -> Equality:
        if (name, column) not in self._equalities:
            known = self.catalog.column(name, column)
            self._equalities[name, column] = self.owned.db.equality(known, known)
        return self._equalities[name, column]

    def not_exported(self, table: Table) -> str:
        """SQL condition on alias ``t``, within a clause of the table's set."""
        if self.is_plain(table.name):
            return "(%s) IS NOT TRUE" % self._member(table)
        return "NOT EXISTS (SELECT FROM %s m WHERE %s)" % (
            self.exported(table.name),
            self.is_same(table.name, "m", "t"),
        )

    def _member(self, table: Table) -> str:
        """As ``owned``, on alias ``t``, by the set of the table's parent."""
        if table.ownership.way is not Way.CHILD:
            return self.owned.by_itself(table, table.ownership)
        return self._from_parent(self._way(table.name))

    def _from_parent(self, way: ForeignKey) -> str:
        return "EXISTS (SELECT FROM {} p WHERE {})".format(self.name(Node(way.parent)), self.named_by(way))

    def _way(self, name: str) -> ForeignKey:
        way = self._ways[name]
        assert way is not None
        return way

    # What a set depends on

    @functools.cached_property
    def nodes(self) -> Dict[Node, List[_Branch]]:
        """Every set, and the ways into it."""
        brought: Dict[Node, None] = {}
        waiting = (
            [] if self._skip else [key for key in self.references.exported if self._leaving(key) == "bring"]
        )
        while waiting:
            parent = Node(waiting.pop().parent, True)
            if parent not in brought and self._can_bring(parent.table):
                brought[parent] = None
                waiting += [key for key in self._references_of(parent.table) if self._follows(key)]
        made: Dict[Node, List[_Branch]] = {}
        for name in self.tables:
            made[Node(name)] = self._branches(name, brought)
        for node in brought:
            made[node] = self._brings(node.table, brought)
        return made

    def _references_of(self, table: str) -> List[ForeignKey]:
        return [key for key in self.references.exported if key.table == table]

    def _leaving(self, key: ForeignKey) -> str:
        return "skip" if self._skip else self.references.leaving(key)

    def _follows(self, key: ForeignKey) -> bool:
        """Whether a reference of a row that is brought brings a row in its turn: by default, as the row needs it."""
        return self._leaving(key) in ("bring", "stop")

    def _can_bring(self, name: str) -> bool:
        table = self.tables[name]
        return table.becomes is None and table.ownership.way not in (Way.SHARED, Way.REFERENCED)

    def _branches(self, name: str, brought: Collection[Node]) -> List[_Branch]:
        table, found = self.tables[name], []
        for ways in _alternatives(table.ownership):
            if any(way.way is Way.REFERENCED for way in ways):
                found += [
                    _Branch((), (_Link(node, key, False),))
                    for key in self.references.exported
                    if key.parent == name
                    for node in (Node(key.table), Node(key.table, True))
                    if not node.brought or node in brought
                ]
                continue
            conditions = [self.owned.by_itself(table, way) for way in ways if way.way is not Way.CHILD]
            links = [
                _Link(Node(key.parent), key, True)
                for way in ways
                if way.way is Way.CHILD
                for key in [self.references.way(table, way)]
            ]
            found.append(_Branch(tuple(conditions), tuple(links)))
        return found

    def _brings(self, name: str, brought: Collection[Node]) -> List[_Branch]:
        found = []
        for key in self.references.exported:
            if key.parent == name:
                if self._leaving(key) == "bring":
                    found.append(_Branch((), (_Link(Node(key.table), key, False),)))
                if Node(key.table, True) in brought and self._follows(key):
                    found.append(_Branch((), (_Link(Node(key.table, True), key, False),)))
        return found

    @functools.cached_property
    def _dependencies(self) -> Mapping[Node, List[Node]]:
        found = {}
        for node, branches in self.nodes.items():
            if not node.brought and self.owned.is_plain(node.table):
                way = self._ways[node.table]
                is_child = self.tables[node.table].ownership.way is Way.CHILD
                found[node] = [Node(way.parent)] if is_child and way is not None else []
            else:
                found[node] = [link.node for branch in branches for link in branch.links]
                found[node] += [Node(node.table)] * node.brought  # a row that is the user's is not brought
        return found

    @functools.cached_property
    def _order(self) -> List[List[Node]]:
        """The sets, each after those that it depends on; those that depend on each other together."""
        return components(self._dependencies)

    def _needed(self, tables: Collection[str]) -> Set[Node]:
        needed: Set[Node] = set()
        waiting = [node for node in self.nodes if node.table in tables]
        while waiting:
            node = waiting.pop()
            if node not in needed:
                needed.add(node)
                waiting += self._dependencies[node]
        return needed

    # Clauses

    def clause(self, tables: Collection[str], identities: bool = False) -> str:
        """WITH clause of the sets of these tables and of those that they belong to.

        The planner is made to expect some rows in each: of one row, which it may expect where a user is newer than
        its statistics, it would look through the others once for each that is there.
        ``identities``: with column ``r`` in all of them. Reading it takes SELECT on the whole table, not on its columns.
        """
        needed, made = self._needed(tables), []
        for nodes in self._order:
            wanted = [node for node in nodes if node in needed]
            if not wanted:
                continue
            if not self._is_cycle(nodes):
                (node,) = nodes
                made.append(self._set(node, identities))
            elif self._recursive_branch(nodes):
                made.append(self._tree(nodes[0], identities))
            else:
                made += self._cycle(nodes, identities)
            made += [
                "%s AS (SELECT * FROM %s UNION SELECT * FROM %s)"
                % (self.exported(node.table), self.name(Node(node.table)), self.name(node))
                for node in nodes
                if node.brought
            ]
        return "WITH RECURSIVE %s " % ", ".join(made)

    def _set(self, node: Node, identities: bool) -> str:
        if not node.brought and self.owned.is_plain(node.table):
            conditions = [self._member(self.tables[node.table])]
            rows = [self._select(node, identities, conditions)]
        else:
            rows = [
                self._select(
                    node,
                    identities,
                    [*branch.conditions, *map(self._exists, branch.links), *self._apart(node)],
                )
                for branch in self.nodes[node]
            ]
        return "%s AS (%s%s)" % (
            self.name(node),
            "".join(" UNION ".join(rows) + " UNION ALL " if rows else ""),
            self._nothing(node, identities),
        )

    def _apart(self, node: Node) -> List[str]:
        """A row that is the user's is not brought."""
        if not node.brought or any({node, Node(node.table)} <= set(nodes) for nodes in self._order):
            return []
        mine = self.name(Node(node.table))
        return ["NOT EXISTS (SELECT FROM %s m WHERE %s)" % (mine, self.is_same(node.table, "m", "t"))]

    def _select(self, node: Node, identities: bool, conditions: Sequence[str], source: str = "") -> str:
        table = node.table
        columns = [expression + " AS " + name for name, expression in self._columns_of(table, identities)]
        return "SELECT %s FROM %s%s t WHERE %s" % (
            ", ".join(columns) or "1",
            source,
            self.owned.db.quoted(table),
            conjunction([self.owned.within(table, "t"), *conditions, *self._kept_in(node)]),
        )

    def _kept_in(self, node: Node) -> List[str]:
        rows = self.left_out.get(node.table)
        return ["NOT " + among(rows, identity("t"))] if rows else []

    def _nothing(self, node: Node, identities: bool) -> str:
        names = [name for name, _ in self._columns_of(node.table, identities)]
        return "SELECT %s FROM %s" % (", ".join(["NULL"] * len(names)) or "1", MANY)

    def _columns_of(self, table: str, identities: bool) -> List[Tuple[str, str]]:
        """The columns of a set, and what they are made of."""
        columns = [(self.place(table, name), qualified("t", name)) for name in self._kept[table]]
        columns += [
            ("w%d" % number, "(%s\n)" % key.when)
            for number, key in enumerate(self._whens)
            if key.table == table
        ]
        if identities or not self.catalog.keys[table]:
            columns.append(("r", identity("t")))
        if table in self._families:
            columns.append(("o", "t.tableoid"))
        return columns

    @functools.cached_property
    def _families(self) -> Collection[str]:
        return {name for key in self.references.source if key.exact for name in (key.table, key.parent)}

    def _exists(self, link: _Link) -> str:
        return "EXISTS (SELECT FROM %s p WHERE %s)" % (self.name(link.node), self._linked(link))

    def _linked(self, link: _Link) -> str:
        """SQL condition: row ``t`` of a table is linked with row ``p`` of a set."""
        if link.down:
            return self.named_by(link.key)
        return self._names(link.key)

    # Cycles

    def _is_cycle(self, nodes: Sequence[Node]) -> bool:
        return len(nodes) > 1 or nodes[0] in self._dependencies[nodes[0]]

    def _inner(self, nodes: Sequence[Node], branch: _Branch) -> List[_Link]:
        """The links of a way that stay in a cycle. Raises MigrationError (exit 2) where there are several."""
        inner = [link for link in branch.links if link.node in nodes]
        if len(inner) > 1:
            raise UsageError(
                "config.TABLES, %s: all_of has two ways that depend on each other's rows"
                % inner[0].key.table,
                "let one of them be a where(…) or owned_by(…), or name one parent alone",
            )
        return inner

    def _recursive_branch(self, nodes: Sequence[Node]) -> List[_Branch]:
        """The one way by which a table refers to itself, where there is no other cycle with it."""
        if len(nodes) > 1:
            return []
        inner = [branch for branch in self.nodes[nodes[0]] if self._inner(nodes, branch)]
        return inner if len(inner) == 1 else []

    def _tree(self, node: Node, identities: bool) -> str:
        """Rows under, or above, rows of the same table: found level by level, by an index where there is one."""
        (inner,) = self._recursive_branch([node])
        ((link,), others) = self._inner([node], inner), [link for link in inner.links if link.node != node]
        first = [
            self._select(
                node, identities, [*branch.conditions, *map(self._exists, branch.links), *self._apart(node)]
            )
            for branch in self.nodes[node]
            if branch != inner
        ]
        conditions = [self._linked(link), *inner.conditions, *map(self._exists, others), *self._apart(node)]
        return "%s AS ((%s) UNION %s)" % (
            self.name(node),
            " UNION ALL ".join(
                [" UNION ".join(first), self._nothing(node, identities)]
                if first
                else [self._nothing(node, identities)]
            ),
            self._select(node, identities, conditions, source="%s p, " % self.name(node)),
        )

    def _cycle(self, nodes: Sequence[Node], identities: bool) -> List[str]:
        """Rows of several tables that lead to each other, by their places: each joined with each once, then followed."""
        starts, edges = [], []
        for number, node in enumerate(nodes):
            for branch in self.nodes[node]:
                inner = self._inner(nodes, branch)
                conditions = [
                    self.owned.within(node.table, "t"),
                    *branch.conditions,
                    *(self._exists(link) for link in branch.links if link not in inner),
                    *self._apart(node),
                    *self._kept_in(node),
                ]
                if not inner:
                    starts.append(
                        "SELECT %d, %s FROM %s t WHERE %s"
                        % (number, identity("t"), self.owned.db.quoted(node.table), conjunction(conditions))
                    )
                for link in inner:
                    edges.append(
                        "SELECT %d, unnest(a.r), %d, unnest(a.p) FROM (SELECT array_agg(%s), array_agg(%s)"
                        " FROM %s t JOIN %s p ON %s WHERE %s) a (r, p)"
                        % (
                            number,
                            nodes.index(link.node),
                            identity("t"),
                            identity("p"),
                            self.owned.db.quoted(node.table),
                            self.owned.db.quoted(link.node.table),
                            self._joins(link),
                            conjunction([*conditions, self.owned.within(link.node.table, "p")]),
                        )
                    )
        # Make the planner expect few edges and many rows, so that it hashes the edges once.
        starts.append("SELECT 0, '' FROM (SELECT json_each('{}') FROM %s) j" % MANY)
        first = self.name(nodes[0])
        return [
            "%s_e (n, r, parent_n, parent_r) AS MATERIALIZED (%s)" % (first, " UNION ALL ".join(edges)),
            "%s_g (n, r) AS ((%s) UNION SELECT e.n, e.r FROM %s_e e JOIN %s_g g ON g.n = e.parent_n AND g.r = e.parent_r)"
            % (first, " UNION ALL ".join(starts), first, first),
            *(
                "%s AS (%s UNION ALL %s)"
                % (
                    self.name(node),
                    self._select(
                        node,
                        identities,
                        ["%s IN (SELECT g.r FROM %s_g g WHERE g.n = %d)" % (identity("t"), first, number)],
                    ),
                    self._nothing(node, identities),
                )
                for number, node in enumerate(nodes)
            ),
        ]

    def _joins(self, link: _Link) -> str:
        """SQL condition: rows ``t`` and ``p`` of two tables are linked."""
        parent, child = ("p", "t") if link.down else ("t", "p")
        key = link.key
        when = key.when if child == "t" else "EXISTS (SELECT FROM (SELECT p.*) t WHERE (%s\n))" % key.when
        return matches(
            key,
            functools.partial(qualified, parent),
            functools.partial(qualified, child),
            parent + ".tableoid",
            child + ".tableoid",
            when,
        )

    # Names

    def number(self, table: str) -> int:
        return self._numbers[table]

    def name(self, node: Node) -> str:
        return "%s%d" % ("b" if node.brought else "s", self.number(node.table))

    def exported(self, table: str) -> str:
        """The name of the set of all rows of a table that are exported."""
        return ("x%d" if Node(table, True) in self.nodes else "s%d") % self.number(table)

    def place(self, table: str, column: str) -> str:
        """A column's name in a set: none that a table's column could have beside it."""
        return "c%d" % [known.name for known in self.catalog.columns[table]].index(column)

    def columns(self, table: str) -> Callable[[str], str]:
        return lambda column: "t." + self.place(table, column)

    @functools.cached_property
    def _kept(self) -> Mapping[str, List[str]]:
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
        return "%s.w%d" % (alias, self._whens.index(key)) if key.when else ""

    def named_by(self, key: ForeignKey) -> str:
        """SQL condition: row ``p`` of a set is referred to by row ``t`` of a table."""
        return matches(
            key,
            lambda column: "p." + self.place(key.parent, column),
            functools.partial(qualified, "t"),
            "p.o",
            "t.tableoid",
        )

    def _names(self, key: ForeignKey) -> str:
        """SQL condition: row ``p`` of a set refers to row ``t`` of a table."""
        return matches(
            key,
            functools.partial(qualified, "t"),
            lambda column: "p." + self.place(key.table, column),
            "t.tableoid",
            "p.o",
            self._when(key, "p"),
        )

    def is_own(self, table: Table, alias: str) -> str:
        """SQL condition on a row of a set: it is the user's own, and not shared with others."""
        rule = table.ownership
        if rule.way is Way.SHARED or any(part.way is Way.REFERENCED for part in rule.parts):
            return "false"
        way = self._ways[table.name]
        if rule.or_shared and way is not None:
            return "%s.%s IS NOT NULL" % (alias, self.place(table.name, way.columns[0]))
        if rule.way is not Way.CHILD or not self.owned.is_plain(table.name) or way is None:
            return "true"
        parent = "%s%d" % (alias[0], int(alias[1:] or 0) + 1)
        own = self.is_own(self.tables[way.parent], parent)
        if own in ("true", "false"):
            return own
        return "EXISTS (SELECT FROM {} {} WHERE {} AND {})".format(
            self.name(Node(way.parent)), parent, self.joined(way, parent, alias), own
        )


def _alternatives(rule: Ownership) -> List[Tuple[Ownership, ...]]:
    """The ways of which one has to hold, each as the parts that all have to."""
    if rule.way is Way.ANY:
        return [ways for part in rule.ways for ways in _alternatives(part)]
    if rule.way is Way.ALL:
        return [
            tuple(itertools.chain(*chosen)) for chosen in itertools.product(*map(_alternatives, rule.ways))
        ]
    return [(rule,)]


def among(rows: Sequence[str], row: str) -> str:
    """SQL condition: an identity is one of many."""
    listed = literal(" ".join(rows))
    return "EXISTS (SELECT FROM unnest(string_to_array(%s, ' ')) b (r) WHERE b.r = %s)" % (listed, row)


def identity(alias: str) -> str:
    """SQL expression: what tells a row apart from all others under a snapshot, in partitions too."""
    return "concat({0}.tableoid, {0}.ctid)".format(alias)
