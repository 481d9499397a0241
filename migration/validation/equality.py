"""Every cell of SQLite held against its record: what phase 3 proves equality with.

The comparison is written from the type contract and shares no conversion with the import.
"""

from __future__ import annotations

import decimal
import functools
import hashlib
import json
import math
import operator
import os
import re
import sqlite3
from datetime import datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import (
    Any,
    Callable,
    Collection,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import msgspec

from migration.conversion import BLANKS, MOMENTS, NUMERIC_AFFINITIES, STRUCTURED, affinity, is_number
from migration.model import Column
from migration.printing import brief
from migration.sql import quote
from migration.sqlite.mapping import Copied, TableMapping
from migration.sqlite.schema import TargetColumn

Same = Callable[[Any, Any], bool]
Row = Tuple[Any, ...]
Describe = Callable[[Any], str]


class Difference(NamedTuple):
    """A cell, or a row where ``column`` is None, that is not what its record says."""

    table: str
    row: str
    column: Optional[str]
    message: str
    is_extra: bool = False  # a row that SQLite alone has


class Unordered(Exception):
    """The records and SQLite's rows do not come in the same order, by keys that nothing has twice."""


MANY_BYTES = 16 << 20  # of records: SQLite would hold more copies of them than it is worth

MISSING = "is missing in SQLite"
EXTRA = "is in SQLite alone"


class Key(NamedTuple):
    """How the rows of a table are paired with its records: by source columns, by whole rows where there are none.

    ``ordered``: it is SQLite's primary key, and of kinds that PostgreSQL orders in the same way. ``unique``: no two
    rows have the same values in it.
    """

    columns: Tuple[str, ...] = ()
    ordered: bool = False
    unique: bool = False


class OrderedComparison:
    """Holds the records of a table against its rows, block by block in key order, at flat memory.

    ``key``: the source columns of SQLite's primary key; ``decode``: of one record's text
    (``encoding.record_decoder``); ``row_as_record``: SQL of ``rendering``, where there is one; ``json_columns``:
    those that config declares. Its methods raise Unordered where records and rows do not come in key order:
    ``pairing.SortedComparison`` takes them in any.
    """

    def __init__(
        self,
        database: sqlite3.Connection,
        mapped: TableMapping,
        key: Sequence[str],
        columns: Sequence[Column],
        decode: Callable[[bytes], Any],
        row_as_record: Optional[str],
        describe: Describe,
        json_columns: Collection[str] = (),
    ) -> None:
        self.cells = 0  # compared so far
        self._database = database
        self._table = mapped.target
        self._cells = Cells(mapped, columns, json_columns)
        self._key = _key_of(key, self._cells.pairs)
        self._decode = decode
        self._describe = describe
        self._after: Any = _NOWHERE  # the key up to which rows have been looked at
        self._names = [quote(pair.target.name) + " COLLATE BINARY" for pair in self._key.pairs]
        self._order = " ORDER BY " + ", ".join(self._names)
        self._row_as_record = row_as_record

    def begin(self) -> None:
        """Make sure that SQLite has the rows in order, and that each has a key, which it lets be NULL."""
        plan = "EXPLAIN QUERY PLAN SELECT 1 FROM " + quote(self._table) + self._order
        if any("TEMP B-TREE" in step for *_, step in self._database.execute(plan)):
            raise Unordered
        if len(self._names) > 1:
            condition = " OR ".join(map(_IS_NULL, self._names))
            nulls = self._database.execute(
                "SELECT 1 FROM {} WHERE {} LIMIT 1".format(quote(self._table), condition)
            ).fetchone()
        else:  # NULL is the first in order
            sql = "SELECT {} FROM {}".format(self._names[0], quote(self._table))
            nulls = self._database.execute(sql + self._order + " LIMIT 1").fetchone() == (None,)
        if nulls:
            raise Unordered

    def block(self, texts: Sequence[bytes]) -> Optional[Tuple[List[Any], Iterator[Difference]]]:
        """Look at the rows up to that of the last record; None where they are just what the records say.

        Otherwise the records, decoded, and what is different, though that may be nothing.

        Raises msgspec.DecodeError where a text is no record.
        """
        after, last = self._after, self._key.of_record(self._cells.take(self._decode(texts[-1])))
        if _lacks_part(last) or (after is not _NOWHERE and not _less(after, last)):
            raise Unordered
        condition, limits = self._between(after, last)
        self._after = last
        self.cells += len(texts) * len(self._cells.pairs)
        quick = self._row_as_record is not None and sum(map(len, texts)) < MANY_BYTES
        if quick and self._are_records(texts, condition, limits):
            return None
        records = [self._decode(text) for text in texts]
        return records, self._differences(records, self._rows(condition, limits), after)

    def end(self) -> Iterator[Difference]:
        """The rows behind the last record."""
        for row in self._rows(*self._between(self._after, _NOWHERE)):
            yield Difference(self._table, self._key.shown(self._key.of_row(row)), None, EXTRA, True)

    def _between(self, after: Any, last: Any) -> Tuple[str, Tuple[Any, ...]]:
        """SQL condition and its parameters: keys behind ``after`` up to ``last``, ``_NOWHERE`` is no limit."""
        names, places = ", ".join(self._names), ", ".join("?" * len(self._names))
        conditions: List[str] = []
        limits: List[Any] = []
        for sign, key in ((">", after), ("<=", last)):
            if key is not _NOWHERE:
                conditions.append("({}) {} ({})".format(names, sign, places))
                limits += [_bindable(part) for part in (key if isinstance(key, tuple) else (key,))]
        return " AND ".join(conditions) or "true", tuple(limits)

    def _rows(self, condition: str, limits: Sequence[Any]) -> Iterator[Row]:
        return self._database.execute(
            "%s WHERE %s" % (select(self._table, self._cells.pairs), condition) + self._order, limits
        )

    def _are_records(self, texts: Sequence[bytes], condition: str, limits: Sequence[Any]) -> bool:
        """Whether SQLite renders the rows as these very records. Threads run meanwhile: it is one step of SQLite's."""
        lines = "SELECT {} AS line FROM {} WHERE {}".format(
            self._row_as_record, quote(self._table), condition
        )
        lines += self._order + " LIMIT %d" % (len(texts) + 1)  # however many there are too many
        sql = "SELECT count(*), CAST(group_concat(line, char(10)) AS BLOB) FROM (%s)" % lines
        try:
            rows, text = self._database.execute(sql, limits).fetchone()
        except (sqlite3.OperationalError, sqlite3.DataError):
            return False  # a cell that it cannot render; what else it may be, the look at the cells meets
        return bool(rows == len(texts) and text == b"\n".join(texts))

    def _differences(self, records: Iterable[Any], rows: Iterator[Row], last: Any) -> Iterator[Difference]:
        """Walk records and rows side by side."""
        cells, key, table = self._cells, self._key, self._table
        row, place = _next(rows, key)
        for record in records:
            values = cells.take(record)
            name = key.of_record(values)
            if _lacks_part(name) or (last is not _NOWHERE and not _less(last, name)):
                raise Unordered
            last = name
            while row is not None and place != name and _less(place, name):
                yield Difference(table, key.shown(place), None, EXTRA, True)
                row, place = _next(rows, key)
            if row is None or place != name:
                yield Difference(table, key.shown(name), None, MISSING)
                continue
            if not cells.equal(record, values, row):
                for column, message in cells.unequal(record, values, row, self._describe):
                    yield Difference(table, key.shown(name), column, message)
            row, place = _next(rows, key)
        while row is not None:
            yield Difference(table, key.shown(place), None, EXTRA, True)
            row, place = _next(rows, key)


_IS_NULL = "typeof({}) = 'null'".format  # which SQLite looks at even where a column cannot be NULL
_NOWHERE = object()  # before the first key, or behind the last


def select(table: str, pairs: Sequence[Copied]) -> str:
    return "SELECT {} FROM {}".format(", ".join(quote(pair.target.name) for pair in pairs), quote(table))


def _lacks_part(key: Any) -> bool:
    return None in key if isinstance(key, tuple) else key is None


def _bindable(part: Any) -> Any:
    """A part of a key that SQLite takes for a limit; what is beyond its integers it has no row of."""
    return float(part) if type(part) is int and not -(2**63) <= part < 2**63 else part


def _next(rows: Iterator[Row], key: _Key) -> Tuple[Optional[Row], Any]:
    for row in rows:
        return row, key.of_row(row)
    return None, None


class Cells:
    """The comparison of one table's records with its rows. ``pairs``: its columns, in the order of ``take``."""

    def __init__(
        self, mapped: TableMapping, columns: Sequence[Column], json_columns: Collection[str] = ()
    ) -> None:
        plain = [pair for pair in mapped.copied if _is_plain(pair)]
        self.pairs = [*plain, *(pair for pair in mapped.copied if not _is_plain(pair))]
        self._plain = len(plain)
        self._tests = [_test(pair, pair.source.name in json_columns) for pair in self.pairs]
        self._others = self._tests[len(plain) :]
        # Equal text may still be as PostgreSQL writes it, without the last zeros of a fraction, or with BC.
        self._moments = [(i, self._tests[i]) for i, pair in enumerate(plain) if pair.source.kind in MOMENTS]
        self.take = fields(self.pairs, columns)
        self._has_nulls = any(column.kind in (*STRUCTURED, "undeclared") for column in columns)

    def equal(self, record: Any, values: Row, row: Row) -> bool:
        """Whether the row is what the record says: quick, and sure only where it says so."""
        if self._has_nulls and record.json_nulls:
            return False
        number = self._plain
        if values[:number] != row[:number]:
            for value, found, same in zip(values, row[:number], self._tests):
                if value != found and (value is None or not same(value, found)):
                    return False
        for i, same in self._moments:
            value = values[i]
            if value is not None and not _ISO_MOMENT.fullmatch(value) and not same(value, row[i]):
                return False
        for value, found, same in zip(values[number:], row[number:], self._others):
            if value is None or found is None:
                if value is not found:
                    return False
            elif not same(value, found):
                return False
        return True

    def unequal(self, record: Any, values: Row, row: Row, describe: Describe) -> Iterator[Tuple[str, str]]:
        """Column and message of each cell that is not the record's."""
        for pair, same, value, found in zip(self.pairs, self._tests, values, row):
            if pair.source.name in record.json_nulls:
                equal = found == "null"
            elif value is None:
                equal = found is None
            else:
                equal = same(value, found)
            if not equal:
                yield pair.target.name, "should be %s, is %s" % (describe(value), describe(found))


def _tuple_getter(getter: Callable[..., Any], names: Sequence[Any]) -> Callable[[Any], Any]:
    """``operator``'s getters give one value bare; this one gives a tuple always."""
    get = getter(*names)
    return get if len(names) > 1 else lambda item: (get(item),)


# Keys


class _Key(NamedTuple):
    """How rows are told apart: one value, or a tuple where the key has several columns."""

    pairs: Sequence[Copied]
    of_record: Callable[[Row], Any]
    of_row: Callable[[Row], Any]

    def shown(self, key: Any) -> str:
        return brief(", ".join(str(part) for part in key) if isinstance(key, tuple) else str(key))


def _less(one: Any, other: Any) -> bool:
    """As SQLite orders keys: NULL, numbers, text, bytes."""
    try:
        return bool(one < other)
    except TypeError:
        return _ranked(one) < _ranked(other)


def _ranked(key: Any) -> List[Tuple[int, Any]]:
    parts = key if isinstance(key, tuple) else (key,)
    return [(_RANKS.get(type(part), 1), 0 if part is None else part) for part in parts]


_RANKS = {type(None): 0, str: 2, bytes: 3}


def _key_of(columns: Sequence[str], pairs: Sequence[Copied]) -> _Key:
    names = [pair.source.name for pair in pairs]
    places = [names.index(name) for name in columns]
    readers = [_key_reader(pairs[place]) for place in places]
    of_row = operator.itemgetter(*places)

    def read(values: Row) -> Any:
        key = [reader(values[place]) for place, reader in zip(places, readers)]
        return tuple(key) if len(key) > 1 else key[0]

    plain = all(reader is _plain for reader in readers) and not any(
        pairs[place].source.kind == "undeclared" for place in places
    )
    return _Key([pairs[place] for place in places], of_row if plain else read, of_row)


def pairing_key(
    columns: Collection[TargetColumn], mapped: TableMapping, source_key: Sequence[str], utf8: bool
) -> Key:
    """How to pair the rows of a SQLite table: by its primary key, else by the source's, as far as both sides have it.

    ``utf8``: SQLite orders text as PostgreSQL does; in UTF-16 it has an order of its own.
    """
    key = [name.lower() for place, name in sorted((column.key, column.name) for column in columns) if place]
    sources = {pair.target.name.lower(): pair.source for pair in mapped.copied}
    if key and set(key) <= set(sources):
        kinds = {sources[name].kind for name in key}
        return Key(
            tuple(sources[name].name for name in key),
            kinds <= (_ORDERED if utf8 else _ORDERED_IN_UTF16),
            not kinds & set(STRUCTURED),
        )
    copied = {source.name for source in sources.values()}
    return Key(tuple(source_key)) if set(source_key) <= copied else Key()


_ORDERED = {"uuid", "text", "integer", "undeclared"}
_ORDERED_IN_UTF16 = {"uuid", "integer"}


def _plain(value: Any) -> Any:
    return msgspec.json.decode(bytes(value)) if isinstance(value, msgspec.Raw) else value


def _key_reader(pair: Copied) -> Callable[[Any], Any]:
    """A key's value as SQLite holds it: an integer in a TEXT column is text, and sorts as text."""
    in_text = affinity(pair.target.type) == "TEXT"
    if pair.source.kind == "undeclared":
        return _undeclared_text if in_text else _undeclared
    return _plain_text if pair.source.kind == "integer" and in_text else _plain


def _undeclared(value: Any) -> Any:
    """Raises Unordered where it is neither text nor an integer, as what SQLite has for it is not sure."""
    plain = _plain(value)
    if type(plain) not in (str, int, type(None)):
        raise Unordered
    return plain


def _undeclared_text(value: Any) -> Any:
    return _plain_text(_undeclared(value))


def _plain_text(value: Any) -> Any:
    plain = _plain(value)
    return str(plain) if type(plain) is int else plain


# Records against records


Side = Tuple[Sequence[Column], Iterable[Any]]  # columns, and the records that are decoded by them


def changes(key: Sequence[str], mapped: TableMapping, then: Side, now: Side) -> Iterator[Tuple[str, str]]:
    """Walk two sets of records of one table in key order; yields ("added" | "removed" | "changed", row).

    ``key``: its source columns. Compared are the migrated columns, by value: the order of JSON keys does not count, every digit does.
    Raises Unordered.
    """
    shown, olds = _keyed(key, mapped, *then)
    _, news = _keyed(key, mapped, *now)
    changed = changed_columns(mapped, then[0], now[0])
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if new is None or (old is not None and _less(old[0], new[0])):
            assert old is not None
            yield "removed", shown(old[0])
            old = next(olds, None)
        elif old is None or _less(new[0], old[0]):
            yield "added", shown(new[0])
            new = next(news, None)
        else:
            if changed(old[1], new[1]):
                yield "changed", shown(old[0])
            old, new = next(olds, None), next(news, None)


def changed_columns(
    mapped: TableMapping, then: Sequence[Column], now: Sequence[Column]
) -> Callable[[Any, Any], List[str]]:
    """A comparison of two records, each decoded by its columns: the migrated columns in which they differ."""
    kinds, kinds_then = ({column.name: column.kind for column in columns} for columns in (now, then))
    pairs = [pair for pair in mapped.copied if pair.source.name in kinds]
    take, take_now = (fields(pairs, columns) for columns in (then, now))
    tests = [
        (name, _foreign_test(kinds[name]) if kinds_then[name] == "undeclared" else _same_record)
        for name in (pair.source.name for pair in pairs)
    ]

    def marked_otherwise(name: str, record: Any, other: Any) -> bool:
        """A bundle that was made elsewhere need not say which nulls are JSON's."""
        marked, marked_now = name in record.json_nulls, name in other.json_nulls
        return marked and not marked_now if kinds_then[name] == "undeclared" else marked is not marked_now

    def changed(record: Any, other: Any) -> List[str]:
        return [
            name
            for (name, same), mine, theirs in zip(tests, take(record), take_now(other))
            if not same(mine, theirs) or marked_otherwise(name, record, other)
        ]

    return changed


def fields(pairs: Sequence[Copied], columns: Sequence[Column]) -> Callable[[Any], Row]:
    """Of a record that is decoded by ``columns``: the values of ``pairs``."""
    names = [column.name for column in columns]
    return _tuple_getter(operator.attrgetter, ["c%d" % names.index(pair.source.name) for pair in pairs])


def _keyed(
    names: Sequence[str], mapped: TableMapping, columns: Sequence[Column], records: Iterable[Any]
) -> Tuple[Callable[[Any], str], Iterator[Tuple[Any, Any]]]:
    """How a key is shown, and each record with its key. Raises Unordered while they are read."""
    kinds = {column.name: column for column in columns}
    pairs = [pair._replace(source=kinds[pair.source.name]) for pair in mapped.copied]
    key = _key_of(names, pairs)
    take = fields(pairs, columns)

    def keyed() -> Iterator[Tuple[Any, Any]]:
        last: Any = _NOWHERE
        for record in records:
            name = key.of_record(take(record))
            if _lacks_part(name) or (last is not _NOWHERE and not _less(last, name)):
                raise Unordered
            last = name
            yield name, record

    return key.shown, keyed()


def _same_record(mine: Any, theirs: Any) -> bool:
    """Whether the server wrote the same value twice: the same text, but for the order of JSON keys."""
    if isinstance(mine, msgspec.Raw) and isinstance(theirs, msgspec.Raw):
        return _json_equal(str(mine, "utf-8"), str(theirs, "utf-8"))
    return bool(mine == theirs) and type(mine) is type(theirs)


def _foreign_test(kind: str) -> Same:
    """Whether a bundle that was made elsewhere, and writes values in its own way, says what the server says."""

    def same(mine: Any, theirs: Any) -> bool:
        if is_null(mine) or is_null(theirs):
            return is_null(mine) and is_null(theirs)
        text = str(mine, "utf-8")
        now = str(theirs, "utf-8") if isinstance(theirs, msgspec.Raw) else json.dumps(theirs)
        if _says_the_same(text, now):
            return True
        if text[0] == '"':
            inner = json.loads(text)
            if kind in MOMENTS and isinstance(theirs, str):
                return _moment(inner) is not None and _instant(inner, kind) == _instant(theirs, kind)
            if kind in STRUCTURED:
                return _says_the_same(inner, now)
            text = inner
        return kind in ("numeric", "float") and _same_number(text.strip(BLANKS), now.strip('"'))

    return same


def is_null(value: Any) -> bool:
    return value is None or (isinstance(value, msgspec.Raw) and bytes(value) == b"null")


# Showing values


class Fingerprints:
    """Shows a value without what it says: its type, its length, and a fingerprint that tells values apart.

    Their key is made anew each time, so that nobody finds a date or a number by trying them all.
    """

    def __init__(self) -> None:
        self._key = os.urandom(16)

    def of(self, content: bytes) -> str:
        return hashlib.blake2b(content, key=self._key, digest_size=4).hexdigest()

    def __call__(self, value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, msgspec.Raw):
            text = str(value, "utf-8", "replace")
            if text in ("null", "true", "false"):
                return "JSON " + text
            return "JSON" + self(text)[len("text") :]
        content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        return "%s of length %d (fingerprint %s)" % (
            _kind(value),
            len(value) if isinstance(value, (str, bytes)) else len(content),
            self.of(content),
        )


def shortened(value: Any) -> str:
    """The value itself, on one line and not too long."""
    if value is None:
        return "NULL"
    if isinstance(value, msgspec.Raw):
        text = str(value, "utf-8", "replace")
    else:
        text = _kind(value) + " " + repr(value)
    return brief(text)


def _kind(value: Any) -> str:
    return {str: "text", bytes: "bytes", int: "integer", float: "real", bool: "boolean"}.get(
        type(value), "value"
    )


# Whether a SQLite value says what a record's value says, kind by kind


def _is_plain(pair: Copied) -> bool:
    """Equal where Python says so: text on both sides, mostly as it was. Its form is a check of its own (``cells``)."""
    return pair.source.kind not in (
        "boolean",
        "integer",
        "numeric",
        "float",
        "bytea",
        "undeclared",
        *STRUCTURED,
    )


def _test(pair: Copied, declared_json: bool) -> Same:
    kind, target = pair.source.kind, affinity(pair.target.type)
    if kind in ("boolean", "integer"):
        return _same_as_text if target == "TEXT" else _integer_test(target)
    if kind in ("numeric", "float"):
        return _number_test(target)
    if kind in STRUCTURED:
        return _json_null_test if kind != "structure" and pair.source.not_null else _same_json
    if kind in MOMENTS:
        return _same_moment
    if kind == "bytea" and target == "BLOB":
        return lambda value, found: type(found) is bytes and value == "\\x" + found.hex()
    if kind == "undeclared":
        return _undeclared_test(declared_json, pair.target.not_null)
    return lambda value, found: type(found) is str and found == value


def _integer_test(target: str) -> Same:
    wanted = float if target == "REAL" else int
    return lambda value, found: found == value and type(found) is wanted


def _same_as_text(value: Any, found: Any) -> bool:
    return type(found) is str and found == str(int(value))


def _number_test(target: str) -> Same:
    def same(value: Any, found: Any) -> bool:
        digits = str(value, "utf-8").strip('"') if isinstance(value, msgspec.Raw) else str(value)
        if digits == "null":
            return found is None
        if type(found) is float:
            whole = target in ("INTEGER", "NUMERIC") and found.is_integer() and abs(found) < 2**63
            return (
                not whole
                and math.isfinite(found)
                and (repr(found) == digits or _same_number(repr(found), digits))
            )
        if type(found) is int:
            return target != "REAL" and _same_number(str(found), digits)
        return type(found) is str and found == digits and (target == "TEXT" or not digits[-1:].isdigit())

    return same


def _same_number(one: str, other: str) -> bool:
    try:
        return is_number(one) and is_number(other) and Decimal(one) == Decimal(other)
    except InvalidOperation:
        return False


def _same_json(value: Any, found: Any) -> bool:
    text = str(value, "utf-8")
    if text == "null":
        return found is None
    return _json_equal(text, found)


def _json_null_test(value: Any, found: Any) -> bool:
    return _json_equal(str(value, "utf-8"), found)


def _json_equal(text: str, found: Any) -> bool:
    """The same text, or the same JSON: the order of keys does not count, every digit does."""
    if type(found) is not str:
        return False
    if text == found:
        return True
    try:
        return bool(_parsed(text) == _parsed(found))
    except (ValueError, RecursionError):
        return False


def _parsed(text: str, by_value: bool = False) -> Any:
    return _json_decoder(by_value).decode(text)


@functools.lru_cache(maxsize=None)
def _json_decoder(by_value: bool) -> json.JSONDecoder:
    """``by_value``: as who reads JSON takes it, however numbers are spelled, and of repeated keys the last."""
    number = _number_form if by_value else str

    def members(pairs: List[Tuple[str, Any]]) -> Any:
        kept = dict(pairs).items() if by_value else pairs
        return ("object", sorted(kept, key=lambda pair: str(pair[0])))

    return json.JSONDecoder(
        parse_float=lambda digits: ("number", number(digits)),
        parse_int=lambda digits: ("number", number(digits)),
        parse_constant=lambda name: ("constant", name),
        object_pairs_hook=members,
    )


def _says_the_same(text: str, now: str) -> bool:
    try:
        return bool(_parsed(text, True) == _parsed(now, True))
    except (ValueError, RecursionError):
        return text == now


# Year, month and day, clock, fraction, zone, era: PostgreSQL's text and ISO 8601's alike.
_ANY_MOMENT = re.compile(
    r"(?:([+-]?\d{4,})-(\d\d-\d\d)(?:[T ](?=\d)|$|(?= BC)))?"
    r"(\d\d:\d\d:\d\d)?(?:\.(\d+))?([+-]\d\d(?::\d\d)*|Z)?( BC)?",
    re.ASCII,
)
# The target's form alone
_ISO_MOMENT = re.compile(
    r"(?:(?:\d{4}|-\d{4,}|\+\d{5,})-\d\d-\d\d(?:T(?=\d)|$))?"
    r"(?:\d\d:\d\d:\d\d(?:\.\d{6})?(?:[+-]\d\d:\d\d(?::\d\d)?)?)?",
    re.ASCII,
)


def _same_moment(value: Any, found: Any) -> bool:
    if type(found) is not str:
        return False
    if len(found) == 26 and 20 < len(value) < 26 and value[19] == "." and found == value.ljust(26, "0"):
        return True  # PostgreSQL leaves the last zeros of a fraction out
    if value.endswith("infinity"):
        return bool(value == found)
    return _ISO_MOMENT.fullmatch(found) is not None and _moment(value) == _moment(found)


def _moment(text: str) -> Optional[Row]:
    found = _ANY_MOMENT.fullmatch(text)
    if not found:
        return None
    year, day, clock, fraction, zone, era = found.groups()
    counted = None if year is None else 1 - int(year) if era else int(year)
    offset = "+00:00" if zone == "Z" else zone + ":00" if zone and len(zone) == 3 else zone
    return (counted, day, clock, (fraction or "").rstrip("0"), offset)


def _instant(text: str, kind: str) -> Any:
    """The parts of a moment; of one with a zone in UTC, whichever zone another exporter's session had."""
    parts = _moment(text)
    if kind != "timestamptz" or parts is None or None in parts[:3] or not 1 < parts[0] < 9999:
        return parts
    year, day, clock, fraction, offset = parts
    try:
        local = datetime.strptime("%04d-%s %s" % (year, day, clock), "%Y-%m-%d %H:%M:%S")
    except ValueError:
        return parts
    hours, minutes, seconds = (int(part) for part in ((offset or "+0")[1:] + ":0:0").split(":")[:3])
    east = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return local + east if offset and offset[0] == "-" else local - east, fraction


def _undeclared_test(declared_json: bool, not_null: bool) -> Same:
    """A bundle that names no types: the JSON value decides, and what config declares to be JSON."""

    def same(value: Any, found: Any) -> bool:
        text = str(value, "utf-8")
        if text == "null":
            return bool(found == "null") if declared_json and not_null else found is None
        if declared_json or text[0] in "{[":
            return _json_equal(text, found)
        if text in ("true", "false"):
            return found in (int(text == "true"), str(int(text == "true")))
        plain = json.loads(text) if text[0] == '"' else text
        if type(found) is str:
            return bool(found == plain)
        return type(found) in (int, float) and _same_number(repr(found), plain.strip(BLANKS))

    return same


# Texts that are equal where a SQLite value says what a record's value says: rows and records are paired by them, and
# judged by the tests above

Form = Callable[[Any], str]
NULL, JSON_NULL = "0", "jNone"


def forms(pairs: Sequence[Copied], json_columns: Collection[str]) -> Tuple[List[Form], List[Form]]:
    """Of the records' values, and of the cells."""
    both = [_forms(pair, pair.source.name in json_columns) for pair in pairs]
    return [of_value for of_value, _ in both], [of_cell for _, of_cell in both]


def record_forms(pairs: Sequence[Copied], then: Sequence[Column], now: Sequence[Column]) -> List[Form]:
    """The same of two records of one table, each with its own columns: as ``changed_columns`` compares them."""
    kinds, kinds_then = ({column.name: column.kind for column in columns} for columns in (now, then))
    return [
        _spoken(kinds[pair.source.name]) if kinds_then[pair.source.name] == "undeclared" else _written
        for pair in pairs
    ]


def _forms(pair: Copied, declared_json: bool) -> Tuple[Form, Form]:
    kind, target = pair.source.kind, affinity(pair.target.type)
    if kind in ("boolean", "integer"):
        number = _text_form if target == "TEXT" else _number_form
        other = int if target == "REAL" else float
        return (
            lambda value: number(str(int(value))),
            lambda found: _other_form(found) if type(found) is other else _cell_form(found),
        )
    if kind in ("numeric", "float"):

        def of_number(value: Any) -> str:
            digits = _digits(value)
            if digits == "null":
                return NULL
            return _text_form(digits) if target == "TEXT" else _number_form(digits)

        return of_number, _cell_form
    if kind in STRUCTURED:
        never_null = kind != "structure" and pair.source.not_null

        def of_json(value: Any) -> str:
            text = str(value, "utf-8")
            return NULL if text == "null" and not never_null else _json_form(text)

        return of_json, lambda found: _json_form(found) if type(found) is str else _other_form(found)
    if kind in MOMENTS:
        return (
            _moment_form,
            lambda found: (
                _moment_form(found)
                if type(found) is str and _ISO_MOMENT.fullmatch(found)
                else _cell_form(found)
            ),
        )
    if kind == "bytea" and target == "BLOB":
        return lambda value: "b" + value[2:], _cell_form
    if kind == "undeclared":
        return _undeclared_forms(target, declared_json, pair.target.not_null)
    return _text_form, _cell_form


def _undeclared_forms(target: str, declared_json: bool, not_null: bool) -> Tuple[Form, Form]:
    def is_json(text: str) -> bool:
        return declared_json or text[:1] in ("{", "[")

    def plain(text: str) -> str:
        blank = text.strip(BLANKS)
        return _number_form(blank) if target in NUMERIC_AFFINITIES and is_number(blank) else _text_form(text)

    def of_value(value: Any) -> str:
        text = str(value, "utf-8")
        if text == "null":
            return _json_form(text) if declared_json and not_null else NULL
        if declared_json or is_json(text):
            return _json_form(text)
        if text in ("true", "false"):
            text = str(int(text == "true"))
        if text[0] != '"':
            return _text_form(text) if target == "TEXT" else _number_form(text)
        text = json.loads(text)
        return _json_form(text) if is_json(text) else plain(text)

    def of_cell(found: Any) -> str:
        if type(found) is str:
            return _json_form(found) if is_json(found) else plain(found)
        return _cell_form(found)

    return of_value, of_cell


def _cell_form(found: Any) -> str:
    if type(found) is str:
        return _text_form(found)
    if type(found) is int:
        return _number_form(str(found))
    if type(found) is float and math.isfinite(found):
        return _number_form(repr(found))
    return "b" + found.hex() if type(found) is bytes else _other_form(found)


def _written(value: Any) -> str:
    """Of a value as the server wrote it."""
    if is_null(value):
        return NULL
    if isinstance(value, msgspec.Raw):
        return _json_form(str(value, "utf-8"))
    return type(value).__name__ + str(value)


def _spoken(kind: str) -> Form:
    """Of what a bundle that was made elsewhere says, and of what the server says."""

    def of_either(value: Any) -> str:
        if is_null(value):
            return NULL
        plain = value
        if isinstance(value, msgspec.Raw):
            text = str(value, "utf-8")
            plain = json.loads(text) if text[0] == '"' else text
            if kind in STRUCTURED:
                inner = _json_form(plain, True)  # of JSON that was written as text
                return inner if inner[0] == "j" else _json_form(text, True)
        plain = str(plain).lower() if isinstance(plain, bool) else str(plain)
        if kind in MOMENTS:
            return _text_form(plain) if _moment(plain) is None else "m" + repr(_instant(plain, kind))
        return (
            _number_form(plain.strip(BLANKS))
            if kind in ("numeric", "float", "integer")
            else _text_form(plain)
        )

    return of_either


def _digits(value: Any) -> str:
    return str(value, "utf-8").strip('"') if isinstance(value, msgspec.Raw) else str(value)


def _text_form(text: str) -> str:
    return "t" + text


def _other_form(found: Any) -> str:
    return "x" + repr(found)


def _number_form(digits: str) -> str:
    if not is_number(digits):
        return _text_form(digits)
    try:
        number = Decimal(digits).normalize(_EXACT)
    except InvalidOperation:
        return _text_form(digits)
    return "n%s" % number if number else "n0"


_EXACT = decimal.Context(prec=decimal.MAX_PREC, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


def _moment_form(text: str) -> str:
    parts = _moment(text)
    return _text_form(text) if parts is None else "m" + repr(parts)


def _json_form(text: str, by_value: bool = False) -> str:
    if _is_shallow(text):
        try:
            return "j" + repr(_parsed(text, by_value))
        except (ValueError, RecursionError):
            pass
    return "J" + text


_SHALLOW = 100  # levels of JSON that Python surely reads
_BRACKET_OR_STRING = re.compile(r'"(?:[^"\\]|\\.)*"|[][{}]', re.DOTALL)


def _is_shallow(text: str) -> bool:
    if text.count("[") + text.count("{") <= _SHALLOW:
        return True
    depth = 0
    for found in _BRACKET_OR_STRING.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(found[0], 0)
        if depth > _SHALLOW:
            return False
    return True
