"""The export bundle on disk: JSON files and a SHA256 manifest, written whole or not at all.

``files.staged`` writes its files, and is how a new bundle replaces an old one whole.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    Callable,
    Collection,
    Dict,
    FrozenSet,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Set,
    Tuple,
    TypeVar,
    Union,
)

import msgspec

from migration import files, lock
from migration.bundle import undecodable
from migration.conversion import Decoded, deep, refuse_constant, reject_duplicates, value_at
from migration.errors import BundleError, MigrationError, SourceError
from migration.files import BLOCK, COMPLETE, STAGING, block_size, create_private, sync
from migration.model import Column
from migration.workers import FOR_THREADS

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
USER_DATA = "user_data.json"
REPORTS = ("validation_report.json", "validation_report.html")
LINES = 1 << 18  # bytes of records that are looked at together

_OURS = (".gitignore", ".lock", STAGING, COMPLETE)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Manifest:
    """``manifest.json``. The first five are in every bundle; a bundle made elsewhere may lack the rest."""

    export_timestamp: str
    user_email: Optional[str]  # None where the user has no name in PostgreSQL
    user_id: str
    row_counts: Mapping[str, int]
    checksums: Mapping[str, str]
    format_version: int = FORMAT_VERSION
    sizes: Mapping[str, int] = field(default_factory=dict)
    columns: Mapping[str, Tuple[Column, ...]] = field(default_factory=dict)
    keys: Mapping[str, Tuple[str, ...]] = field(default_factory=dict)  # () where only whole rows differ
    orphans_skipped: Mapping[str, int] = field(default_factory=dict)
    left_behind: Mapping[str, int] = field(default_factory=dict)  # others' rows that refer to the user's
    owners: Mapping[str, Sequence[str]] = field(default_factory=dict)  # as ``owners_of`` needs them
    source: str = ""
    server_version: str = ""
    snapshot: str = ""
    lc_monetary: Optional[str] = None  # which currency, where columns of money became numbers


def owners_of(manifest: Manifest, table: str) -> FrozenSet[str]:
    """The texts by which the owner column of a table names the user: of citext, say, there may be several."""
    return as_written((manifest.user_id, *manifest.owners.get(table, ())))


def as_written(owners: Iterable[str]) -> FrozenSet[str]:
    """Owners, and as they are where char(n) has padded them or they are compared without their padding."""
    return frozenset(text for owner in owners for text in (owner, owner.rstrip()))


def damaged(
    message: str, hint: str = "export again, or bring back the whole folder from where it was copied"
) -> MigrationError:
    return BundleError(message, hint)


# Writing


class Sink:
    """One file of the bundle while it is written: hashed, counted, in blocks. Records arrive one a call."""

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
        self._known: Optional[str] = None  # the checksum of a file that was taken whole

    def write(self, line: bytes) -> None:
        """Take one record, as COPY hands it over: JSON text that ends in a newline."""
        if len(line) > BLOCK:  # not copied: one value may be as large as a gigabyte
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
        """Take a whole file that has been written, counted and hashed before, by an earlier sink."""
        with open_regular(path) as file:
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


class Writer:
    """A bundle in the making. ``table`` and ``user_data`` write its files, ``finish`` the manifest.

    A thread of ``pool`` syncs each file while the next is written.
    """

    def __init__(self, folder: Path, check_utf8: bool, pool: ThreadPoolExecutor) -> None:
        self._folder = folder
        self._check_utf8 = check_utf8
        self._pool = pool
        self._syncs: "List[Future[None]]" = []
        self.row_counts: Dict[str, int] = {}
        self.checksums: Dict[str, str] = {}
        self.sizes: Dict[str, int] = {}

    @contextlib.contextmanager
    def table(self, name: str, file_name: str, advance: Callable[[int], None]) -> Iterator[Sink]:
        with self._file(file_name, advance, name) as sink:
            yield sink
            sink.end()
        self.row_counts[name] = sink.rows

    def user_data(
        self, user: bytes, preferences: Optional[bytes], user_table: str, preferences_table: str
    ) -> None:
        """Write ``user_data.json`` from the two records' JSON text; a user may have no preferences."""
        if self._check_utf8:
            _require_utf8([user], user_table)
            _require_utf8([preferences or b"null"], preferences_table)
        with self._file(USER_DATA, lambda rows: None) as sink:
            sink.put(b'{"user": ' + user + b',\n"preferences": ' + (preferences or b"null") + b"}\n")
        self.row_counts[user_table] = 1
        self.row_counts[preferences_table] = int(preferences is not None)

    @contextlib.contextmanager
    def _file(self, name: str, advance: Callable[[int], None], table: str = "") -> Iterator[Sink]:
        with self._synced(name) as file:
            sink = Sink(file, self._check_utf8, advance, table)
            yield sink
        self.checksums[name] = sink.checksum
        self.sizes[name] = sink.size

    def finish(self, manifest: Manifest) -> None:
        with self._synced(MANIFEST) as file:
            file.write(msgspec.json.format(msgspec.json.encode(_as_json(manifest))) + b"\n")
        for synced in self._syncs:
            synced.result()

    @contextlib.contextmanager
    def _synced(self, name: str) -> Iterator[BinaryIO]:
        """A file to write, which ``finish`` waits for until it is on the disk."""
        file = create_private(self._folder / name)
        try:
            yield file
            file.flush()  # a full disk shows here
        except BaseException:
            file.close()
            raise
        self._syncs.append(self._pool.submit(_sync_and_close, file))


def _sync_and_close(file: BinaryIO) -> None:
    with file:
        sync(file)


def _as_json(manifest: Manifest) -> Dict[str, Any]:
    columns = {table: [c._asdict() for c in columns] for table, columns in manifest.columns.items()}
    plain = {**vars(manifest), "columns": columns}
    for key in ("row_counts", "checksums", "sizes"):  # whichever was written first
        plain[key] = dict(sorted(plain[key].items()))
    return plain


@contextlib.contextmanager
def writing(folder: Path, names: Collection[str], check_utf8: bool = False) -> Iterator[Writer]:
    """A new bundle of the table files ``names`` in ``folder``: published when the block ends well, left as it was otherwise.

    Raises MigrationError (exit 4) where the folder cannot be written, is full or in use.
    """
    with _os_errors(folder), _locked(folder):
        ours = {MANIFEST, USER_DATA, *REPORTS, *names, *_named_by_manifest(folder)}
        foreign = sorted(path.name for path in folder.glob("*.json") if path.name not in ours)
        if foreign:
            raise damaged(
                "%s holds %s, which is no file of a bundle" % (folder, foreign[0]),
                "choose a folder of its own with --data-dir",
            )
        if {path.name for path in folder.iterdir()} <= {*ours, *_OURS}:
            os.chmod(
                str(folder), 0o700
            )  # a folder that others use too keeps its mode; our files are 0600 anyway
        with files.staged(folder) as staging, ThreadPoolExecutor(1) as pool:
            yield Writer(staging, check_utf8, pool)
        _move_in(folder)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    files.make_folder(folder)
    with lock.held(folder / ".lock", "the data folder %s" % folder, BundleError):
        _move_in(folder)
        yield


def _move_in(folder: Path) -> None:
    """Bring a complete bundle, or report, to its place; remove files of tables that config no longer has."""
    new = _named_by_manifest(folder / COMPLETE) if files.is_complete(folder) else set()
    # a manifest that has moved, or a report's files, name none: nothing is left to remove then
    obsolete = _named_by_manifest(folder) - new if new else set()
    files.move_in(folder, last=(MANIFEST, REPORTS[0]), obsolete=obsolete)


def _named_by_manifest(folder: Path) -> Set[str]:
    """The files of the bundle in a folder; none where its manifest cannot be read."""
    try:
        names = read_manifest(folder).checksums
    except MigrationError:
        return set()
    return {name for name in names if os.path.basename(name) == name and name.endswith(".json")} - {*REPORTS}


@contextlib.contextmanager
def _os_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BundleError(
            "cannot write the bundle in %s: %s" % (folder, error.strerror or error),
            "free some space, or choose another folder with --data-dir"
            if error.errno == errno.ENOSPC
            else "choose a folder that you may write with --data-dir",
        ) from error


# Reading


class Reader:
    """A bundle whose files are those of its manifest. Each is proved by its checksum as it is read to its end.

    ``sizes``: of the files, in bytes.
    """

    def __init__(self, folder: Path, manifest: Manifest, sizes: Mapping[str, int]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.sizes = sizes

    def verify(self) -> None:
        """Read all files, to see whether they are the manifest's. Raises MigrationError (exit 4)."""
        names = sorted(self.sizes)
        if sum(self.sizes.values()) < FOR_THREADS:
            for name in names:
                self._verify_file(name)
            return
        with ThreadPoolExecutor(2) as pool:  # hashing lets other threads run
            collections.deque(pool.map(self._verify_file, names), maxlen=0)

    def _verify_file(self, name: str) -> None:
        digest = hashlib.sha256()
        with open_regular(self.folder / name) as file, _legible(name):
            size = block_size(file.fileno())
            for block in iter(lambda: file.read(size), b""):
                digest.update(block)
        self._require(name, digest)

    def _require(self, name: str, digest: Any) -> None:
        if digest.hexdigest() != self.manifest.checksums[name].lower():
            raise damaged("%s does not match its SHA256 checksum in the manifest" % name)

    def user_data(self) -> Dict[str, Optional[bytes]]:
        """The JSON text of the members of ``user_data.json``, ``None`` for null."""
        content = _read(self.folder / USER_DATA)
        self._require(USER_DATA, hashlib.sha256(content))
        try:
            members = msgspec.json.decode(content, type=Dict[str, msgspec.Raw])
            reject_duplicates(content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise damaged("%s is damaged: %s" % (USER_DATA, error)) from error
        texts = {name: bytes(raw) for name, raw in members.items()}
        return {name: None if text == b"null" else text for name, text in texts.items()}

    def records(self, file_name: str, decode: Callable[[bytes], Decoded]) -> Iterator[Decoded]:
        """Each record of a table's file, decoded, at flat memory. Raises as ``blocks`` does."""
        decode = deep(decode)
        for batch in self.blocks(file_name, lambda texts: [decode(text) for text in texts], decode):
            yield from batch

    def blocks(
        self, file_name: str, process: Callable[[List[bytes]], Result], decode: Callable[[bytes], Any]
    ) -> Iterator[Result]:
        """What ``process`` makes of each block of records, given as JSON text, at flat memory.

        Our own files hold one record a line. Any other layout of a JSON array is read as well, a
        little slower: ``process`` lets msgspec.DecodeError through where a text is no JSON, and ``decode``
        finds which one it is. Raises MigrationError (exit 4), naming file and record, where there is one.
        """
        with open_regular(self.folder / file_name) as file:
            number, texts = 0, []  # type: int, List[bytes]
            try:
                layout = _Lines(file)
                for texts in _legibly(file_name, layout):
                    try:
                        made = process(texts)
                    except msgspec.ValidationError:
                        raise
                    except msgspec.DecodeError:
                        break  # not one record a line, from here on at least
                    number += len(texts)
                    texts = []  # a record may be large: it is held as short as can be
                    layout.accept()
                    yield made
                    del made
                texts = []
                for texts in [] if layout.ended else in_blocks(_legibly(file_name, _scanned(file, layout))):
                    made = process(texts)
                    number += len(texts)
                    texts = []
                    yield made
                    del made
            except _DAMAGES as error:
                sound, damage = _first_damage(texts, decode)
                damage = damage or error
                raise damaged(
                    "%s is damaged in record %d: %s" % (file_name, number + sound + 1, damage)
                ) from damage
        self._require(file_name, layout.digest)


@contextlib.contextmanager
def _legible(name: str) -> Iterator[None]:
    """A disk that cannot be read damages a bundle."""
    try:
        yield
    except OSError as error:
        raise damaged(
            "cannot read %s: %s" % (name, error.strerror or error),
            "the disk may be failing: bring the bundle from where it was copied, or export again to another disk",
        ) from error


def _legibly(name: str, texts: Iterable[Result]) -> Iterator[Result]:
    with _legible(name):
        yield from texts


_DAMAGES = (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError)


def _first_damage(
    texts: Sequence[bytes], decode: Callable[[bytes], Any]
) -> Tuple[int, Optional[BaseException]]:
    """How many records are sound before the first that is not, and what is wrong with that one."""
    for number, text in enumerate(texts):
        try:
            decode(text)
        except _DAMAGES as error:
            return number, error
    return len(texts), None


class _Lines:
    """The records of a file in our own layout, block by block; stops before the first block in another layout.

    ``offset``: how far the file was accepted; ``last``: the sign before it: "[", "," or the "}" of a record;
    ``digest``: of what was accepted.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.offset, self.last, self.ended = 0, "", False
        self.digest = hashlib.sha256()
        self._read = 0, self.digest

    def accept(self) -> None:
        """The block that was handed out last is one of records."""
        size, self.digest = self._read
        self.offset += size
        self.last = ","

    def __iter__(self) -> Iterator[List[bytes]]:
        file = self._file
        head = file.readline(16)
        if head.strip() != b"[":
            return
        self.offset, self.last = len(head), "["
        self.digest.update(head)
        size = min(LINES, block_size(file.fileno()))
        while True:
            # The last record's line has to be read whole, and what ends the array behind it.
            parts = [file.read(size), file.readline()]
            if (parts[0][-1:] + parts[1][-2:])[-2:] != b",\n":
                parts.append(file.read(len(_END)))
            block = b"".join(parts)
            del parts
            digest = self.digest.copy()
            digest.update(block)
            self._read = len(block), digest
            closed = block.endswith(_END)
            if closed or block == _END[1:]:
                if file.read(1):
                    return
                if not closed:
                    self.ended = self.last == "["
                    if self.ended:
                        self.digest = digest
                    return
            elif not block.endswith(b",\n"):
                return
            lines = block.count(b"\n")
            found = [block[: -len(_END) if closed else -2].split(b",\n")]
            del block
            if lines != len(found[0]) + closed:
                return
            yield found.pop()  # and keep nothing of it: a record may be large
            if closed:
                self.ended = True
                return


_END = b"\n]\n"
_BLANK = re.compile(r"[ \t\n\r]*")


def in_blocks(texts: Iterable[bytes]) -> Iterator[List[bytes]]:
    """Records some at a time, so that they can be looked at together."""
    found: List[bytes] = []
    size = 0
    try:
        for text in texts:
            found.append(text)
            size += len(text)
            if size > LINES:
                yield found
                found, size = [], 0
    except (ValueError, RecursionError):
        if found:
            yield found  # the records before the damage count
        raise
    if found:
        yield found


def _scanned(file: BinaryIO, layout: _Lines) -> Iterator[bytes]:
    """The records behind those that ``layout`` accepted."""
    import codecs

    file.seek(layout.offset)
    last = layout.last
    decoder = codecs.getincrementaldecoder("utf-8")()
    end_of = deep(value_at)
    buffer, position, block, ended = "", 0, BLOCK, False

    def more() -> bool:
        nonlocal buffer, position, ended, block
        data = file.read(block)
        layout.digest.update(data)
        ended = not data
        buffer = buffer[position:] + decoder.decode(data, final=ended)
        position = 0
        block *= 2  # so that a record of any size is scanned a bounded number of times
        return not ended

    def skip_blank() -> str:
        nonlocal position
        while True:
            found = _BLANK.match(buffer, position)
            assert found is not None
            position = found.end()
            if position < len(buffer) or not more():
                return buffer[position : position + 1]

    if not last:
        if skip_blank() != "[":
            raise ValueError("not a JSON array")
        position, last = position + 1, "["
    while True:
        character = skip_blank()
        if character == "]" and last != ",":
            position += 1
            if skip_blank():
                raise ValueError("text after the end of the array")
            return
        if not character:
            raise ValueError("the file ends too early")
        if last == "}":
            if character != ",":
                raise ValueError("a comma is missing")
            position, last = position + 1, ","
            continue
        if character != "{":
            raise ValueError(
                "a comma before the end of the array" if character == "]" else "not a JSON object"
            )
        while True:
            try:
                _, end = end_of(buffer, position)
                break
            except ValueError:
                if not more():
                    raise
        block = BLOCK
        yield buffer[position:end].encode("utf-8")
        position, last = end, "}"


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the lock of a data folder, which is made where there is none. Raises MigrationError (exit 4)."""
    with contextlib.ExitStack() as stack:
        with _os_errors(folder):
            stack.enter_context(_locked(folder))
        yield


@contextlib.contextmanager
def reading(
    folder: Path, tables: Mapping[str, str], user_email: Optional[str] = None, is_held: bool = False
) -> Iterator[Reader]:
    """The bundle in ``folder``; ``tables``: the table and file names that it must hold.

    ``is_held``: the caller has the folder's lock.

    A file is proved as it is read. Where the block fails, all files are read: what failed may be the damage's doing.
    Raises MigrationError (exit 4) where the bundle is missing, damaged, of another user than ``user_email``, or in use.
    """
    try:
        there = folder.is_dir()
    except OSError as error:
        raise damaged("cannot read %s: %s" % (folder, error.strerror), "set --data-dir") from error
    if not there:
        raise damaged(
            "no export bundle: folder %s does not exist" % folder,
            "run export_from_postgres.py first, or set --data-dir",
        )
    with contextlib.ExitStack() as stack:
        # a bundle on read-only media cannot be locked, nor changed
        if not is_held and os.access(str(folder), os.W_OK):
            stack.enter_context(held(folder))
        export = _opened(folder, tables)
        manifest = export.manifest
        if user_email and user_email != manifest.user_email:
            raise BundleError(
                "the bundle in %s belongs to %s, not to %s"
                % (folder, manifest.user_email or "user " + manifest.user_id, user_email),
                "export again for this user, or leave --user-email away to use the bundle as it is",
                logged="the bundle in %s belongs to another user" % folder,
            )
        try:
            yield export
        except Exception:
            export.verify()
            raise


def _opened(folder: Path, tables: Mapping[str, str]) -> Reader:
    """Check the manifest, and the names and sizes of the files. A table that it does not count has an empty file."""
    manifest = read_manifest(folder)
    expected = {USER_DATA, *tables.values()}
    for name in sorted(set(manifest.checksums) - expected):
        raise damaged(
            "the manifest names a file that no table in config.TABLES has: %r" % name,
            "add its table to config.TABLES, or export again",
        )
    for name in sorted(expected - set(manifest.checksums)):
        raise damaged("the manifest does not name %s" % name, "export again")
    with _legible(str(folder)):
        present = {path.name for path in folder.glob("*.json")} - {MANIFEST, *REPORTS}
    for name in sorted(present - expected):
        raise damaged("%s is in %s but not in the manifest" % (name, folder), "move it away, or export again")
    sizes = {name: _size(folder / name) for name in sorted(expected)}
    for name, size in sizes.items():
        if size != manifest.sizes.get(name, size):
            raise damaged("%s has %d bytes; the manifest says %d" % (name, size, manifest.sizes[name]))
    uncounted = {table: name for table, name in tables.items() if table not in manifest.row_counts}
    for table, name in uncounted.items():  # other exporters count no rows where there are none
        if sizes[name] > _EMPTY or _read(folder / name).split() not in ([b"[]"], [b"[", b"]"]):
            raise damaged("the manifest has no row count for %s" % table, "export again")
    counts = {**manifest.row_counts, **dict.fromkeys(uncounted, 0)}
    return Reader(folder, dataclasses.replace(manifest, row_counts=counts), sizes)


_EMPTY = 64  # bytes: more than any layout of an empty array has


def _size(path: Path) -> int:
    with open_regular(path) as file:
        return os.fstat(file.fileno()).st_size


def read_manifest(folder: Path) -> Manifest:
    path = folder / MANIFEST
    try:
        text = _read(path)
    except MigrationError:
        if not path.exists() and not path.is_symlink():
            raise damaged(
                "no export bundle: %s does not exist" % path,
                "run export_from_postgres.py first, or set --data-dir",
            ) from None
        raise
    try:
        content = json.loads(text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=refuse_constant)
        _check_manifest(content)
        return Manifest(
            **{
                **{key: value for key, value in content.items() if key in Manifest.__dataclass_fields__},
                "columns": {
                    table: tuple(Column(**column) for column in columns)
                    for table, columns in content.get("columns", {}).items()
                },
                "keys": {table: tuple(names) for table, names in content.get("keys", {}).items()},
            }
        )
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise damaged("%s is damaged: %s" % (path, error)) from error


def _unique(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member stands there twice")
    return members


def _check_manifest(content: Any) -> None:
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    for key, kind in {
        "export_timestamp": str,
        "user_id": str,
        "row_counts": dict,
        "checksums": dict,
    }.items():
        if not isinstance(content.get(key), kind):
            raise ValueError("%s is missing or not %s" % (key, "an object" if kind is dict else "text"))
    if not isinstance(content.get("user_email", 0), (str, type(None))):
        raise ValueError("user_email is missing or neither text nor null")
    if content.get("format_version", FORMAT_VERSION) != FORMAT_VERSION:
        raise ValueError(
            "format version %r; this program reads %d" % (content["format_version"], FORMAT_VERSION)
        )
    for table, rows in content["row_counts"].items():
        if type(rows) is not int or rows < 0:
            raise ValueError("row count of %s is not a number" % table)
    for name, checksum in content["checksums"].items():
        if not isinstance(checksum, str) or not re.fullmatch("[0-9a-fA-F]{64}", checksum):
            raise ValueError("checksum of %r is not a SHA256" % name)
    for key in ("sizes", "orphans_skipped", "left_behind"):
        if not isinstance(content.get(key, {}), dict) or not all(
            type(number) is int for number in content.get(key, {}).values()
        ):
            raise ValueError("%s is not an object of numbers" % key)
    for texts in content.get("owners", {}).values():
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise ValueError("owners is not an object of lists of text")
    for table, columns in content.get("columns", {}).items():
        names = [column["name"] for column in columns]
        if len(set(names)) < len(names):
            raise ValueError("a column of %s stands there twice" % table)
        for column in columns:
            if [type(column[key]) for key in Column._fields] != [str, str, str, bool]:
                raise ValueError("a column of %s is not described by name, type, kind and not_null" % table)
    for table, names in content.get("keys", {}).items():
        columns = content.get("columns", {}).get(table)
        known = names if columns is None else [column["name"] for column in columns]
        if not isinstance(names, list) or not all(isinstance(name, str) and name in known for name in names):
            raise ValueError("the key of %s is none of its columns" % table)
    json.dumps(content, ensure_ascii=False).encode("utf-8")  # half a surrogate pair can be shown nowhere


def open_regular(path: Path) -> BinaryIO:
    """Open a file of the bundle to read. Raises MigrationError (exit 4), for anything but a plain file too."""
    try:
        return files.open_regular(path)
    except FileNotFoundError:
        raise damaged("the bundle is incomplete: %s is missing" % path.name) from None
    except files.NotPlainError:
        raise damaged("%s is not a plain file" % path.name) from None
    except OSError as error:
        if path.is_symlink():
            raise damaged("%s is a symbolic link; a bundle holds plain files" % path.name) from None
        raise damaged("cannot read %s: %s" % (path, error.strerror), "check the file's permissions") from None


def _read(path: Path) -> bytes:
    with open_regular(path) as file, _legible(path.name):
        return file.read()


def files_of(tables: Sequence[Any]) -> Dict[str, str]:
    """Table name → file name."""
    return {table.name: table.file for table in tables}
