"""Which class each table is of: whose its rows are, why, and what only the operator can say."""

from __future__ import annotations

import dataclasses
from typing import Callable, Dict, Iterator, List, Mapping, Optional, Sequence, Set

from migration.discovery.belonging import Belonging, Leaving, Ways
from migration.discovery.classed import Classed, Classes, Departure, Group
from migration.discovery.held_keys import ROWS, held_keys
from migration.discovery.levels import doubtful_link, levels, parents_first
from migration.discovery.references import Guess, Link, References, plain_key
from migration.discovery.source import Source, count_small
from migration.discovery.words import listed, written
from migration.errors import SourceError, UsageError
from migration.model import (
    Ownership,
    Root,
    Way,
    all_of,
    any_of,
    child_of,
    owned_by,
    referenced,
    shared,
    the_root,
    undecided,
    where,
)
from migration.postgres.catalog import usual
from migration.printing import counted
from migration.sql import quote


def classify(
    source: Source, root: Root, references: References, advance: Callable[[int], None] = lambda tables: None
) -> Classes:
    """Class every table. Raises MigrationError: exit 2 for a root that owns nothing, 3 where a table may not be read.

    ``advance`` is called with the number of tables looked at since its last call.
    """
    return _Classifier(source, root, references).classes(advance)


_BY_VALUES = "by its values"
_OR_ELSEWHERE = "; or list the table in EXCLUDED_TABLES, or in UNRELATED_TABLES, in place of this entry"


class _Classifier:
    def __init__(self, source: Source, root: Root, references: References) -> None:
        self.source = source
        self.root = root
        self.doubtful = [guess for guess in references.doubtful if guess.key.table not in source.foreign]
        links = [link for link in references.links if not {link.key.table, link.key.parent} & source.foreign]
        found, _ = levels(root.name, links, self.doubtful)
        self.held = held_keys(source, root, [name for name in source.tables if name not in found])
        self.levels, self.uncertain = levels(root.name, links, [*self.doubtful, *self._by_values()])
        self.links = [*links, *(doubtful_link(guess) for guess in self.uncertain.values())]
        self.belonging = Belonging(source, root, self.links)
        self.proved: Set[Link] = set()  # references that never leave a root's rows

    def _by_values(self) -> Iterator[Guess]:
        for table, columns in self.held.items():
            for held in columns:
                if held.certain and held.alike:
                    key = plain_key(table, held.column, self.root.name, self.root.key)
                    yield Guess(key, _BY_VALUES, held.values, 0)

    def classes(self, advance: Callable[[int], None]) -> Classes:
        if len(self.levels) == 1:
            raise UsageError(
                "no table refers to %s: it owns nothing" % self.root.name,
                "choose another --root, the table that the others refer to by a foreign key or a column such as %s_id"
                % self.root.name.rpartition(".")[2].rstrip("s"),
            )
        self._require_readable()
        self.belonging.decide(self.root.name, the_root())
        owned = {self.root.name: Classed(self.root.name, Group.ROOT, the_root(), the_root(), (), 0)}
        for name in parents_first(self.levels, self.links, self.root.name):
            owned[name] = self._owned(name)
            assumed = owned[name].assumed
            assert assumed is not None
            self.belonging.decide(name, assumed)
            advance(1)
        departures: List[Departure] = []
        for name in list(owned):
            owned[name] = self._with_departures(owned[name], departures)
        for name in list(owned):
            owned[name] = self._with_nobodys(owned[name], departures)
        others = list(self._counted(list(self._others(list(owned)))))
        advance(len(others) + 1)  # and the root
        migrated = {
            *owned,
            *(table.name for table in others if table.group in (Group.REFERENCED, Group.OPEN)),
        }
        return Classes(
            self.root,
            (*owned.values(), *others),
            tuple(
                link
                for link in self.links
                if link.key.table in migrated
                and link.key.parent in migrated
                and (link.when or not link.doubtful)
            ),
            tuple(departures),
        )

    def _require_readable(self) -> None:
        refused = [name for name in self.levels if name in self.source.catalog.unreadable]
        if refused:
            raise SourceError(
                "no permission to read %s" % ", ".join(refused),
                "as the tables' owner: GRANT SELECT ON %s TO the role;"
                % ", ".join(self.source.db.quoted(name) for name in refused),
            )

    # Tables with a way to the root

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

    def _way(self, link: Link) -> Ownership:
        if link.key.parent == self.root.name and link.key.parent_columns == (self.root.key,):
            return owned_by(link.key.columns)
        return child_of(link.key.parent, link.key.columns)

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
            return self._beside(made, self._nearly(table))
        found = self.belonging.compare(table, list(ways))
        near = self._nearly(table)
        if near and not found.differ:
            return self._beside(self._agreeing(table, ways, found), near)
        if found.differ:
            return self._disagreeing(table, ways, found)
        return self._agreeing(table, ways, found)

    def _nearly(self, table: str) -> List[Guess]:
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

    def _beside(self, table: Classed, near: Sequence[Guess]) -> Classed:
        """Ask where another column nearly always leads to rows of a root, too: is the row theirs?"""
        if not near or table.assumed is None:
            return table
        ways = [self._way(Link(guess.key, True)) for guess in near]
        question = "; ".join(
            "%s names rows of %s in all but %d of %s, and no foreign key says so"
            % (", ".join(guess.key.columns), guess.key.parent, guess.astray, counted(guess.values, "value"))
            for guess in near
        )
        return _asked(table, question, [table.assumed, any_of(table.assumed, *ways)])

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
            reasons.append("%s would take them along, for every root" % written(_with_shared(rule)))
        return reasons

    def _disagreeing(self, table: str, ways: Dict[Ownership, Link], found: Ways) -> Classed:
        rules = list(ways)
        by_rule = dict(zip(ways, found.found))
        question = "the ways to a root disagree on %s of %d: %s" % (
            counted(found.differ, "row"),
            found.rows,
            "; ".join("%s says it of %d" % (written(way), by_rule[way]) for way in rules),
        )
        certain = [way for way in rules if not ways[way].optional]
        every = [all_of(*(certain if len(certain) > 1 else rules))]
        if len(certain) > 1 and not any(link.key.parent == self.root.name for link in ways.values()):
            choices = [*every, *rules]  # of two parents, both: else a row shows one's data to the other
        else:
            choices = [*rules, *every]
        return self._open(table, question, [*choices, any_of(*rules)], ways, found.rows)

    def _uncertain(self, table: str, guess: Guess, way: Ownership) -> Classed:
        column = ", ".join(guess.key.columns)
        if guess.why == _BY_VALUES:
            ways = [owned_by(held.column) for held in self.held[table] if held.certain and held.alike]
            return self._holding(table, ways, {way: Link(guess.key, True)})
        if guess.values:
            borne = "%d of its %s lead nowhere" % (guess.astray, counted(guess.values, "value"))
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
            question + _OR_ELSEWHERE,
            [way, shared()],
            {way: Link(guess.key, True)},
            None,
        )

    def _holding(self, table: str, ways: Sequence[Ownership], links: Mapping[Ownership, Link]) -> Classed:
        """Ask of a table whose values alone say that it has to do with the root."""
        names = [name for way in ways for name in way.columns]
        question = "%s %s keys of %s, all that were looked at, though no foreign key says so" % (
            listed(names),
            "holds" if len(names) == 1 else "hold",
            self.root.name,
        )
        several = [any_of(*ways), all_of(*ways)] if len(ways) > 1 else []
        return self._open(table, question + _OR_ELSEWHERE, [*ways, *several, shared()], links, None)

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
        return dataclasses.replace(_asked(made, question, choices), left_behind=tuple(behind))

    def _reason(self, table: str, link: Link) -> str:
        known = link.why if link.why else "by a foreign key"
        what = "%s leads to %s %s" % (link.columns, link.key.parent, known)
        if self.source.is_unique(table, link.key.columns):
            what += ", at most one row each"
        return what

    def _unproved(self, table: str, ways: Mapping[Ownership, Link]) -> List[str]:
        if len(ways) == 1:
            return []
        others = [written(way) for way in list(ways)[1:]]
        return ["the table is empty: nothing shows whether %s says the same" % listed(others, "or")]

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

    # References that leave a root's data

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
                departures.append(Departure(link, counts))
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
        question = "%s with no root of their own %s on rows of a root by %s" % (
            counted(rows, "row"),
            "hangs" if rows == 1 else "hang",
            link.columns,
        )
        rule, tree = table.assumed, child_of(table.name, link.key.columns)
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
        return _asked(table, question, choices)

    def _with_nobodys(self, table: Classed, departures: Sequence[Departure]) -> Classed:
        """Ask where rows of roots refer to rows of a table that are nobody's: are these everybody's?"""
        counts = [
            departure.counts
            for departure in departures
            if departure.link.key.parent == table.name and departure.link.key.table != table.name
        ]
        rows = sum(found.to_nobody for found in counts)
        others = sum(found.to_others for found in counts)
        rule = table.assumed
        if not rows or table.group is not Group.OWNED or rule is None:
            return table
        # A row of a join table is nobody's where one of its ends is: what it names does not come along by it.
        joins = [name for name in self.belonging.decided if self.belonging.rule(name).way is Way.ALL]
        by_joins = all(
            departure.link.key.table in joins
            for departure in departures
            if departure.link.key.parent == table.name and departure.counts.to_nobody
        )
        choices = [*([] if by_joins else [any_of(rule, referenced())]), rule]
        if rule == owned_by(rule.columns) and self.source.may_be_null(table.name, rule.columns):
            choices.insert(0, _with_shared(rule))
        question = "rows of this table that are nobody's are named by %s of roots" % counted(rows, "row")
        if others and not by_joins:
            question += "; referenced() takes others' rows, too, which are named by %s" % counted(
                others, "row"
            )
        hanging = sorted(
            name
            for name in self.belonging.decided
            if any(part.parent == table.name for part in self.belonging.rule(name).parts)
        )
        if by_joins:
            question += ", in join tables: without or_shared=True these rows of %s stay behind" % listed(
                name for name in hanging if name in joins
            )
        elif hanging:
            question += (
                "; with it, what hangs on such rows in %s stays behind, unless its child_of has or_referenced=True"
                % listed(hanging)
            )
        return dataclasses.replace(_asked(table, question, choices), assumed=rule)

    # Tables without a way to the root

    def _others(self, owned: Sequence[str]) -> Iterator[Classed]:
        needed: Dict[str, List[str]] = {}
        waiting = list(owned)
        for name in waiting:
            for link in self.links:
                if link.key.table == name and link.key.parent not in owned and link.key.parent != name:
                    if link.key.parent not in needed:
                        waiting.append(link.key.parent)
                    needed.setdefault(link.key.parent, []).append(name)
        for name in needed:
            why = "rows of %s refer to it, and it leads to no root" % listed(dict.fromkeys(needed[name]))
            yield dataclasses.replace(self._classed(name, referenced(), [why], None), group=Group.REFERENCED)
        hanging: Dict[str, List[Ownership]] = {}
        waiting = list(needed)
        for name in waiting:
            for link in self.links:
                key = link.key
                if key.parent != name or key.table in (name, *owned, *needed) or link.doubtful or link.when:
                    continue
                if key.table not in hanging:
                    waiting.append(key.table)
                way = child_of(name, key.columns, or_referenced=name in needed)
                hanging.setdefault(key.table, []).append(way)
        for name, ways in hanging.items():
            yield self._hanging(name, ways)
        for name in self.source.tables:
            if name not in owned and name not in needed and name not in hanging:
                yield self._with_usual_owner(name) or self._with_keys(name) or self._nobodys_table(name)

    def _hanging(self, name: str, ways: Sequence[Ownership]) -> Classed:
        """Ask of a table whose rows hang on rows that come along: it may be everybody's, or what members share."""
        question = (
            "its rows hang on %s, of which rows come along; child_of gives each root all that hangs there, whoever put it there"
            % listed(dict.fromkeys(str(way.parent) for way in ways))
        )
        nobodys = 'no entry here, and "%s" in UNRELATED_TABLES' % name
        choices = [*ways, *([any_of(*ways)] if len(ways) > 1 else ())]
        return _asked(self._classed(name, ways[0], (), None), question, choices, nobodys)

    def _counted(self, tables: Sequence[Classed]) -> Iterator[Classed]:
        """The small ones with their rows counted."""
        counts = count_small(self.source, [table.name for table in tables])
        for table in tables:
            rows = counts.get(table.name)
            yield table if rows is None else dataclasses.replace(table, rows=rows, exact=True)

    def _with_usual_owner(self, name: str) -> Optional[Classed]:
        """A question where a table has the column by which most others belong to a root, and of another type."""
        rules = [self.belonging.rule(table) for table in self.belonging.decided]
        owner = usual([rule.columns[0] for rule in rules if rule.way is Way.OWNED])
        if (
            owner is None
            or not self.source.catalog.has(name, (owner,))
            or self.source.catalog.primary_keys.get(name) == (owner,)
            or any(link.key.table == name and owner in link.key.columns for link in self.links)
            or name in self.source.foreign
        ):
            return None
        question = "%s is how most tables belong to %s, but here it is of type %s" % (
            owner,
            self.root.name,
            self.source.catalog.column(name, owner).type,
        )
        return self._open(name, question + _OR_ELSEWHERE, [owned_by(owner), shared()], {}, None)

    def _with_keys(self, name: str) -> Optional[Classed]:
        """A question where columns hold the root's keys in another type."""
        ways = [owned_by(held.column) for held in self.held.get(name, ()) if held.certain]
        return self._holding(name, ways, {}) if ways else None

    def _nobodys_table(self, name: str) -> Classed:
        group, why = (
            Group.UNRELATED,
            (
                "no key, no name and no value of its first %d rows leads to a root, and nothing of a root's refers to it"
                % ROWS
            ),
        )
        columns = [held.column for held in self.held.get(name, ())]
        if columns:
            why = "every value of %s in the first %d rows is a key of %s; if it names one: %s" % (
                listed(columns, "and of"),
                ROWS,
                self.root.name,
                listed([written(owned_by(column)) for column in columns], "or"),
            )
        if name in self.source.foreign:
            group, why = Group.FOREIGN, "a foreign table: its rows are another server's"
        if name in self.source.excluded:
            why = "left out by --exclude"
        return dataclasses.replace(
            self._classed(name, shared(), [why], None), group=group, rule=None, assumed=None, reasons=(why,)
        )


def _asked(table: Classed, question: str, choices: Sequence[Ownership], *others: str) -> Classed:
    """The table with a question. ``others``: choices that are no ownership. The first one is assumed."""
    rule = undecided(question, *map(written, choices), *others)
    return dataclasses.replace(table, group=Group.OPEN, rule=rule, assumed=choices[0])


def _with_shared(rule: Ownership) -> Ownership:
    return dataclasses.replace(rule, or_shared=True)
