"""Tables without a way to the root: referred to by its rows, hanging on such rows, or nobody's."""

from __future__ import annotations

import dataclasses
from typing import Dict, Iterator, List, Sequence, Tuple

from migration.discovery.classed import Classed, Group
from migration.discovery.entries import OR_ELSEWHERE, Entries, asked
from migration.discovery.held_keys import is_of_persons
from migration.discovery.source import count_small
from migration.discovery.words import listed, written
from migration.model import Kind, Ownership, any_of, child_of, owned_by, referenced, shared, where
from migration.printing import counted
from migration.sql import quote


class OtherTables(Entries):
    """Entries of tables that lead to no root."""

    def _others(self, owned: Sequence[str]) -> Iterator[Classed]:
        asked_for = {
            name: self._unmeant(name)
            for name, some in self.unmeant.items()
            if some and name not in owned and name not in self.source.foreign
        }
        yield from asked_for.values()
        owned = [*owned, *asked_for]
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
            yield self._referenced(name, why)
        hanging: Dict[str, List[Ownership]] = {}
        waiting = list(needed)
        for name in waiting:
            for link in self.links:
                key = link.key
                if key.parent != name or key.table in (name, *owned, *needed) or link.doubtful:
                    continue
                if key.table not in hanging:
                    waiting.append(key.table)
                way = child_of(name, key.columns, or_referenced=name in needed)
                hanging.setdefault(key.table, []).append(way)
        for name, ways in hanging.items():
            yield self._hanging(name, ways)
        waiting = list(hanging)
        for name in waiting:
            for link in self.links:
                parent = link.key.parent
                if link.key.table == name and parent not in (*owned, *needed, *hanging):
                    needed[parent] = [name]
                    waiting.append(parent)
                    yield self._referenced(parent, "rows of %s would refer to it" % name)
        for name in self.source.tables:
            if name not in owned and name not in needed and name not in hanging:
                yield self._nobodys_table(name)

    def _referenced(self, name: str, why: str) -> Classed:
        made = self._classed(name, referenced(), [why], None)
        return dataclasses.replace(made, group=Group.REFERENCED, may_name=self._may_name(name))

    def _may_name(self, name: str) -> Tuple[str, ...]:
        return tuple(held.column for held in self.held.get(name, ()) if held.said)

    def _with_members(self, table: Classed, come_along: Sequence[str]) -> Classed:
        """Ask of a table whose rows hang on rows that come along and have members: they may be the members' together.

        Members are another table's rows that say of which root and of which such row, each once: thread_id and user_id.
        """
        rule = table.assumed
        if rule is None or table.group is not Group.OWNED or not self._is_plain(rule):
            return table
        for link in self.links:
            key = link.key
            if (
                key.table == table.name
                and key.parent in come_along
                and len(key.columns) == 1
                and not is_of_persons(self.source, key.parent)
            ):
                for members, theirs, owner in self._members_of(key.parent):
                    rows = self.source.db.value(
                        "SELECT count(*) FROM {} t WHERE EXISTS (SELECT FROM {} m WHERE m.{} = t.{} AND m.{} <> t.{})".format(
                            self.source.db.quoted(table.name),
                            self.source.db.quoted(members),
                            *map(quote, (theirs, key.columns[0], owner, rule.columns[0])),
                        )
                    )
                    if rows and members != table.name:
                        question = (
                            "%s of it %s a row of %s that others have, too, by %s: is what one puts there theirs alone?"
                            % (
                                counted(rows, "row"),
                                "names" if rows == 1 else "name",
                                key.parent,
                                members,
                            )
                        )
                        all_members = any_of(rule, child_of(key.parent, key.columns, or_referenced=True))
                        return asked(table, question, [rule, all_members])
        return table

    def _with_types(self, table: Classed, come_along: Sequence[str]) -> Classed:
        """Ask of a table whose rows name rows of several tables: those that name rows which only come along stay behind."""
        links = [
            link
            for link in self.links
            if link.when
            and link.key.table == table.name
            and link.key.parent in come_along
            and not link.doubtful
        ]
        if table.group is not Group.OWNED or table.assumed is None or not links:
            return table
        parents = listed(dict.fromkeys(link.key.parent for link in links))
        question = (
            "some of its rows name rows of %s, which come along, and are nobody's by themselves" % parents
        )
        ways = [child_of(link.key.parent, link.key.columns, or_referenced=True) for link in links]
        return asked(table, question, [any_of(table.assumed, *ways), table.assumed])

    def _members_of(self, name: str) -> Iterator[Tuple[str, str, str]]:
        """Tables with one row for a root and a row of this table, and the columns that say so: of the row, and of the root."""
        for link in self.links:
            table, columns = link.key.table, link.key.columns
            if link.key.parent == name and len(columns) == 1 and table in self.belonging.decided:
                rule = self.belonging.rule(table)
                if self._is_plain(rule) and self.source.is_unique(table, (*columns, *rule.columns)):
                    yield table, columns[0], rule.columns[0]

    def _is_plain(self, rule: Ownership) -> bool:
        return rule == owned_by(rule.columns) and len(rule.columns) == 1

    def _hanging(self, name: str, ways: Sequence[Ownership]) -> Classed:
        """Ask of a table whose rows hang on rows that come along: it may be everybody's, or what members share."""
        question = (
            "its rows hang on %s, of which rows come along; child_of gives each root all that hangs there, whoever put it there"
            % listed(dict.fromkeys(str(way.parent) for way in ways))
        )
        nobodys = 'no entry here, and "%s" in UNRELATED_TABLES' % name
        choices = [*ways, *([any_of(*ways)] if len(ways) > 1 else ())]
        return asked(self._classed(name, ways[0], (), None), question, choices, nobodys)

    def _counted(self, tables: Sequence[Classed]) -> Iterator[Classed]:
        """The small ones with their rows counted."""
        counts = count_small(self.source, [table.name for table in tables])
        for table in tables:
            rows = counts.get(table.name)
            yield table if rows is None else dataclasses.replace(table, rows=rows, exact=True)

    def _unmeant(self, name: str) -> Classed:
        """A question where a column names rows of several tables, and nothing says of which."""
        question = (
            "%s: write whose its rows are, by where(…), or by a Reference(…, when=…) for each table that is named, and child_of(…)"
            % "; ".join(self.unmeant[name])
        )
        made = self._open(name, question + OR_ELSEWHERE, [where("false"), shared()], {}, None)
        return dataclasses.replace(made, reasons=())

    def _nobodys_table(self, name: str) -> Classed:
        group, why = Group.UNRELATED, self._nothing_found(name)
        if name in self.source.foreign:
            group, why = Group.FOREIGN, "a foreign table: its rows are another server's"
        if name in self.source.excluded:
            why = "left out by --exclude"
        elif self.source.excluded and group is Group.UNRELATED and name in self.below_excluded:
            group, why = Group.FOREIGN, "its rows hang on a table that --exclude leaves out"
        return dataclasses.replace(
            self._classed(name, shared(), [why], None),
            group=group,
            rule=None,
            assumed=None,
            reasons=(why,),
            may_name=self._may_name(name) if group is Group.UNRELATED else (),
        )

    def _nothing_found(self, name: str) -> str:
        """What was looked at of a table that is nobody's, and what of it may be keys all the same."""
        why = "no foreign key and no name of a column leads to a root, and nothing of a root's refers to it"
        looked_at = self.held.get(name, ())
        keys = [held for held in looked_at if held.keys]
        if keys:
            why += "; of the different values that were looked at, these are keys or names of %s: %s" % (
                self.root.name,
                listed(["%d of %d of %s" % (held.keys, held.values, held.column) for held in keys]),
            )
            why += "".join(
                "; if %s names one: %s" % (held.column, written(self._by_form(name, held)))
                for held in keys
                if held.said
            )
        elif looked_at:
            why += "; no value of %s that was looked at names a row of %s" % (
                listed([held.column for held in looked_at], "or"),
                self.root.name,
            )
        inside = [
            column.name
            for column in self.source.catalog.columns.get(name, ())
            if column.kind in (Kind.JSON, Kind.JSONB, Kind.STRUCTURE) and not column.type.endswith("[]")
        ]
        if inside:
            why += "; what is inside %s was not looked at" % listed(inside)
        return why
