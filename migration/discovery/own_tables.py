"""Tables with a way to the root: by which their rows belong."""

from __future__ import annotations

from typing import Dict, List, Mapping, Sequence, Tuple

from migration.discovery.belonging import Ways
from migration.discovery.classed import Classed
from migration.discovery.entries import OR_ELSEWHERE, Entries, with_shared
from migration.discovery.held_elsewhere import BY_VALUES
from migration.discovery.levels import doubtful_link
from migration.discovery.references import Guess, Link
from migration.discovery.undeclared import AS_MOST, is_array
from migration.discovery.words import listed, written
from migration.model import Ownership, Way, all_of, any_of, owned_by, shared, where
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
        found: Dict[Ownership, Link] = {}
        for link in links:
            found.setdefault(self._way(link), link)
        return self._sorted(found)

    def _sorted(self, ways: Mapping[Ownership, Link]) -> Dict[Ownership, Link]:
        """Those that are never NULL first, of these the direct ones."""

        def order(item: Tuple[Ownership, Link]) -> Tuple[bool, bool, int]:
            link = item[1]
            return link.optional, link.key.parent != self.root.name, self.levels[link.key.parent]

        return dict(sorted(ways.items(), key=order))

    def _owned(self, table: str) -> Classed:
        ways = self._ways(table)
        guess = self.uncertain.get(table)
        if guess is not None:
            return self._uncertain(table, guess, next(iter(ways)))
        beside = self._beside(table, ways)
        reasons: List[str] = []
        if self._is_join_table(table, list(ways.values())):
            ends = {way: link for way, link in ways.items() if not link.optional}
            if self.belonging.compare(table, list(ends)).differ:
                ends.update(beside)
                found = self.belonging.compare(table, list(ends), self._ends(ends))
                return self._disagreeing(table, ends, found, 0)
            reasons = [
                "joins rows of %s: a root's where all its ends are" % listed(way.parent or "" for way in ends)
            ]
            if not beside:
                return self._classed(table, all_of(*ends), reasons, None)
            ways = {all_of(*ends): next(iter(ends.values()))}
        needs_look = len(ways) > 1 or beside or any(link.optional for link in ways.values())
        if table in self.source.empty or not needs_look:
            way, link = next(iter(ways.items()))
            return self._classed(table, way, [self._reason(table, link), *self._unproved(table, ways)], None)
        every = {**ways, **beside} if reasons else self._sorted({**ways, **beside})
        found = self.belonging.compare(table, list(every), self._ends(every))
        alone = self.belonging.compare(table, list(ways)) if beside else found
        if found.differ or found.nobody < alone.nobody:
            return self._disagreeing(table, every, found, alone.nobody - found.nobody)
        for way, link in beside.items():
            reasons.append("%s says the same, though no foreign key does" % written(way))
            if link not in self.links and link.key[:3] in self.without_exception:
                self.links.append(
                    link._replace(doubtful=False)
                )  # so that an export stops where it no longer does
        return self._agreeing(table, ways, alone, reasons)

    def _astray(self, table: str) -> float:
        """The share of its rows that lead to no root by the tables that are decided."""
        found = self.belonging.compare(table, list(self._ways(table)))
        return found.nobody / (found.rows or 1)

    def _beside(self, table: str, ways: Mapping[Ownership, Link]) -> Dict[Ownership, Link]:
        """References that nothing declares and most values bear out: by names of columns, or by their values."""
        decided = self.belonging.decided
        guesses = [
            *(guess for guess in self.by_values.get(table, ()) if not is_array(guess.key)),
            *(guess for guess in self.doubtful if guess.key.table == table and guess.mostly_holds),
        ]
        found: Dict[Ownership, Link] = {}
        for guess in guesses:
            if guess.key.parent in decided and guess.key.parent != table:
                nullable = self.source.may_be_null(table, guess.key.columns)
                optional = guess.astray > 0 or bool(guess.doubt) or nullable
                link = doubtful_link(guess)._replace(optional=optional)
                if self._way(link) not in ways:
                    found.setdefault(self._way(link), link)
        return found

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

    def _agreeing(
        self, table: str, ways: Mapping[Ownership, Link], found: Ways, more: Sequence[str]
    ) -> Classed:
        """No row has two roots: take the first way that misses no row which another one gives to a root."""
        rules = list(ways)
        complete = [number for number, missed in enumerate(found.missed) if not missed]
        if complete:
            rule = rules[complete[0]]
            self.proved |= {ways[rules[number]] for number in complete if rules[number].way is not Way.ALL}
            reasons = [] if rule.way is Way.ALL else [self._reason(table, ways[rule])]
            reasons += [
                "%s: the same on %s%s"
                % (
                    written(way),
                    "all " if rows == found.rows > 1 else "",
                    counted(rows, "row")
                    if rows == found.rows
                    else "%d of %s, none on the others" % (rows, counted(found.rows, "row")),
                )
                for way, rows in zip(rules, found.found)
                if way is not rule
            ]
        else:
            rule = any_of(*rules)
            reasons = [
                "in several ways, which agree on every row, and none of which says it for all; a row that names two roots"
                " would go to both"
            ]
            reasons += [
                "%s: %s" % (written(way), counted(rows, "row")) for way, rows in zip(rules, found.found)
            ]
        reasons += more
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

    def _disagreeing(self, table: str, ways: Mapping[Ownership, Link], found: Ways, more: int) -> Classed:
        """``more``: rows that have a root only by what no foreign key says."""
        rules = list(ways)
        by_rule = dict(zip(ways, found.found))
        parts = self._undeclared(table, ways)
        if found.differ:
            parts.append(
                "the ways to a root disagree on %s of %d: %s"
                % (
                    counted(found.differ, "row"),
                    found.rows,
                    "; ".join("%s says it of %d" % (written(way), by_rule[way]) for way in rules),
                )
            )
            parts.append(
                "all_of takes %s, any_of gives %d to several roots%s"
                % (
                    counted(found.common, "row"),
                    found.differ,
                    " with all that is child_of them" if self._is_parent(table) else "",
                )
            )
        if more:
            parts.append("it gives a root to %s of %d that had none" % (counted(more, "row"), found.rows))
        every = [_all(self._ends(ways))]
        certain = [way for way in rules if not ways[way].optional]
        if len(certain) > 1 and not any(link.key.parent == self.root.name for link in ways.values()):
            choices = [*every, *rules]  # of two parents, both: else a row shows one's data to the other
        else:
            choices = [*rules, *every]
        return self._open(table, "; ".join(parts), [*choices, any_of(*rules)], ways, found.rows)

    def _is_parent(self, table: str) -> bool:
        return any(link.key.parent == table and link.key.table != table for link in self.links)

    def _undeclared(self, table: str, ways: Mapping[Ownership, Link]) -> List[str]:
        """What speaks for the ways that no foreign key declares."""
        named = {link.key[:3] for link in ways.values() if link.why == BY_VALUES}
        columns = {columns for _, columns, _ in named}
        held = [
            one
            for one in self.held.get(table, ())
            if one.asked and (table, (one.column,), self.root.name) in named
        ]
        parts = [self._holds(held)] if held else []
        parts += [
            _holds_keys(guess)
            for guess in self.by_values.get(table, ())
            if guess.key.parent != self.root.name and guess.key[:3] in named
        ]
        for guess in self.doubtful:
            if guess.key.table == table and guess.mostly_holds and guess.key.columns not in columns:
                parts.append(
                    "%s names rows of %s in all but %d of %s, and no foreign key says so"
                    % (
                        ", ".join(guess.key.columns),
                        guess.key.parent,
                        guess.astray,
                        counted(guess.values, "value"),
                    )
                )
        return parts

    def _ends(self, ways: Mapping[Ownership, Link]) -> List[Ownership]:
        """The ways that a careful answer asks all of: those that are never NULL, if there are several."""
        certain = [way for way, link in ways.items() if not link.optional]
        return certain if len(certain) > 1 else list(ways)

    def _uncertain(self, table: str, guess: Guess, way: Ownership) -> Classed:
        column = ", ".join(guess.key.columns)
        if guess.why == BY_VALUES and guess.key.parent == self.root.name:
            columns = [held for held in self.held[table] if held.asked]
            return self._holding(table, columns, {way: Link(guess.key, True)})
        if guess.why == BY_VALUES:
            question = _holds_keys(guess)
            return self._open(
                table, question + OR_ELSEWHERE, [way, shared()], {way: Link(guess.key, True)}, None
            )
        if guess.why == AS_MOST:
            question = (
                "%s is how most tables belong to %s, but here no foreign key says so; it is of type %s"
                % (
                    column,
                    self.root.name,
                    self.source.catalog.column(table, column).type,
                )
            )
            return self._open(
                table, question + OR_ELSEWHERE, [way, shared()], {way: Link(guess.key, True)}, None
            )
        borne = "the table is empty" if table in self.source.empty else guess.borne_out
        question = (
            "%s looks like a reference to %s, but no foreign key says so and the data do not show it: %s"
            % (
                column,
                guess.key.parent,
                "%s; %s" % (guess.doubt, borne) if guess.doubt else borne,
            )
        )
        # None of its rows, as long as nobody can say which table is meant
        choices = [*([where("false")] if guess.doubt else []), way, shared()]
        return self._open(table, question + OR_ELSEWHERE, choices, {way: Link(guess.key, True)}, None)

    def _unproved(self, table: str, ways: Mapping[Ownership, Link]) -> List[str]:
        if len(ways) == 1:
            return []
        others = [written(way) for way in list(ways)[1:]]
        return ["the table is empty: nothing shows whether %s says the same" % listed(others, "or")]


def _all(ways: Sequence[Ownership]) -> Ownership:
    return all_of(*(part for way in ways for part in (way.ways if way.way is Way.ALL else (way,))))


def _holds_keys(guess: Guess) -> str:
    return "%s holds keys of %s, %d of %s, though no foreign key says so" % (
        ", ".join(guess.key.columns),
        guess.key.parent,
        guess.values - guess.astray,
        counted(guess.values, "different value"),
    )
