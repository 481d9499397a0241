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
import zlib
from datetime import datetime, timedelta
from pathlib import Path
from typing import Callable, Collection, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from migration import lock
from migration.bundle import create_private, sync_folder, sync_path
from migration.errors import ExitCode, MigrationError
from migration.schema import Schema, quote
from migration.workers import FOR_THREADS, Job

log = logging.getLogger("migration.target")

_BACKUP_NAME = "theprogram_backup_%Y%m%d_%H%M%S.db"  # local time
_ASIDE_NAME = "theprogram_damaged_%Y%m%d_%H%M%S.db"
LISTED = 10
CACHE = 8192  # kilobytes of pages that SQLite keeps: more would not stay in the processor's own cache
TOGETHER = 16  # rows that are inserted by one statement
VARIABLES = 999  # that a statement may have before SQLite 3.32
_BUSY_SECONDS = 2.0
_COMPANIONS = ("-wal", "-shm", "-journal")


def failed(message: str, hint: Optional[str] = None) -> MigrationError:
    return MigrationError(message, hint=hint, exit_code=ExitCode.TARGET)


@contextlib.contextmanager
def errors(path: Path) -> Iterator[None]:
    """SQLite's and the system's refusals, as ones that name the file and say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        text = str(error).partition(" with text ")[0]  # which would be quoted
        if "locked" in text or "busy" in text:
            raise in_use(path) from error
        if "full" in text:
            raise failed(
                "no space left for %s" % path, "free some space, or choose another place with --sqlite-path"
            ) from error
        if "readonly" in text or "unable to open" in text:
            raise failed(
                "%s cannot be written: %s" % (path, text),
                "check the permissions of the file and its folder, or set --sqlite-path",
            ) from error
        if "not a database" in text or "malformed" in text:
            raise failed(
                "%s is not a sound SQLite database: %s" % (path, text),
                "move it away, or choose another file with --sqlite-path",
            ) from error
        raise failed("SQLite refuses %s: %s" % (path, text)) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise failed(
                "no space left for %s" % (error.filename or path), "free some space, or choose another place"
            ) from error
        raise failed(
            "%s cannot be written: %s" % (error.filename or path, error.strerror or error),
            "check the permissions of the file and its folder, or set --sqlite-path and --backup-dir",
        ) from error


def in_use(path: Path) -> MigrationError:
    return failed(
        "%s is open in another program (database is locked)" % path,
        "close the application and every other program that has it open, then run again",
    )


def resolved(path: Path) -> Path:
    """Where a path leads, links followed."""
    try:
        return path.resolve()
    except RuntimeError as error:  # Python before 3.13 says a loop of links so
        raise failed("%s is a link that leads to itself" % path, "set --sqlite-path") from error


@contextlib.contextmanager
def replacing(path: Path, sound: bool = True) -> Iterator[Path]:
    """Hold the target's lock; the block builds the file that is yielded and then calls ``publish``.

    What is left of it when the block ends is removed: the old database stands as it was.
    Raises MigrationError (exit 5) where the target cannot be replaced: found before any work is done.
    ``sound``: False where the target is known to be no database that could be opened.
    """
    with errors(path):
        target = resolved(path)
        if not target.parent.is_dir():
            raise failed("the folder of %s does not exist" % path, "create it, or set --sqlite-path")
        if target.is_dir():
            raise failed("%s is a folder" % path, "name a file with --sqlite-path")
        staged = target.with_name("." + target.name + ".staging")
        both = (staged, beside(staged))
        with lock.held(target.with_name("." + target.name + ".lock"), str(path), ExitCode.TARGET):
            for path in both:
                _remove(path)
            if sound:
                _probe(target)
            try:
                yield staged
            finally:
                for path in both:
                    _remove(path)


def beside(staged: Path) -> Path:
    """The database that another process fills, for ``merge``."""
    return staged.with_name(staged.name + "-2")


def _probe(target: Path) -> None:
    """Refuse early what ``publish`` would have to refuse after all the work."""
    if target.exists():
        if target.stat().st_size and not os.access(str(target), os.W_OK):
            raise failed(
                "%s cannot be written: permission denied" % target,
                "check its permissions, or set --sqlite-path",
            )
        _exclusive(target).close()
        return
    left = [target.name + end for end in _COMPANIONS if target.with_name(target.name + end).exists()]
    if left:
        raise failed(
            "%s lies in %s without its database" % (left[0], target.parent),
            "it may hold the last changes of a database that was moved: put that back beside it, or move it away",
        )


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

    On read-only media, where SQLite could make no shared memory beside it, the file alone is read.
    """
    writable = os.access(str(path.resolve().parent), os.W_OK)
    log_there = path.resolve().with_name(path.resolve().name + "-wal").exists()  # to be read, not overlooked
    mode = "rw" if writable else "ro" if log_there else "ro&immutable=1"
    uri = path.resolve().as_uri() + "?mode=" + mode
    connection = sqlite3.connect(
        uri, uri=True, isolation_level=None, timeout=_BUSY_SECONDS, check_same_thread=False
    )
    connection.execute("PRAGMA query_only = ON")
    return connection


# Building


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
        saved = None if backup_dir is None else back_up(old, backup_dir)
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


def back_up(database: sqlite3.Connection, folder: Path) -> Path:
    """Copy a database with SQLite's backup API, write-ahead log included, verify the copy and return its path."""
    with errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # One name for one database, whose lock we hold: so the next run removes what a killed one left.
        of = database.execute("SELECT file FROM pragma_database_list WHERE name = 'main'").fetchone()[0]
        partial = folder / (".backup_%08x.partial" % zlib.crc32(of.encode("utf-8", "surrogateescape")))
        _remove(partial)
        try:
            create_private(partial, exclusive=True).close()
            copy(database, partial)
            name = _name_backup(partial, folder)
        finally:
            _remove(partial)
        sync_folder(folder)
        return name


def copy(database: sqlite3.Connection, path: Path) -> None:
    """Copy a database into an empty file, check it and sync it."""
    duplicate = sqlite3.connect(str(path), isolation_level=None)
    try:
        duplicate.execute("PRAGMA synchronous = OFF")
        database.backup(duplicate)
        problems = integrity_problems(duplicate)
        if problems:
            raise failed(
                "the old database is damaged: %s" % problems[0],
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


def prune(folder: Path, keep: Optional[int]) -> None:
    """Remove all but the ``keep`` newest backups; None keeps all.

    The new database is in place by now: what cannot be removed is worth a warning and no failure.
    """
    for path in backups(folder)[: -keep if keep else 0]:
        try:
            path.unlink()
        except OSError as error:
            log.warning("the backup %s cannot be removed: %s", path, error.strerror)
        else:
            log.info("removed the backup %s", path)


def newest_backup(folder: Path) -> Path:
    found = backups(folder)
    if not found:
        raise failed("no backup in %s" % folder, "name a file: --restore FILE, or set --backup-dir")
    return found[-1]


def restore(backup: Path, path: Path, backup_dir: Optional[Path]) -> Optional[Path]:
    """Put a backup in the target's place as safely as an import; return the backup of what was there.

    A target that is no sound database any more is no reason to refuse: its files are set aside whole.
    Raises MigrationError (exit 5) for a backup that is missing or damaged.
    """
    with errors(backup):
        there = backup.is_file()
    if not there:
        raise failed("backup not found: %s" % backup, "ls %s" % (backup_dir or backup.parent))
    if backup.resolve() == path.resolve():
        raise failed(
            "%s is the database itself, not a backup of it" % backup, "name a file from the backup folder"
        )
    with contextlib.closing(_open_backup(backup)) as source:
        target = path.resolve()
        sound = _is_sound(target)
        with replacing(path, sound) as staged:
            create_private(staged, exclusive=True).close()
            copy(source, staged)
            if sound:
                return publish(staged, path, backup_dir)
            if backup_dir is not None:
                _set_aside(target, backup_dir)
            for end in _COMPANIONS:  # they are of the unsound one
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(str(target) + end)
            os.replace(str(staged), str(target))
            sync_folder(target.parent)
            return None


def _open_backup(backup: Path) -> sqlite3.Connection:
    source = open_to_read(backup)
    try:
        problems = integrity_problems(source)
        empty = source.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
    except sqlite3.Error as error:
        problems, empty = [str(error)], False
    if problems or empty:
        source.close()
        raise failed(
            "the backup %s is damaged: %s" % (backup, problems[0] if problems else "it holds no table"),
            "restore another one: --restore FILE",
        )
    return source


def _is_sound(target: Path) -> bool:
    """Whether there is nothing or a database that SQLite can read through; one in use is left to ``publish``."""
    if not target.is_file():
        return True
    try:
        with contextlib.closing(open_to_read(target)) as connection:
            return not integrity_problems(connection)
    except sqlite3.DatabaseError as error:
        return "not a database" not in str(error) and "malformed" not in str(error)


def _set_aside(target: Path, folder: Path) -> None:
    """Copy the files of an unsound database: something may still be rescued from them."""
    with errors(folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        name = _take_name(
            folder, _ASIDE_NAME, datetime.now(), lambda name: create_private(name, exclusive=True).close()
        )
        for end in ("", *_COMPANIONS):
            if Path(str(target) + end).exists():
                aside = Path(str(name) + end)
                create_private(aside).close()
                shutil.copyfile(str(target) + end, str(aside))
                sync_path(aside)
                log.warning("%s was no sound database: set aside as %s", str(target) + end, aside)
