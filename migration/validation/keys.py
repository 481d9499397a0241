"""The keys by which rows and records are paired, and their order."""

from __future__ import annotations

import operator
import sqlite3
from typing import Any, Callable, Collection, List, NamedTuple, Sequence, Tuple

import msgspec

from migration.conversion import STRUCTURED, affinity
from migration.model import Column, Kind, Table
from migration.printing import brief
from migration.sqlite.mapping import Copied, TableMapping
from migration.sqlite.schema import TargetColumn
from migration.validation.walking import Describe, Row, Unordered


class Key(NamedTuple):
    """Source columns by which the rows of a table are paired with its records; if there are none, whole rows are.

    ``ordered``: it is SQLite's primary key, and of kinds that PostgreSQL orders in the same way. ``unique``: no two
    rows have the same values in it.
    """

    columns: Tuple[str, ...] = ()
    ordered: bool = False
    unique: bool = False


class Subject(NamedTuple):
    """What is compared: the rows of a table of SQLite with records that have these columns.

    ``decode``: decodes one record's text (``decoding.record_decoder``); ``describe``: shows a value in messages.
    """

    database: sqlite3.Connection
    table: Table
    mapped: TableMapping
    key: Key
    columns: Sequence[Column]
    decode: Callable[[bytes], Any]
    describe: Describe


NOWHERE = object()  # before the first key, or after the last


def lacks_part(key: Any) -> bool:
    return None in key if isinstance(key, tuple) else key is None


def bindable(part: Any) -> Any:
    """A part of a key as a parameter; SQLite has no row whose key is beyond its integers."""
    return float(part) if type(part) is int and not -(2**63) <= part < 2**63 else part


class KeyReader(NamedTuple):
    """Reads the key of a record or a row: one value, or a tuple where the key has several columns."""

    pairs: Sequence[Copied]
    of_record: Callable[[Row], Any]
    of_row: Callable[[Row], Any]

    def shown(self, key: Any) -> str:
        return brief(", ".join(str(part) for part in key) if isinstance(key, tuple) else str(key))


def is_before(one: Any, other: Any) -> bool:
    """As SQLite orders keys: NULL, numbers, text, bytes."""
    try:
        return bool(one < other)
    except TypeError:
        return _ranked(one) < _ranked(other)


def _ranked(key: Any) -> List[Tuple[int, Any]]:
    parts = key if isinstance(key, tuple) else (key,)
    return [(_RANKS.get(type(part), 1), 0 if part is None else part) for part in parts]


_RANKS = {type(None): 0, str: 2, bytes: 3}


def key_reader(columns: Sequence[str], pairs: Sequence[Copied]) -> KeyReader:
    names = [pair.source.name for pair in pairs]
    places = [names.index(name) for name in columns]
    readers = [_key_reader(pairs[place]) for place in places]

    def read(values: Row) -> Any:
        key = [reader(values[place]) for place, reader in zip(places, readers)]
        return tuple(key) if len(key) > 1 else key[0]

    return KeyReader([pairs[place] for place in places], read, operator.itemgetter(*places))


def pairing_key(
    columns: Collection[TargetColumn], mapped: TableMapping, source_key: Sequence[str], utf8: bool
) -> Key:
    """Pair the rows of a SQLite table by its primary key, else by the source's, if both sides have all its columns.

    ``utf8``: the database's encoding, in which SQLite orders text as PostgreSQL does; not in UTF-16.
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
    """Reads a key's value as SQLite stores it: an integer in a TEXT column is text, and sorts as text."""
    in_text = affinity(pair.target.type) == "TEXT"
    if pair.source.kind is Kind.UNDECLARED:
        return _undeclared_text if in_text else _undeclared
    return _plain_text if pair.source.kind is Kind.INTEGER and in_text else _plain


def _undeclared(value: Any) -> Any:
    """Raises Unordered for anything but text and integers: how SQLite stores it is not certain."""
    plain = _plain(value)
    if type(plain) not in (str, int, type(None)):
        raise Unordered
    return plain


def _undeclared_text(value: Any) -> Any:
    return _plain_text(_undeclared(value))


def _plain_text(value: Any) -> Any:
    plain = _plain(value)
    return str(plain) if type(plain) is int else plain
