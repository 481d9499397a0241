"""What is known of an application while its tables are classed, and the entries and questions made of it."""

from __future__ import annotations

import dataclasses
from typing import Iterator, List, Mapping, Optional, Sequence, Set

from migration.discovery.belonging import Belonging
from migration.discovery.classed import Classed, Group
from migration.discovery.held_elsewhere import BY_VALUES, HeldElsewhere
from migration.discovery.held_keys import Form, Held, held_keys, rows_that_differ
from migration.discovery.levels import doubtful_link, levels
from migration.discovery.mixed_references import plain_key
from migration.discovery.references import Guess, Link, References
from migration.discovery.source import Source
from migration.discovery.words import listed, written
from migration.model import (
    Column,
    Equality,
    ForeignKey,
    Kind,
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
from migration.postgres.catalog import usual
from migration.postgres.operators import UUID_OF_TEXT, are_written_alike
from migration.printing import counted
from migration.python_text import columns_text
from migration.sql import qualified

AS_MOST = "as in most tables"
OR_ELSEWHERE = "; or list the table in EXCLUDED_TABLES, or in UNRELATED_TABLES, in place of this entry"


class Entries:
    """Makes entries for tables, and questions."""

    def __init__(self, source: Source, root: Root, references: References) -> None:
        self.source = source
        self.root = root
        self.doubtful = [guess for guess in references.doubtful if guess.key.table not in source.foreign]
        links = [link for link in references.links if not {link.key.table, link.key.parent} & source.foreign]
        self.below_excluded, _ = levels(root.name, references.links, references.doubtful)
        connected, _ = levels(root.name, links, self.doubtful)
        referring = {
            (link.key.table, name)
            for link in links
            if len(link.key.columns) == 1 or not source.may_be_null(link.key.table, link.key.columns)
            for name in link.key.columns
        }
        owners = [
            link.key.columns[0]
            for link in links
            if link.key.parent == root.name and link.key.parent_columns == (root.key,)
        ]
        tables = [name for name in source.tables if name != root.name]
        self.held = held_keys(source, root, tables, connected, referring, set(owners))
        self.by_values = {table: list(self._by_values(table)) for table in self.held}
        guesses = [guess for some in self.by_values.values() for guess in some]
        first = [*guesses, *self.doubtful, *self._as_most(usual(owners), links)]
        self.levels, self.uncertain = levels(root.name, links, first)
        elsewhere = HeldElsewhere(source, tables, referring)
        more: List[Guess] = []
        while True:
            new = list(elsewhere.guesses([name for name in self.levels if name != root.name]))
            more += new
            if all(guess.key.table in self.levels for guess in new):
                break
            self.levels, self.uncertain = levels(root.name, links, [*first, *more])
        for guess in more:
            self.by_values.setdefault(guess.key.table, []).append(guess)
        self.unmeant = {table: [*some] for table, some in references.unmeant.items()}
        for (table, column), (parents, values) in elsewhere.found.items():
            if table not in self.levels and sum(parents.values()) * 2 >= values:
                tables_ = listed(["%d of %s" % (count, parent) for parent, count in parents.items()])
                what = "of %s of %s these are keys: %s" % (
                    counted(values, "different value"),
                    column,
                    tables_,
                )
                self.unmeant.setdefault(table, []).append(what)
        self.links = [*links, *(doubtful_link(guess) for guess in self.uncertain.values())]
        near = [doubtful_link(guess) for guess in (*self.doubtful, *guesses, *more)]
        conditions = {
            (link.key.table, self._way(link)): self._first_named(link.key) if is_array(link.key) else link
            for link in map(doubtful_link, guesses)
        }
        self.belonging = Belonging(source, root, [*near, *self.links], conditions)
        self.without_exception = {guess.key[:3] for guess in (*guesses, *more) if not guess.astray}
        self.trees: Set[str] = set()  # tables of which it is asked what hangs on a root's rows
        self.proved: Set[Link] = set()  # references that never leave a root's rows

    def _by_values(self, table: str) -> Iterator[Guess]:
        for held in self.held[table]:
            if held.asked:
                key = plain_key(table, held.column, self.root.name, held.of)
                columns = (
                    self.source.catalog.column(self.root.name, held.of),
                    self.source.catalog.column(table, held.column),
                )
                if held.form is Form.ARRAY:
                    key = key._replace(equalities=(_InArray("pg_catalog.=", _text_if_unlike(*columns)),))
                elif not are_written_alike(*columns):
                    equality = self.source.db.equality(*columns)
                    is_text = columns[0].kind is Kind.UUID and equality.cast
                    if is_text and self.source.db.holds_other_uuids(table, held.column):
                        equality = UUID_OF_TEXT
                    key = key._replace(equalities=(equality,))
                yield Guess(key, BY_VALUES, held.values, held.values - held.keys)

    def _as_most(self, owner: Optional[str], links: Sequence[Link]) -> Iterator[Guess]:
        """Tables with the column by which most others belong to the root."""
        root = self.source.catalog.column(self.root.name, self.root.key)
        taken = {(link.key.table, name) for link in links for name in link.key.columns}
        for table in self.source.tables if owner is not None else ():
            if (
                owner is not None
                and self.source.catalog.has(table, (owner,))
                and self.source.catalog.primary_keys.get(table) != (owner,)
                and (table, owner) not in taken
                and table not in self.source.foreign
            ):
                equality = self.source.db.equality(root, self.source.catalog.column(table, owner))
                key = plain_key(table, owner, self.root.name, self.root.key)
                yield Guess(key._replace(equalities=(equality,)), AS_MOST, 0, 0)

    def _first_named(self, key: ForeignKey) -> str:
        """SQL of the first of the roots that an array names: that of its row, where it is compared with other ways."""
        return "SELECT {} FROM {} u WHERE {} ORDER BY 1 LIMIT 1".format(
            qualified("u", self.root.key),
            self.source.db.quoted(self.root.name),
            key.equalities[0].sql(qualified("u", key.parent_columns[0]), qualified("t", key.columns[0])),
        )

    def _way(self, link: Link) -> Ownership:
        key = link.key
        if link.why == BY_VALUES and key.parent == self.root.name:
            form = Form.KEY if key.parent_columns == (self.root.key,) else Form.NAME
            form = Form.ARRAY if is_array(key) else form
            return self._by_form(key.table, key.columns[0], form, key.parent_columns[0])
        if key.parent == self.root.name and key.parent_columns == (self.root.key,):
            return owned_by(key.columns)
        return child_of(key.parent, key.columns)

    def _by_form(self, table: str, column: str, form: Form, of: str) -> Ownership:
        """How rows belong to the root that a column names by its key, by its name, or in an array of keys."""
        if form is Form.KEY:
            return owned_by(column)
        mine, key = qualified("t", column), self.source.catalog.column(self.root.name, self.root.key)
        if form is Form.NAME:
            named_by, users = qualified("u", of), self.source.db.quoted(self.root.name)
            if self.source.catalog.column(self.root.name, of).type.endswith("citext"):
                mine, named_by = "lower(%s::text)" % mine, "lower(%s::text)" % named_by
            condition = "%s = (SELECT %s FROM %s u WHERE %s = {root})"
            return where(condition % (mine, named_by, users, qualified("u", key.name)))
        if of != key.name:
            one = "(SELECT %s::text FROM %s u WHERE %s = {root})"
            one %= qualified("u", of), self.source.db.quoted(self.root.name), qualified("u", key.name)
            return where("%s = ANY (%s::text[])" % (one, mine))
        alike = not _text_if_unlike(key, self.source.catalog.column(table, column))
        return where(("{root} = ANY (%s)" if alike else "({root})::text = ANY (%s::text[])") % mine)

    def _holds(self, columns: Sequence[Held]) -> str:
        """What such columns hold."""
        parts = []
        for form, of in dict.fromkeys((held.form, held.of) for held in columns):
            some = [held for held in columns if (held.form, held.of) == (form, of)]
            if some:
                what = form.value if of == self.root.key else "arrays of " + of if form is Form.ARRAY else of
                what += " of " + self.root.name
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
        ways = [self._by_form(table, held.column, held.form, held.of) for held in columns]
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
                yield "%s is not taken for a reference to %s: %s" % (
                    ", ".join(guess.key.columns),
                    guess.key.parent,
                    guess.doubt or guess.borne_out,
                )
        held_here = self.held.get(table, ()) if table not in self.uncertain else ()
        for one in held_here:
            if one.form is Form.ARRAY and one.asked:
                way = written(self._by_form(table, one.column, one.form, one.of))
                yield "%s holds keys of %s in arrays; if they name its owners: %s" % (
                    one.column,
                    self.root.name,
                    way,
                )
            elif one.said and not one.by_chance:
                count = "%d of %s" % (one.keys, counted(one.values, "different value"))
                yield "%s holds keys of %s in %s" % (one.column, self.root.name, count)
        chance = [one.column for one in held_here if one.by_chance and one.only_keys and one.form is Form.KEY]
        if chance:
            yield (
                "%s %s numbers alone that are keys of %s, perhaps by chance; if one names an owner: owned_by(%s)"
                % (
                    listed(chance),
                    "holds" if len(chance) == 1 else "hold",
                    self.root.name,
                    columns_text([chance[0]]),
                )
            )


class _InArray(Equality):
    """Whether an array holds a key. ``cast``: of one element."""

    def sql(self, key: str, reference: str) -> str:
        many = self.cast + "[]" if self.cast else ""
        return "%s%s OPERATOR(%s) ANY (%s%s)" % (key, self.cast, self.operator, reference, many)


def is_array(key: ForeignKey) -> bool:
    return isinstance(key.equalities[0], _InArray)


def _text_if_unlike(key: Column, array: Column) -> str:
    return "" if array.type == key.type + "[]" else "::text"


def _several(rows: int) -> str:
    return "%s %s several" % (counted(rows, "row"), "names" if rows == 1 else "name")


def asked(table: Classed, question: str, choices: Sequence[Ownership], *others: str) -> Classed:
    """The table with a question. ``others``: choices that are no ownership. The first one is assumed."""
    rule = undecided(question, *map(written, choices), *others)
    return dataclasses.replace(table, group=Group.OPEN, rule=rule, assumed=choices[0])


def with_shared(rule: Ownership) -> Ownership:
    return dataclasses.replace(rule, or_shared=True)
