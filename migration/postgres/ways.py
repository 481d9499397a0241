"""What the set of a table's rows depends on: the ways into it, from the row itself and from the rows of other sets."""

from __future__ import annotations

import functools
import itertools
from typing import Collection, Dict, List, Mapping, NamedTuple, Sequence, Set, Tuple

from migration.errors import UsageError
from migration.model import ForeignKey, Ownership, Way
from migration.postgres.cycles import components
from migration.postgres.ownership import Owned


class Node(NamedTuple):
    """A set of rows of a table: those of the user with those that come along by ``referenced()``, or a part of them.

    ``own``: without those that come along. ``brought``: instead of these, those that are brought.
    """

    table: str
    brought: bool = False
    own: bool = False


class Link(NamedTuple):
    """A reference that leads to a row from a row of another set; ``down``: from the parent to the row that names it."""

    node: Node
    key: ForeignKey
    down: bool


class Branch(NamedTuple):
    """One way into a set: conditions on the row ``t`` itself, and links from other sets, each of which has to be there.

    ``rules``: what the conditions are made of.
    """

    conditions: Tuple[str, ...]
    links: Tuple[Link, ...]
    rules: Tuple[Ownership, ...] = ()


class Ways:
    """The sets of one user's rows, and the ways into each.

    ``skip``: no row is brought, as every reference that leaves the export leaves its row out.
    """

    def __init__(self, owned: Owned, skip: bool) -> None:
        self.owned = owned
        self.references = owned.references
        self.tables = owned.tables
        self.skip = skip
        self._ways = owned.references.ways

    def is_plain(self, name: str) -> bool:
        """Whether rows are exported by a condition that needs no set."""
        return self.owned.is_plain(name) and Node(name, True) not in self.nodes

    @functools.cached_property
    def nodes(self) -> Dict[Node, List[Branch]]:
        """Every set, and the ways into it."""
        brought: Dict[Node, None] = {}
        waiting = (
            [] if self.skip else [key for key in self.references.exported if self.leaving(key) == "bring"]
        )
        while waiting:
            parent = Node(waiting.pop().parent, True)
            if parent not in brought and self._can_bring(parent.table):
                brought[parent] = None
                waiting += [key for key in self._references_of(parent.table) if self._follows(key)]
        made: Dict[Node, List[Branch]] = {}
        for name, table in self.tables.items():
            made[Node(name)] = self._branches(name, brought)
            if self.own(name) != Node(name):
                made[self.own(name)] = [
                    self._branch(name, ways)
                    for ways in _alternatives(table.ownership)
                    if not _come_along(ways)
                ]
        for node in brought:
            made[node] = self._brings(node.table, brought)
        return made

    def own(self, table: str) -> Node:
        """The rows of a table that are the user's."""
        return Node(table, own=self.tables[table].ownership.comes_along)

    def _references_of(self, table: str) -> List[ForeignKey]:
        return [key for key in self.references.exported if key.table == table]

    def leaving(self, key: ForeignKey) -> str:
        return "skip" if self.skip else self.references.leaving(key)

    def _follows(self, key: ForeignKey) -> bool:
        """Whether a reference of a row that is brought brings a row in its turn: by default, as the row needs it.

        Not the row of another root, which may hold an address or a password: that has to be declared.
        """
        leaving = self.leaving(key)
        return leaving == "bring" or (leaving == "stop" and key.parent != self.owned.settings.root.name)

    def _can_bring(self, name: str) -> bool:
        table = self.tables[name]
        return table.becomes is None and table.ownership.way not in (Way.SHARED, Way.REFERENCED)

    def _branches(self, name: str, brought: Collection[Node]) -> List[Branch]:
        found = []
        for ways in _alternatives(self.tables[name].ownership):
            if _come_along(ways):
                found += [
                    Branch((), (Link(node, key, False),))
                    for key in self.references.exported
                    if key.parent == name
                    for node in (Node(key.table), Node(key.table, True))
                    if not node.brought or node in brought
                ]
            else:
                found.append(self._branch(name, ways))
        return found

    def _branch(self, name: str, ways: Sequence[Ownership]) -> Branch:
        table = self.tables[name]
        rules = tuple(way for way in ways if way.way is not Way.CHILD)
        conditions = [self.owned.by_itself(table, rule) for rule in rules]
        links = [
            Link(Node(key.parent) if way.or_referenced else self.own(key.parent), key, True)
            for way in ways
            if way.way is Way.CHILD
            for key in [self.references.way(table, way)]
        ]
        return Branch(tuple(conditions), tuple(links), rules)

    def _brings(self, name: str, brought: Collection[Node]) -> List[Branch]:
        found = []
        for key in self.references.exported:
            if key.parent == name:
                if self.leaving(key) == "bring":
                    found.append(Branch((), (Link(Node(key.table), key, False),)))
                if Node(key.table, True) in brought and self._follows(key):
                    found.append(Branch((), (Link(Node(key.table, True), key, False),)))
        return found

    @functools.cached_property
    def dependencies(self) -> Mapping[Node, List[Node]]:
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
    def order(self) -> List[List[Node]]:
        """The sets, each after those that it depends on; those that depend on each other together."""
        return components(self.dependencies)

    def needed(self, tables: Collection[str]) -> Set[Node]:
        needed: Set[Node] = set()
        waiting = [node for node in self.nodes if node.table in tables]
        while waiting:
            node = waiting.pop()
            if node not in needed:
                needed.add(node)
                waiting += self.dependencies[node]
        return needed

    def is_cycle(self, nodes: Sequence[Node]) -> bool:
        return len(nodes) > 1 or nodes[0] in self.dependencies[nodes[0]]

    def inner(self, nodes: Sequence[Node], branch: Branch) -> List[Link]:
        """The links of a way that stay in a cycle. Raises MigrationError (exit 2) where there are several."""
        inner = [link for link in branch.links if link.node in nodes]
        if len(inner) > 1:
            raise UsageError(
                "config.TABLES, %s: all_of has two ways that depend on each other's rows"
                % inner[0].key.table,
                "let one of them be a where(…) or owned_by(…), or name one parent alone",
            )
        return inner

    def recursive_branch(self, nodes: Sequence[Node]) -> List[Branch]:
        """The one way by which a table refers to itself, where there is no other cycle with it."""
        if len(nodes) > 1:
            return []
        inner = [branch for branch in self.nodes[nodes[0]] if self.inner(nodes, branch)]
        return inner if len(inner) == 1 else []


def _come_along(ways: Sequence[Ownership]) -> bool:
    return any(way.way is Way.REFERENCED for way in ways)


def _alternatives(rule: Ownership) -> List[Tuple[Ownership, ...]]:
    """The ways of which one has to hold, each as the parts that all have to."""
    if rule.way is Way.ANY:
        return [ways for part in rule.ways for ways in _alternatives(part)]
    if rule.way is Way.ALL:
        return [
            tuple(itertools.chain(*chosen)) for chosen in itertools.product(*map(_alternatives, rule.ways))
        ]
    return [(rule,)]
