"""The SQLite file: built beside the target, checked, and published so that nobody sees half of it."""

from __future__ import annotations

import contextlib
import errno
import functools
import itertools
import logging
import os
import re
import shutil
import sqlite3
import tempfile
import time
import zlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Callable, Collection, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Type

from migration import lock
from migration.bundle import create_private, make_folder, sync, sync_folder, sync_path
from migration.errors import ExitCode
from migration.schema import Schema, quote
from migration.sqlite_errors import CORRUPT, ERROR, NOTADB, code_of
from migration.sqlite_errors import errors as errors
from migration.sqlite_errors import failed as failed
from migration.sqlite_errors import in_use as in_use
from migration.workers import FOR_THREADS, Job

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment,unused-ignore]

log = logging.getLogger("migration.target")

_BACKUP_NAME = "theprogram_backup_%Y%m%d_%H%M%S.db"  # local time
_ASIDE_NAME = "theprogram_damaged_%Y%m%d_%H%M%S.db"
LISTED = 10
CACHE = 8192  # kilobytes of pages that SQLite keeps: more would not stay in the processor's own cache
TOGETHER = 16  # rows that are inserted by one statement
VARIABLES = 999  # that a statement may have before SQLite 3.32
_BUSY_SECONDS = 2.0
_COMPANIONS = ("-wal", "-shm", "-journal")


def resolved(path: Path) -> Path:
    """Where a path leads, links followed."""
    try:
        return path.resolve()
    except RuntimeError as error:  # Python before 3.13 says a loop of links so
        raise failed("%s is a link that leads to itself" % path, "set --sqlite-path") from error


@contextlib.contextmanager
def replacing(path: Path, aside: Optional[Path] = None, probe: bool = True) -> Iterator[Path]:
    """Hold the target's lock; the block builds the file that is yielded and then calls ``publish``.

    What is left of it when the block ends is removed: the old database stands as it was.
    Raises MigrationError (exit 5) where the target cannot be replaced: found before any work is done.
    ``aside``: a folder that the files of an unsound old database are copied to before SQLite opens them.
    ``probe``: False where the block looks at the old database itself.
    """
    with errors(path):
        target = resolved(path)
        if not target.parent.is_dir():
            raise failed("the folder of %s does not exist" % path, "create it, or set --sqlite-path")
        _require_regular(target, path)
        staged = target.with_name("." + target.name + ".staging")
        both = (staged, beside(staged))
        with lock.held(target.with_name("." + target.name + ".lock"), str(path), ExitCode.TARGET):
            for left in both:
                _remove(left)
            if probe:
                _probe(target, aside)
            try:
                yield staged
            finally:
                for left in both:
                    _remove(left)


def _require_regular(target: Path, path: Path) -> None:
    """Nothing but a file is replaced: no folder, device, pipe or socket."""
    if target.is_dir():
        raise failed("%s is a folder" % path, "name a file with --sqlite-path")
    if target.exists() and not target.is_file():
        raise failed(
            "%s is a device, a pipe or a socket, not a file" % path, "name a file with --sqlite-path"
        )


def beside(staged: Path) -> Path:
    """The database that another process fills, for ``merge``."""
    return staged.with_name(staged.name + "-2")


def _probe(target: Path, aside: Optional[Path]) -> None:
    """Refuse early what ``publish`` would have to refuse after all the work."""
    left = [target.name + end for end in _COMPANIONS if _size(Path(str(target) + end))]
    if left and not _size(target):
        raise failed(
            "%s lies in %s without its database" % (left[0], target.parent)
            if not target.exists()
            else "%s is empty, and %s beside it is not" % (target, left[0]),
            "it may hold the last changes of a database that was moved or cut off: put that back beside it, or move"
            " all of these files away",
        )
    if not target.exists():
        return
    if target.stat().st_size and not os.access(str(target), os.W_OK):
        raise failed(
            "%s cannot be written: permission denied" % target,
            "check its permissions, or set --sqlite-path",
        )
    # What SQLite finds beside a database it plays back or folds in, and removes.
    copies = None
    if left and aside is not None:
        if is_locked(target, _BUSY_SECONDS):
            raise in_use(target)
        copies = _copy_aside(target, aside)
    try:
        _exclusive(target).close()
    except sqlite3.DatabaseError as error:
        if copies is not None and code_of(error) in (CORRUPT, NOTADB):
            _keep_aside(copies, target)
            copies = None
        raise
    finally:
        if copies is not None:
            _remove(copies)
            with contextlib.suppress(OSError):  # there are backups in it
                copies.parent.rmdir()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _exclusive(target: Path) -> sqlite3.Connection:
    """A connection that no other can be beside. Raises sqlite3.OperationalError where one is."""
    connection = sqlite3.connect(str(target), isolation_level=None, timeout=_BUSY_SECONDS)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("ROLLBACK")  # a COMMIT would write a header to an empty file
    except BaseException:
        connection.close()
        raise
    return connection


def _remove(path: Path) -> None:
    for end in ("", *_COMPANIONS):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(str(path) + end)


def any_text(content: bytes) -> str:
    """For ``text_factory``: text that is not UTF-8, too."""
    return content.decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def opened(path: Path, more: int = 0) -> Iterator[Tuple[sqlite3.Connection, List[sqlite3.Connection]]]:
    """A connection, and for a large file some ``more`` for ``workers.at_work``, that all read one state of a database.

    Raises MigrationError (exit 5) where there is none.
    """
    if not path.is_file():
        raise failed("no database at %s" % path, "run import_to_sqlite.py first, or set --sqlite-path")
    with contextlib.closing(open_to_read(path)) as one:
        others = [open_to_read(path) for _ in range(more if path.stat().st_size > FOR_THREADS else 0)]
        try:
            for connection in (one, *others):
                connection.execute("PRAGMA cache_size = %d" % -CACHE)
            while True:
                version = one.execute("PRAGMA data_version").fetchone()
                for connection in (*others, one):
                    _begin_to_read(connection)
                if one.execute("PRAGMA data_version").fetchone() == version:
                    break  # nobody wrote meanwhile
                for connection in (*others, one):
                    connection.execute("ROLLBACK")
            yield one, others
        finally:
            for connection in others:
                connection.close()


def _begin_to_read(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sqlite_master").fetchone()


def is_unwritten(connection: sqlite3.Connection) -> bool:
    """Whether the state that a connection of ``opened`` reads is the newest. It reads the newest from now on."""
    version = connection.execute("PRAGMA data_version").fetchone()
    connection.execute("ROLLBACK")
    _begin_to_read(connection)
    return bool(connection.execute("PRAGMA data_version").fetchone() == version)


def open_to_read(path: Path) -> sqlite3.Connection:
    """A connection that changes no row. As the last one it folds a write-ahead log in and leaves no file behind.

    In a folder that cannot be written, SQLite could neither play a journal back nor share a log: where there is one,
    a private copy of the files is read, else the file alone.
    """
    path = path.resolve()
    if os.access(str(path.parent), os.W_OK):
        connection = _connected(path, "rw")
    elif any(_size(Path(str(path) + end)) for end in _COMPANIONS):
        connection = _copied(path)
    else:
        connection = _connected(path, "ro&immutable=1")
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connected(
    path: Path, mode: str, factory: Type[sqlite3.Connection] = sqlite3.Connection
) -> sqlite3.Connection:
    return sqlite3.connect(
        path.as_uri() + "?mode=" + mode,
        uri=True,
        isolation_level=None,
        timeout=_BUSY_SECONDS,
        check_same_thread=False,
        factory=factory,
    )


class _OfCopy(sqlite3.Connection):
    """A connection to a copy that goes with it."""

    folder: Optional["tempfile.TemporaryDirectory[str]"] = None

    def close(self) -> None:
        super().close()
        if self.folder is not None:
            self.folder.cleanup()


def _copied(path: Path) -> sqlite3.Connection:
    folder = tempfile.TemporaryDirectory(prefix="migration-")  # for its owner alone
    try:
        for end in ("", *_COMPANIONS):
            if Path(str(path) + end).exists():
                shutil.copyfile(str(path) + end, str(Path(folder.name, "copy" + end)))
        connection = _connected(Path(folder.name, "copy"), "rw", _OfCopy)
        assert isinstance(connection, _OfCopy)
        connection.folder = folder
    except BaseException:
        folder.cleanup()
        raise
    return connection


# Building


@contextlib.contextmanager
def building(staged: Path, schema: Schema, path: Path) -> Iterator[sqlite3.Connection]:
    """A database of ``create`` that is to become the one at ``path``, closed behind the block."""
    with errors(path):
        database = create(staged, schema)
    with contextlib.closing(database), errors(path):  # what is full is found out before it is closed
        yield database


def create(staged: Path, schema: Schema) -> sqlite3.Connection:
    """A new private database with the schema, its indexes and triggers taken off, one transaction open.

    Until it is published nobody needs it after a crash: it is synced once, at the end.
    """
    create_private(staged, exclusive=True).close()
    connection = sqlite3.connect(str(staged), isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA journal_mode = MEMORY")
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as made:
        made.executescript(schema.script)  # valid SQL, as read_schema has found
        if made.in_transaction:
            made.execute("COMMIT")
        made.backup(connection)  # at once: on the disk, each statement would be a transaction
    connection.execute("PRAGMA foreign_keys = OFF")  # checked as a whole before the commit
    connection.execute("PRAGMA cache_size = %d" % -CACHE)
    connection.execute("BEGIN")
    return connection


class Taken(NamedTuple):
    """An index or a trigger that is not there while rows are loaded, and the SQL that brings it back."""

    kind: str
    table: str
    sql: str

    def is_index_of(self, tables: Collection[str]) -> bool:
        return self.kind == "index" and self.table in tables


def take_off(connection: sqlite3.Connection) -> List[Taken]:
    """Drop secondary indexes and triggers.

    A load without them is about twice as fast, and no trigger touches what is migrated.
    """
    found = connection.execute(
        "SELECT type, name, tbl_name, sql FROM sqlite_master"
        " WHERE type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY rowid"
    ).fetchall()
    for kind, name, _, _ in found:
        connection.execute("DROP %s %s" % (kind.upper(), quote(name)))
    return [Taken(kind, table, sql) for kind, _, table, sql in found]


def merge(connection: sqlite3.Connection, side: Path, tables: Sequence[str]) -> None:
    """Take tables over from a database with the same schema, to where they are empty.

    SQLite moves the records of tables and indexes as they are, which is many times as fast as to insert rows.
    Source: xferOptimization in https://www.sqlite.org/src/file/src/insert.c
    """
    connection.execute("ATTACH ? AS side", (str(side),))
    for table in tables:
        described = connection.execute("PRAGMA table_xinfo(%s)" % quote(table)).fetchall()
        generated = any(column[6] for column in described)
        names = ", ".join(quote(column[1]) for column in described if not column[6])
        connection.execute(
            "INSERT INTO main.{0}{1} SELECT {2} FROM side.{0}".format(
                quote(table), " (%s)" % names if generated else "", names if generated else "*"
            )
        )


def insert(
    connection: sqlite3.Connection, table: str, names: Sequence[str], columns: Sequence[Sequence[object]]
) -> None:
    """Insert rows, given as the values of each column, up to the first that SQLite refuses.

    Some rows a statement take two thirds of the time; with OR FAIL, whatever ON CONFLICT the schema says, those
    before a refused one stay, and SQLite keeps no journal of the statement.
    """
    rows, width = len(columns[0]), len(names)
    together = max(1, min(TOGETHER, VARIABLES // width))
    values = itertools.chain.from_iterable(zip(*columns))
    into = "INSERT OR FAIL INTO {} ({}) VALUES ".format(quote(table), ", ".join(map(quote, names)))
    row = "(%s)" % ", ".join("?" * width)
    for size, times in ((together, rows // together), (1, rows % together)):
        statements = zip(*[values] * (width * size))
        connection.executemany(into + ", ".join([row] * size), itertools.islice(statements, times))


def fill_singleton(connection: sqlite3.Connection, table: str, values: Sequence[Tuple[str, object]]) -> None:
    """Set columns of row 1, which the schema may have made already."""
    names = ", ".join(quote(name) for name, _ in values)
    if connection.execute("SELECT count(*) FROM %s WHERE id = 1" % quote(table)).fetchone() == (0,):
        connection.execute(
            "INSERT INTO {} (id{}) VALUES (1{})".format(
                quote(table), names and ", " + names, ", ?" * len(values)
            ),
            [value for _, value in values],
        )
    elif values:
        connection.execute(
            "UPDATE {} SET {} WHERE id = 1".format(
                quote(table), ", ".join(quote(name) + " = ?" for name, _ in values)
            ),
            [value for _, value in values],
        )


class Violation(NamedTuple):
    """A row whose foreign key leads nowhere."""

    table: str
    row: str
    column: str
    parent: str


def foreign_key_violations(connection: sqlite3.Connection) -> Iterator[Violation]:
    """Every dangling reference; the row by its id where the table has one, else by its rowid."""
    for table, rowid, parent, number in connection.execute("PRAGMA foreign_key_check"):
        keys = connection.execute("PRAGMA foreign_key_list(%s)" % quote(table)).fetchall()
        column = ", ".join(key[3] for key in keys if key[0] == number)
        found = None
        with contextlib.suppress(sqlite3.Error):  # a table without id or without rowid
            found = connection.execute(
                "SELECT id FROM %s WHERE rowid = ?" % quote(table), (rowid,)
            ).fetchone()
        yield Violation(table, str(found[0] if found else rowid), column, parent)


def integrity_problems(
    connection: sqlite3.Connection, check: str = "integrity_check(%d)" % LISTED
) -> List[str]:
    found = [str(row[0]) for row in connection.execute("PRAGMA " + check)]
    return [] if found == ["ok"] else found[:LISTED]


def _problems_of_old(connection: sqlite3.Connection, what: str) -> List[str]:
    """``integrity_problems`` of a database that we have not made: it may need what only its application has."""
    try:
        return integrity_problems(connection)
    except sqlite3.OperationalError as error:
        if code_of(error) != ERROR:
            raise
        log.warning("%s is kept as it is, but not looked through: %s", what, error)
        return []


def integrity_checks(connection: sqlite3.Connection, in_parts: bool) -> List[Job[List[str]]]:
    """What ``integrity_problems`` looks at; ``in_parts`` that can be looked at side by side, the largest first.

    A check of one table leaves out what only the whole file shows, such as lost pages; quick_check leaves out
    what the check of each table shows: that its indexes hold its rows.
    Source: https://www.sqlite.org/pragma.html#pragma_integrity_check (for one table: since SQLite 3.33)
    """
    if not in_parts or sqlite3.sqlite_version_info < (3, 33):
        return [integrity_problems]
    sizes = {}
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        sizes[table] = 0
        with contextlib.suppress(sqlite3.Error):  # a table without rowid
            (highest,) = connection.execute("SELECT max(rowid) FROM %s" % quote(table)).fetchone()
            sizes[table] = highest if type(highest) is int else 0  # a column may have that name, too
    tables = sorted(sizes, key=lambda table: -sizes[table])
    names = ["integrity_check(%s)" % quote(table) for table in tables] + ["quick_check"]
    return [functools.partial(integrity_problems, check=name) for name in names]


def finish(connection: sqlite3.Connection, staged: Path, schema: Schema) -> None:
    """Bring the file into the journal mode that its schema asks for, and sync it to the disk."""
    wanted = re.findall(r"PRAGMA\s+journal_mode\s*=\s*'?(\w+)", schema.script, re.IGNORECASE)
    connection.execute("PRAGMA journal_mode = %s" % (wanted[-1] if wanted else "DELETE"))
    connection.close()
    sync_path(staged)


# Publishing


class Stamp(NamedTuple):
    """What tells that a file is the one that it was, unwritten since."""

    device: int
    inode: int
    size: int
    modified_ns: int
    logged: int  # bytes in its write-ahead log

    def is_of(self, path: Path) -> bool:
        """Whether that very file is still there, written or not."""
        other = stamp(path)
        return other is not None and self[:2] == other[:2]


def stamp(path: Path) -> Optional[Stamp]:
    """The database's stamp; None where there is none."""
    target = resolved(path)
    try:
        found = target.stat()
        wal = target.with_name(target.name + "-wal")
        logged = wal.stat().st_size if wal.exists() else 0
    except OSError:
        return None
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, logged)


def publish(staged: Path, path: Path, backup_dir: Optional[Path]) -> Optional[Path]:
    """Put the staged file in the target's place, after a backup of what was there; return the backup.

    The old database is held exclusively from the backup to the rename, so no change to it can fall between,
    and its write-ahead log is folded in and removed, so it can never meet the new file.
    Raises MigrationError (exit 5); the old database is as it was.
    """
    target = path.resolve()
    if not target.exists():
        os.replace(str(staged), str(target))
        sync_folder(target.parent)
        return None
    with errors(path), contextlib.closing(_exclusive(target)) as old:
        saved = None if backup_dir is None else back_up(old, target, backup_dir)
        mode = old.execute("PRAGMA journal_mode").fetchone()[0]
        version = old.execute("PRAGMA data_version").fetchone()
        try:
            old.execute("PRAGMA journal_mode = DELETE")
            # Back to normal locking, which removes the journal now and not after the rename.
            old.execute("PRAGMA locking_mode = NORMAL")
            old.execute("BEGIN EXCLUSIVE")
            if old.execute("PRAGMA data_version").fetchone() != version:
                raise in_use(path)
            for end in ("-shm", "-journal"):  # left by a crash and by now played back: nobody uses them
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(str(target) + end)
            _keep_owner(target, staged)
            os.replace(str(staged), str(target))
        except BaseException:
            with contextlib.suppress(sqlite3.Error):  # somebody else may have it by now
                if old.in_transaction:
                    old.execute("ROLLBACK")
                old.execute("PRAGMA journal_mode = %s" % mode)
            raise
    sync_folder(target.parent)
    return saved


def _keep_owner(target: Path, staged: Path) -> None:
    """Run as root for somebody else's database: it stays theirs."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        was = target.stat()
        os.chown(str(staged), was.st_uid, was.st_gid)


# Backup and restore


def back_up(database: sqlite3.Connection, of: Path, folder: Path) -> Path:
    """Copy the database ``of`` with SQLite's backup API, write-ahead log included, verify the copy and return its path."""
    with errors(folder):
        make_folder(folder)
        # One name for one database, whose lock we hold: so the next run removes what a killed one left.
        partial = folder / (".backup_%s.partial" % _token(of))
        _remove(partial)
        try:
            create_private(partial, exclusive=True).close()
            copy(database, partial, "the old database")
            name = _name_backup(partial, folder)
        finally:
            _remove(partial)
        _note_owner(name, of)
        sync_folder(folder)
        return name


def _token(of: Path) -> str:
    return "%08x" % zlib.crc32(os.fsencode(str(of)))


_OWNERS = ".databases"  # in a backup folder, a line for each backup: its name, and the database that it is of


def _note_owner(backup: Path, of: Path) -> None:
    """A line is appended in one write: runs on other databases may do so at the same moment."""
    descriptor = os.open(str(backup.with_name(_OWNERS)), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(b"%s %s\n" % (os.fsencode(backup.name), _line(of)))
        sync(file)


def _line(of: Path) -> bytes:
    return os.fsencode(str(of)).replace(b"\n", b"\\n")


def is_backup_of(backup: Path, path: Path) -> Optional[bool]:
    """Whether a backup is one of the database at ``path``; None where nothing tells, as of one that was copied here."""
    try:
        lines = backup.with_name(_OWNERS).read_bytes().split(b"\n")
    except FileNotFoundError:
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
        problems = _problems_of_old(duplicate, what)
        if problems:
            raise failed(
                "%s is damaged: %s" % (what, problems[0]),
                "move it away to start afresh, or --restore a backup",
            )
    finally:
        duplicate.close()
    sync_path(path)


def _name_backup(partial: Path, folder: Path) -> Path:
    """Give a finished copy a name behind all other backups', in one step; two at the same moment must not meet."""

    def take(name: Path) -> None:
        try:
            os.link(str(partial), str(name))
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links: reserve the name, then take it
            create_private(name, exclusive=True).close()
            os.replace(str(partial), str(name))

    when = datetime.now()
    for newest in backups(folder)[-1:]:  # clocks may have gone back
        with contextlib.suppress(OverflowError):  # the end of all years
            when = max(when, datetime.strptime(newest.name, _BACKUP_NAME) + timedelta(seconds=1))
    return _take_name(folder, _BACKUP_NAME, when, take)


def _take_name(folder: Path, form: str, when: datetime, take: Callable[[Path], object]) -> Path:
    """Take the name of a second, or of the next that is free: ``take`` raises FileExistsError where it is not."""
    while True:
        name = folder / when.strftime(form)
        try:
            take(name)
        except FileExistsError:
            when += timedelta(seconds=1)
        else:
            return name


def backups(folder: Path) -> List[Path]:
    """The backups in a folder, oldest first."""
    return sorted(path for path in folder.glob("*.db") if _is_backup(path.name)) if folder.is_dir() else []


def _is_backup(name: str) -> bool:
    try:
        return datetime.strptime(name, _BACKUP_NAME).strftime(_BACKUP_NAME) == name
    except ValueError:
        return False


def prune(folder: Path, keep: Optional[int], path: Path, made: Path) -> None:
    """Remove all but the ``keep`` newest backups of the database at ``path``; None keeps all.

    The one just ``made``, and those of other databases or of nobody that is known, stay.
    The new database is in place by now: what cannot be removed is worth a warning and no failure.
    """
    older = [backup for backup in backups(folder) if is_backup_of(backup, path) and backup != made]
    for backup in older[: max(0, len(older) - keep + 1)] if keep else ():
        try:
            backup.unlink()
        except OSError as error:
            log.warning("the backup %s cannot be removed: %s", backup, error.strerror)
        else:
            log.info("removed the backup %s", backup)


def newest_backup(folder: Path, path: Path) -> Path:
    """The newest backup of the database at ``path``, else the newest of nobody that is known."""
    found = backups(folder)
    if not found:
        raise failed("no backup in %s" % folder, "name a file: --restore FILE, or set --backup-dir")
    whose = {backup: is_backup_of(backup, path) for backup in found}
    own = [backup for backup in found if whose[backup]]
    if own:
        return own[-1]
    unknown = [backup for backup in found if whose[backup] is None]
    if not unknown:
        raise failed(
            "no backup of %s in %s: the %d there are of other databases" % (path, folder, len(found)),
            "name a file: --restore FILE, or set --backup-dir or --sqlite-path",
        )
    log.warning("nothing says which database %s is of", unknown[-1])
    return unknown[-1]


def restore(backup: Path, path: Path, backup_dir: Optional[Path]) -> Optional[Path]:
    """Put a backup in the target's place as safely as an import; return the backup of what was there.

    A target that is no sound database any more is no reason to refuse: its files are set aside whole, before SQLite
    has opened them. Raises MigrationError (exit 5) for a backup that is missing or damaged.
    """
    with errors(backup):
        there = backup.is_file()
    if not there:
        raise failed(
            "%s is no file" % backup if backup.exists() else "backup not found: %s" % backup,
            "ls %s" % (backup_dir or backup.parent),
        )
    if backup.resolve() == path.resolve():
        raise failed(
            "%s is the database itself, not a backup of it" % backup, "name a file from the backup folder"
        )
    target = resolved(path)
    with contextlib.closing(_open_backup(backup)) as source, replacing(path, probe=False) as staged:
        unsound = _copies_if_unsound(target, backup_dir)
        try:
            if unsound is None:
                _probe(target, backup_dir)
            create_private(staged, exclusive=True).close()
            copy(source, staged, "the backup %s" % backup)
            if unsound is None:
                return publish(staged, path, backup_dir)
            if backup_dir is not None:
                _keep_aside(unsound, target)
            for end in _COMPANIONS:  # they are of the unsound one
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(str(target) + end)
            os.replace(str(staged), str(target))
            sync_folder(target.parent)
            return None
        finally:
            if unsound is not None:
                _remove(unsound)


def _open_backup(backup: Path) -> sqlite3.Connection:
    source = open_to_read(backup)
    try:
        empty = source.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
        problems = _problems_of_old(source, "the backup %s" % backup)
    except (sqlite3.Error, OSError) as error:
        problems, empty = [str(error)], False
    if problems or empty:
        source.close()
        raise failed(
            "the backup %s is damaged: %s" % (backup, problems[0] if problems else "it holds no table"),
            "restore another one: --restore FILE",
        )
    return source


# What is no sound database: its files as they are


def _copies_if_unsound(target: Path, folder: Optional[Path]) -> Optional[Path]:
    """Copies of the target's files where they are no sound database; None where they are, or where there are none.

    It is the copies that SQLite opens, as it changes what it opens. A database in use may look unsound when it is
    copied: that one is refused.
    """
    folder = target.parent if folder is None else folder
    if not any(_size(Path(str(target) + end)) for end in _COMPANIONS):
        if not _size(target) or _is_sound(target):  # SQLite finds nothing to play back or to fold in
            return None
        if is_locked(target):
            raise in_use(target)
        return _copy_aside(target, folder)
    copies = _copy_aside(target, folder)
    tried = copies.with_name(copies.name + "-tried")
    sound = True
    try:
        for end in ("", *_COMPANIONS):
            if Path(str(copies) + end).exists():
                shutil.copyfile(str(copies) + end, str(tried) + end)
        sound = _is_sound(tried)
        if not sound and is_locked(target):
            sound = True  # for all that can be said while others write it
            raise in_use(target)
    finally:
        _remove(tried)
        if sound:
            _remove(copies)
    return None if sound else copies


def _is_sound(copy: Path) -> bool:
    if not _size(copy):
        return False  # companions without a database
    try:
        with contextlib.closing(open_to_read(copy)) as connection:
            return not _problems_of_old(connection, "the old database")
    except sqlite3.DatabaseError as error:
        if code_of(error) in (CORRUPT, NOTADB):
            return False
        raise


_LOCK_BYTES = (
    0x40000000,
    512,
)  # where SQLite's locks are: https://www.sqlite.org/fileformat2.html#the_lock_byte_page


def is_locked(target: Path, seconds: float = 0.0) -> bool:
    """Whether another process holds one of SQLite's locks, for so long; the file is not opened as a database."""
    if fcntl is None or not target.exists():
        return False
    end = time.monotonic() + seconds
    while True:
        with open(str(target), "r+b") as file:
            try:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES[1], _LOCK_BYTES[0])
                return False
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    return False  # no locks here: SQLite will say so
        if time.monotonic() >= end:
            return True
        time.sleep(0.02)


def _copy_aside(target: Path, folder: Path) -> Path:
    """Copy the files of a database byte for byte, for ``_keep_aside`` or ``_remove``. A killed run's are replaced."""
    with errors(folder):
        make_folder(folder)
        copies = folder / (".damaged_%s.partial" % _token(target))
        _remove(copies)
        try:
            for end in ("", *_COMPANIONS):
                if Path(str(target) + end).exists():
                    create_private(Path(str(copies) + end), exclusive=True).close()
                    shutil.copyfile(str(target) + end, str(copies) + end)
                    sync_path(Path(str(copies) + end))
        except BaseException:
            _remove(copies)
            raise
        return copies


def _keep_aside(copies: Path, target: Path) -> None:
    """Give copies of an unsound database's files their name: something may still be rescued from them."""
    with errors(copies.parent):
        name = _take_name(
            copies.parent,
            _ASIDE_NAME,
            datetime.now(),
            lambda name: create_private(name, exclusive=True).close(),
        )
        for end in (*_COMPANIONS, ""):
            if Path(str(copies) + end).exists():
                os.replace(str(copies) + end, str(name) + end)
        sync_folder(copies.parent)
        log.warning("%s is no sound database: its files are set aside as %s", target, name)
