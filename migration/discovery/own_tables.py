"""Tables with a way to the root: by which their rows belong."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence

from migration.discovery.belonging import Ways
from migration.discovery.classed import Classed
from migration.discovery.entries import BY_VALUES, OR_ELSEWHERE, Entries, asked, with_shared
from migration.discovery.references import Guess, Link
from migration.discovery.words import listed, written
from migration.model import Ownership, all_of, any_of, owned_by, shared
from migration.printing import counted


class OwnTables(Entries):
    """Entries of tables that lead to the root."""

    def _ways(self, table: str) -> Dict[Ownership, Link]:
        """The ways by which a table's rows may belong, over tables that are decided: not null first, then direct."""
        decided = self.belonging.decided
        links = [
            link
            for link in self.links
            if link.key.table == table and link.key.parent in decided and link.key.parent != table
        ]
        links.sort(
            key=lambda link: (
                link.optional,
                link.key.parent != self.root.name,
                self.levels[link.key.parent],
            )
        )
        found: Dict[Ownership, Link] = {}
        for link in links:
            found.setdefault(self._way(link), link)
        return found

    def _owned(self, table: str) -> Classed:
        ways = self._ways(table)
        guess = self.uncertain.get(table)
        if guess is not None:
            return self._uncertain(table, guess, next(iter(ways)))
        if self._is_join_table(table, list(ways.values())):
            ends = [way for way, link in ways.items() if not link.optional]
            why = "joins rows of %s: a root's where all its ends are" % listed(
                way.parent or "" for way in ends
            )
            return self._classed(table, all_of(*ends), [why], None)
        needs_look = len(ways) > 1 or any(link.optional for link in ways.values())
        if table in self.source.empty or not needs_look:
            way, link = next(iter(ways.items()))
            made = self._classed(table, way, [self._reason(table, link), *self._unproved(table, ways)], None)
            return self._beside(made)
        found = self.belonging.compare(table, list(ways), self._ends(ways))
        if found.differ:
            return self._disagreeing(table, ways, found)
        return self._beside(self._agreeing(table, ways, found))

    def _mostly(self, table: str) -> List[Guess]:
        """References that a name suggests and most values bear out."""
        decided = self.belonging.decided
        return [
            guess
            for guess in self.doubtful
            if guess.key.table == table
            and guess.key.parent in decided
            and guess.key.parent != table
            and guess.mostly_holds
        ]

    def _beside(self, table: Classed) -> Classed:
        """Ask where another column mostly leads to rows of a root, too: is the row theirs?"""
        near = self._mostly(table.name)
        if not near or table.assumed is None:
            return table
        ways = [self._way(Link(guess.key, True)) for guess in near]
        question = "; ".join(
            "%s names rows of %s in all but %d of %s, and no foreign key says so"
            % (", ".join(guess.key.columns), guess.key.parent, guess.astray, counted(guess.values, "value"))
            for guess in near
        )
        differ = self.belonging.compare(table.name, [table.assumed, *ways]).differ
        if differ:
            question += "; any_of gives %s of them to several roots" % counted(differ, "row")
        return asked(table, question, [table.assumed, any_of(table.assumed, *ways)])

    def _is_join_table(self, table: str, links: Sequence[Link]) -> bool:
        """Whether a table connects rows of two others, neither of which is the root, and says no more."""
        certain = [link for link in links if not link.optional]
        if len(certain) < 2 or any(link.key.parent == self.root.name for link in links):
            return False
        ends = [name for link in certain for name in link.key.columns]
        if any(self.source.is_unique(table, link.key.columns) for link in certain):
            return False
        columns = {column.name for column in self.source.catalog.columns[table]}
        return self.source.is_unique(table, ends) or columns <= set(ends)

    def _agreeing(self, table: str, ways: Dict[Ownership, Link], found: Ways) -> Classed:
        """No row has two roots: take the first way that misses no row which another one gives to a root."""
        rules = list(ways)
        complete = [number for number, missed in enumerate(found.missed) if not missed]
        if complete:
            rule = rules[complete[0]]
            self.proved |= {ways[rules[number]] for number in complete}
            reasons = [self._reason(table, ways[rule])]
            others = [written(way) for way in rules if way is not rule]
            if others:
                reasons.append("%s: the same on all %s" % (listed(others), counted(found.rows, "row")))
        else:
            rule = any_of(*rules)
            reasons = [
                "in several ways, which agree on every row, and none of which says it for all; a row that names two roots"
                " would go to both"
            ]
            reasons += [
                "%s: %s" % (written(way), counted(rows, "row")) for way, rows in zip(rules, found.found)
            ]
        if found.nobody:
            reasons += self._nobodys(table, rule, found)
        return self._classed(table, rule, reasons, found.rows)

    def _nobodys(self, table: str, rule: Ownership, found: Ways) -> List[str]:
        reasons = [
            "%s of %d with no root: nobody's, and left behind" % (counted(found.nobody, "row"), found.rows)
        ]
        if rule == owned_by(rule.columns) and self.source.may_be_null(table, rule.columns):
            reasons.append("%s would take them along, for every root" % written(with_shared(rule)))
        return reasons

    def _disagreeing(self, table: str, ways: Dict[Ownership, Link], found: Ways) -> Classed:
        rules = list(ways)
        by_rule = dict(zip(ways, found.found))
        question = "the ways to a root disagree on %s of %d: %s" % (
            counted(found.differ, "row"),
            found.rows,
            "; ".join("%s says it of %d" % (written(way), by_rule[way]) for way in rules),
        )
        question += "; all_of takes %s, any_of gives %d to several roots" % (
            counted(found.common, "row"),
            found.differ,
        )
        every = [all_of(*self._ends(ways))]
        certain = [way for way in rules if not ways[way].optional]
        if len(certain) > 1 and not any(link.key.parent == self.root.name for link in ways.values()):
            choices = [*every, *rules]  # of two parents, both: else a row shows one's data to the other
        else:
            choices = [*rules, *every]
        return self._open(table, question, [*choices, any_of(*rules)], ways, found.rows)

    def _ends(self, ways: Mapping[Ownership, Link]) -> List[Ownership]:
        """The ways that a careful answer asks all of: those that are never NULL, if there are several."""
        certain = [way for way, link in ways.items() if not link.optional]
        return certain if len(certain) > 1 else list(ways)

    def _uncertain(self, table: str, guess: Guess, way: Ownership) -> Classed:
        column = ", ".join(guess.key.columns)
        if guess.why == BY_VALUES:
            columns = [held for held in self.held[table] if held.asked and held.alike]
            return self._holding(table, columns, {way: Link(guess.key, True)})
        if guess.values:
            borne = guess.borne_out
        elif table in self.source.empty:
            borne = "the table is empty"
        else:
            borne = "it has no value"
        question = (
            "%s looks like a reference to %s, but no foreign key says so and the data do not show it: %s"
            % (
                column,
                guess.key.parent,
                borne,
            )
        )
        return self._open(
            table,
            question + OR_ELSEWHERE,
            [way, shared()],
            {way: Link(guess.key, True)},
            None,
        )

    def _unproved(self, table: str, ways: Mapping[Ownership, Link]) -> List[str]:
        if len(ways) == 1:
            return []
        others = [written(way) for way in list(ways)[1:]]
        return ["the table is empty: nothing shows whether %s says the same" % listed(others, "or")]
