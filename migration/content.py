"""Every cell of SQLite held against its record: what phase 3 proves equality with.

The comparison is written from the type contract and shares no conversion with the import.
"""

from __future__ import annotations

import hashlib
import json
import operator
import re
import sqlite3
from decimal import Decimal
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import msgspec

from migration.encoding import STRUCTURED, affinity
from migration.mapping import Copied, TableMapping
from migration.schema import quote
from migration.tables import Column

Same = Callable[[Any, Any], bool]
Row = Tuple[Any, ...]


class Difference(NamedTuple):
    """A cell, or a row where ``column`` is None, that is not what its record says. Holds no value."""

    table: str
    row: str
    column: Optional[str]
    message: str


class Unordered(Exception):
    """The records do not come in primary-key order."""


def differences(
    database: sqlite3.Connection, mapped: TableMapping, columns: Sequence[Column], records: Iterable[Any]
) -> Iterator[Difference]:
    """Walk records and rows side by side in key order, at flat memory.

    ``records``: as ``encoding.record_decoder(columns)`` makes them. Raises Unordered where they are not in
    key order, as in a bundle that was made elsewhere.
    """
    pairs = mapped.copied
    key = _key_places(database, mapped)
    readers = [_key_reader(pairs[place]) for place in key]
    take = operator.attrgetter(*("c%d" % columns.index(pair.source) for pair in pairs), "json_nulls")
    tests = [_test(pair) for pair in pairs]
    rows = database.execute(
        "SELECT {} FROM {} ORDER BY {}".format(
            ", ".join(quote(pair.target.name) for pair in pairs),
            quote(mapped.target),
            ", ".join(quote(pairs[place].target.name) + " COLLATE BINARY" for place in key),
        )
    )
    row = next(rows, None)
    last: Optional[Row] = None
    for record in records:
        *values, json_nulls = take(record)
        name = tuple([read(values[place]) for place, read in zip(key, readers)])
        if last is not None and not last < name:
            raise Unordered
        last = name
        while row is not None and _key(row, key) < name:
            yield Difference(mapped.target, _shown(_key(row, key)), None, "is not in the export")
            row = next(rows, None)
        if row is None or _key(row, key) != name:
            yield Difference(mapped.target, _shown(name), None, "is missing in SQLite")
            continue
        for value, found, same, pair in zip(values, row, tests, pairs):
            if value is None:
                equal = found is None
            elif json_nulls and pair.source.name in json_nulls:
                equal = found == "null"
            else:
                equal = same(value, found)
            if not equal:
                yield Difference(
                    mapped.target,
                    _shown(name),
                    pair.target.name,
                    "%s became %s" % (describe(value), describe(found)),
                )
        row = next(rows, None)
    while row is not None:
        yield Difference(mapped.target, _shown(_key(row, key)), None, "is not in the export")
        row = next(rows, None)


def ordered(records: Iterable[bytes], database: sqlite3.Connection, mapped: TableMapping) -> Iterator[bytes]:
    """The records' texts by key, sorted on disk."""
    key = [mapped.copied[place] for place in _key_places(database, mapped)]
    readers = [(pair.source.name, _key_reader(pair)) for pair in key]
    with sqlite3.connect("", isolation_level=None) as sorter:  # a temporary file of SQLite's own
        sorter.execute("PRAGMA journal_mode = OFF")
        sorter.execute("CREATE TABLE record (%s, text BLOB)" % ", ".join("k%d" % i for i in range(len(key))))
        sorter.execute("BEGIN")
        decode = msgspec.json.Decoder(Dict[str, msgspec.Raw]).decode
        sorter.executemany(
            "INSERT INTO record VALUES (%s)" % ", ".join("?" * (len(key) + 1)),
            (
                (*(read(_plain(members[name])) for name, read in readers), text)
                for text in records
                for members in [decode(text)]
            ),
        )
        for (text,) in sorter.execute(
            "SELECT text FROM record ORDER BY %s" % ", ".join("k%d" % i for i in range(len(key)))
        ):
            yield text


def key_columns(database: sqlite3.Connection, mapped: TableMapping) -> List[str]:
    """Source columns that the target's primary key is made of; empty where records cannot be told apart by it."""
    described = database.execute("PRAGMA table_info(%s)" % quote(mapped.target)).fetchall()
    key = [name for place, name in sorted((row[5], row[1]) for row in described) if place]
    sources = {pair.target.name: pair.source for pair in mapped.copied}
    if not key or any(name not in sources or sources[name].kind not in _KEY_KINDS for name in key):
        return []
    return [sources[name].name for name in key]


_KEY_KINDS = ("uuid", "text", "integer", "undeclared")


def _key_places(database: sqlite3.Connection, mapped: TableMapping) -> List[int]:
    names = [pair.source.name for pair in mapped.copied]
    return [names.index(name) for name in key_columns(database, mapped)]


def _key(row: Row, places: Sequence[int]) -> Row:
    return tuple(row[place] for place in places)


def _plain(value: Any) -> Any:
    return msgspec.json.decode(bytes(value)) if isinstance(value, msgspec.Raw) else value


def _key_reader(pair: Copied) -> Callable[[Any], Any]:
    """A key's value as SQLite holds it: an integer in a TEXT column is text, and sorts as text."""
    if pair.source.kind == "integer" and affinity(pair.target.type) == "TEXT":
        return str
    return _plain


def _shown(key: Row) -> str:
    return ", ".join(str(part) for part in key)


def describe(value: Any) -> str:
    """A value without what it says: its type, its length, and a part of its SHA256 to tell values apart."""
    if value is None:
        return "NULL"
    if isinstance(value, msgspec.Raw):
        text = str(value, "utf-8")
        if text in ("null", "true", "false"):
            return "JSON " + text
        return "JSON" + describe(text)[len("text") :]
    content = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
    kind = {str: "text", bytes: "bytes", int: "integer", float: "real", bool: "boolean"}.get(
        type(value), "value"
    )
    return "%s of length %d (SHA256 %s…)" % (
        kind,
        len(value) if isinstance(value, (str, bytes)) else len(content),
        hashlib.sha256(content).hexdigest()[:8],
    )


# Whether a SQLite value says what a record's value says, kind by kind


def _test(pair: Copied) -> Same:
    kind, target = pair.source.kind, affinity(pair.target.type)
    if kind == "boolean":
        return (
            _same_as_text
            if target == "TEXT"
            else lambda value, found: type(found) in _INTEGERS[target] and found == value
        )
    if kind == "integer":
        return (
            _same_as_text
            if target == "TEXT"
            else lambda value, found: type(found) in _INTEGERS[target] and found == value
        )
    if kind in ("numeric", "float"):
        return _number_test(target)
    if kind in STRUCTURED:
        return _json_null_test if kind != "structure" and pair.source.not_null else _same_json
    if kind in _MOMENTS:
        return _same_moment
    if kind == "bytea":
        return lambda value, found: (
            found == value or (isinstance(found, bytes) and value == "\\x" + found.hex())
        )
    if kind == "undeclared":
        return _same_undeclared
    return lambda value, found: type(found) is str and found == value


# The types that an integer can have under an affinity
_INTEGERS = {"INTEGER": (int,), "NUMERIC": (int,), "BLOB": (int,), "REAL": (float,)}


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
                and digits != "NaN"
                and (repr(found) == digits or Decimal(repr(found)) == Decimal(digits))
            )
        if type(found) is int:
            return target != "REAL" and Decimal(found) == Decimal(digits)
        return type(found) is str and found == digits and (target == "TEXT" or not digits[-1].isdigit())

    return same


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


_MOMENTS = ("date", "time", "timetz", "timestamp", "timestamptz")
_EXACT = re.compile(r"(?:\d{4}-\d\d-\d\d)?T?(?:\d\d:\d\d:\d\d(?:\.\d{6})?)?")
# Sign and year, month and day, clock, fraction, zone, era: PostgreSQL's text and ISO 8601's alike.
_ANY_MOMENT = re.compile(
    r"(?:([+-]?\d{4,})-(\d\d-\d\d))?[T ]?(\d\d:\d\d:\d\d)?(?:\.(\d+))?([+-]\d\d(?::\d\d)*|Z)?( BC)?"
)


def _same_moment(value: Any, found: Any) -> bool:
    if type(found) is not str:
        return False
    if value == found:
        return (
            bool(_EXACT.fullmatch(value))
            or value.endswith(("+00:00", "infinity"))
            or "24:00:00" in value
            or _reads(value)
        )
    return _reads(found) and _moment(value) == _moment(found)


def _reads(text: str) -> bool:
    """Whether it is in the target's form: no era, a fraction of six digits."""
    found = _ANY_MOMENT.fullmatch(text)
    return bool(found) and not found[6] and len(found[4] or "123456") == 6  # type: ignore[index]


def _moment(text: str) -> Optional[Tuple[object, ...]]:
    found = _ANY_MOMENT.fullmatch(text)
    if not found:
        return None
    year, day, clock, fraction, zone, era = found.groups()
    counted = None if year is None else 1 - int(year) if era else int(year)
    offset = "+00:00" if zone == "Z" else zone + ":00" if zone and len(zone) == 3 else zone
    return (counted, day, clock, (fraction or "").rstrip("0"), offset)


def _same_undeclared(value: Any, found: Any) -> bool:
    """A bundle that names no types: the JSON value decides."""
    text = str(value, "utf-8")
    if text == "null":
        return found is None or found == "null"
    if text in ("true", "false"):
        return found in (int(text == "true"), str(int(text == "true")))
    if text[0] == '"':
        plain = json.loads(text)
        return (
            bool(found == plain)
            or _json_equal(text, found)
            or (type(found) in (int, float) and Decimal(repr(found)) == Decimal(plain))
        )
    if text[0] in "{[":
        return _json_equal(text, found)
    if type(found) is str:
        return found == text
    return type(found) in (int, float) and Decimal(repr(found)) == Decimal(text)
