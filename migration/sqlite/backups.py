"""Backups: make verified copies, note which database each is of, find the newest, remove the old ones."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path
from typing import List, Optional

from migration.files import create_private, make_folder, sync_folder, sync_path
from migration.settings import Backups
from migration.sqlite import old_files
from migration.sqlite.connecting import resolved
from migration.sqlite.errors import errors, failed
from migration.sqlite.integrity import problems_of_old

log = logging.getLogger(__name__)

_BACKUP = "backup"


def back_up(database: sqlite3.Connection, of: Path, to: Backups) -> Path:
    """Copy the database ``of`` with SQLite's backup API, write-ahead log included, verify the copy and return its path."""
    folder = to.folder
    with errors(folder, "--backup-dir", source=of):
        make_folder(folder)
        # One fixed name per database, whose lock we hold: the next run removes what a killed run left.
        partial = folder / (".backup_%s.partial" % old_files.token(of))
        old_files.remove(partial)
        try:
            create_private(partial, exclusive=True).close()
            copy(database, partial, "the old database")
            name = _name_backup(partial, to)
        finally:
            old_files.remove(partial)
        _note_owner(name, of)
        sync_folder(folder)
        return name


_OWNERS = ".databases"  # in a backup folder: one line per backup, its name and the path of its database


def _note_owner(backup: Path, of: Path) -> None:
    """Append the line in one write: runs on other databases may append at the same moment."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
    with os.fdopen(os.open(str(backup.with_name(_OWNERS)), flags, 0o600), "rb+", buffering=0) as file:
        written = os.fstat(file.fileno()).st_size
        file.seek(max(0, written - 1))
        begun = file.read(1) not in (b"", b"\n")  # the last run had no room for its whole line
        file.write(b"%s%s %s\n" % (b"\n" * begun, os.fsencode(backup.name), _line(of)))
        os.fsync(file.fileno())


def _line(of: Path) -> bytes:
    return os.fsencode(str(of)).replace(b"\\", b"\\\\").replace(b"\n", b"\\n")


def is_backup_of(backup: Path, path: Path) -> Optional[bool]:
    """Whether a backup is of the database at ``path``; None if unknown, as for a file that somebody copied here."""
    try:
        lines = backup.with_name(_OWNERS).read_bytes().split(b"\n")
    except OSError:
        return None
    known = [
        of for name, _, of in (line.partition(b" ") for line in lines) if name == os.fsencode(backup.name)
    ]
    return known[-1] == _line(resolved(path)) if known else None


def copy(database: sqlite3.Connection, path: Path, what: str) -> None:
    """Copy a database into an empty file, check it and sync it. ``what``: the database, for a message."""
    duplicate = sqlite3.connect(str(path), isolation_level=None)
    try:
        duplicate.execute("PRAGMA synchronous = OFF")
        database.backup(duplicate)
        problems = problems_of_old(duplicate, what)
        if problems:
            raise failed(
                "%s is damaged: %s" % (what, problems[0]),
                "move it away to start afresh, or --restore a backup",
            )
    finally:
        duplicate.close()
    sync_path(path)


def _name_backup(partial: Path, to: Backups) -> Path:
    """Give a finished copy a name that sorts after all other backups, in one step: two runs may do so at once."""
    when, pattern = datetime.now(), to.pattern(_BACKUP)
    for newest in backups(to)[-1:]:  # clocks may have gone back
        with contextlib.suppress(OverflowError):  # beyond year 9999
            when = max(when, datetime.strptime(newest.name, pattern) + timedelta(seconds=1))
    return old_files.take_name(to.folder, pattern, when, functools.partial(old_files.link, partial))


def backups(of: Backups) -> List[Path]:
    """The application's backups in a folder, oldest first."""
    if not of.folder.is_dir():
        return []
    pattern = of.pattern(_BACKUP)
    return sorted(
        path for path in of.folder.glob("*.db") if _is_backup(path.name, pattern) and path.is_file()
    )


def _is_backup(name: str, pattern: str) -> bool:
    try:
        return datetime.strptime(name, pattern).strftime(pattern) == name
    except ValueError:
        return False


def prune(of: Backups, keep: Optional[int], path: Path, made: Path) -> None:
    """Remove all but the ``keep`` newest backups of the database at ``path``; None keeps all.

    The backup just ``made``, backups of other databases and those of an unknown database stay.
    The new database is in place by now, so a backup that cannot be removed is only a warning.
    """
    older = [backup for backup in backups(of) if is_backup_of(backup, path) and backup != made]
    for backup in older[: max(0, len(older) - keep + 1)] if keep else ():
        try:
            backup.unlink()
        except OSError as error:
            log.warning("the backup %s cannot be removed: %s", backup, error.strerror)
        else:
            log.info("removed the backup %s", backup)


def newest_backup(of: Backups, path: Path) -> Path:
    """The newest backup of the database at ``path``; if it has none, the newest whose database is unknown.

    Raises MigrationError (exit 5) if there is neither.
    """
    found = backups(of)
    if not found:
        raise failed("no backup in %s" % of.folder, "name a file: --restore FILE, or set --backup-dir")
    whose = {backup: is_backup_of(backup, path) for backup in found}
    own = [backup for backup in found if whose[backup]]
    if own:
        return own[-1]
    unknown = [backup for backup in found if whose[backup] is None]
    if not unknown:
        raise failed(
            "no backup of %s in %s: the %d there are of other databases" % (path, of.folder, len(found)),
            "name a file: --restore FILE, or set --backup-dir or --sqlite-path",
        )
    log.warning("nothing says which database %s is of", unknown[-1])
    return unknown[-1]
