"""Columns that hold the root's keys though nothing but their values says so."""

from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple, Tuple

from migration.discovery.source import Source
from migration.discovery.words import stem, words_of
from migration.model import Column, Kind, Root
from migration.postgres.operators import are_written_alike
from migration.sql import qualified, quote

ROWS = 2000  # of a table, looked at
_LONGEST = 300  # characters of a value: keys are shorter


class Held(NamedTuple):
    """A column of which every value that was looked at is a key of the root.

    ``certain``: no chance, as small numbers would be whose column is not called after the root. ``alike``: its values compare with the key as they are.
    """

    column: str
    values: int
    certain: bool
    alike: bool


def held_keys(source: Source, root: Root, tables: Iterable[str]) -> Dict[str, List[Held]]:
    """Of tables that nothing connects with the root: their columns that hold its keys. A query a table, and one of the root."""
    key = source.catalog.column(root.name, root.key)
    looked: List[Tuple[str, Column, List[str]]] = []
    for table in tables:
        if table in source.empty or table in source.foreign or table in source.catalog.unreadable:
            continue
        columns = [
            column
            for column in source.catalog.columns[table]
            if _may_hold(key, column) and not (_is_number(key) and column == source.single_key(table))
        ]
        found = _values(source, table, columns) if columns else []
        looked += [(table, column, values) for column, values in zip(columns, found) if values]
    held: Dict[str, List[Held]] = {}
    known = _known(source, root, [values for _, _, values in looked]) if looked else {}
    for number, (table, column, values) in enumerate(looked):
        certain = not _is_number(key) or set(stem(root.name)) <= set(words_of(column.name))
        if known.get(number) == len(values) and (certain or len(values) > 1):
            alike = are_written_alike(key, column)
            held.setdefault(table, []).append(Held(column.name, len(values), certain, alike))
    return held


def _is_number(key: Column) -> bool:
    return key.kind in (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.BOOLEAN)


def _may_hold(key: Column, column: Column) -> bool:
    texts = (Kind.TEXT, Kind.UUID)
    return column.kind is key.kind or (column.kind in texts and (key.kind in texts or _is_number(key)))


def _values(source: Source, table: str, columns: List[Column]) -> List[List[str]]:
    """The different values of each column as text, of the first rows of a table."""
    names = [qualified("t", column.name) for column in columns]
    sql = "SELECT %s FROM (SELECT %s FROM %s t LIMIT %d) v" % (
        ", ".join(
            "array_agg(DISTINCT v.c%d) FILTER (WHERE v.c%d IS NOT NULL)" % (n, n) for n in range(len(names))
        ),
        ", ".join("left(%s::text, %d) AS c%d" % (name, _LONGEST, n) for n, name in enumerate(names)),
        source.db.quoted(table),
        ROWS,
    )
    return [values or [] for values in source.db.rows(sql)[0]]


def _known(source: Source, root: Root, columns: List[List[str]]) -> Dict[int, int]:
    """How many of the values of each column are keys of the root: the root's table is read once."""
    numbers = [number for number, values in enumerate(columns) for _ in values]
    texts = [value for values in columns for value in values]
    sql = (
        "SELECT v.n, count(DISTINCT v.v) FROM unnest(%%s::int[], %%s::text[]) v (n, v) JOIN %s r ON r.%s::text = v.v GROUP BY 1"
        % (source.db.quoted(root.name).replace("%", "%%"), quote(root.key).replace("%", "%%"))
    )
    return dict(source.db.rows(sql, (numbers, texts)))
