"""References of exported rows that lead out of the export: which are cut to NULL, and which rows they bring."""

from __future__ import annotations

import functools
import json
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from migration.errors import MigrationError, UsageError
from migration.model import ForeignKey, Way
from migration.postgres import kinds
from migration.postgres.records import Cut
from migration.postgres.references import References
from migration.postgres.sets import Sets
from migration.postgres.ways import Node
from migration.printing import conjugated, counted
from migration.python_text import names, text
from migration.sqlite.mapping import map_columns
from migration.sqlite.schema import Schema

FEW_ROOTS = 10  # of so few others, a user may well know more than half


def cut_columns(references: References, schema: Schema, key: ForeignKey) -> Tuple[str, ...]:
    """The columns of a reference that can be NULL in both databases; of several, those of no other reference first."""
    table = references.tables[key.table]
    never = set(references.catalog.keys[key.table])
    pairs = map_columns(table, references.catalog.columns[key.table], schema).copied
    may = {
        pair.source.name
        for pair in pairs
        if not (pair.source.not_null or pair.target.not_null or pair.target.key)
    }
    names = [name for name in key.columns if name in may and name not in never]
    others = {
        name
        for other in references.exported
        if other.table == key.table and other[:4] != key[:4]
        for name in other.columns
    }
    return tuple(name for name in names if name not in others) or tuple(names)


def cannot_cut(key: ForeignKey) -> MigrationError:
    return UsageError(
        "%s cannot be cut: none of its columns may be NULL in both databases" % key.name,
        'let it "skip" the row or "bring" the other: Reference(%s, %s, %s, leaving="skip") in config.REFERENCES'
        % (text(key.table), names(key.columns), text(key.parent)),
    )


class Leaving:
    """What is cut and brought of one user's rows.

    Raises MigrationError (exit 2) where an entry of config.REFERENCES cuts what cannot be.
    """

    def __init__(self, sets: Sets, schema: Schema) -> None:
        self.sets = sets
        self.db = sets.owned.db
        self.catalog = sets.catalog
        self.tables = sets.tables
        self._schema = schema
        self._brought = [node.table for node in sets.ways.nodes if node.brought]

    @functools.cached_property
    def _cut(self) -> Dict[ForeignKey, Tuple[str, ...]]:
        """The references that can be cut, and the columns that become NULL."""
        references = self.sets.references
        keys = [key for key in references.exported if self.sets.ways.leaving(key) == "cut"]
        columns = {key: cut_columns(references, self._schema, key) for key in keys}
        for key in keys:
            if not columns[key] and references.is_named(key):
                raise cannot_cut(key)
        return {key: names for key, names in columns.items() if names}

    def require_cuttable(self, table: str, columns: Sequence[str], parent: str) -> None:
        """Raises MigrationError (exit 2) where rows have to be cut by a reference that cannot be."""
        for key in self.sets.references.exported:
            is_meant = key[:3] == (table, tuple(columns), parent) and self.sets.ways.leaving(key) == "cut"
            if is_meant and key not in self._cut:
                raise cannot_cut(key)

    def cuts(self, table: str) -> List[Cut]:
        mine = [(key, columns) for key, columns in self._cut.items() if key.table == table]
        return [
            Cut(columns, self._rows_cut(key), self.sets.is_same(table, "x%d" % number, "t"))
            for number, (key, columns) in enumerate(mine)
        ]

    def _rows_cut(self, key: ForeignKey) -> str:
        """A subquery: the rows of the table's set whose reference is cut."""
        return "%sSELECT t.*, true AS cut FROM %s" % (
            self.sets.clause([key.table, key.parent]),
            self.sets.dangling_from(key),
        )

    # Rows that are brought

    def require_no_explosion(self) -> None:
        """Raises MigrationError (exit 2) where rows of no key would be brought, or rows of most other users."""
        root = self.sets.owned.settings.root
        bringing = [key for key in self.sets.references.exported if self.sets.ways.leaving(key) == "bring"]
        for name in self._brought:
            if not self.catalog.keys[name]:
                raise UsageError(
                    "rows of %s cannot be brought: it has no key that tells them apart" % name,
                    'add a primary key in PostgreSQL, or let the reference "cut", "skip" or "stop"',
                )
            table = self.tables[name]
            if table.owner is None:
                continue
            others = self.db.value("SELECT count(*) - 1 FROM " + self.db.quoted(root.name))
            rows, roots = self.db.rows(
                "%sSELECT count(*), count(DISTINCT t.%s) FROM %s"
                % (self.sets.clause([name]), self.sets.place(name, table.owner), self._rows_brought(name))
            )[0]
            everybodys = any(
                key.parent == name and self.tables[key.table].ownership.way in (Way.SHARED, Way.REFERENCED)
                for key in bringing
            )
            if roots == others > 1 and everybodys or others > FEW_ROOTS and roots * 2 > others:
                raise UsageError(
                    "%s of %s would be brought, of %d of the %d other rows of %s"
                    % (counted(rows, "row"), name, roots, others, root.name),
                    'let the reference "cut", "skip" or "stop" instead, by REFERENCES or LEAVING in config.py: %s'
                    % "; ".join(key.name for key in bringing if key.parent == name),
                )

    def _rows_brought(self, name: str) -> str:
        return "%s t WHERE NOT EXISTS (SELECT FROM %s m WHERE %s)" % (
            self.sets.name(Node(name, True)),
            self.sets.name(Node(name)),
            self.sets.is_same_member(name, "m", "t"),
        )

    def brought_by(self) -> Mapping[str, List[Tuple[str, Tuple[str, ...], Tuple[str, ...]]]]:
        """Table → the references that may bring its rows: their table, columns, and the columns that they name."""
        return {
            name: [
                (link.key.table, link.key.columns, link.key.parent_columns)
                for branch in self.sets.ways.nodes[Node(name, True)]
                for link in branch.links
            ]
            for name in self._brought
        }

    @functools.cached_property
    def brought(self) -> Dict[str, int]:
        """Table → rows that are brought, where there are some."""
        counts = {
            name: self.db.value(
                "%sSELECT count(*) FROM %s" % (self.sets.clause([name]), self._rows_brought(name))
            )
            for name in self._brought
        }
        return {name: rows for name, rows in counts.items() if rows}

    def brought_lines(self) -> Iterator[str]:
        """What was brought, a line a table; of other roots with what their rows tell of them."""
        root = self.sets.owned.settings.root
        for name, rows in self.brought.items():
            line = "%s of %s that %s not the %s's" % (
                counted(rows, "row"),
                name,
                conjugated(rows, "are"),
                root.called,
            )
            if name == root.name:
                copied = map_columns(self.tables[name], self.catalog.columns[name], self._schema).copied
                line += ": whole rows of others, with " + ", ".join(pair.source.name for pair in copied)
            yield line

    def names_roots(self, table: str, parent: str) -> bool:
        """Whether a reference of rows that are brought leads to another root's own row, which has to be declared."""
        return table in self._brought and parent == self.sets.owned.settings.root.name

    @property
    def declared(self) -> Optional[str]:
        """Whether the run skips every row of a reference that leaves; None where config.py leaves all as it is."""
        settings = self.sets.owned.settings
        if settings.leaving == "stop" and all(each.leaving in (None, "stop") for each in settings.references):
            return None
        return "skip" if self.sets.ways.skip else "stop"

    # The list of both

    def listed(self) -> Iterator[bytes]:
        """A JSON object for each reference that is cut, and for each row that is brought, in a fixed order."""
        for key, columns in sorted(self._cut.items(), key=lambda item: item[0].name):
            entry = {
                "change": "cut",
                "table": key.table,
                "columns": key.columns,
                "parent": key.parent,
                "null": columns,
            }
            for row in self._keys(
                key.table, self.sets.clause([key.table, key.parent]), self.sets.dangling_from(key)
            ):
                yield _line({**entry, "key": row})
        for name in sorted(self._brought):
            for row in self._keys(name, self.sets.clause([name]), self._rows_brought(name)):
                yield _line({"change": "brought", "table": name, "key": row})

    def _keys(self, table: str, clause: str, source: str) -> Iterator[List[str]]:
        """The keys of rows of a set as texts, as records have them. None of a table without a key: rows are counted."""
        values = self.catalog.values.get(table, {})
        texts = []
        for name in self.catalog.keys[table]:
            column = "t." + self.sets.place(table, name)
            shown = kinds.rendered(values[name], column) if name in values else column
            texts.append("pg_catalog.to_json(%s) #>> '{}'" % shown)
        query = "SELECT pg_catalog.json_build_array(%s) FROM %s" % (", ".join(texts), source)
        for line in self.db.stream(
            '%sSELECT k.key FROM (%s) k (key) ORDER BY k.key::text COLLATE "C"' % (clause, query)
        ):
            yield json.loads(line)


def _line(entry: Mapping[str, object]) -> bytes:
    return json.dumps(entry, ensure_ascii=False).encode("utf-8")
