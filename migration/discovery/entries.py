"""What is known of an application while its tables are classed, and the entries and questions made of it."""

from __future__ import annotations

import dataclasses
from typing import Iterator, Mapping, Optional, Sequence, Set

from migration.discovery.belonging import Belonging
from migration.discovery.classed import Classed, Group
from migration.discovery.held_keys import Held, held_keys, rows_that_differ
from migration.discovery.levels import doubtful_link, levels
from migration.discovery.references import Guess, Link, References, plain_key
from migration.discovery.source import Source
from migration.discovery.words import listed, written
from migration.model import Ownership, Root, all_of, any_of, child_of, owned_by, shared, undecided
from migration.printing import counted

BY_VALUES = "by its values"
OR_ELSEWHERE = "; or list the table in EXCLUDED_TABLES, or in UNRELATED_TABLES, in place of this entry"


class Entries:
    """Makes entries for tables, and questions."""

    def __init__(self, source: Source, root: Root, references: References) -> None:
        self.source = source
        self.root = root
        self.doubtful = [guess for guess in references.doubtful if guess.key.table not in source.foreign]
        links = [link for link in references.links if not {link.key.table, link.key.parent} & source.foreign]
        found, _ = levels(root.name, links, self.doubtful)
        referring = {(link.key.table, name) for link in links for name in link.key.columns}
        self.held = held_keys(source, root, [name for name in source.tables if name not in found], referring)
        self.levels, self.uncertain = levels(root.name, links, [*self.doubtful, *self._by_values()])
        self.links = [*links, *(doubtful_link(guess) for guess in self.uncertain.values())]
        near = [doubtful_link(guess) for guess in self.doubtful if guess.mostly_holds]
        self.belonging = Belonging(source, root, [*near, *self.links])
        self.proved: Set[Link] = set()  # references that never leave a root's rows

    def _by_values(self) -> Iterator[Guess]:
        for table, columns in self.held.items():
            for held in columns:
                if held.asked and held.alike:
                    key = plain_key(table, held.column, self.root.name, self.root.key)
                    yield Guess(key, BY_VALUES, held.values, held.values - held.keys)

    def _way(self, link: Link) -> Ownership:
        if link.key.parent == self.root.name and link.key.parent_columns == (self.root.key,):
            return owned_by(link.key.columns)
        return child_of(link.key.parent, link.key.columns)

    def _holding(self, table: str, columns: Sequence[Held], links: Mapping[Ownership, Link]) -> Classed:
        """Ask of a table whose values alone say that it has to do with the root."""
        ways = [owned_by(held.column) for held in columns]
        some = ["%d of %s" % (held.keys, counted(held.values, "different value")) for held in columns]
        if len(columns) > 1:
            some = ["%s of %s" % (part, held.column) for part, held in zip(some, columns)]
        question = "%s %s keys of %s, %s, though no foreign key says so" % (
            listed([held.column for held in columns]),
            "holds" if len(columns) == 1 else "hold",
            self.root.name,
            listed(some) if any(held.keys < held.values for held in columns) else "all that were looked at",
        )
        several = [any_of(*ways), all_of(*ways)] if len(ways) > 1 else []
        if several:
            question += "; any_of gives a row to each that it names, and %s" % _several(
                rows_that_differ(self.source, table, [held.column for held in columns])
            )
        return self._open(table, question + OR_ELSEWHERE, [*ways, *several, shared()], links, None)

    def _open(
        self,
        table: str,
        question: str,
        choices: Sequence[Ownership],
        ways: Mapping[Ownership, Link],
        rows: Optional[int],
    ) -> Classed:
        behind = dict.fromkeys(name for link in ways.values() for name in link.key.columns)
        made = self._classed(table, choices[0], [], rows)
        return dataclasses.replace(asked(made, question, choices), left_behind=tuple(behind))

    def _reason(self, table: str, link: Link) -> str:
        known = link.why if link.why else "by a foreign key"
        what = "%s leads to %s %s" % (link.columns, link.key.parent, known)
        if self.source.is_unique(table, link.key.columns):
            what += ", at most one row each"
        return what

    def _classed(self, table: str, rule: Ownership, reasons: Sequence[str], rows: Optional[int]) -> Classed:
        reasons = [*reasons, *self._not_taken(table)]
        if not self.source.catalog.keys.get(table, ()):
            reasons.append("it has no key: rows are told apart by all their columns, equal ones are counted")
        return Classed(
            table,
            Group.OWNED,
            rule,
            rule,
            tuple(reasons),
            self.source.estimated.get(table, 0) if rows is None else rows,
            rows is not None or table in self.source.empty,
        )

    def _not_taken(self, table: str) -> Iterator[str]:
        """Guesses that the data do not bear out, of a table that needs none of them."""
        for guess in self.doubtful if table not in self.uncertain else ():
            if guess.key.table == table and table not in self.source.empty:
                borne = (
                    "%d of %s lead nowhere" % (guess.astray, counted(guess.values, "value"))
                    if guess.values
                    else "it has no value"
                )
                yield "%s is not taken for a reference to %s: %s" % (
                    ", ".join(guess.key.columns),
                    guess.key.parent,
                    borne,
                )


def _several(rows: int) -> str:
    return "%s %s several" % (counted(rows, "row"), "names" if rows == 1 else "name")


def asked(table: Classed, question: str, choices: Sequence[Ownership], *others: str) -> Classed:
    """The table with a question. ``others``: choices that are no ownership. The first one is assumed."""
    rule = undecided(question, *map(written, choices), *others)
    return dataclasses.replace(table, group=Group.OPEN, rule=rule, assumed=choices[0])


def with_shared(rule: Ownership) -> Ownership:
    return dataclasses.replace(rule, or_shared=True)
