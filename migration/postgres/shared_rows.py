"""The rows that are everybody's, read once for all users of a run instead of once a user.

Each table has one file, laid out as in a bundle: that of a ``shared()`` table becomes part of every bundle as it
is, the records of an ``or_shared`` table are sorted in between the user's own.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Callable, Dict, Iterator

import msgspec

from migration.bundle.damage import open_file
from migration.bundle.writing import Sink
from migration.files import create_private, sync, sync_folder
from migration.model import Kind, Table, Way
from migration.postgres.catalog import Catalog, apart_from, within
from migration.postgres.digests import Digest, Digester, SharedRows
from migration.postgres.records import select_json
from migration.postgres.snapshot import Snapshot
from migration.settings import Settings
from migration.sql import quote
from migration.sqlite.schema import Schema

INDEX = ".shared.json"  # written last; no table's file is called so


def export_shared(db: Snapshot, settings: Settings, schema: Schema, folder: Path) -> Dict[str, SharedRows]:
    """Write the rows that are everybody's to ``folder``, and an index of its files by which others find them."""
    exported = {}
    for table in settings.whole_tables:
        if not _is_reusable(table, settings, db.catalog, schema):
            continue
        condition = within("t", apart_from(settings, db.catalog, table.name))
        if table.owner is not None:
            condition += " AND t.%s IS NULL" % quote(table.owner)
        ordered, unordered = (
            select_json(db, db.catalog, table.name, condition, in_order) for in_order in (True, False)
        )
        with create_private(folder / table.file) as file:
            sink = Sink(file, check_utf8=False, advance=lambda rows: None)
            db.copy(ordered, sink)
            sink.end()
            sync(file)
        exported[table.name] = SharedRows(
            folder / table.file, sink.rows, sink.size, sink.checksum, db.digest(unordered)
        )
        db.require_nobody_waits()
    with create_private(folder / INDEX) as file:
        listed = {name: (rows.path.name, *rows[1:]) for name, rows in exported.items()}
        file.write(json.dumps(listed).encode("utf-8"))
        sync(file)
    sync_folder(folder)
    return exported


def exported_shared(folder: Path) -> Dict[str, SharedRows]:
    """What ``export_shared`` wrote to ``folder``. Raises MigrationError (exit 4) where it is not there."""
    with open_file(folder / INDEX) as file:
        listed = json.loads(file.read().decode("utf-8"))
    return {
        table: SharedRows(folder / name, rows, size, checksum, Digest(*digest))
        for table, (name, rows, size, checksum, digest) in listed.items()
    }


def _is_reusable(table: Table, settings: Settings, catalog: Catalog, schema: Schema) -> bool:
    """Whether everybody has the same rows of it, and the user's own can be sorted in between."""
    rule = table.ownership
    if rule.way is not Way.SHARED and not (rule.way is Way.OWNED and rule.or_shared):
        return False
    leaving = {settings.leaving, *(reference.leaving or "stop" for reference in settings.references)}
    if (settings.skip_orphans or leaving != {"stop"}) and any(
        table.name in (key.table for key in keys)
        for keys in (catalog.foreign_keys, schema.foreign_keys, settings.references)
    ):
        return False  # which rows are left out depends on the user
    return not rule.columns or _key_type(table, catalog) is not None


def _key_type(table: Table, catalog: Catalog) -> Any:
    """How the key is read from a record so that it sorts as in PostgreSQL; None where that is not simple."""
    keys = catalog.keys[table.name]
    kinds = {column.name: column.kind for column in catalog.columns[table.name]}
    return {Kind.UUID: str, Kind.INTEGER: int}.get(kinds[keys[0]]) if len(keys) == 1 else None


class _Merged:
    """Takes the user's records in key order and hands them on with everybody's in between.

    ``arrived``: counts and digests those that it takes.
    """

    def __init__(self, everybodys: Iterator[bytes], key: str, sink: Sink) -> None:
        self.arrived = Digester()
        self._everybodys = everybodys
        self._sink = sink
        key_type: Any = msgspec.defstruct("Key", [("value", Any)], rename={"value": key})
        self._decode: Callable[[bytes], Any] = msgspec.json.Decoder(key_type).decode
        self._advance()

    @property
    def taken(self) -> int:
        return self._sink.taken

    def _advance(self) -> None:
        self._line = next(self._everybodys, b"")
        self._key = self._decode(self._line).value if self._line else None

    def write(self, line: bytes) -> None:
        self.arrived.add([memoryview(line)[:-1]])
        key = self._decode(line).value
        while self._line and self._key < key:
            self._sink.write(self._line)
            self._advance()
        self._sink.write(line)

    def end(self) -> None:
        while self._line:
            self._sink.write(self._line)
            self._advance()


@contextlib.contextmanager
def merging(everybodys: Path, key: str, sink: Sink) -> Iterator[_Merged]:
    """A sink for the user's own records of a table, by the column that is the table's key."""
    with open_file(everybodys) as file:
        merged = _Merged(_lines(file), key, sink)
        yield merged
        merged.end()


def _lines(file: Any) -> Iterator[bytes]:
    """The records of a file that a sink wrote, each with its newline."""
    for line in file:
        text = line.rstrip(b",\n")
        if text not in (b"[", b"]"):
            yield text + b"\n"
