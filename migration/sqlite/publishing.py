"""Put a new database in the old one's place, so that every reader sees either the old or the new."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sqlite3
from pathlib import Path
from typing import Iterator, NamedTuple, Optional

from migration import lock
from migration.errors import TargetError
from migration.files import FileStamp, sync_folder
from migration.settings import Backups
from migration.sqlite import old_files
from migration.sqlite.backups import back_up
from migration.sqlite.connecting import LOST, exclusive, resolved
from migration.sqlite.errors import errors, failed, in_use, mounted, unsound
from migration.sqlite.integrity import problems_in

log = logging.getLogger(__name__)


@contextlib.contextmanager
def replacing(path: Path, backups: Optional[Backups] = None, probe: bool = True) -> Iterator[Path]:
    """Hold the target's lock; the block builds the file that is yielded and then calls ``publish``.

    If the block does not publish the file, it is removed and the old database stays as it was.
    Raises MigrationError (exit 5) before any work is done if the target cannot be replaced.
    ``backups``: keeps a copy of the old files if SQLite cannot read all that is in them.
    ``probe``: False if the block checks the old database itself.
    """
    with errors(path):
        target = resolved(path)
        if not target.parent.is_dir():
            raise failed("the folder of %s does not exist" % path, "create it, or set --sqlite-path")
        _require_replaceable(target, path)
        staged = _ours(target, ".staging")
        ours = (staged, looked_at(staged))
        with lock.held(_ours(target, ".lock"), str(path), TargetError):
            for left in ours:
                old_files.remove(left)
            if backups is not None and backups.folder.is_dir():
                with errors(backups.folder, "--backup-dir"):
                    old_files.clear(target, backups)
            if probe:
                _probe(target, looked_at(staged), backups)
            try:
                yield staged
            finally:
                for left in ours:
                    old_files.remove(left)


def _require_replaceable(target: Path, path: Path) -> None:
    """Refuse to replace a folder, a device, a pipe, a socket or a file that is a mount point."""
    if target.is_dir():
        raise failed("%s is a folder" % path, "name a file with --sqlite-path")
    if target.exists() and not target.is_file():
        raise failed(
            "%s is a device, a pipe or a socket, not a file" % path, "name a file with --sqlite-path"
        )
    if len(os.fsencode(target.name + "-journal")) > _NAME:
        raise failed("the name of %s is too long for SQLite" % path, "choose a shorter one")
    if _is_mounted(target):
        raise mounted(path)


_NAME = 255  # bytes that a file's name may have


def _is_mounted(target: Path) -> bool:
    """Source: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html"""
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:  # not Linux: replacing the file will fail instead
        return False
    points = (re.sub(rb"\\([0-7]{3})", _unescaped, mount.split(b" ")[4]) for mount in mounts)
    return os.fsencode(str(target)) in points


def _unescaped(found: "re.Match[bytes]") -> bytes:
    return bytes([int(found[1], 8)])


def _ours(target: Path, end: str) -> Path:
    """A file of ours in the database's folder; its name leaves room for the suffixes that SQLite adds."""
    name = "." + target.name + end
    fits = len(os.fsencode(name + "-o-journal")) <= _NAME
    return target.with_name(name if fits else "." + old_files.token(target) + end)


def looked_at(staged: Path) -> Path:
    """Where a copy of the old database is put for SQLite to check."""
    return staged.with_name(staged.name + "-o")


def _probe(target: Path, copied: Path, backups: Optional[Backups]) -> None:
    """Refuse now what ``publish`` would refuse after all the work."""
    logs = old_files.logs_of(target)
    if logs and not target.exists():
        raise failed("%s lies in %s without its database" % (logs[0].name, target.parent), LOST)
    if logs and not old_files.size(target):
        raise failed(old_files.trouble(target) or "", LOST)
    if logs:
        _require_writable(target)
        problems = problems_in(target, copied)
        if problems:
            raise unsound(target, problems[0])
    make_way(target, backups)


def make_way(target: Path, backups: Optional[Backups]) -> None:
    """Make sure that nobody has the database open, and have SQLite write its logs into it."""
    if target.exists():
        _require_writable(target)
        _keep_what_sqlite_leaves(target, backups)
        exclusive(target).close()


def _require_writable(target: Path) -> None:
    if target.stat().st_size and not os.access(str(target), os.W_OK):
        raise failed(
            "%s cannot be written: permission denied" % target,
            "check its permissions, or set --sqlite-path",
        )


def _keep_what_sqlite_leaves(target: Path, backups: Optional[Backups]) -> None:
    """Keep a copy of the files of a sound database if SQLite is going to discard a part of its logs."""
    trouble = old_files.trouble(target)
    if trouble is None:
        return
    if backups is None:
        log.warning("%s: changes to the old database may be lost", trouble)
    else:
        aside = old_files.set_aside(target, backups)
        log.warning("%s: the old database's files are kept as they were as %s", trouble, aside)


class Stamp(NamedTuple):
    """Identifies a database and its content, by its file and the bytes in its write-ahead log."""

    file: FileStamp
    logged: int


def stamp(path: Path) -> Optional[Stamp]:
    """The database's stamp; None if the file does not exist."""
    target = resolved(path) if path.is_symlink() else path
    try:
        found = target.stat()
        wal = target.with_name(target.name + "-wal")
        logged = wal.stat().st_size if wal.exists() else 0
    except OSError:
        return None
    return Stamp(FileStamp.of(found), logged)


def require_unwritten(staged: Path, since: Optional[Stamp]) -> None:
    """Raises MigrationError (exit 5) if somebody has written the new database since it had this stamp."""
    if stamp(staged) != since:
        raise failed(
            "somebody wrote the new database while it was checked",
            "let nobody else write there, and run again",
        )


def published_stamp(path: Path, staged: Optional[Stamp]) -> Optional[Stamp]:
    """The stamp of the database at ``path``, if nobody has written it since it was staged."""
    now = stamp(path)
    if now is None or staged is None:
        return None
    is_same = now.file.content == staged.file.content and now.logged == staged.logged
    return now if is_same else None


def publish(staged: Path, path: Path, backups: Optional[Backups]) -> Optional[Path]:
    """Put the staged file in the target's place, after a backup of what was there; return the backup.

    The old database is held exclusively from the backup to the rename, so nobody can change it in between.
    Its write-ahead log is written into it and removed, so that it can never be applied to the new file.
    Raises MigrationError (exit 5); the old database is then as it was.
    """
    target = path.resolve()
    if not target.exists():
        os.replace(str(staged), str(target))
        sync_folder(target.parent)
        return None
    with errors(path), contextlib.closing(exclusive(target)) as old:
        saved = None if backups is None else back_up(old, target, backups)
        mode = old.execute("PRAGMA journal_mode").fetchone()[0]
        version = old.execute("PRAGMA data_version").fetchone()
        try:
            old.execute("PRAGMA journal_mode = DELETE")
            # Back to normal locking, which removes the journal now and not after the rename.
            old.execute("PRAGMA locking_mode = NORMAL")
            old.execute("BEGIN EXCLUSIVE")
            if old.execute("PRAGMA data_version").fetchone() != version:
                raise in_use(path)
            for end in ("-shm", "-journal"):  # left by a crash and rolled back by now: nobody uses them
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(str(target) + end)
            keep_owner(target, staged)
            os.replace(str(staged), str(target))
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # somebody else may have it by now
                if old.in_transaction:
                    old.execute("ROLLBACK")
                old.execute("PRAGMA journal_mode = %s" % mode)
            raise
    sync_folder(target.parent)
    return saved


def keep_owner(target: Path, staged: Path) -> None:
    """If root replaces another user's database, the new one belongs to that user too."""
    if os.geteuid() == 0:
        was = target.stat()
        os.chown(str(staged), was.st_uid, was.st_gid)
