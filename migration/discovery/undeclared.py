"""What no foreign key declares and no name suggests: columns whose values are keys or names of rows of roots."""

from __future__ import annotations

from typing import Iterator, List, Optional, Sequence, Union

from migration.discovery.held_elsewhere import BY_VALUES, HeldElsewhere
from migration.discovery.held_keys import Form, held_keys
from migration.discovery.levels import doubtful_link, levels
from migration.discovery.references import Guess, Link
from migration.discovery.source import Source
from migration.discovery.words import listed
from migration.model import Column, Equality, ForeignKey, Ownership, Root, child_of, owned_by, where
from migration.postgres.catalog import usual
from migration.printing import counted
from migration.sql import qualified

AS_MOST = "as in most tables"


class Undeclared:
    """The guesses by values, and which tables lead to the root with them.

    ``held``: table → columns that could name rows of the root. ``by_values``: table → guesses that are asked for.
    ``levels``, ``uncertain``: as ``levels()`` says. ``of_several``: table → columns with keys of several tables.
    """

    def __init__(self, source: Source, root: Root, links: Sequence[Link], doubtful: Sequence[Guess]) -> None:
        self.source = source
        self.root = root
        connected, _ = levels(root.name, links, doubtful)
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
        self.by_values = {table: list(self._guesses(table)) for table in self.held}
        guesses = [guess for some in self.by_values.values() for guess in some]
        guesses += [*doubtful, *self._as_most(usual(owners), links)]
        self.levels, self.uncertain = levels(root.name, links, guesses)
        elsewhere = HeldElsewhere(source, tables, referring)
        while True:
            new = list(elsewhere.guesses([name for name in self.levels if name != root.name]))
            for guess in new:
                self.by_values.setdefault(guess.key.table, []).append(guess)
            guesses += new
            if all(guess.key.table in self.levels for guess in new):
                break
            self.levels, self.uncertain = levels(root.name, links, guesses)
        self.of_several = {
            table: "of %s of %s these are keys: %s"
            % (
                counted(values, "different value"),
                column,
                listed(["%d of %s" % (count, parent) for parent, count in parents.items()]),
            )
            for (table, column), (parents, values) in elsewhere.found.items()
            if table not in self.levels and sum(parents.values()) * 2 >= values
        }

    @property
    def all(self) -> List[Guess]:
        return [guess for some in self.by_values.values() for guess in some]

    def _guesses(self, table: str) -> Iterator[Guess]:
        for held in self.held[table]:
            if held.asked:
                if held.form is Form.ARRAY:
                    key = self.source.catalog.column(self.root.name, held.of)
                    cast = _text_if_unlike(key, self.source.catalog.column(table, held.column))
                    in_array = (_InArray("pg_catalog.=", cast),)
                    found = ForeignKey(table, (held.column,), self.root.name, (held.of,), in_array)
                else:
                    found = self.source.reference(table, held.column, self.root.name, held.of)
                yield Guess(found, BY_VALUES, held.values, held.values - held.keys)

    def _as_most(self, owner: Optional[str], links: Sequence[Link]) -> Iterator[Guess]:
        """Tables with the column by which most others belong to the root."""
        if owner is None:
            return
        taken = {(link.key.table, name) for link in links for name in link.key.columns}
        for table in self.source.tables:
            if (
                self.source.catalog.has(table, (owner,))
                and self.source.catalog.primary_keys.get(table) != (owner,)
                and (table, owner) not in taken
                and table not in self.source.foreign
            ):
                yield Guess(self.source.reference(table, owner, self.root.name, self.root.key), AS_MOST, 0, 0)

    def rule(self, link: Link) -> Ownership:
        """How rows belong by a reference, declared or not."""
        key = link.key
        if link.why == BY_VALUES and key.parent == self.root.name:
            form = Form.KEY if key.parent_columns == (self.root.key,) else Form.NAME
            form = Form.ARRAY if is_array(key) else form
            return self.by_form(key.table, key.columns[0], form, key.parent_columns[0])
        if key.parent == self.root.name and key.parent_columns == (self.root.key,):
            return owned_by(key.columns)
        return child_of(key.parent, key.columns)

    def by_form(self, table: str, column: str, form: Form, of: str) -> Ownership:
        """How rows belong to the root that a column names by its key, by its name, or in an array of these."""
        mine, users = qualified("t", column), self.source.db.quoted(self.root.name)
        key = self.source.catalog.column(self.root.name, self.root.key)
        if form is Form.KEY:
            if key.type.endswith("citext") and self.source.catalog.column(table, column).type != key.type:
                return where("lower(%s::text) = lower(({root})::text)" % mine)
            return owned_by(column)
        named_by, is_root = qualified("u", of), qualified("u", key.name) + " = {root}"
        if form is Form.NAME:
            if self.source.catalog.column(self.root.name, of).type.endswith("citext"):
                mine, named_by = "lower(%s::text)" % mine, "lower(%s::text)" % named_by
            return where("%s = (SELECT %s FROM %s u WHERE %s)" % (mine, named_by, users, is_root))
        if of != key.name:
            one = "(SELECT %s::text FROM %s u WHERE %s)" % (named_by, users, is_root)
            return where("%s = ANY (%s::text[])" % (one, mine))
        alike = not _text_if_unlike(key, self.source.catalog.column(table, column))
        return where(("{root} = ANY (%s)" if alike else "({root})::text = ANY (%s::text[])") % mine)

    def same(self, guess: Guess) -> Union[Link, str]:
        """What says the same as a rule of such a guess: the reference, of an array SQL of the first root that it names."""
        link = doubtful_link(guess)
        if not is_array(guess.key):
            return link
        return "SELECT {} FROM {} u WHERE {} ORDER BY 1 LIMIT 1".format(
            qualified("u", self.root.key),
            self.source.db.quoted(self.root.name),
            guess.key.equalities[0].sql(
                qualified("u", guess.key.parent_columns[0]), qualified("t", guess.key.columns[0])
            ),
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
