"""What is known of an application while its tables are classed, and the entries and questions made of it."""

from __future__ import annotations

import dataclasses
from typing import Iterator, Mapping, Optional, Sequence, Set

from migration.discovery.belonging import Belonging
from migration.discovery.classed import Classed, Group
from migration.discovery.held_elsewhere import BY_VALUES
from migration.discovery.held_keys import Form, Held, rows_that_differ
from migration.discovery.levels import doubtful_link, levels
from migration.discovery.references import Guess, Link, References
from migration.discovery.source import Source
from migration.discovery.undeclared import Undeclared
from migration.discovery.words import listed, words_of, written
from migration.model import Ownership, Root, all_of, any_of, referenced, shared, undecided
from migration.printing import counted
from migration.python_text import columns_text

OR_ELSEWHERE = "; or list the table in EXCLUDED_TABLES, or in UNRELATED_TABLES, in place of this entry"


class Entries:
    """Makes entries for tables, and questions."""

    def __init__(self, source: Source, root: Root, references: References) -> None:
        self.source = source
        self.root = root
        links = [link for link in references.links if not {link.key.table, link.key.parent} & source.foreign]
        connected, _ = levels(root.name, links, ())
        # What has no value yet costs nothing as a reference, and stops the export on the first value that leads to others.
        self.doubtful = []
        for guess in references.doubtful:
            if guess.key.table in source.foreign:
                continue
            if guess.key.table in connected and not guess.values and not guess.doubt:
                links.append(Link(guess.key, True, "%s; %s" % (guess.why, guess.borne_out), guess.when))
            else:
                self.doubtful.append(guess)
        self.below_excluded, _ = levels(root.name, references.links, references.doubtful)
        self.undeclared = Undeclared(source, root, links, self.doubtful)
        self.held, self.by_values = self.undeclared.held, self.undeclared.by_values
        self.levels, self.uncertain = self.undeclared.levels, self.undeclared.uncertain
        held = {(guess.key.table, guess.key.columns[0]) for guess in self.undeclared.all}
        self.unmeant = {
            table: [what for column, what in some.items() if (table, column) not in held]
            for table, some in references.unmeant.items()
        }
        for table, what in self.undeclared.of_several.items():
            self.unmeant.setdefault(table, []).append(what)
        self.links = [*links, *map(self._asked_for, self.uncertain.values())]
        guesses = self.undeclared.all
        self.belonging = Belonging(
            source,
            root,
            [*map(doubtful_link, (*self.doubtful, *guesses)), *self.links],
            {
                (guess.key.table, self._way(doubtful_link(guess))): self.undeclared.same(guess)
                for guess in guesses
            },
        )
        self.without_exception = {
            guess.key[:3] for guess in guesses if not guess.astray and not self._may_be_chance(guess)
        }
        self.trees: Set[str] = set()  # tables of which it is asked what hangs on a root's rows
        self.proved: Set[Link] = set()  # references that never leave a root's rows

    def _asked_for(self, guess: Guess) -> Link:
        """What a question is about. By another column than a primary key only a Reference says what child_of means."""
        link = doubtful_link(guess)
        is_said = guess.why == BY_VALUES and not guess.astray and guess.key.parent != self.root.name
        return link._replace(doubtful=not is_said)

    def _may_be_chance(self, guess: Guess) -> bool:
        """Whether a column holds names of the root, and is not called so: it may hold anything, and names among it."""
        key = guess.key
        is_name = key.parent == self.root.name and key.parent_columns != (self.root.key,)
        return is_name and not set(words_of(key.columns[0])) & set(words_of(key.parent_columns[0]))

    def _way(self, link: Link) -> Ownership:
        return self.undeclared.rule(link)

    def _by_form(self, table: str, held: Held) -> Ownership:
        return self.undeclared.by_form(table, held.column, held.form, held.of)

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
        ways = [self._by_form(table, held) for held in columns]
        question = self._holds(columns)
        several = [any_of(*ways), all_of(*ways)] if len(ways) > 1 else []
        if several and all(held.form is Form.KEY for held in columns):
            question += "; any_of gives a row to each that it names, and %s" % _several(
                rows_that_differ(self.source, table, [held.column for held in columns])
            )
        named = [referenced(), any_of(ways[0], referenced())] if self._is_named(table) else []
        if named:
            question += "; with referenced() alone, what is child_of it has to say or_referenced=True"
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
                way = written(self._by_form(table, one))
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


def _several(rows: int) -> str:
    return "%s %s several" % (counted(rows, "row"), "names" if rows == 1 else "name")


def asked(table: Classed, question: str, choices: Sequence[Ownership], *others: str) -> Classed:
    """The table with a question. ``others``: choices that are no ownership. The first one is assumed."""
    rule = undecided(question, *map(written, choices), *others)
    return dataclasses.replace(table, group=Group.OPEN, rule=rule, assumed=choices[0], choices=tuple(choices))


def with_shared(rule: Ownership) -> Ownership:
    return dataclasses.replace(rule, or_shared=True)
