"""Writing a bundle: it replaces the old one whole, or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shutil
from pathlib import Path
from typing import BinaryIO, Callable, Collection, Dict, Iterator, List, Mapping, Optional, Sequence, Union

from migration import files
from migration.bundle import undecodable
from migration.bundle.damage import damaged, open_file
from migration.bundle.folder import OURS, locked, move_in, named_by_manifest, os_errors
from migration.bundle.manifest import MANIFEST, REPORTS, Manifest, as_json
from migration.errors import SourceError
from migration.files import BLOCK, create_private
from migration.model import CHANGES, USER_DATA, Table


@contextlib.contextmanager
def new_bundle(folder: Path, names: Collection[str], check_utf8: bool = False) -> Iterator[Writer]:
    """Write a new bundle, with the table files ``names``, to ``folder``.

    It replaces the old one when the block ends well; otherwise the old one stays as it was. ``check_utf8``: PostgreSQL
    does not guarantee the encoding. Raises MigrationError (exit 4) where the folder cannot be written, is full or in use.
    """
    with os_errors(folder), locked(folder):
        ours = {MANIFEST, USER_DATA, CHANGES, *REPORTS, *names, *named_by_manifest(folder)}
        foreign = sorted(path.name for path in folder.glob("*.json") if path.name not in ours)
        if foreign:
            raise damaged(
                "%s holds %s, which is no file of a bundle" % (folder, foreign[0]),
                "choose a folder of its own with --data-dir",
            )
        # A folder that others use too keeps its mode; our files are 0600 in any case.
        if {path.name for path in folder.iterdir()} <= {*ours, *OURS}:
            os.chmod(str(folder), 0o700)
        with files.staged(folder) as staging:
            yield Writer(staging, check_utf8)
        move_in(folder)


class Writer:
    """A bundle in the making. ``table`` and ``single_rows`` write its files, ``finish`` the manifest."""

    def __init__(self, folder: Path, check_utf8: bool) -> None:
        self._folder = folder
        self._check_utf8 = check_utf8
        self.row_counts: Dict[str, int] = {}
        self.checksums: Dict[str, str] = {}
        self.sizes: Dict[str, int] = {}

    @contextlib.contextmanager
    def table(self, name: str, file_name: str, advance: Callable[[int], None]) -> Iterator[Sink]:
        """Write a table's file: the block writes its records to the sink. ``advance`` is told of rows written."""
        with self._file(file_name, advance, name) as sink:
            yield sink
            sink.end()
        self.row_counts[name] = sink.rows

    def single_rows(self, records: Mapping[Table, Optional[bytes]]) -> None:
        """Write ``user_data.json``: of each table that becomes a single row the record's JSON text, None for none."""
        members = []
        for table, record in records.items():
            text = record or b"null"
            if self._check_utf8:
                _require_utf8([text], table.name)
            members.append(b'"%s": %s' % (table.member.encode("utf-8"), text))
            self.row_counts[table.name] = int(record is not None)
        with self._file(USER_DATA, lambda rows: None) as sink:
            sink.put(b"{" + b",\n".join(members) + b"}\n")

    def changes(self, lines: Iterator[bytes]) -> None:
        """Write the list of what is cut and brought, where there is something."""
        first = next(lines, None)
        if first is None:
            return
        with self._file(CHANGES, lambda rows: None) as sink:
            for line in itertools.chain([first], lines):
                sink.write(line + b"\n")
            sink.end()

    @contextlib.contextmanager
    def _file(self, name: str, advance: Callable[[int], None], table: str = "") -> Iterator[Sink]:
        with create_private(self._folder / name) as file:
            sink = Sink(file, self._check_utf8, advance, table)
            yield sink
        self.checksums[name] = sink.checksum
        self.sizes[name] = sink.size

    def finish(self, manifest: Manifest) -> None:
        """Write the manifest, the last file of the bundle."""
        files.write_private(self._folder / MANIFEST, as_json(manifest))


class Sink:
    """One file of the bundle while it is written: takes one record a call, hashes and counts, writes in blocks."""

    def __init__(
        self, file: BinaryIO, check_utf8: bool, advance: Callable[[int], None], table: str = ""
    ) -> None:
        self.rows = 0
        self.size = 0
        self._file = file
        self._hash = hashlib.sha256()
        self._check_utf8 = check_utf8
        self._table = table
        self._advance = advance
        self._pending: List[bytes] = []
        self._pending_size = 0
        self._known: Optional[str] = None  # the checksum of a file that was copied whole

    def write(self, line: bytes) -> None:
        """Take one record as COPY delivers it: JSON text that ends in a newline."""
        if len(line) > BLOCK:  # do not copy it: one value may be as large as a gigabyte
            self.flush()
            self._put_records([memoryview(line)[:-1]])
            return
        self._pending.append(line[:-1])
        self._pending_size += len(line)
        if self._pending_size >= BLOCK:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self._put_records(self._pending)
            self._pending = []
            self._pending_size = 0

    def _put_records(self, records: "Sequence[Union[bytes, memoryview]]") -> None:
        if self._check_utf8:
            _require_utf8(records, self._table)
        self.put(b",\n" if self.rows else b"[\n")
        self.put(records[0] if len(records) == 1 else b",\n".join(records))
        self.rows += len(records)
        self._advance(len(records))

    def take(self, path: Path, rows: int, size: int, checksum: str) -> None:
        """Copy a whole file that an earlier sink has written, counted and hashed."""
        with open_file(path) as file:
            shutil.copyfileobj(file, self._file, BLOCK)
        self.rows, self.size, self._known = rows, size, checksum
        self._advance(rows)

    def put(self, data: "Union[bytes, memoryview]") -> None:
        self._hash.update(data)
        self._file.write(data)
        self.size += len(data)

    def end(self) -> None:
        """Close the array."""
        if self._known is not None:
            return
        self.flush()
        self.put(b"\n]\n" if self.rows else b"[\n]\n")

    @property
    def taken(self) -> int:
        """Bytes of records that have arrived so far."""
        return self.size + self._pending_size

    @property
    def checksum(self) -> str:
        return self._known or self._hash.hexdigest()


def _require_utf8(records: "Sequence[Union[bytes, memoryview]]", table: str) -> None:
    with contextlib.suppress(UnicodeDecodeError):
        b",".join(records).decode("utf-8")
        return
    for record in records:
        column = undecodable.column_of(bytes(record), "utf-8")
        if column is not None:
            raise SourceError(
                "%s: the database's encoding is SQL_ASCII and this text is not UTF-8"
                % undecodable.place(bytes(record), table, column, ["id"]),
                "restore a dump of it into a database with the right encoding, and export that",
            )
