"""Columns that hold keys or names of the root's rows though nothing but their values says so."""

from __future__ import annotations

import enum
from typing import Collection, Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

from migration.discovery.source import Source
from migration.discovery.words import singular, stem, words_of
from migration.model import Column, Kind, Root
from migration.sql import qualified, quote

_SMALL = 128  # pages of a table of which every row is looked at
_ROWS = 2000  # of a larger one, its first ones
_PAGES = 40  # and these somewhere in it
_PAGE = 8192  # bytes
_LONGEST = 300  # characters of a value: keys are shorter
_AT_ONCE = 100_000  # values compared with the root's in one query
# What columns are called that name a person.
_ROLES = {
    *("account", "approver", "assignee", "author", "borrower", "buyer", "by", "client", "contact", "creator"),
    *("customer", "editor", "guest", "lender", "member", "owner", "participant", "person", "receiver"),
    *("recipient", "reviewer", "seller", "sender", "subscriber", "user", "who", "whom", "whose", "writer"),
}
_OF_PERSONS = {"email", "login", "mail", "password", "surname", "username"}  # words of columns


class Form(enum.Enum):
    """What a column holds: keys of the root, the names by which the command line knows its rows, or arrays of keys."""

    KEY = "keys"
    NAME = "names"
    ARRAY = "arrays of keys"


class Held(NamedTuple):
    """A column that could name rows of the root: its different values that were looked at, and how many of them do.

    ``asked``: enough for a question. ``by_chance``: its values may be keys by chance, as small numbers are.
    """

    column: str
    form: Form
    values: int
    keys: int
    asked: bool
    by_chance: bool

    @property
    def only_keys(self) -> bool:
        """Whether it holds several different values, and all of them are keys."""
        return self.keys == self.values > 1

    @property
    def said(self) -> bool:
        """Whether the operator has to look at it, though it is no question."""
        if self.asked or self.form is Form.NAME:
            return False
        return self.only_keys or (self.keys > 0 and not self.by_chance)


class _Looked(NamedTuple):
    """A column, how many different values of it were looked at, and those that may be keys or names, as text."""

    table: str
    column: Column
    form: Form
    different: int
    alike: List[str]


def held_keys(
    source: Source,
    root: Root,
    tables: Iterable[str],
    connected: Collection[str],
    referring: Collection[Tuple[str, str]],
) -> Dict[str, List[Held]]:
    """Of these tables: the columns that could name rows of the root. A query a table, and two of the root.

    ``connected``: tables that lead to the root already: of these, only columns that are likely are looked at.
    ``referring``: tables and columns that refer to other tables: these are not looked at, nor is a table's own number key.
    """
    look = _Look(source, root)
    found: Dict[str, List[Held]] = {}
    for looked, keys in look.compared(tables, connected, referring):
        found.setdefault(looked.table, []).append(look.judged(looked, keys))
    for table, columns in found.items():
        if table not in connected:
            found[table] = _with_joined(source, table, columns)
    return {table: _one_form_each(columns) for table, columns in found.items()}


def _with_joined(source: Source, table: str, columns: List[Held]) -> List[Held]:
    """Numbers that are keys are asked for, too, where they tell rows apart only together, as friends (a, b)."""
    names = {held.column for held in columns if held.only_keys}
    joined = {
        name for key in source.unique.get(table, ()) if len(key) > 1 and names >= set(key) for name in key
    }
    return [held._replace(asked=held.asked or held.column in joined) for held in columns]


def _one_form_each(columns: Sequence[Held]) -> List[Held]:
    best: Dict[str, Held] = {}
    for held in columns:
        known = best.setdefault(held.column, held)
        if held.keys > known.keys:
            best[held.column] = held
    return list(best.values())


class _Look:
    """Looks at columns, and compares their values with the root's keys and names."""

    def __init__(self, source: Source, root: Root) -> None:
        self.source = source
        self.root = root
        self.key = source.catalog.column(root.name, root.key)
        self.is_number = self.key.kind in (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.BOOLEAN)
        name = source.catalog.column(root.name, root.named_by)
        self.has_names = name.kind is Kind.TEXT and root.named_by != root.key
        self.words = set(stem(source.catalog.relations[root.name].name))
        of_root = {word for column in source.catalog.columns[root.name] for word in words_of(column.name)}
        self.of_persons = bool(of_root & _OF_PERSONS)
        self.tests = self._tests()

    def _tests(self) -> Dict[Form, str]:
        """SQL with a place for a text, whether it may be a key, or a name: by its length and its signs."""
        texts = [(Form.KEY, self.root.key), *([(Form.NAME, self.root.named_by)] if self.has_names else [])]
        asked = ", ".join(
            "min(length(r.{0}::text)), max(length(r.{0}::text)), bool_and(r.{0}::text LIKE '%@%')".format(
                quote(name)
            )
            for _, name in texts
        )
        row = self.source.db.rows("SELECT %s FROM %s r" % (asked, self.source.db.quoted(self.root.name)))[0]
        made: Dict[Form, str] = {}
        for number, (form, _) in enumerate(texts):
            shortest, longest, is_address = row[3 * number : 3 * number + 3]
            test = "false" if longest is None else "length({0}) BETWEEN %d AND %d" % (shortest, longest)
            if form is Form.KEY and self.key.kind in (Kind.INTEGER, Kind.NUMERIC):
                test += " AND {0} ~ '^[-.0-9]+$'"
            elif is_address:
                test += " AND {0} LIKE '%@%'"
            made[form] = test
        made[Form.ARRAY] = made[Form.KEY]
        return made

    def is_named(self, column: str) -> bool:
        """Whether a column's name says that it names a row of the root."""
        words = {singular(word) for word in words_of(column)}
        return self.words <= words or (self.of_persons and bool(words & _ROLES))

    def forms(self, column: Column) -> Iterator[Form]:
        """What a column of its type can hold."""
        texts = (Kind.TEXT, Kind.UUID)
        kind = self.key.kind
        if column.type.endswith("[]"):
            numbers = ("smallint", "integer", "bigint", "numeric")
            one = column.type[:-2].partition("(")[0]
            if (
                one == self.key.type
                or one in ("text", "character varying")
                or (self.is_number and one in numbers)
            ):
                yield Form.ARRAY
        elif column.kind is kind or (column.kind in texts and (kind in texts or self.is_number)):
            yield Form.KEY
        if self.has_names and column.kind is Kind.TEXT:
            yield Form.NAME

    def compared(
        self, tables: Iterable[str], connected: Collection[str], referring: Collection[Tuple[str, str]]
    ) -> Iterator[Tuple[_Looked, int]]:
        """Each column with the number of its values that are keys, or names; many in one query of the root."""
        source = self.source
        waiting: List[_Looked] = []
        for table in tables:
            if table in source.empty or table in source.foreign or table in source.catalog.unreadable:
                continue
            wanted = [
                (column, form)
                for column in source.catalog.columns[table]
                if (table, column.name) not in referring
                and not (self.is_number and column == source.single_key(table))
                for form in self.forms(column)
                if table not in connected or self.is_likely(column.name, form)
            ]
            if wanted:
                waiting += self.looked(table, wanted)
            if sum(len(looked.alike) for looked in waiting) > _AT_ONCE:
                yield from zip(waiting, self.known(waiting))
                waiting = []
        yield from zip(waiting, self.known(waiting))

    def is_likely(self, column: str, form: Form) -> bool:
        """Whether a column of a table that leads to the root may lead there, too: by its name, or by keys that are no numbers."""
        if form is Form.NAME:
            return self.is_named(column) or column.lower() == self.root.named_by.lower()
        return not self.by_chance(column, form)

    def by_chance(self, column: str, form: Form) -> bool:
        return self.is_number and form is not Form.NAME and not self.is_named(column)

    def looked(self, table: str, wanted: Sequence[Tuple[Column, Form]]) -> Iterator[_Looked]:
        """What some rows of a table hold."""
        columns: List[str] = []
        counted: List[str] = []
        for n, (column, form) in enumerate(wanted):
            value, rows = "v.c%d" % n, ""
            if form is Form.ARRAY:
                columns.append("%s::text[] AS c%d" % (qualified("t", column.name), n))
                value, rows = "left(e, %d)" % _LONGEST, "FROM v, unnest(v.c%d) e" % n
            else:
                columns.append("left(%s::text, %d) AS c%d" % (qualified("t", column.name), _LONGEST, n))
            found = (
                "count(DISTINCT %s)" % value,
                "array_agg(DISTINCT {0}) FILTER (WHERE {1})".format(value, self.tests[form].format(value)),
            )
            counted += ["(SELECT %s %s)" % (one, rows) for one in found] if rows else found
        sql = "WITH v AS (%s) SELECT %s FROM v" % (self.some_rows(table, columns), ", ".join(counted))
        row = self.source.db.rows(sql)[0]
        for (column, form), count, alike in zip(wanted, row[::2], row[1::2]):
            yield _Looked(table, column, form, count, alike or [])

    def some_rows(self, table: str, columns: Sequence[str]) -> str:
        """SQL of a table's rows, of a large one of its first ones and of some pages: always the same ones."""
        rows = "SELECT %s FROM %s t" % (", ".join(columns), self.source.db.quoted(table))
        pages = self.source.bytes_.get(table, 0) / _PAGE
        if pages <= _SMALL:
            return rows
        sql = "(%s LIMIT %d)" % (rows, _ROWS)
        if not self.source.catalog.heirs(table):
            sql += " UNION ALL (%s TABLESAMPLE SYSTEM (%s) REPEATABLE (1))" % (rows, 100 * _PAGES / pages)
        return sql

    def known(self, columns: Sequence[_Looked]) -> List[int]:
        """How many of the values of each column are keys of the root, or names: the root's table is read once for each."""
        found: Dict[int, int] = {}
        for is_name in (False, True) if columns else ():
            some = [n for n, looked in enumerate(columns) if (looked.form is Form.NAME) is is_name]
            numbers = [n for n in some for _ in columns[n].alike]
            texts = [value for n in some for value in columns[n].alike]
            if not texts:
                continue
            sql = (
                "SELECT v.n, count(DISTINCT v.v) FROM unnest(%%s::int[], %%s::text[]) v (n, v) JOIN %s r ON r.%s::text = v.v"
                " GROUP BY 1"
            ) % (
                self.source.db.quoted(self.root.name).replace("%", "%%"),
                quote(self.root.named_by if is_name else self.root.key).replace("%", "%%"),
            )
            found.update(self.source.db.rows(sql, (numbers, texts)))
        return [found.get(n, 0) for n in range(len(columns))]

    def judged(self, looked: _Looked, keys: int) -> Held:
        """Half of the values have to be keys, as the others may be of rows that are gone.

        One is enough in a column whose name says it: the others may be written otherwise. A single name may be chance.
        """
        is_named = self.is_named(looked.column.name)
        by_chance = self.by_chance(looked.column.name, looked.form)
        half = max(1.0, looked.different / 2)
        if looked.form is Form.NAME:
            enough = half if self.is_likely(looked.column.name, Form.NAME) else max(2.0, half)
        else:
            is_number = looked.column.kind in (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.BOOLEAN)
            enough = 1.0 if is_named and not is_number else half
        asked = keys >= enough and not by_chance
        return Held(looked.column.name, looked.form, looked.different, keys, asked, by_chance)


def rows_that_differ(source: Source, table: str, columns: Sequence[str]) -> int:
    """How many rows have different values in these columns, NULLs aside."""
    sql = "SELECT count(*) FROM %s t WHERE (SELECT count(DISTINCT v) FROM unnest(ARRAY[%s]) v) > 1" % (
        source.db.quoted(table),
        ", ".join("%s::text" % qualified("t", name) for name in columns),
    )
    return int(source.db.value(sql))
