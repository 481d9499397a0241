"""Columns that hold keys or names of the root's rows though nothing but their values says so."""

from __future__ import annotations

import enum
import re
from typing import Collection, Dict, Iterable, Iterator, List, NamedTuple, Sequence, Tuple

from migration.discovery.source import Source
from migration.discovery.words import matched, plain, without_id, words_of
from migration.model import Column, Kind, Root
from migration.sql import qualified, quote

_SMALL = 128  # pages of a table of which every row is looked at
_ROWS = 2000  # of a larger one, its first ones
_PAGES = 40  # and these somewhere in it
_PAGE = 8192  # bytes
_LONGEST = 300  # characters of a value: keys are shorter
_AT_ONCE = 100_000  # values compared with the root's in one query
_CHANCE = 1000  # numbers up to this may be keys by chance, as quantities and places are
# What columns are called that name a person.
_ROLES = re.compile(
    r"account|approver|assigned|assignee|attendee|author|blocked|blocker|borrower|buyer|by|client|"
    r"contact|creator|customer|driver|editor|employee|followee|follower|following|friend|guest|holder|"
    r"host|invited|invitee|inviter|lead|lender|manager|member|organizer|owner|participant|patient|"
    r"payee|payer|person|receiver|recipient|reporter|requester|reviewer|seller|sender|speaker|student|"
    r"subscriber|teacher|tenant|user|viewer|visitor|voter|watcher|who|whom|whose|winner|writer"
)
_ADDRESSES = {"email", "mail", "login", "username", "handle"}  # of the root, be they not unique
_OF_PERSONS = {"email", "login", "mail", "password", "surname", "username"}  # words of columns
_NUMBERS = (Kind.INTEGER, Kind.NUMERIC, Kind.FLOAT, Kind.BOOLEAN)
_TABLES = 25  # looked at in one query
_Wanted = Tuple[Column, "Form", str]  # a column, what it may hold, and of which column of the root


class Form(enum.Enum):
    """What a column holds: keys of the root, its names (another unique column, an email address say), or arrays of keys."""

    KEY = "keys"
    NAME = "names"
    ARRAY = "arrays of keys"


class Held(NamedTuple):
    """A column that could name rows of the root: its different values that were looked at, and how many of them do.

    ``of``: the root's column. ``asked``: enough for a question. ``by_chance``: its values may be keys by chance, as small numbers are.
    """

    column: str
    form: Form
    of: str
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
    of: str
    different: int
    alike: List[str]


def held_keys(
    source: Source,
    root: Root,
    tables: Iterable[str],
    connected: Collection[str],
    referring: Collection[Tuple[str, str]],
    owners: Collection[str],
) -> Dict[str, List[Held]]:
    """Of these tables: the columns that could name rows of the root. A query a table, and two of the root.

    ``connected``: tables that lead to the root already: of these, numbers are not asked for because they come in pairs.
    ``referring``: tables and columns that refer to other tables: these are not looked at, nor is a table's own number key.
    ``owners``: names of columns that refer to the root in other tables.
    """
    look = _Look(source, root, owners)
    found: Dict[str, List[Held]] = {}
    for looked, keys in look.compared(tables, referring):
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


def is_of_persons(source: Source, table: str) -> bool:
    """Whether a table's rows look like persons."""
    return any(set(words_of(column.name)) & _OF_PERSONS for column in source.catalog.columns[table])


class _Look:
    """Looks at columns, and compares their values with the root's keys and names."""

    def __init__(self, source: Source, root: Root, owners: Collection[str]) -> None:
        self.source = source
        self.root = root
        self.owners = owners
        self.key = source.catalog.column(root.name, root.key)
        self.is_number = self.key.kind in _NUMBERS
        unique = source.unique_columns(root.name)
        named = [one for one in source.catalog.columns[root.name] if set(words_of(one.name)) & _ADDRESSES]
        names = dict.fromkeys(
            [
                source.catalog.column(root.name, root.named_by),
                *unique,
                *named,
            ]
        )
        self.names = [one.name for one in names if one != self.key and one.kind in (Kind.TEXT, Kind.UUID)]
        self.numbers = [one.name for one in unique if one != self.key and one.kind in _NUMBERS]
        self.words = set(matched(source.catalog.relations[root.name].name))
        self.of_persons = is_of_persons(source, root.name)
        self.from_high = False
        self.tests = {of: self._test(of) for of in (root.key, *self.names, *self.numbers)}

    def _test(self, of: str) -> str:
        """SQL with a place for a text, whether it may be a value of the root's column: by its length and its signs."""
        if self.source.catalog.column(self.root.name, of).kind is Kind.UUID:
            return "length({0}) = 32"
        is_integer = of == self.root.key and self.key.kind in (Kind.INTEGER, Kind.NUMERIC)
        sql = "SELECT min(length(v)), max(length(v)), bool_and(v LIKE '%@%'), min({}) FROM (SELECT r.{}::text AS v FROM {} r) r"
        shortest, longest, is_address, first = self.source.db.rows(
            sql.format("v::numeric" if is_integer else "v", quote(of), self.source.db.quoted(self.root.name))
        )[0]
        if longest is None:
            return "false"
        test = "length({0}) BETWEEN %d AND %d" % (shortest, longest)
        if is_integer:
            self.from_high = first > _CHANCE
            return test + " AND {0} ~ '^[-.0-9]+$'"
        return test + (" AND {0} LIKE '%@%'" if is_address else "")

    def _written(self, of: str) -> str:
        """SQL with a place for a text: as it is compared with the root's column. A uuid may be written in several forms."""
        column = self.source.catalog.column(self.root.name, of)
        if column.kind is Kind.UUID:
            return "replace(btrim(lower({0}), '}}{{'), '-', '')"
        return "lower({0})" if column.type.endswith("citext") else "{0}"

    def is_named(self, column: str) -> bool:
        """Whether a column's name says that it names a row of the root, be it in short: org, an organization."""
        given = [*words_of(column), *without_id(words_of(column))]
        words = {plain(word) for word in given}
        is_short = any(len(word) > 2 and mine.startswith(word) for word in words for mine in self.words)
        is_role = self.of_persons and any(_ROLES.fullmatch(word.rstrip("s")) for word in given)
        return column in self.owners or is_short or self.words <= words or is_role

    def forms(self, column: Column) -> Iterator[Tuple[Form, str]]:
        """What a column of its type can hold, and of which column of the root."""
        texts = (Kind.TEXT, Kind.UUID)
        kind = self.key.kind
        if column.type.endswith("[]"):
            numbers = ("smallint", "integer", "bigint", "numeric")
            one = column.type[:-2].partition("(")[0]
            is_text = one in ("text", "character varying")
            if one == self.key.type or is_text or (self.is_number and one in numbers):
                yield Form.ARRAY, self.root.key
            for name in self.names if is_text else ():
                yield Form.ARRAY, name
        elif self.is_number and column.kind in _NUMBERS and self._other_numbers(column):
            yield from ((Form.NAME, name) for name in self._other_numbers(column))
            yield Form.KEY, self.root.key
        elif (
            column.kind is kind
            or (column.kind in texts and (kind in texts or self.is_number))
            or (self.is_number and column.kind in _NUMBERS and self.is_named(column.name))
        ):
            yield Form.KEY, self.root.key
        for name in self.names if column.kind in texts else ():
            if column.kind is Kind.TEXT or self.source.catalog.column(self.root.name, name).kind is Kind.UUID:
                yield Form.NAME, name

    def _other_numbers(self, column: Column) -> List[str]:
        """Other unique columns of the root after which this one is called: employee_id may be users.employee_number."""
        words = set(without_id(words_of(column.name)))
        return [name for name in self.numbers if words & set(words_of(name))]

    def compared(
        self, tables: Iterable[str], referring: Collection[Tuple[str, str]]
    ) -> Iterator[Tuple[_Looked, int]]:
        """Each column with the number of its values that are keys, or names; many in one query of the root."""
        source = self.source
        asked: List[Tuple[str, List[_Wanted]]] = []
        waiting: List[_Looked] = []
        for table in tables:
            if table in source.empty or table in source.foreign or table in source.catalog.unreadable:
                continue
            wanted = [
                (column, form, of)
                for column in source.catalog.columns[table]
                if (table, column.name) not in referring
                and not (self.is_number and column == source.single_key(table))
                for form, of in self.forms(column)
            ]
            if wanted:
                asked.append((table, wanted))
            if len(asked) == _TABLES:
                waiting += self.looked(asked)
                asked = []
                if sum(len(looked.alike) for looked in waiting) > _AT_ONCE:
                    yield from zip(waiting, self.known(waiting))
                    waiting = []
        waiting += self.looked(asked)
        yield from zip(waiting, self.known(waiting))

    def by_chance(self, column: str, form: Form) -> bool:
        return self.is_number and form is not Form.NAME and not self.from_high and not self.is_named(column)

    def looked(self, asked: Sequence[Tuple[str, Sequence[_Wanted]]]) -> Iterator[_Looked]:
        """What some rows of tables hold, all in one query."""
        queries = [self.look(number, table, wanted) for number, (table, wanted) in enumerate(asked)]
        for number, found in self.source.db.rows(" UNION ALL ".join(queries)) if queries else ():
            table, wanted = asked[number]
            for (column, form, of), (count, alike) in zip(wanted, found):
                yield _Looked(table, column, form, of, count, alike or [])

    def look(self, number: int, table: str, wanted: Sequence[_Wanted]) -> str:
        """SQL of one row: the number, and of each column how many values there are, and which may be keys."""
        found: List[str] = []
        columns: Dict[str, str] = {}
        for column, form, of in wanted:
            name = qualified("t", column.name)
            if form is Form.ARRAY:
                columns.setdefault(column.name, name + "::text[]")
                value, rows = "left(e, %d)" % _LONGEST, "v, unnest(v.c%d) e"
            else:
                columns.setdefault(column.name, "left(%s::text, %d)" % (name, _LONGEST))
                value, rows = "v.c%d", "v"
            number_ = list(columns).index(column.name)
            value, rows = (part % number_ if "c%d" in part else part for part in (value, rows))
            written = self._written(of).format(value)
            found.append(
                "(SELECT json_build_array(count(DISTINCT {0}), json_agg(DISTINCT {1}) FILTER (WHERE {2})) FROM {3})".format(
                    value, written, self.tests[of].format(written), rows
                )
            )
        shown = ["%s AS c%d" % (sql, n) for n, sql in enumerate(columns.values())]
        sql = "(WITH v AS MATERIALIZED (%s) SELECT %d, array_to_json(ARRAY[%s]))"  # a function takes 100 arguments
        return sql % (self.some_rows(table, shown), number, ", ".join(found))

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
        """How many of the values of each column are the root's: its table is read once for each of its columns."""
        found: Dict[int, int] = {}
        for of in dict.fromkeys(looked.of for looked in columns):
            some = [n for n, looked in enumerate(columns) if looked.of == of]
            numbers = [n for n in some for _ in columns[n].alike]
            texts = [value for n in some for value in columns[n].alike]
            if texts:
                same = self._written(of).format("r.%s::text" % quote(of)) + " = v.v"
                sql = (
                    "SELECT v.n, count(DISTINCT v.v) FROM unnest(%%s::int[], %%s::text[]) v (n, v) JOIN %s r ON %s GROUP BY 1"
                ) % tuple(part.replace("%", "%%") for part in (self.source.db.quoted(self.root.name), same))
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
            is_likely = is_named or looked.column.name.lower() == looked.of.lower()
            enough = half if is_likely else max(2.0, half)
        else:
            is_number = looked.column.kind in _NUMBERS
            enough = 1.0 if is_named and not is_number else half
        asked = keys >= enough and not by_chance
        return Held(looked.column.name, looked.form, looked.of, looked.different, keys, asked, by_chance)


def rows_that_differ(source: Source, table: str, columns: Sequence[str]) -> int:
    """How many rows have different values in these columns, NULLs aside."""
    sql = "SELECT count(*) FROM %s t WHERE (SELECT count(DISTINCT v) FROM unnest(ARRAY[%s]) v) > 1" % (
        source.db.quoted(table),
        ", ".join("%s::text" % qualified("t", name) for name in columns),
    )
    return int(source.db.value(sql))
