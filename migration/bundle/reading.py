"""Reading a bundle: each file is proved by its checksum."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import os
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, Mapping, Optional, Sized, TypeVar

import msgspec

from migration.bundle.damage import damaged, legible, open_file, read_file
from migration.bundle.folder import held
from migration.bundle.manifest import MANIFEST, REPORTS, Manifest, read_manifest
from migration.bundle.records import DAMAGES, Block, OtherLayout, first_damage, in_array, in_blocks, in_lines
from migration.errors import BundleError
from migration.files import FileStamp, hash_into
from migration.json_text import members
from migration.model import CHANGES, USER_DATA

Decoded = TypeVar("Decoded")
Result = TypeVar("Result")
Counted = TypeVar("Counted", bound=Sized)


@contextlib.contextmanager
def open_bundle(
    folder: Path,
    tables: Mapping[str, str],
    user_email: Optional[str] = None,
    user_id: Optional[str] = None,
    is_held: bool = False,
    called: str = "user",
) -> Iterator[Reader]:
    """Open the bundle in ``folder``; ``tables``: file name by table name, which it must hold.

    ``is_held``: the caller already holds the folder's lock. ``called``: ``Root.called``.

    Each file is proved by its checksum as it is read. If the block fails, all files are hashed, as damage may be the
    reason: that error comes first. Raises MigrationError (exit 4) if the bundle is missing, damaged, of another user
    than the one of this key or, without one, of this name, or in use.
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
        # a bundle on read-only media can be neither locked nor changed
        if not is_held and os.access(str(folder), os.W_OK):
            stack.enter_context(held(folder))
        export = _opened(folder, tables)
        _require_user(folder, export.manifest, user_email, user_id, called)
        try:
            yield export
        except Exception:
            export.verify()
            raise


def _require_user(
    folder: Path, manifest: Manifest, user_email: Optional[str], user_id: Optional[str], called: str
) -> None:
    option, wanted, known = "--user-email", user_email, manifest.user_email
    if user_id is not None:
        option, wanted, known = "--user-id", user_id, manifest.user_id
    if wanted and wanted != known:
        raise BundleError(
            "the bundle in %s belongs to %s, not to %s"
            % (folder, manifest.user_email or "%s %s" % (called, manifest.user_id), wanted),
            "export again for this %s, or leave %s away to use the bundle as it is" % (called, option),
            logged="the bundle in %s belongs to another %s" % (folder, called),
        )


def _opened(folder: Path, tables: Mapping[str, str]) -> Reader:
    """Check the manifest, and the names and sizes of the files. A table without a row count must have an empty file."""
    manifest = read_manifest(folder)
    expected = {USER_DATA, *tables.values(), *({CHANGES} & set(manifest.checksums))}
    for name in sorted(set(manifest.checksums) - expected):
        raise damaged(
            "the manifest names a file that no table in config.TABLES has: %r" % name,
            "add its table to config.TABLES, or export again",
        )
    for name in sorted(expected - set(manifest.checksums)):
        raise damaged("the manifest does not name %s" % name, "export again")
    with legible(str(folder)):
        present = {path.name for path in folder.glob("*.json")} - {MANIFEST, *REPORTS}
    for name in sorted(present - expected):
        raise damaged("%s is in %s but not in the manifest" % (name, folder), "move it away, or export again")
    stamps = {name: _stamp(folder / name) for name in sorted(expected)}
    for name, stamp in stamps.items():
        if stamp.size != manifest.sizes.get(name, stamp.size):
            raise damaged("%s has %d bytes; the manifest says %d" % (name, stamp.size, manifest.sizes[name]))
    uncounted = {table: name for table, name in tables.items() if table not in manifest.row_counts}
    for table, name in uncounted.items():  # other exporters leave out the count of an empty table
        if stamps[name].size > _EMPTY or read_file(folder / name).split() not in ([b"[]"], [b"[", b"]"]):
            raise damaged("the manifest has no row count for %s" % table, "export again")
    counts = {**manifest.row_counts, **dict.fromkeys(uncounted, 0)}
    return Reader(folder, dataclasses.replace(manifest, row_counts=counts), stamps)


_EMPTY = 64  # bytes: more than an empty array takes in any layout


def _stamp(path: Path) -> FileStamp:
    with open_file(path) as file:
        return FileStamp.of(os.fstat(file.fileno()))


class Reader:
    """An open bundle. Each file is proved by its checksum when it has been read to its end.

    ``stamps``: of each file, by name, when the bundle was opened.
    """

    def __init__(self, folder: Path, manifest: Manifest, stamps: Mapping[str, FileStamp]) -> None:
        self.folder = folder
        self.manifest = manifest
        self.stamps = stamps

    def verify(self) -> None:
        """Hash all files. Raises MigrationError (exit 4) for the first that is not the manifest's."""
        for name in sorted(self.stamps):
            self._verify_file(name)

    def _verify_file(self, name: str) -> None:
        digest = hashlib.sha256()
        with open_file(self.folder / name) as file, legible(name):
            hash_into(digest, file)
        self._require(name, digest)

    def _require(self, name: str, digest: Any) -> None:
        if digest.hexdigest() != self.manifest.checksums[name].lower():
            raise damaged("%s does not match its SHA256 checksum in the manifest" % name)

    def user_data(self) -> Dict[str, Optional[bytes]]:
        """The JSON text of the members of ``user_data.json``, ``None`` for null. Reads and proves the file each time."""
        content = read_file(self.folder / USER_DATA)
        self._require(USER_DATA, hashlib.sha256(content))
        try:
            found = members(content)
        except (ValueError, RecursionError) as error:
            raise damaged("%s is damaged: %s" % (USER_DATA, error)) from error
        return {name: None if text == b"null" else text for name, text in found.items()}

    def records(self, file_name: str, decode: Callable[[bytes], Decoded]) -> Iterator[Decoded]:
        """Each record of a table's file, decoded. Raises as ``blocks`` does."""
        for batch in self.blocks(file_name, lambda block: [decode(text) for text in block.texts], decode):
            yield from batch

    def blocks(
        self, file_name: str, process: Callable[[Block], Counted], decode: Callable[[bytes], Any]
    ) -> Iterator[Counted]:
        """What ``process`` makes of each block of records: its length is their number.

        Our own files hold one record a line, and are read at flat memory. ``process`` raises msgspec.DecodeError
        where a text is not JSON: from that record on the file is read as a JSON array in any layout, whole. ``decode``
        finds the record that is damaged. Raises MigrationError (exit 4), naming file and record.
        """
        digest = hashlib.sha256()
        number, block = 0, None  # type: int, Optional[Block]
        with open_file(self.folder / file_name) as file:
            try:
                try:
                    for block in _legibly(file_name, in_lines(file, digest)):
                        made = process(block)
                        number += len(made)
                        block = None  # a record may be large: keep no reference to it
                        yield made
                        del made
                except msgspec.ValidationError:
                    raise
                except (OtherLayout, msgspec.DecodeError):
                    block = None
                    with legible(file_name):
                        file.seek(0)
                        content = file.read()
                    digest = hashlib.sha256(content)
                    found = in_array(content.decode("utf-8", "surrogateescape"))
                    del content
                    for block in in_blocks(itertools.islice(found, number, None)):
                        made = process(block)
                        number += len(made)
                        block = None
                        yield made
                        del made
            except DAMAGES as error:
                sound, damage = first_damage(() if block is None else block.texts, decode)
                damage = damage or error
                raise damaged(
                    "%s is damaged in record %d: %s" % (file_name, number + sound + 1, damage)
                ) from damage
        self._require(file_name, digest)


def _legibly(name: str, texts: Iterable[Result]) -> Iterator[Result]:
    with legible(name):
        yield from texts
