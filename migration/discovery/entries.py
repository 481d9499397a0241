"""What is known of an application while its tables are classed, and the entries and questions made of it."""

from __future__ import annotations

import dataclasses
from typing import Iterator, Mapping, Optional, Sequence, Set

from migration.discovery.belonging import Belonging
from migration.discovery.classed import Classed, Group
from migration.discovery.held_keys import Form, Held, held_keys, rows_that_differ
from migration.discovery.levels import doubtful_link, levels
from migration.discovery.mixed_references import plain_key
from migration.discovery.references import Guess, Link, References
from migration.discovery.source import Source
from migration.discovery.words import listed, written
from migration.model import (
    Ownership,
    Root,
    all_of,
    any_of,
    child_of,
    owned_by,
    referenced,
    shared,
    undecided,
    where,
)
from migration.postgres.operators import are_written_alike
from migration.printing import counted
from migration.sql import qualified

BY_VALUES = "by its values"
OR_ELSEWHERE = "; or list the table in EXCLUDED_TABLES, or in UNRELATED_TABLES, in place of this entry"


class Entries:
    """Makes entries for tables, and questions."""

    def __init__(self, source: Source, root: Root, references: References) -> None:
        self.source = source
        self.root = root
        self.unmeant = references.unmeant
        self.doubtful = [guess for guess in references.doubtful if guess.key.table not in source.foreign]
        links = [link for link in references.links if not {link.key.table, link.key.parent} & source.foreign]
        connected, _ = levels(root.name, links, self.doubtful)
        referring = {
            (link.key.table, name)
            for link in links
            if len(link.key.columns) == 1 or not source.may_be_null(link.key.table, link.key.columns)
            for name in link.key.columns
        }
        tables = [name for name in source.tables if name != root.name]
        self.held = held_keys(source, root, tables, connected, referring)
        self.by_values = {table: list(self._by_values(table)) for table in self.held}
        guesses = [guess for some in self.by_values.values() for guess in some]
        self.levels, self.uncertain = levels(root.name, links, [*guesses, *self.doubtful])
        self.links = [*links, *(doubtful_link(guess) for guess in self.uncertain.values())]
        near = [doubtful_link(guess) for guess in self.doubtful if guess.mostly_holds]
        named = map(doubtful_link, guesses)
        self.belonging = Belonging(
            source,
            root,
            [*near, *named, *self.links],
            {(guess.key.table, self._way(doubtful_link(guess))): doubtful_link(guess) for guess in guesses},
        )
        self.trees: Set[str] = set()  # tables of which it is asked what hangs on a root's rows
        self.proved: Set[Link] = set()  # references that never leave a root's rows

    def _by_values(self, table: str) -> Iterator[Guess]:
        for held in self.held[table]:
            if held.asked and held.form is not Form.ARRAY:
                name = self.root.key if held.form is Form.KEY else self.root.named_by
                key = plain_key(table, held.column, self.root.name, name)
                columns = (
                    self.source.catalog.column(self.root.name, name),
                    self.source.catalog.column(table, held.column),
                )
                if not are_written_alike(*columns):
                    key = key._replace(equalities=(self.source.db.equality(*columns),))
                yield Guess(key, BY_VALUES, held.values, held.values - held.keys)

    def _way(self, link: Link) -> Ownership:
        key = link.key
        if key.parent == self.root.name and key.parent_columns == (self.root.key,):
            return owned_by(key.columns)
        if link.why == BY_VALUES:
            return self._by_form(key.table, key.columns[0], Form.NAME)
        return child_of(key.parent, key.columns)

    def _by_form(self, table: str, column: str, form: Form) -> Ownership:
        """How rows belong to the root that a column names by its key, by its name, or in an array of keys."""
        if form is Form.KEY:
            return owned_by(column)
        mine, key = qualified("t", column), self.source.catalog.column(self.root.name, self.root.key)
        if form is Form.NAME:
            named_by, users = qualified("u", self.root.named_by), self.source.db.quoted(self.root.name)
            condition = "%s = (SELECT %s FROM %s u WHERE %s = {root})"
            return where(condition % (mine, named_by, users, qualified("u", key.name)))
        alike = self.source.catalog.column(table, column).type == key.type + "[]"
        return where(("{root} = ANY (%s)" if alike else "({root})::text = ANY (%s::text[])") % mine)

    def _holds(self, columns: Sequence[Held]) -> str:
        """What such columns hold."""
        parts = []
        for form in Form:
            some = [held for held in columns if held.form is form]
            if some:
                what = "%s of %s" % (self.root.named_by if form is Form.NAME else form.value, self.root.name)
                names = listed([held.column for held in some])
                counts = "all that were looked at"
                if any(held.keys < held.values for held in some):
                    each = [
                        "%d of %s" % (held.keys, counted(held.values, "different value")) for held in some
                    ]
                    counts = (
                        each[0]
                        if len(each) == 1
                        else listed(["%s of %s" % (part, held.column) for part, held in zip(each, some)])
                    )
                parts.append("%s %s %s, %s" % (names, "holds" if len(some) == 1 else "hold", what, counts))
        return "; ".join(parts) + ", though no foreign key says so"

    def _holding(self, table: str, columns: Sequence[Held], links: Mapping[Ownership, Link]) -> Classed:
        """Ask of a table whose values alone say that it has to do with the root."""
        ways = [self._by_form(table, held.column, held.form) for held in columns]
        question = self._holds(columns)
        several = [any_of(*ways), all_of(*ways)] if len(ways) > 1 else []
        if several and all(held.form is Form.KEY for held in columns):
            question += "; any_of gives a row to each that it names, and %s" % _several(
                rows_that_differ(self.source, table, [held.column for held in columns])
            )
        named = [referenced(), any_of(ways[0], referenced())] if self._is_named(table) else []
        return self._open(table, question + OR_ELSEWHERE, [*ways, *several, *named, shared()], links, None)

    def _is_named(self, table: str) -> bool:
        """Whether rows of other tables with an entry refer to this one."""
        return any(
            link.key.parent == table and link.key.table != table and link.key.table in self.levels
            for link in self.links
        )

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
        """What is not followed, though it may be a reference, of a table that needs none of it."""
        for what in self.unmeant.get(table, ()):
            yield what + ": rows stay behind that belong by nothing else"
        held = {guess.key.columns for guess in self.by_values.get(table, ())}
        for guess in self.doubtful if table not in self.uncertain else ():
            if guess.key.table == table and table not in self.source.empty and guess.key.columns not in held:
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
        for one in self.held.get(table, ()) if table in self.levels else ():
            if one.keys and (one.form is Form.ARRAY if one.asked else not one.by_chance):
                yield "%s %s: %s would give a row to each that it names" % (
                    one.column,
                    "holds keys of %s in arrays" % self.root.name
                    if one.form is Form.ARRAY
                    else "names rows of %s in %d of %s"
                    % (self.root.name, one.keys, counted(one.values, "different value")),
                    written(self._by_form(table, one.column, one.form)),
                )


def _several(rows: int) -> str:
    return "%s %s several" % (counted(rows, "row"), "names" if rows == 1 else "name")


def asked(table: Classed, question: str, choices: Sequence[Ownership], *others: str) -> Classed:
    """The table with a question. ``others``: choices that are no ownership. The first one is assumed."""
    rule = undecided(question, *map(written, choices), *others)
    return dataclasses.replace(table, group=Group.OPEN, rule=rule, assumed=choices[0])


def with_shared(rule: Ownership) -> Ownership:
    return dataclasses.replace(rule, or_shared=True)
