"""References by which rows of a root name rows of others or of nobody."""

from __future__ import annotations

import dataclasses
from typing import AbstractSet, List, Sequence

from migration.discovery.belonging import Leaving
from migration.discovery.classed import Classed, Departure, Group
from migration.discovery.entries import Entries, asked, with_shared
from migration.discovery.held_keys import is_of_persons
from migration.discovery.references import Link
from migration.discovery.words import listed, written
from migration.model import Ownership, Way, all_of, any_of, child_of, owned_by, referenced, where
from migration.printing import counted
from migration.sql import quote


class Departing(Entries):
    """Counts such references, and asks what they mean."""

    def _with_departures(self, table: Classed, departures: List[Departure]) -> Classed:
        """Count the references that lead from one root's rows to others', and note by which rows of others stay behind."""
        if table.name in self.source.empty:
            return table
        links = [
            link
            for link in self.links
            if link.key.table == table.name
            and link.key.parent in self.levels
            and (table.assumed != self._way(link) or link.key.parent == table.name)
            and link not in self.proved
        ]
        if table.exact and not links:
            return table
        rows, found = self.belonging.leaving(table.name, links)
        behind = dict.fromkeys(table.left_behind)
        for link, counts in zip(links, found):
            if counts.to_others or counts.to_nobody:
                has_key = bool(self.source.catalog.keys.get(link.key.parent))
                can_be_null = self.source.may_be_null(table.name, link.key.columns)
                departures.append(Departure(link, counts, has_key, can_be_null))
            if counts.from_others or counts.from_nobody:
                behind.update(dict.fromkeys(link.key.columns))
        for link, counts in zip(links, found):
            if link.key.parent == table.name and counts.from_nobody and table.group is Group.OWNED:
                table = self._tree(table, link, counts)
        reasons = [
            "%s of others or of nobody name a root's rows by %s, and stay behind"
            % (counted(counts.from_others + counts.from_nobody, "row"), link.columns)
            for link, counts in zip(links, found)
            if counts.from_others + counts.from_nobody and table.group is not Group.OPEN
        ]
        return dataclasses.replace(
            table,
            rows=rows,
            exact=True,
            left_behind=tuple(behind),
            reasons=(*table.reasons, *reasons),
        )

    def _tree(self, table: Classed, link: Link, counts: Leaving) -> Classed:
        """Ask where rows that are nobody's hang on rows of a root in the same table."""
        assert table.assumed is not None
        rows = counts.from_nobody
        self.trees.add(table.name)
        question = "%s with no root of %s own %s on rows of a root by %s" % (
            counted(rows, "row"),
            "its" if rows == 1 else "their",
            "hangs" if rows == 1 else "hang",
            link.columns,
        )
        rule, tree = table.assumed, child_of(table.name, link.key.columns)
        if link.why:
            question += ", which no foreign key declares"
        question += "; all is counted by %s alone" % written(rule)
        choices = [any_of(rule, tree), rule]
        others = counts.from_others + counts.to_nobody  # what hangs on nobody's rows comes with these
        if others:
            question += "; child_of takes others' rows, too: %s of other roots may hang there" % counted(
                others, "row"
            )
            choices.reverse()
            if rule.way in (Way.OWNED, Way.CHILD):
                ownerless = where(" AND ".join("t.%s IS NULL" % quote(name) for name in rule.columns))
                choices.insert(0, any_of(rule, all_of(tree, ownerless)))
        return asked(table, question, choices)

    def _with_trees(self, table: Classed) -> Classed:
        """Rows that name rows of a tree may stay behind: whose these are, the answer to its question says, and nothing was counted by it."""
        behind = dict.fromkeys(table.left_behind)
        for link in self.links:
            key = link.key
            names_tree = key.table == table.name != key.parent and key.parent in self.trees
            if names_tree and table.assumed != self._way(link):
                behind.update(dict.fromkeys(key.columns))
        return dataclasses.replace(table, left_behind=tuple(behind))

    def _with_nobodys(
        self, table: Classed, departures: Sequence[Departure], open_: AbstractSet[str]
    ) -> Classed:
        """Ask where rows of roots refer to rows of a table that are nobody's: are these everybody's?"""
        counts = [
            departure.counts
            for departure in departures
            if departure.link.key.parent == table.name and departure.link.key.table != table.name
        ]
        rows = sum(found.to_nobody for found in counts)
        others = sum(found.to_others for found in counts)
        rule = table.assumed
        if table.group is not Group.OWNED or rule is None:
            return table
        if not rows:
            return self._person(table, rule, others) if others else table
        # A row of a join table is nobody's where one of its ends is: what it names does not come along by it.
        joins = [name for name in self.belonging.decided if self.belonging.rule(name).way is Way.ALL]
        by_joins = all(
            departure.link.key.table in joins
            for departure in departures
            if departure.link.key.parent == table.name and departure.counts.to_nobody
        )
        choices = [*([] if by_joins else [any_of(rule, referenced())]), rule]
        question = "rows of this table that are nobody's are named by %s of roots" % counted(rows, "row")
        if others and not by_joins:
            question += "; referenced() takes others' rows, too, which are named by %s" % counted(
                others, "row"
            )
        hanging = self._hanging_on(table.name, set())
        joins_of = [name for name in hanging if name in joins]
        if by_joins:
            question += ", in join tables: without or_shared=True these rows of %s stay behind" % listed(
                joins_of
            )
        elif hanging:
            question += (
                "; with it, what hangs on such rows in %s stays behind, unless its child_of has or_referenced=True"
                % listed(hanging)
            )
        if rule == owned_by(rule.columns) and self.source.may_be_null(table.name, rule.columns):
            below = [name for name in self._hanging_on(table.name, open_) if name not in joins]
            of_roots = [
                departure
                for departure in departures
                if departure.link.key.table in below
                and departure.link.key.parent in (table.name, *below)
                and departure.counts.to_nobody
                and self._way(departure.link) in self.belonging.rule(departure.link.key.table).parts
            ]
            if below:
                question += (
                    "; or_shared=True gives every root all that is child_of rows that are nobody's, in %s"
                    % listed([name if name in hanging else "%s if answered so" % name for name in below])
                )
            for departure in of_roots:
                question += ", and so %s of %s that %s one root's" % (
                    counted(departure.counts.to_nobody, "row"),
                    departure.link.key.table,
                    "is" if departure.counts.to_nobody == 1 else "are",
                )
            choices.insert(
                len(choices) if of_roots else 1 if below and not by_joins else 0, with_shared(rule)
            )
        return asked(table, question, choices)

    def _person(self, table: Classed, rule: Ownership, others: int) -> Classed:
        """Ask of persons that belong by a column that may be NULL, as users.current_team_id: others' are named, too."""
        is_plain = rule == owned_by(rule.columns) and self.source.may_be_null(table.name, rule.columns)
        if not is_plain or not is_of_persons(self.source, table.name):
            return table
        question = (
            "its rows belong by %s alone, which may be NULL, with all that is child_of them, and those of others are named by %s of"
            " roots" % (", ".join(rule.columns), counted(others, "row"))
        )
        return asked(table, question, [rule, any_of(rule, referenced()), referenced()])

    def _hanging_on(self, table: str, open_: AbstractSet[str]) -> List[str]:
        """The tables whose rows belong by rows of this one, over any number of references, or may, by another answer."""
        found = [table]
        for parent in found:
            named = {link.key.table for link in self.links if link.key.parent == parent}
            found += sorted(
                name
                for name in self.belonging.decided
                if name not in found
                and (
                    any(part.parent == parent for part in self.belonging.rule(name).parts)
                    or name in open_ & named
                )
            )
        return found[1:]
