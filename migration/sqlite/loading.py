"""Load the records of a bundle into the tables of SQLite."""

from __future__ import annotations

import logging
import operator
import sqlite3
import time
from typing import Any, Callable, Collection, List, NamedTuple, Optional, Sequence

import msgspec

from migration import conversion
from migration.bundle.changes import Key, key_text
from migration.bundle.damage import damaged
from migration.bundle.manifest import Manifest, owners_of
from migration.bundle.reading import Reader
from migration.bundle.records import MANY_BYTES, Block
from migration.decoding import JSON_NULLS, record_decoder
from migration.errors import SourceError
from migration.model import USER_DATA, Column, Table
from migration.printing import brief, counted
from migration.sql import quote
from migration.sqlite import building, mapping
from migration.sqlite.errors import failed
from migration.sqlite.mapping import TableMapping
from migration.sqlite.schema import Schema

log = logging.getLogger(__name__)


class Filled(NamedTuple):
    """What filling a table took."""

    rows: int
    seconds: float


def fill(
    database: sqlite3.Connection,
    export: Reader,
    table: Table,
    columns: Sequence[Column],
    schema: Schema,
    brought: Collection[Key],
    advance: Callable[[int], None],
    called: str,
) -> Filled:
    """Load a table's records; ``brought``: the keys of rows of others among them; ``called``: ``Root.called``. Raises MigrationError: exit 2 for the schema, 3 for a value, 4 for the bundle, 5 for SQLite."""
    started = time.perf_counter()
    mapped = mapping.map_columns(table, columns, schema)
    rows = _load(database, export, Loader(table, columns, mapped, export.manifest, called, brought), advance)
    _require_count(table.file, rows, export.manifest.row_counts[table.name])
    _require_only(database, mapped.target, rows)
    return Filled(rows, time.perf_counter() - started)


def fill_row_1(
    database: sqlite3.Connection,
    record: Optional[bytes],
    table: Table,
    columns: Sequence[Column],
    schema: Schema,
    manifest: Manifest,
    called: str,
) -> None:
    """Set row 1 of what a table becomes from its one record; without a record the schema's defaults hold.

    A NULL that the column cannot hold is left to its default. Raises MigrationError as ``fill`` does.
    """
    if record is None:
        if table.ownership.is_root:
            raise damaged("%s holds no %s" % (USER_DATA, table.member))
        log.info("the %s has no %s: the schema's defaults hold", called, table.member)
        building.set_row_1(database, table.target, [], called)
        return
    mapped = mapping.map_columns(table, columns, schema)
    loader = Loader(table, columns, mapped, manifest, called)
    try:
        row = [value for (value,) in loader.values([loader.decode(record)])]
    except msgspec.DecodeError as error:
        raise damaged("%s, %s: %s" % (USER_DATA, table.member, error)) from error
    values = [
        (pair.target.name, value)
        for pair, value in zip(mapped.copied, row)
        if value is not None or not pair.target.not_null
    ]
    building.set_row_1(database, mapped.target, values, called)


class Loader:
    """Converts a table's records to rows for SQLite."""

    def __init__(
        self,
        table: Table,
        columns: Sequence[Column],
        mapped: TableMapping,
        manifest: Manifest,
        called: str,
        brought: Collection[Key] = (),
    ) -> None:
        self.mapped = mapped
        self._called = called
        self._brought = brought
        self.file = table.file
        self.decode = record_decoder(columns)
        self._names = [pair.source.name for pair in mapped.copied]
        self._takes = _getters(columns, self._names)
        self._key = (
            None if table.becomes else _getters(columns, mapping.key_of(table, columns, manifest.keys))
        )
        self._owners = owners_of(manifest, table.name)
        self._or_shared = table.ownership.or_shared
        self._owner = next(
            (
                operator.attrgetter("c%d" % i)
                for i, column in enumerate(columns)
                if column.name == table.owner
            ),
            None,
        )
        self._conversions = [
            (i, convert)
            for i, pair in enumerate(mapped.copied)
            for convert in [
                conversion.converter(
                    pair.source, pair.target.type, pair.source.name in table.json_types, pair.target.not_null
                )
            ]
            if convert is not None
        ]

    @property
    def columns(self) -> List[str]:
        return [pair.target.name for pair in self.mapped.copied]

    def records(self, block: Block) -> List[Any]:
        """Decode a block of records. Raises msgspec.DecodeError where one is damaged."""
        lines = block.lines
        records = self.decode.many(lines) if lines is not None and len(lines) < MANY_BYTES else None
        if records is None:
            records = [self.decode(text) for text in block.texts]
        return records

    def values(self, records: Sequence[Any], before: int = 0) -> List[List[Any]]:
        """The records' values as SQLite is given them, column by column. ``before``: how many records came earlier.

        Raises MigrationError: exit 3 for a value that SQLite cannot hold, naming the cell; 4 for another user's row.
        """
        if self._owner is not None:
            self._refuse_foreign_rows(records, before, self._owner)
        columns: List[Any] = [list(map(take, records)) for take in self._takes]
        for i, convert in self._conversions:
            columns[i] = self._converted(records, before, i, columns[i], convert)
        for number, record in enumerate(records) if any(map(_JSON_NULLS, records)) else ():
            for name in record.json_nulls:
                if name not in self._names:
                    raise damaged(
                        "%s: %s of %s names no column"
                        % (self.file, JSON_NULLS, self.name(record, before + number + 1))
                    )
                columns[self._names.index(name)][number] = "null"
        return columns

    def _converted(
        self,
        records: Sequence[Any],
        before: int,
        i: int,
        values: Sequence[Any],
        convert: conversion.Converter,
    ) -> List[Any]:
        """The values of one column, converted; an error names the record of the first that cannot be."""
        converted: List[Any] = []
        try:
            for value in values:
                converted.append(None if value is None else convert(value))
        except (conversion.Unrepresentable, UnicodeDecodeError) as error:
            name = self.name(records[len(converted)], before + len(converted) + 1)
            if isinstance(error, UnicodeDecodeError):  # msgspec passes raw JSON on unread
                raise damaged(
                    "%s is damaged: %s, column %s is not UTF-8" % (self.file, name, self._names[i])
                ) from error
            raise SourceError(
                "%s %s, column %s: SQLite cannot hold this value as it is: %s"
                % (self.mapped.table, name, self._names[i], error),
                "correct the value in PostgreSQL or the column in the SQLite schema, then export again",
            ) from error
        return converted

    def _refuse_foreign_rows(self, records: Sequence[Any], before: int, owner: Callable[[Any], Any]) -> None:
        for number, record in enumerate(records, before + 1):
            if not self._is_user(owner(record)) and not self._is_brought(record):
                raise damaged(
                    "%s: the row %s belongs to another %s than the manifest's"
                    % (self.file, self.name(record, number), self._called)
                )

    def _is_user(self, owner: Any) -> bool:
        if isinstance(owner, str) and owner in self._owners:
            return True
        text = key_text(owner)
        if text is None:
            return self._or_shared
        return text in self._owners or text.rstrip() in self._owners  # char(n) is padded

    def _is_brought(self, record: Any) -> bool:
        """Whether another user's row is one of those that the bundle lists as brought."""
        return (
            bool(self._brought)
            and self._key is not None
            and tuple(key_text(take(record)) for take in self._key) in self._brought
        )

    def name(self, record: Any, number: int) -> str:
        """``number``: the record's place in its file, from 1."""
        if self._key is None:
            return "of the " + self._called
        return ", ".join(_key_part(take(record)) for take in self._key) or "record %d" % number


def _key_part(value: Any) -> str:
    plain = str(value, "utf-8", "replace").strip('"') if isinstance(value, msgspec.Raw) else str(value)
    return brief(plain)


def _getters(columns: Sequence[Column], names: Sequence[str]) -> List[Callable[[Any], Any]]:
    places = {column.name: "c%d" % i for i, column in enumerate(columns)}
    return [operator.attrgetter(places[name]) for name in names]


_JSON_NULLS = operator.attrgetter("json_nulls")
_REFUSALS = (sqlite3.IntegrityError, sqlite3.DataError, OverflowError)


def _load(
    database: sqlite3.Connection, export: Reader, loader: Loader, advance: Callable[[int], None]
) -> int:
    """Insert all records of the loader's file. Returns how many."""
    loaded = 0
    for records in export.blocks(loader.file, loader.records, loader.decode):
        values = loader.values(records, loaded)
        if loader.columns:  # an empty file of a bundle that names no types has none
            rows = zip(*values)
            try:
                building.insert(database, loader.mapped.target, loader.columns, rows)
            except _REFUSALS as error:
                rejected = len(records) - 1 - sum(1 for _ in rows)
                name = loader.name(records[rejected], loaded + rejected + 1)
                if isinstance(error, sqlite3.DataError):
                    row = {column: of[rejected] for column, of in zip(loader.columns, values)}
                    raise building.too_large("%s %s" % (loader.mapped.table, name), row, error) from error
                raise failed(
                    "%s %s is rejected by SQLite: %s" % (loader.mapped.table, name, error),
                    "correct the row in PostgreSQL and export again, or the constraint in the schema file"
                    + _of_cuts(loader.mapped.table, export.manifest),
                ) from error
        loaded += len(records)
        advance(len(records))
    return loaded


def _of_cuts(table: str, manifest: Manifest) -> str:
    cut = [name for name in manifest.cut if name.startswith(table + " (")]
    return "; or do not cut %s, but skip the row or bring the other" % " or ".join(cut) if cut else ""


def _require_count(file: str, rows: int, expected: int) -> None:
    if rows != expected:
        raise damaged("%s holds %s; the manifest says %d" % (file, counted(rows, "record"), expected))


def _require_only(database: sqlite3.Connection, table: str, rows: int) -> None:
    """A table holds the rows that were inserted and no others."""
    held = database.execute("SELECT count(*) FROM " + quote(table)).fetchone()[0]
    if held != rows:
        raise failed(
            "%s holds %s, of which %d came from the bundle: the schema file fills it with rows of its own"
            % (table, counted(held, "row"), rows),
            "take them out of the schema file",
        )
