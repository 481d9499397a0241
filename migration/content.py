"""Every cell of SQLite held against its record: what phase 3 proves equality with.

The comparison is written from the type contract and shares no conversion with the import.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import operator
import os
import re
import sqlite3
from decimal import Decimal, InvalidOperation
from typing import (
    Any,
    Callable,
    Collection,
    Dict,
    Iterable,
    Iterator,
    List,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import msgspec

from migration.encoding import BLANKS, MOMENTS, STRUCTURED, affinity, is_number
from migration.mapping import Copied, TableMapping
from migration.schema import TargetColumn, quote
from migration.tables import Column

Same = Callable[[Any, Any], bool]
Row = Tuple[Any, ...]
Describe = Callable[[Any], str]


class Difference(NamedTuple):
    """A cell, or a row where ``column`` is None, that is not what its record says."""

    table: str
    row: str
    column: Optional[str]
    message: str


class Unordered(Exception):
    """The records do not come in primary-key order."""


MISSING = "is missing in SQLite"
EXTRA = "is in SQLite alone"


class Comparison:
    """Holds the records of a table against its rows, block by block in key order, at flat memory.

    ``key``: the source columns of the primary key (``key_columns``); ``decode``: of one record's text
    (``encoding.record_decoder``); ``row_as_record``: SQL of ``rendering``, where there is one; ``json_columns``:
    those that config declares. Its methods raise Unordered where the records are not in key order, as in a
    bundle that was made elsewhere.
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
        self._database = database
        self._table = mapped.target
        self._cells = Cells(mapped, columns, json_columns)
        self._key = _key_of(key, self._cells.pairs)
        self._decode = decode
        self._describe = describe
        self._after: Any = _NOWHERE  # the key up to which rows have been looked at
        self._names = [quote(pair.target.name) + " COLLATE BINARY" for pair in self._key.pairs]
        self._order = " ORDER BY " + ", ".join(self._names)
        self._null_keys = False
        self._row_as_record = row_as_record

    def begin(self) -> Iterator[Difference]:
        """Rows that lack a part of their key: no record is theirs. Those of a whole NULL key may have one."""
        if len(self._names) > 1:
            yield from self._extra(self._rows(" OR ".join(map(_IS_NULL, self._names)), ()))
        else:  # NULL is the first in order
            first = next(self._rows("true", ()), None)
            self._null_keys = first is not None and self._key.of_row(first) is None

    def block(self, texts: Sequence[bytes]) -> Optional[Tuple[List[Any], Iterator[Difference]]]:
        """Look at the rows up to that of the last record; None where they are just what the records say.

        Otherwise the records, decoded, and what is different, though that may be nothing.

        Raises msgspec.DecodeError where a text is no record.
        """
        after, last = self._after, self._key.of_record(self._cells.take(self._decode(texts[-1])))
        if after is not _NOWHERE and not _less(after, last):
            raise Unordered
        condition, limits = self._between(after, last)
        self._after = last
        if self._row_as_record is not None and self._are_records(texts, condition, limits):
            return None
        records = [self._decode(text) for text in texts]
        return records, self._differences(records, self._rows(condition, limits), after)

    def end(self) -> Iterator[Difference]:
        """The rows behind the last record."""
        yield from self._extra(self._rows(*self._between(self._after, _NOWHERE)))

    def _between(self, after: Any, last: Any) -> Tuple[str, Tuple[Any, ...]]:
        """SQL condition and its parameters: keys behind ``after`` up to ``last``, ``_NOWHERE`` is no limit.

        A NULL key, which SQLite allows, is the first; one of several parts is never NULL (``begin``).
        """
        names, places = ", ".join(self._names), ", ".join("?" * len(self._names))
        single = len(self._names) == 1
        conditions = [] if single else ["NOT " + _IS_NULL(name) for name in self._names]
        limits: List[Any] = []
        for sign, key in ((">", after), ("<=", last)):
            if key is None:
                conditions.append(("NOT " if sign == ">" else "") + _IS_NULL(names))
            elif key is not _NOWHERE:
                condition = "({}) {} ({})".format(names, sign, places)
                null_too = self._null_keys and after is _NOWHERE
                conditions.append("(%s OR %s)" % (condition, _IS_NULL(names)) if null_too else condition)
                limits += [_bindable(part) for part in (key if isinstance(key, tuple) else (key,))]
        return " AND ".join(conditions) or "true", tuple(limits)

    def _rows(self, condition: str, limits: Sequence[Any]) -> Iterator[Row]:
        names = ", ".join(quote(pair.target.name) for pair in self._cells.pairs)
        sql = "SELECT {} FROM {} WHERE {}".format(names, quote(self._table), condition)
        return self._database.execute(sql + self._order, limits)

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

    def _extra(self, rows: Iterator[Row]) -> Iterator[Difference]:
        for row in rows:
            yield Difference(self._table, self._key.shown(self._key.of_row(row)), None, EXTRA)

    def _differences(self, records: Iterable[Any], rows: Iterator[Row], last: Any) -> Iterator[Difference]:
        """Walk records and rows side by side."""
        cells, key, table = self._cells, self._key, self._table
        row, place = _next(rows, key)
        for record in records:
            values = cells.take(record)
            name = key.of_record(values)
            if last is not _NOWHERE and not _less(last, name):
                raise Unordered
            last = name
            while row is not None and place != name and _less(place, name):
                yield Difference(table, key.shown(place), None, EXTRA)
                row, place = _next(rows, key)
            if row is None or place != name:
                yield Difference(table, key.shown(name), None, MISSING)
                continue
            if not cells.equal(record, values, row):
                for column, message in cells.unequal(record, values, row, self._describe):
                    yield Difference(table, key.shown(name), column, message)
            row, place = _next(rows, key)
        while row is not None:
            yield Difference(table, key.shown(place), None, EXTRA)
            row, place = _next(rows, key)


_IS_NULL = "typeof({}) = 'null'".format  # which SQLite looks at even where a column cannot be NULL
_NOWHERE = object()  # before the first key, or behind the last


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
        self.take = _fields(self.pairs, columns)
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
        return printable(", ".join(str(part) for part in key) if isinstance(key, tuple) else str(key))


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


def ordered(records: Iterable[bytes], columns: Sequence[str], mapped: TableMapping) -> Iterator[bytes]:
    """The records' texts by the key of these columns, sorted on disk."""
    key = _key_of(columns, mapped.copied)
    readers = [(pair.source.name, _key_reader(pair)) for pair in key.pairs]
    names = ", ".join("k%d" % i for i in range(len(readers)))
    temporary = sqlite3.connect("", isolation_level=None, check_same_thread=False)  # a file of SQLite's own
    with contextlib.closing(temporary) as sorter:
        sorter.execute("PRAGMA journal_mode = OFF")
        sorter.execute("CREATE TABLE record (%s, text BLOB)" % names)
        sorter.execute("BEGIN")
        decode = msgspec.json.Decoder(Dict[str, msgspec.Raw]).decode
        sorter.executemany(
            "INSERT INTO record VALUES (%s)" % ", ".join("?" * (len(readers) + 1)),
            (
                (*(read(_plain(members[name])) for name, read in readers), text)
                for text in records
                for members in [decode(text)]
            ),
        )
        for (text,) in sorter.execute("SELECT text FROM record ORDER BY " + names):
            yield text


def key_columns(columns: Collection[TargetColumn], mapped: TableMapping) -> List[str]:
    """Source columns that the primary key of a SQLite table is made of; empty where records cannot be told apart by it."""
    key = [name.lower() for place, name in sorted((column.key, column.name) for column in columns) if place]
    sources = {pair.target.name.lower(): pair.source for pair in mapped.copied}
    if not key or any(name not in sources or sources[name].kind not in _KEY_KINDS for name in key):
        return []
    return [sources[name].name for name in key]


_KEY_KINDS = ("uuid", "text", "integer", "undeclared")


def _plain(value: Any) -> Any:
    return msgspec.json.decode(bytes(value)) if isinstance(value, msgspec.Raw) else value


def _key_reader(pair: Copied) -> Callable[[Any], Any]:
    """A key's value as SQLite holds it: an integer in a TEXT column is text, and sorts as text."""
    if pair.source.kind in ("integer", "undeclared") and affinity(pair.target.type) == "TEXT":
        return _plain_text
    return _plain


def _plain_text(value: Any) -> Any:
    plain = _plain(value)
    return str(plain) if type(plain) is int else plain


# Records against records


Side = Tuple[Sequence[Column], Iterable[Any]]  # columns, and the records that are decoded by them


def changes(key: Sequence[str], mapped: TableMapping, then: Side, now: Side) -> Iterator[Tuple[str, str]]:
    """Walk two sets of records of one table in key order; yields ("added" | "removed" | "changed", row).

    ``key``: the source columns of the primary key. Compared are the migrated columns, by value: the order of JSON keys does not count, every digit does.
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
    take, take_now = (_fields(pairs, columns) for columns in (then, now))
    tests = [
        (name, _foreign_test(kinds[name]) if kinds_then[name] == "undeclared" else _same_record)
        for name in (pair.source.name for pair in pairs)
    ]

    def changed(record: Any, other: Any) -> List[str]:
        return [
            name
            for (name, same), mine, theirs in zip(tests, take(record), take_now(other))
            if not same(mine, theirs) or (name in record.json_nulls) != (name in other.json_nulls)
        ]

    return changed


def _fields(pairs: Sequence[Copied], columns: Sequence[Column]) -> Callable[[Any], Row]:
    names = [column.name for column in columns]
    return _tuple_getter(operator.attrgetter, ["c%d" % names.index(pair.source.name) for pair in pairs])


def _keyed(
    names: Sequence[str], mapped: TableMapping, columns: Sequence[Column], records: Iterable[Any]
) -> Tuple[Callable[[Any], str], Iterator[Tuple[Any, Any]]]:
    """How a key is shown, and each record with its key. Raises Unordered while they are read."""
    kinds = {column.name: column for column in columns}
    pairs = [pair._replace(source=kinds[pair.source.name]) for pair in mapped.copied]
    key = _key_of(names, pairs)
    take = _fields(pairs, columns)

    def keyed() -> Iterator[Tuple[Any, Any]]:
        last: Any = None
        for record in records:
            name = key.of_record(take(record))
            if last is not None and not _less(last, name):
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
        if _json_equal(text, now):
            return True
        if text[0] == '"':
            inner = json.loads(text)
            if kind in MOMENTS and isinstance(theirs, str):
                return _moment(inner) is not None and _moment(inner) == _moment(theirs)
            if kind in STRUCTURED:
                return _json_equal(inner, now)
            text = inner
        return kind in ("numeric", "float") and _same_number(text.strip(BLANKS), now.strip('"'))

    return same


def is_null(value: Any) -> bool:
    return value is None or (isinstance(value, msgspec.Raw) and bytes(value) == b"null")


# Showing values


def fingerprinter() -> Describe:
    """Shows a value without what it says: its type, its length, and a fingerprint that tells values apart.

    Its key is made anew each time, so that nobody finds a date or a number by trying them all.
    """
    key = os.urandom(16)

    def fingerprint(value: Any) -> str:
        if value is None:
            return "NULL"
        if isinstance(value, msgspec.Raw):
            text = str(value, "utf-8", "replace")
            if text in ("null", "true", "false"):
                return "JSON " + text
            return "JSON" + fingerprint(text)[len("text") :]
        content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
        return "%s of length %d (fingerprint %s)" % (
            _kind(value),
            len(value) if isinstance(value, (str, bytes)) else len(content),
            hashlib.blake2b(content, key=key, digest_size=4).hexdigest(),
        )

    return fingerprint


SHOWN = 100  # characters of a value


def shortened(value: Any) -> str:
    """The value itself, on one line and not too long."""
    if value is None:
        return "NULL"
    if isinstance(value, msgspec.Raw):
        text = str(value, "utf-8", "replace")
    else:
        text = _kind(value) + " " + repr(value)
    return printable(text)


def printable(text: str) -> str:
    """Text as a line of a log or a terminal can hold it: control characters escaped, and not too long."""
    shown = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in text[:SHOWN])
    return shown if len(text) <= SHOWN else "%s… (%d characters)" % (shown, len(text))


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


def _parsed(text: str) -> Any:
    return json.loads(
        text,
        parse_float=lambda digits: ("number", digits),
        parse_int=lambda digits: ("number", digits),
        parse_constant=lambda name: ("constant", name),
        object_pairs_hook=lambda pairs: ("object", sorted(pairs, key=lambda pair: str(pair[0]))),
    )


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
