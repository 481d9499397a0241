"""The database file under validation: open it for reading, hash it, recognise it later."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
from pathlib import Path
from typing import BinaryIO, Iterator, NamedTuple, Optional

from migration.files import hash_into
from migration.sqlite import connecting, old_files, publishing
from migration.sqlite.errors import errors
from migration.validation.report import Database


class CheckedFile(NamedTuple):
    """``stamp``: of the file before it was opened. ``raw``: the open file, None if it cannot be read.

    ``other``: a second connection, for another thread; None where the file is known to be sound.
    """

    path: Path
    database: sqlite3.Connection
    other: Optional[connecting.Connection]
    stamp: Optional[publishing.Stamp]
    raw: Optional[BinaryIO]

    def described(self) -> Database:
        """Path, sizes and SHA256, for the report."""
        return Database(
            os.fsencode(connecting.resolved(self.path)).decode("utf-8", "backslashreplace"),
            0 if self.stamp is None else self.stamp.file.size,
            0 if self.stamp is None else self.stamp.logged,
            sha256(self),
        )


@contextlib.contextmanager
def opened(path: Path, sound: Optional[publishing.Stamp] = None) -> Iterator[CheckedFile]:
    """Open the database at ``path`` during the block and read one state of it. Raises TargetError.

    ``sound``: of the file that SQLite has looked through.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(errors(path))
        _fold_log(path)
        stamp, raw = publishing.stamp(path), _raw(path, stack)
        is_sound = sound is not None and sound == stamp
        connections = stack.enter_context(connecting.several(path, 1 if is_sound else 2))
        if is_sound and publishing.stamp(path) != sound:  # written in this moment
            connections += stack.enter_context(connecting.several(path, 1))
        other = connections[1] if len(connections) > 1 else None
        yield CheckedFile(path, connections[0], other, stamp, raw)


def _fold_log(path: Path) -> None:
    """Have SQLite move a write-ahead log into the database file, unless a program has it open."""
    found = publishing.stamp(path)
    if found is not None and found.logged and old_files.trouble(path) is None:
        with connecting.reading(path) as connect, contextlib.closing(connect()) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _raw(path: Path, stack: contextlib.ExitStack) -> Optional[BinaryIO]:
    """Open the file. Close it after SQLite's connections: closing it releases their locks.

    Source: https://www.sqlite.org/howtocorrupt.html (section 2.2)
    """
    with contextlib.suppress(OSError):  # reported when SQLite opens it
        if path.is_file():
            return stack.enter_context(open(str(path), "rb"))
    return None


def sha256(file: CheckedFile) -> Optional[str]:
    """The SHA256 of the file followed by its write-ahead log; None if the file was replaced or written to.

    While we read a database without a log, nobody can change its file.
    """
    if file.raw is None or file.stamp is None:
        return None
    digest = hashlib.sha256()
    try:
        with contextlib.ExitStack() as stack:
            parts = [file.raw]
            if file.stamp.logged:
                parts.append(stack.enter_context(open(str(connecting.resolved(file.path)) + "-wal", "rb")))
            for part in parts:
                hash_into(digest, part)
    except OSError:
        return None
    now = publishing.stamp(file.path)
    if (
        now is None
        or now.file.content != file.stamp.file.content
        or (file.stamp.logged and now != file.stamp)
    ):
        return None
    return digest.hexdigest()
