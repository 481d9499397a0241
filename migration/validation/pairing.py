"""Pair rows with records that have no common order: sort both on disk, by key or by all values.

They are sorted by texts that are equal if the values are (``pairing_texts``). The texts only pair them:
``equality.Cells`` then compares a row with its record.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import marshal
import operator
import sqlite3
from typing import Any, Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import msgspec

from migration.bundle.records import Block
from migration.model import Column, Kind
from migration.printing import brief
from migration.sqlite.mapping import TableMapping
from migration.validation import equality, json_and_moments, pairing_texts, record_changes, walking
from migration.validation.equality import Cells
from migration.validation.keys import Key, Subject
from migration.validation.pairing_texts import Form
from migration.validation.showing import Fingerprints
from migration.validation.walking import EXTRA, MISSING, ComparedBlock, Difference, Row, Unordered

ONE, OTHER = 0, 1  # sides of a sorter


class Item(NamedTuple):
    """``key`` and ``whole``: hashes of its key and of all of it, b"" if the key alone identifies items."""

    key: bytes
    whole: bytes
    content: bytes


class Match(NamedTuple):
    """Items of both sides that belong together: the first of each side, if any, and the number on each side."""

    one: Optional[Item]
    other: Optional[Item]
    ones: int
    others: int


class Sorter:
    """Two sets of items, merged in order. They are in a temporary file of SQLite: memory stays flat."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("CREATE TABLE item (key BLOB, whole BLOB, content BLOB, side INTEGER)")
        database.execute("BEGIN")

    def add(self, side: int, items: Iterable[Item]) -> None:
        self._database.executemany("INSERT INTO item VALUES (?, ?, ?, %d)" % side, items)

    def matches(self, repeatable: Callable[[bytes], bool]) -> Iterator[Match]:
        """Each item once: with those equal to it as a whole; else with the item of the other side that alone has its key.

        Raises Unordered where ONE side has two items of a key, unless that is ``repeatable``.
        """
        items = self._database.execute("SELECT key, whole, content, side FROM item ORDER BY key, whole, side")
        for _, of_key in itertools.groupby(items, operator.itemgetter(0)):
            ones = 0
            odd: List[Match] = []
            single = True  # so far, not more than one on each side is odd
            for _, same in itertools.groupby(of_key, operator.itemgetter(1)):
                match = _counted(same)
                ones += match.ones
                if ones > 1 and match.one is not None and not repeatable(match.one.content):
                    raise Unordered
                if match.ones == match.others:
                    yield match
                    continue
                odd.append(match)
                single = single and len(odd) <= 2 and match.ones + match.others == 1
                if not single:
                    yield from odd
                    odd = []
            if len(odd) == 2 and sum(match.ones for match in odd) == 1:
                yield Match(odd[0].one or odd[1].one, odd[0].other or odd[1].other, 1, 1)
            else:
                yield from odd


def _counted(rows: Iterable[Tuple[bytes, bytes, bytes, int]]) -> Match:
    first: List[Optional[Item]] = [None, None]
    counts = [0, 0]
    for key, whole, text, side in rows:
        if not counts[side]:
            first[side] = Item(key, whole, text)
        counts[side] += 1
    return Match(first[ONE], first[OTHER], counts[ONE], counts[OTHER])


@contextlib.contextmanager
def sorting() -> Iterator[Sorter]:
    with contextlib.closing(sqlite3.connect("", isolation_level=None)) as database:
        yield Sorter(database)


class _Items:
    """Makes the items of one side. ``names``: of the columns, in the order of their values and ``forms``."""

    def __init__(self, key: Key, names: Sequence[str], forms: Sequence[Form]) -> None:
        self.places = [names.index(name) for name in key.columns]
        self._unique = key.unique
        self._names = names
        self._forms = forms

    def of(self, values: Row, json_nulls: Sequence[str], text: bytes) -> Item:
        """``json_nulls``: the columns whose null is JSON's."""
        if self._unique and not any(json_and_moments.is_null(values[place]) for place in self.places):
            return Item(_hash([self._forms[place](values[place]) for place in self.places]), b"", text)
        parts = [
            pairing_texts.NULL if value is None else form(value) for form, value in zip(self._forms, values)
        ]
        for name in json_nulls:
            if name in self._names:
                parts[self._names.index(name)] = pairing_texts.JSON_NULL
        return Item(_hash([parts[place] for place in self.places]), _hash(parts), text)


def _hash(parts: Sequence[str]) -> bytes:
    texts = [part.encode("utf-8", "surrogatepass") for part in parts]
    lengths = b",".join([b"%d" % len(text) for text in texts])
    return hashlib.blake2b(b"".join([lengths, b":", *texts]), digest_size=16).digest()


class _Names:
    """Names rows and records in messages: by their key, or by a fingerprint where they have none."""

    def __init__(self, places: Sequence[int], fingerprints: Fingerprints, describe: walking.Describe) -> None:
        self._places, self._fingerprints, self._describe = places, fingerprints, describe

    def of(self, item: Item, values: Row) -> str:
        if self._places:
            return brief(", ".join(_shown(values[place]) for place in self._places))
        if self._describe is self._fingerprints:
            return "row " + self._fingerprints.of(item.whole)
        return brief("(%s)" % ", ".join(map(self._describe, values)))


def _shown(value: Any) -> str:
    if isinstance(value, msgspec.Raw):
        return str(value, "utf-8").strip('"')
    if isinstance(value, bytes):
        return "\\x" + value.hex()
    if isinstance(value, bool):
        return str(int(value))
    return str(value)


class SortedComparison:
    """Compares the records of a table with its rows, in any order; same methods as ``ordered.OrderedComparison``."""

    def __init__(self, subject: Subject, sorter: Sorter, fingerprints: Fingerprints) -> None:
        self.cells = 0
        self._database = subject.database
        self._table = subject.mapped.target
        self._key = key = subject.key
        self._decode = subject.decode
        self._sorter = sorter
        self._describe = subject.describe
        json_columns = subject.table.json_types
        self._compared = Cells(subject.mapped, subject.columns, json_columns)
        names = [pair.source.name for pair in self._compared.pairs]
        of_records, of_rows = pairing_texts.forms(self._compared.pairs, json_columns)
        self._records, self._rows = _Items(key, names, of_records), _Items(key, names, of_rows)
        self._places = self._records.places
        self._names = _Names(self._places, fingerprints, subject.describe)

    def begin(self) -> None:
        """Any order will do."""

    def block(self, block: Block) -> ComparedBlock:
        """The differences come at the end. Raises msgspec.DecodeError where a text is no record."""
        texts = block.texts
        records = [self._decode(text) for text in texts]
        take, make = self._compared.take, self._records.of
        self._sorter.add(
            ONE, (make(take(record), record.json_nulls, text) for record, text in zip(records, texts))
        )
        self.cells += len(records) * len(self._compared.pairs)
        return ComparedBlock(len(records), records, iter(()))

    def end(self) -> Iterator[Difference]:
        rows = self._database.execute(walking.select(self._table, self._compared.pairs))
        self._sorter.add(OTHER, (self._rows.of(row, (), marshal.dumps(row)) for row in rows))
        for match in self._sorter.matches(self._repeatable):
            if match.ones == match.others:
                yield from self._unequal(match)
                continue
            times = "is %d times in SQLite, %d times expected" % (match.others, match.ones)
            if match.one is not None:
                record = self._compared.take(self._decode(match.one.content))
                name = self._names.of(match.one, record)
                yield Difference(self._table, name, None, times if match.ones + match.others > 1 else MISSING)
            elif match.other is not None:
                name = self._names.of(match.other, marshal.loads(match.other.content))
                yield Difference(
                    self._table, name, None, times if match.others > 1 else EXTRA, match.others == 1
                )

    def _unequal(self, match: Match) -> Iterator[Difference]:
        assert match.one is not None and match.other is not None
        record, row = self._decode(match.one.content), marshal.loads(match.other.content)
        values = self._compared.take(record)
        unequal = list(self._compared.unequal(record, values, row, self._describe))
        name = self._names.of(match.one, values)
        if self._places or len(unequal) < len(values):
            for column, message in unequal:
                yield Difference(self._table, name, column, message)
        else:
            yield Difference(self._table, name, None, MISSING)
            yield Difference(self._table, self._names.of(match.other, row), None, EXTRA, True)

    def _repeatable(self, text: bytes) -> bool:
        return _repeatable(self._key, self._places, self._compared.take(self._decode(text)))


def _repeatable(key: Key, places: Sequence[int], values: Row) -> bool:
    """Whether a key may occur several times: SQLite's unique keys allow any number of NULLs."""
    return not key.unique or any(json_and_moments.is_null(values[place]) for place in places)


class Texts(NamedTuple):
    """Records of one table as JSON text, and how they are decoded."""

    columns: Sequence[Column]
    decode: Callable[[bytes], Any]
    texts: Iterable[bytes]


def changes(
    key: Key, mapped: TableMapping, then: Texts, now: Texts, sorter: Sorter, fingerprints: Fingerprints
) -> Iterator[Tuple[str, str]]:
    """As ``record_changes.changes``, for records in whatever order. One of two equal records may have been added."""
    names = [pair.source.name for pair in mapped.copied]
    made = _Items(key, names, pairing_texts.record_forms(mapped.copied, then.columns, now.columns))
    places = made.places
    shown = _Names(places, fingerprints, fingerprints)
    takes = [equality.fields(mapped.copied, side.columns) for side in (then, now)]
    marked = all(column.kind != Kind.UNDECLARED for column in then.columns)  # which nulls are JSON's

    def items(of: Texts, take: Callable[[Any], Row]) -> Iterator[Item]:
        for text in of.texts:
            record = of.decode(text)
            yield made.of(take(record), record.json_nulls if marked else (), text)

    sorter.add(ONE, items(then, takes[ONE]))
    sorter.add(OTHER, items(now, takes[OTHER]))
    changed = record_changes.changed_columns(mapped, then.columns, now.columns)
    for match in sorter.matches(lambda text: _repeatable(key, places, takes[ONE](then.decode(text)))):
        one, other = (
            None if item is None else side.decode(item.content)
            for side, item in ((then, match.one), (now, match.other))
        )
        if match.ones == match.others:
            assert match.one is not None and match.other is not None
            unlike = changed(one, other)
            if unlike and not places and len(unlike) == len(names):
                yield "removed", shown.of(match.one, takes[ONE](one))
                yield "added", shown.of(match.other, takes[OTHER](other))
            elif unlike:
                yield "changed", shown.of(match.one, takes[ONE](one))
        elif match.ones > match.others:
            assert match.one is not None
            yield from [("removed", shown.of(match.one, takes[ONE](one)))] * (match.ones - match.others)
        else:
            assert match.other is not None
            yield from [("added", shown.of(match.other, takes[OTHER](other)))] * (match.others - match.ones)
