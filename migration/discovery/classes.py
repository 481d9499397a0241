"""Which class each table is of: whose its rows are, why, and what only the operator can say."""

from __future__ import annotations

from typing import Callable, Iterator, List, Sequence

from migration.discovery.classed import Classed, Classes, Departure, Group
from migration.discovery.departing import Departing
from migration.discovery.levels import parents_first
from migration.discovery.other_tables import OtherTables
from migration.discovery.own_tables import OwnTables
from migration.discovery.references import References
from migration.discovery.source import Source
from migration.errors import SourceError, UsageError
from migration.model import Root, the_root


def classify(
    source: Source, root: Root, references: References, advance: Callable[[int], None] = lambda tables: None
) -> Classes:
    """Class every table. Raises MigrationError: exit 2 for a root that owns nothing, 3 where a table may not be read.

    ``advance`` is called with the number of tables looked at since its last call.
    """
    return _Classifier(source, root, references).classes(advance)


class _Classifier(OwnTables, Departing, OtherTables):
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
        for name in parents_first(self.levels, self.links, self.root.name, self._astray):
            owned[name] = self._owned(name)
            assumed = owned[name].assumed
            assert assumed is not None
            self.belonging.decide(name, assumed)
            advance(1)
        departures: List[Departure] = []
        for name in list(owned):
            owned[name] = self._with_departures(owned[name], departures)
        open_ = {name for name, table in owned.items() if table.group is Group.OPEN}
        for name in list(owned):
            owned[name] = self._with_trees(self._with_nobodys(owned[name], departures, open_))
        others = list(self._counted(list(self._others(list(owned)))))
        come_along = [table.name for table in others if table.group is Group.REFERENCED]
        for name in list(owned):
            owned[name] = self._with_types(self._with_members(owned[name], come_along), come_along)
        advance(len(others) + 1)  # and the root
        migrated = {
            *owned,
            *(table.name for table in others if table.group in (Group.REFERENCED, Group.OPEN)),
        }
        return Classes(
            self.root,
            tuple(_parents_first([*owned.values(), *others])),
            tuple(
                link
                for link in self.links
                if link.key.table in migrated and link.key.parent in migrated and not link.doubtful
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


def _parents_first(tables: Sequence[Classed]) -> Iterator[Classed]:
    """In their order, but each behind those that its rows may belong by."""
    waiting = {table.name: table for table in tables}

    def take(name: str) -> Iterator[Classed]:
        table = waiting.pop(name, None)
        if table is not None:
            for parent in sorted(table.parents):
                yield from take(parent)
            yield table

    for table in tables:
        yield from take(table.name)
