"""Columns that hold keys of the root's other tables, of its workspaces say, though nothing but their values says so. Small numbers are no keys here."""

from __future__ import annotations

import re
from typing import Collection, Dict, Iterator, List, Sequence, Set, Tuple

from migration.discovery.references import Guess
from migration.discovery.source import Source
from migration.model import Column, Kind
from migration.sql import qualified, quote

BY_VALUES = "by its values"
_ROWS = 2000  # of a table, looked at
_VALUES = 50  # of each column, compared
_SHORTEST = 3  # characters: shorter ones are codes, which many tables have in common
_TEXTS = ("uuid", "text", "character varying", "character")
_ARRAYS = ("uuid[]", "text[]", "character varying[]")
_HIGH = 10**9
_NUMBER = re.compile("[0-9]{1,18}")
_UUID = re.compile("[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")


class HeldElsewhere:
    """Some values of tables, and which tables of roots have them as keys.

    ``found``: tables and columns → tables with how many of their values as keys, and of how many.
    """

    def __init__(self, source: Source, tables: Sequence[str], referring: Collection[Tuple[str, str]]) -> None:
        self.source = source
        self._looked_in: Set[str] = set()
        self._high: Dict[Tuple[str, str], bool] = {}
        self.found: Dict[Tuple[str, str], Tuple[Dict[str, int], int]] = {}
        has_keys = any(self._keys(parent) for parent in source.tables)
        self._columns = [
            (table, column, values)
            for table in (tables if has_keys else ())
            if not (table in source.empty or table in source.foreign or table in source.catalog.unreadable)
            for column, values in self._values(table, referring)
        ]

    def _keys(self, parent: str) -> List[Column]:
        """The columns that tell its rows apart, each by itself, and are no numbers: the primary key first."""
        if parent in self.source.empty or parent in self.source.catalog.unreadable:
            return []
        primary = self.source.catalog.primary_keys.get(parent)
        unique = self.source.unique_columns(parent)
        return [
            column
            for column in sorted(unique, key=lambda one: (one.name,) != primary)
            if column.type.partition("(")[0] in _TEXTS
            or (column.kind is Kind.INTEGER and column.type == "bigint" and self._is_high(parent, column))
        ]

    def _is_high(self, parent: str, column: Column) -> bool:
        """Whether numbers are none that anything else has by chance, but such as Snowflake makes."""
        if (parent, column.name) not in self._high:
            name, table = quote(column.name), self.source.db.quoted(parent)
            sql = "SELECT coalesce((SELECT min(%s) FROM %s) > %d, false)" % (name, table, _HIGH)
            self._high[parent, column.name] = bool(self.source.db.value(sql))
        return self._high[parent, column.name]

    def _values(
        self, table: str, referring: Collection[Tuple[str, str]]
    ) -> Iterator[Tuple[Column, List[str]]]:
        columns = [
            column
            for column in self.source.catalog.columns[table]
            if (column.kind in (Kind.TEXT, Kind.UUID) or column.type in (*_ARRAYS, "bigint"))
            and (table, column.name) not in referring
        ]
        if columns:
            some = "(array_agg(DISTINCT {0}) FILTER (WHERE length({0}) BETWEEN %d AND 300))[1:%d]" % (
                _SHORTEST,
                _VALUES,
            )
            asked = [
                "(SELECT %s FROM v, unnest(v.c%d) e)" % (some.format("left(e, 301)"), n)
                if column.type in _ARRAYS
                else "(SELECT %s FROM v)" % some.format("v.c%d" % n)
                for n, column in enumerate(columns)
            ]
            sql = "WITH v AS MATERIALIZED (SELECT %s FROM %s t LIMIT %d) SELECT %s" % (
                ", ".join(
                    ("%s::text[] AS c%d" if one.type in _ARRAYS else "left(%s::text, 301) AS c%d")
                    % (qualified("t", one.name), n)
                    for n, one in enumerate(columns)
                ),
                self.source.db.quoted(table),
                _ROWS,
                ", ".join(asked),
            )
            for column, values in zip(columns, self.source.db.rows(sql)[0]):
                if values:
                    yield column, values

    def guesses(self, parents: Sequence[str]) -> Iterator[Guess]:
        """References to these tables, if they were not looked at before: half of the values have to be keys."""
        for parent in parents:
            if parent in self._looked_in:
                continue
            self._looked_in.add(parent)
            for key in self._keys(parent):
                is_primary = self.source.catalog.primary_keys.get(parent) == (key.name,)
                for number, count in self._known(parent, key).items():
                    table, column, values = self._columns[number]
                    if table == parent:
                        continue
                    known = self.found.setdefault((table, column.name), ({}, len(values)))[0]
                    known[parent] = max(count, known.get(parent, 0))
                    # By another column than the primary key it takes a Reference, which holds for every value.
                    enough = count * 2 >= len(values) if is_primary else count == len(values)
                    if enough and column.type not in _ARRAYS:
                        found = self.source.reference(table, column.name, parent, key.name)
                        yield Guess(found, BY_VALUES, len(values), len(values) - count)

    def _known(self, parent: str, key: Column) -> Dict[int, int]:
        pairs = [
            (number, value)
            for number, (_, _, values) in enumerate(self._columns)
            for value in values
            if key.kind is Kind.TEXT or (_UUID if key.kind is Kind.UUID else _NUMBER).fullmatch(value)
        ]
        if not pairs:
            return {}
        cast = {Kind.UUID: "::uuid", Kind.INTEGER: "::bigint"}.get(key.kind, "::text")
        sql = (
            "SELECT v.n, count(*) FROM unnest(%%s::int[], %%s::text[]) v (n, v) WHERE v.v%s IN (SELECT k.%s FROM %s k) GROUP BY 1"
            % (
                cast,
                quote(key.name).replace("%", "%%"),
                self.source.db.quoted(parent).replace("%", "%%"),
            )
        )
        return dict(
            self.source.db.rows(sql, ([number for number, _ in pairs], [value for _, value in pairs]))
        )
