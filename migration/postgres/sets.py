"""The user's rows as sets: keys and references of the rows of each table, made once for a whole query.

A query is one chain of WITH clauses over the tables that it needs, parents first. Tables that depend on each other in
a cycle are found together by recursion; temporary tables would not go with read-only transactions.
"""

from __future__ import annotations

import functools
from typing import Collection, List, Mapping, Sequence, Tuple

from migration.model import ForeignKey, Ownership, Table, Way
from migration.postgres.ownership import Owned, conjunction, next_alias
from migration.postgres.references import matches
from migration.postgres.set_columns import SetColumns, identity
from migration.postgres.ways import Branch, Link, Node
from migration.sql import literal, qualified

MANY = "json_each('{}')"  # no rows, of which the planner expects a hundred
# No rows either, of which it expects many more: among the starts of a recursion, so that it hashes the edges once.
MORE = "(SELECT json_each('{}') FROM %s) j" % MANY


class Sets(SetColumns):
    """WITH clauses for one user's rows.

    ``skip``: no row is brought, as every reference that leaves the export leaves its row out. ``left_out``: table →
    rows (``identity``) that are left out.
    """

    def __init__(self, owned: Owned, skip: bool = False, left_out: Mapping[str, Sequence[str]] = {}) -> None:
        super().__init__(owned, skip)
        self.left_out = left_out

    # Conditions on a row ``t`` of a table

    def condition(self, table: Table) -> str:
        """SQL condition on alias ``t``: the row is exported."""
        if not self.ways.is_plain(table.name):
            return "%s AND %s" % (self.owned.within(table.name, "t"), self._contains(table.name))
        owned = self.owned.owned(table)
        if table.name not in self.left_out:
            return owned
        return "%s AND NOT %s" % (owned, among(self.left_out[table.name], identity("t")))

    def needs_hashing(self, table: str) -> bool:
        """Whether the table's query looks for a cycle of several references, which hash joins alone find in linear time."""
        needed = self.ways.needed([table])
        return any(
            set(nodes) & needed and self.ways.is_cycle(nodes) and not self.ways.recursive_branch(nodes)
            for nodes in self.ways.order
        )

    def _contains(self, name: str) -> str:
        """The planner makes a semi-join of it, as it stands for itself among conditions that are all to hold."""
        return "EXISTS (SELECT FROM (%sSELECT * FROM %s) m WHERE %s)" % (
            self.clause([name]),
            self.exported(name),
            self.is_same(name, "m", "t"),
        )

    def dangling_from(self, key: ForeignKey) -> str:
        """FROM clause: rows ``t`` of a set whose reference leads to no exported row."""
        return "{} t WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {})".format(
            self.exported(key.table), self.refers(key), self.exported(key.parent), self.joined(key)
        )

    def not_exported(self, table: Table) -> str:
        """SQL condition on alias ``t``, within a clause of the table's set."""
        if self.ways.is_plain(table.name):
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

    # Clauses

    def clause(self, tables: Collection[str], identities: bool = False) -> str:
        """WITH clause of the sets of these tables and of those that they belong to.

        The planner is made to expect some rows in each: of one row, which it may expect where a user is newer than
        its statistics, it would look through the others once for each that is there.
        ``identities``: with column ``r`` in all of them. Reading it takes SELECT on the whole table, not on its columns.
        """
        needed, made = self.ways.needed(tables), []
        for nodes in self.ways.order:
            wanted = [node for node in nodes if node in needed]
            if not wanted:
                continue
            if not self.ways.is_cycle(nodes):
                (node,) = nodes
                made.append(self._set(node, identities))
            elif self.ways.recursive_branch(nodes):
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
            rows = [self._by(node, identities, branch) for branch in self.ways.nodes[node]]
        return "%s AS (%s)" % (self.name(node), self._union(node, identities, rows))

    def _by(self, node: Node, identities: bool, branch: Branch) -> str:
        """The rows that come into a set by one way, whose links lead from sets that are made before."""
        conditions = [*branch.conditions, *map(self._exists, branch.links), *self._apart(node)]
        return self._select(node, identities, conditions)

    def _union(self, node: Node, identities: bool, rows: Sequence[str]) -> str:
        """Queries as one, of which the planner expects some rows."""
        if not rows:
            return self._select(node, identities, ["false"])
        return "%s UNION ALL %s" % (" UNION ".join(rows), self._nothing(node, identities))

    def _apart(self, node: Node) -> List[str]:
        """A row that is the user's is not brought."""
        if not node.brought or any({node, Node(node.table)} <= set(nodes) for nodes in self.ways.order):
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
        columns = [(self.place(table, name), qualified("t", name)) for name in self.kept[table]]
        columns += [
            ("w%d" % number, "(%s\n)" % key.when)
            for number, key in enumerate(self.whens)
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

    def _exists(self, link: Link) -> str:
        return "EXISTS (SELECT FROM %s p WHERE %s)" % (self.name(link.node), self._linked(link))

    def _linked(self, link: Link) -> str:
        """SQL condition: row ``t`` of a table is linked with row ``p`` of a set."""
        if link.down:
            return self.named_by(link.key)
        return self.names(link.key)

    # Cycles

    def _tree(self, node: Node, identities: bool) -> str:
        """Rows under, or above, rows of the same table: found level by level, by an index where there is one."""
        (inner,) = self.ways.recursive_branch([node])
        ((link,), others) = (
            self.ways.inner([node], inner),
            [link for link in inner.links if link.node != node],
        )
        first = [self._by(node, identities, branch) for branch in self.ways.nodes[node] if branch != inner]
        conditions = [self._linked(link), *inner.conditions, *map(self._exists, others), *self._apart(node)]
        return "%s AS ((%s) UNION %s)" % (
            self.name(node),
            self._union(node, identities, first),
            self._select(node, identities, conditions, source="%s p, " % self.name(node)),
        )

    def _cycle(self, nodes: Sequence[Node], identities: bool) -> List[str]:
        """Rows of several tables that lead to each other, by their places: each joined with each once, then followed."""
        starts, edges = [], []
        for number, node in enumerate(nodes):
            for branch in self.ways.nodes[node]:
                inner = self.ways.inner(nodes, branch)
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
        starts.append("SELECT 0, '' FROM " + MORE)
        first = self.name(nodes[0])
        place = "%s IN (SELECT g.r FROM %s_g g WHERE g.n = %%d)" % (identity("t"), first)
        return [
            "%s_e (n, r, parent_n, parent_r) AS MATERIALIZED (%s)" % (first, " UNION ALL ".join(edges)),
            "%s_g (n, r) AS ((%s) UNION SELECT e.n, e.r FROM %s_e e JOIN %s_g g ON g.n = e.parent_n AND g.r = e.parent_r)"
            % (first, " UNION ALL ".join(starts), first, first),
            *(
                "%s AS (%s)"
                % (
                    self.name(node),
                    self._union(node, identities, [self._select(node, identities, [place % number])]),
                )
                for number, node in enumerate(nodes)
            ),
        ]

    def _joins(self, link: Link) -> str:
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

    def own_rows(self, name: str) -> Tuple[str, str]:
        """A set with a table's rows that are the user's own, and SQL of which of its rows ``p`` these are: not shared with others."""
        node = self.ways.own(name)
        return self.name(node), self._is_own(self.tables[name], "p")

    def _is_own(self, table: Table, alias: str) -> str:
        """SQL condition on a row of a set, of those that come along aside."""
        rule = table.ownership
        if rule.way is Way.SHARED or any(part.or_referenced for part in rule.parts):
            return "false"
        if rule.comes_along:
            rest = [part for part in rule.parts if part.way is not Way.REFERENCED]
            is_own = rule.way is Way.ANY and all(self._is_nobody_elses(table.name, part) for part in rest)
            return "true" if is_own else "false"
        if rule.way in (Way.ANY, Way.ALL):
            return "true" if all(self._is_nobody_elses(table.name, part) for part in rule.parts) else "false"
        way = self._ways[table.name]
        if rule.or_shared and way is not None:
            return "%s.%s IS NOT NULL" % (alias, self.place(table.name, way.columns[0]))
        if rule.way is not Way.CHILD or not self.owned.is_plain(table.name) or way is None:
            return "true"
        parent = next_alias(alias)
        own = self._is_own(self.tables[way.parent], parent)
        if own in ("true", "false"):
            return own
        return "EXISTS (SELECT FROM {} {} WHERE {} AND {})".format(
            self.name(Node(way.parent)), parent, self.joined(way, parent, alias), own
        )

    def _is_nobody_elses(self, table: str, part: Ownership) -> bool:
        """Whether rows that are the user's by this part of a table's ownership are never everybody's."""
        waiting, seen = [part], {table}
        for one in waiting:
            if one.or_shared or one.way in (Way.SHARED, Way.REFERENCED):
                return False
            if one.parent is not None and one.parent not in seen:
                seen.add(one.parent)
                waiting += self.tables[one.parent].ownership.parts
        return True


def among(rows: Sequence[str], row: str) -> str:
    """SQL condition: an identity is one of many."""
    listed = literal(" ".join(rows))
    return "EXISTS (SELECT FROM unnest(string_to_array(%s, ' ')) b (r) WHERE b.r = %s)" % (listed, row)
