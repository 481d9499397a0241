"""Columns that hold the root's keys though nothing but their values says so."""

from __future__ import annotations

from typing import Collection, Dict, Iterable, List, NamedTuple, Sequence, Tuple

from migration.discovery.source import Source
from migration.discovery.words import stem, words_of
from migration.model import Column, Kind, Root
from migration.postgres.operators import are_written_alike
from migration.sql import qualified, quote

ROWS = 2000  # of a table, looked at
_LONGEST = 300  # characters of a value: keys are shorter


class Held(NamedTuple):
    """A column that could hold keys of the root: its different values that were looked at, and how many of them are keys.

    ``asked``: enough for a question. ``by_chance``: its values may be keys by chance, as small numbers are. ``alike``: they
    compare with the key as they are.
    """

    column: str
    values: int
    keys: int
    asked: bool
    by_chance: bool
    alike: bool

    @property
    def only_keys(self) -> bool:
        """Whether it holds several different values, and all of them are keys."""
        return self.keys == self.values > 1

    @property
    def said(self) -> bool:
        """Whether the operator has to look at it, though it is no question."""
        return not self.asked and (self.only_keys or self.keys > 0 and not self.by_chance)


def held_keys(
    source: Source, root: Root, tables: Iterable[str], referring: Collection[Tuple[str, str]]
) -> Dict[str, List[Held]]:
    """Of tables that nothing connects with the root: their columns that could hold its keys.

    ``referring``: tables and columns that refer to other tables: these are not looked at, and a table's own number key
    is not. A query a table, and two of the root.
    """
    key = source.catalog.column(root.name, root.key)
    wanted = {
        table: [
            column
            for column in source.catalog.columns[table]
            if _may_hold(key, column)
            and (table, column.name) not in referring
            and not (_is_number(key) and column == source.single_key(table))
        ]
        for table in tables
        if table not in source.empty
        and table not in source.foreign
        and table not in source.catalog.unreadable
    }
    if not any(wanted.values()):
        return {}
    form = _form(source, root, key)
    looked = [
        (table, column, values)
        for table, columns in wanted.items()
        if columns
        for column, values in zip(columns, _values(source, table, columns, form))
    ]
    held: Dict[str, List[Held]] = {}
    known = _known(source, root, [values.alike for _, _, values in looked])
    name = set(stem(source.catalog.relations[root.name].name))
    for number, (table, column, values) in enumerate(looked):
        keys = known.get(number, 0)
        is_named = name <= set(words_of(column.name))
        by_chance = _is_number(key) and not is_named
        # Half, as the others may be of roots that are gone; of a name that says it one: the others may be written otherwise.
        enough = 1 if is_named and not _is_number(column) else max(1, values.different / 2)
        asked = keys >= enough and not by_chance
        alike = are_written_alike(key, column)
        held.setdefault(table, []).append(Held(column.name, values.different, keys, asked, by_chance, alike))
    return {table: _with_joined(source, table, columns) for table, columns in held.items()}


def _with_joined(source: Source, table: str, columns: List[Held]) -> List[Held]:
    """Numbers that are keys are asked for, too, where they tell rows apart only together, as friends (a, b)."""
    names = {held.column for held in columns if held.only_keys}
    joined = {
        name for key in source.unique.get(table, ()) if len(key) > 1 and names >= set(key) for name in key
    }
    return [held._replace(asked=held.asked or held.column in joined) for held in columns]


def _is_number(key: Column) -> bool:
    return key.kind in (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.BOOLEAN)


def _may_hold(key: Column, column: Column) -> bool:
    texts = (Kind.TEXT, Kind.UUID)
    return column.kind is key.kind or (column.kind in texts and (key.kind in texts or _is_number(key)))


class _Values(NamedTuple):
    """Of a column: how many different values were looked at, and those that have the form of a key, as text."""

    different: int
    alike: List[str]


def _values(source: Source, table: str, columns: List[Column], form: str) -> List[_Values]:
    """What the first rows of a table hold. ``form``: SQL with a place for a text, whether it may be a key."""
    names = [qualified("t", column.name) for column in columns]
    counted = [
        "count(DISTINCT v.c{0}), array_agg(DISTINCT v.c{0}) FILTER (WHERE {1})".format(
            n, form.format("v.c%d" % n)
        )
        for n in range(len(names))
    ]
    sql = "SELECT %s FROM (SELECT %s FROM %s t LIMIT %d) v" % (
        ", ".join(counted),
        ", ".join("left(%s::text, %d) AS c%d" % (name, _LONGEST, n) for n, name in enumerate(names)),
        source.db.quoted(table),
        ROWS,
    )
    row = source.db.rows(sql)[0]
    return [_Values(count, alike or []) for count, alike in zip(row[::2], row[1::2])]


def _form(source: Source, root: Root, key: Column) -> str:
    """SQL with a place for a text: whether it is as long as a key of the root, and of digits if the keys are."""
    sql = "SELECT min(length(r.{0}::text)), max(length(r.{0}::text)) FROM {1} r"
    shortest, longest = source.db.rows(sql.format(quote(root.key), source.db.quoted(root.name)))[0]
    if longest is None:
        return "false"
    digits = " AND {0} ~ '^[-.0-9]+$'" if key.kind in (Kind.INTEGER, Kind.NUMERIC) else ""
    return "length({0}) BETWEEN %d AND %d" % (shortest, longest) + digits


def _known(source: Source, root: Root, columns: List[List[str]]) -> Dict[int, int]:
    """How many of the values of each column are keys of the root: the root's table is read once."""
    numbers = [number for number, values in enumerate(columns) for _ in values]
    texts = [value for values in columns for value in values]
    sql = (
        "SELECT v.n, count(DISTINCT v.v) FROM unnest(%%s::int[], %%s::text[]) v (n, v) JOIN %s r ON r.%s::text = v.v GROUP BY 1"
        % (source.db.quoted(root.name).replace("%", "%%"), quote(root.key).replace("%", "%%"))
    )
    return dict(source.db.rows(sql, (numbers, texts)))


def rows_that_differ(source: Source, table: str, columns: Sequence[str]) -> int:
    """How many rows have different values in these columns, NULLs aside."""
    sql = "SELECT count(*) FROM %s t WHERE (SELECT count(DISTINCT v) FROM unnest(ARRAY[%s]) v) > 1" % (
        source.db.quoted(table),
        ", ".join("%s::text" % qualified("t", name) for name in columns),
    )
    return int(source.db.value(sql))
