"""The SQLite file: built beside the target, checked, and published so that nobody sees half of it."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
import re
import sqlite3
import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Callable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from migration import lock
from migration.errors import MigrationError, SourceError, TargetError
from migration.files import create_private, make_folder, sync_folder, sync_path
from migration.sql import quote
from migration.sqlite import old_files
from migration.sqlite.errors import (
    CANTOPEN,
    CORRUPT,
    ERROR,
    IOERR,
    NOTADB,
    READONLY,
    code_of,
    mounted,
    of_newer,
    unsound,
)
from migration.sqlite.errors import errors as errors
from migration.sqlite.errors import failed as failed
from migration.sqlite.errors import in_use as in_use
from migration.sqlite.schema import Schema

log = logging.getLogger("migration.target")

_BACKUP_NAME = "theprogram_backup_%Y%m%d_%H%M%S.db"  # local time
LISTED = 10
CACHE = 8192  # kilobytes of pages that SQLite keeps: more would not stay in the processor's own cache
TOGETHER = 16  # rows that are inserted by one statement
VARIABLES = 999  # that a statement may have before SQLite 3.32
_BUSY_SECONDS = 2.0


def resolved(path: Path) -> Path:
    """Where a path leads, links followed."""
    try:
        return path.resolve()
    except RuntimeError as error:  # Python before 3.13 says a loop of links so
        raise failed("%s is a link that leads to itself" % path, "set --sqlite-path") from error


@contextlib.contextmanager
def replacing(path: Path, backup_dir: Optional[Path] = None, probe: bool = True) -> Iterator[Path]:
    """Hold the target's lock; the block builds the file that is yielded and then calls ``publish``.

    What is left of it when the block ends is removed: the old database stands as it was.
    Raises MigrationError (exit 5) where the target cannot be replaced: found before any work is done.
    ``backup_dir``: where the old files are kept as they are if SQLite cannot take all that is in them.
    ``probe``: False where the block looks at the old database itself.
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
            if backup_dir is not None and backup_dir.is_dir():
                with errors(backup_dir, "--backup-dir"):
                    old_files.clear(target, backup_dir)
            if probe:
                _probe(target, looked_at(staged), backup_dir)
            try:
                yield staged
            finally:
                for left in ours:
                    old_files.remove(left)


def _require_replaceable(target: Path, path: Path) -> None:
    """Nothing but a file is replaced: no folder, device, pipe or socket, and no file that is mounted there."""
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
    except OSError:  # no Linux: the replacing will tell
        return False
    points = (re.sub(rb"\\([0-7]{3})", _unescaped, mount.split(b" ")[4]) for mount in mounts)
    return os.fsencode(str(target)) in points


def _unescaped(found: "re.Match[bytes]") -> bytes:
    return bytes([int(found[1], 8)])


def _ours(target: Path, end: str) -> Path:
    """A file of ours beside the database, whose name leaves room for what SQLite adds to it."""
    name = "." + target.name + end
    fits = len(os.fsencode(name + "-o-journal")) <= _NAME
    return target.with_name(name if fits else "." + old_files.token(target) + end)


def looked_at(staged: Path) -> Path:
    """A copy of the old database, for SQLite to look at."""
    return staged.with_name(staged.name + "-o")


def _probe(target: Path, copied: Path, backup_dir: Optional[Path]) -> None:
    """Refuse early what ``publish`` would have to refuse after all the work."""
    logs = old_files.logs_of(target)
    if logs and not target.exists():
        raise failed("%s lies in %s without its database" % (logs[0].name, target.parent), _LOST)
    if logs and not old_files.size(target):
        raise failed(old_files.trouble(target) or "", _LOST)
    if logs:
        _require_writable(target)
        problems = _problems_in(target, copied)
        if problems:
            raise unsound(target, problems[0])
    _make_way(target, backup_dir)


def _make_way(target: Path, backup_dir: Optional[Path]) -> None:
    """Nobody has a sound database open, and it holds what its logs did."""
    if target.exists():
        _require_writable(target)
        _keep_what_sqlite_leaves(target, backup_dir)
        _exclusive(target).close()


def _require_writable(target: Path) -> None:
    if target.stat().st_size and not os.access(str(target), os.W_OK):
        raise failed(
            "%s cannot be written: permission denied" % target,
            "check its permissions, or set --sqlite-path",
        )


_LOST = (
    "it may hold the last changes of a database that was moved or cut off: put that back beside it, or move all of"
    " these files away"
)


def _problems_in(target: Path, copied: Path) -> List[str]:
    """What SQLite finds wrong with a database; where it has logs, with a copy, as they would be gone afterwards."""
    if not old_files.logs_of(target):
        if not old_files.size(target):
            return []
        problems = _problems_at(target)
        if problems and old_files.is_locked(target, 0):
            raise in_use(target)  # a file that is being written
        return problems
    if old_files.is_locked(target, _BUSY_SECONDS):
        raise in_use(target)
    if not old_files.size(target):
        return [old_files.trouble(target) or "%s does not exist" % target]
    try:
        old_files.copy(target, copied)
        return _problems_at(copied)
    finally:
        old_files.remove(copied)


def _problems_at(path: Path) -> List[str]:
    try:
        with contextlib.closing(_connected(path, "rw")) as connection:
            return _problems_of_old(connection)
    except sqlite3.DatabaseError as error:
        if code_of(error) in (CORRUPT, NOTADB):
            return [str(error)]
        raise


def _keep_what_sqlite_leaves(target: Path, backup_dir: Optional[Path]) -> None:
    """Keep the files of a sound database as they are where SQLite is going to throw a part of its logs away."""
    trouble = old_files.trouble(target)
    if trouble is None:
        return
    if backup_dir is None:
        log.warning("%s: changes to the old database may be lost", trouble)
    else:
        aside = old_files.set_aside(target, backup_dir)
        log.warning("%s: the old database's files are kept as they were as %s", trouble, aside)


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


def any_text(content: bytes) -> str:
    """For ``text_factory``: text that is not UTF-8, too."""
    return content.decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that reads one state of a database. Raises MigrationError (exit 5) if the file does not exist."""
    if not path.is_file():
        raise failed("no database at %s" % path, "run import_to_sqlite.py first, or set --sqlite-path")
    with reading(path) as connect, contextlib.closing(connect()) as connection:
        connection.execute("PRAGMA cache_size = %d" % -CACHE)
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the state of now
        yield connection


Connect = Callable[[], sqlite3.Connection]


@contextlib.contextmanager
def reading(path: Path, untouched: bool = False) -> Iterator[Connect]:
    """What connects to a database to read it, and loses nothing of its files.

    A connection that is the last one folds a sound write-ahead log in and leaves no file behind. A private copy of the
    files is read where SQLite could not take all that is in the logs, where it may not play a journal back, or where
    the files are to stay ``untouched``. Raises MigrationError (exit 5) for an empty database with a log.
    """
    path = resolved(path)
    logs, trouble = old_files.logs_of(path), old_files.trouble(path)
    if logs and not old_files.size(path):
        raise failed(trouble or "", _LOST)
    mode = "rw" if os.access(str(path.parent), os.W_OK) else "ro"
    with contextlib.ExitStack() as stack:
        if logs and (untouched or trouble is not None) and not old_files.is_locked(path, 0):
            if trouble is not None:
                log.warning("%s: the last changes may be missing; the files stay as they are", trouble)
            path, mode = stack.enter_context(_copied(path)), "rw"
        elif not _is_readable(path, mode):
            # Without a log, nobody has it open in a folder where we cannot make one.
            path, mode = (stack.enter_context(_copied(path)), "rw") if logs else (path, "ro&immutable=1")
        yield lambda: _to_read(path, mode)


def _is_readable(path: Path, mode: str) -> bool:
    try:
        with contextlib.closing(_connected(path, mode)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        return code_of(error) not in (READONLY, CANTOPEN, IOERR)
    except sqlite3.DatabaseError:
        pass  # whoever reads it will say so
    return True


def _to_read(path: Path, mode: str) -> sqlite3.Connection:
    connection = _connected(path, mode)
    connection.execute("PRAGMA query_only = ON")
    return connection


def _connected(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(
        path.as_uri() + "?mode=" + mode,
        uri=True,
        isolation_level=None,
        timeout=_BUSY_SECONDS,
        check_same_thread=False,
    )


@contextlib.contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """A private copy of a database's files, for the block."""
    with tempfile.TemporaryDirectory(prefix="migration-") as folder:  # for its owner alone
        copied = Path(folder, "copy.db")
        with errors(Path(folder).parent, "TMPDIR (a folder for temporary files)"):
            old_files.copy(path, copied)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(str(copied) + "-shm")  # of the other one's log
        yield copied


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


def defer_indexes(connection: sqlite3.Connection) -> List[str]:
    """Drop secondary indexes and triggers; returns the SQL that creates them again.

    A load without them is about twice as fast, and no trigger touches what is migrated.
    """
    found = connection.execute(
        "SELECT type, name, sql FROM sqlite_master"
        " WHERE type IN ('index', 'trigger') AND sql IS NOT NULL ORDER BY rowid"
    ).fetchall()
    for kind, name, _ in found:
        connection.execute("DROP %s %s" % (kind.upper(), quote(name)))
    return [sql for _, _, sql in found]


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
    try:
        _fill_singleton(connection, table, values)
    except sqlite3.DataError as error:
        raise too_large("%s of the user" % table, dict(values), error) from error


def _fill_singleton(connection: sqlite3.Connection, table: str, values: Sequence[Tuple[str, object]]) -> None:
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


def too_large(row: str, values: Mapping[str, object], error: sqlite3.DataError) -> MigrationError:
    """The error for a row that SQLite has no room for: neither a value nor a row may have more than a billion bytes.

    Source: https://www.sqlite.org/limits.html (1)
    """
    sizes = {
        column: len(value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value)
        for column, value in values.items()
        if isinstance(value, (str, bytes))
    }
    column = max(sizes, key=lambda name: sizes[name])
    return SourceError(
        "%s, column %s: SQLite has no room for this value of %d bytes: %s"
        % (row, column, sizes[column], error),
        "make it smaller in PostgreSQL, or leave the column behind: dropped=(...) of its table in config.py",
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


# What rules of its application's, that we lack or that it has instead of SQLite's, make of a sound file.
_OF_RULES = re.compile(r"(?:CHECK constraint failed|\S+ value) in ")
_OF_INDEX = re.compile(
    r"(?:row \d+ (?:missing|values differ) from|wrong # of entries in|non-unique entry in) index (.*)",
    re.DOTALL,
)


def _is_of_rules(connection: sqlite3.Connection, problem: str) -> bool:
    """Whether a problem may be one only because we have not the rules of the application."""
    index = _OF_INDEX.fullmatch(problem)
    if index is None:
        return _OF_RULES.match(problem) is not None
    columns = connection.execute("PRAGMA index_xinfo(%s)" % quote(index[1])).fetchall()
    return any(number == -2 or collation != "BINARY" for _, number, _, _, collation, _ in columns)


def _problems_of_old(connection: sqlite3.Connection, what: Optional[str] = None) -> List[str]:
    """``integrity_problems`` of a database that we have not made: it may need what only its application has.

    ``what``: the database, for a warning of what does not count.
    """
    unseen: List[str] = []
    found: List[str] = []
    for check in (
        "integrity_check(%d)" % LISTED,
        "quick_check(%d)" % LISTED,
    ):  # which leaves the indexes' content out
        try:
            found = integrity_problems(connection, check)
            break
        except sqlite3.OperationalError as error:
            if code_of(error) != ERROR:
                raise
            unseen.append(str(error))
    remarks = [problem for problem in found if _is_of_rules(connection, problem)]
    if what is not None and remarks:
        log.warning("%s is kept as it is, though SQLite finds: %s", what, remarks[0])
    elif what is not None and unseen:
        log.warning("%s is kept as it is; not all of it can be looked at: %s", what, unseen[0])
    return [problem for problem in found if problem not in remarks]


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
    with errors(folder, "--backup-dir", source=of):
        make_folder(folder)
        # One name for one database, whose lock we hold: so the next run removes what a killed one left.
        partial = folder / (".backup_%s.partial" % old_files.token(of))
        old_files.remove(partial)
        try:
            create_private(partial, exclusive=True).close()
            copy(database, partial, "the old database")
            name = _name_backup(partial, folder)
        finally:
            old_files.remove(partial)
        _note_owner(name, of)
        sync_folder(folder)
        return name


_OWNERS = ".databases"  # in a backup folder, a line for each backup: its name, and the database that it is of


def _note_owner(backup: Path, of: Path) -> None:
    """A line is appended in one write: runs on other databases may do so at the same moment."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
    with os.fdopen(os.open(str(backup.with_name(_OWNERS)), flags, 0o600), "rb+", buffering=0) as file:
        written = os.fstat(file.fileno()).st_size
        file.seek(max(0, written - 1))
        begun = file.read(1) not in (b"", b"\n")  # by a run that had no room for more
        file.write(b"%s%s %s\n" % (b"\n" * begun, os.fsencode(backup.name), _line(of)))
        os.fsync(file.fileno())


def _line(of: Path) -> bytes:
    return os.fsencode(str(of)).replace(b"\\", b"\\\\").replace(b"\n", b"\\n")


def is_backup_of(backup: Path, path: Path) -> Optional[bool]:
    """Whether a backup is one of the database at ``path``; None where nothing tells, as of one that was copied here."""
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
    when = datetime.now()
    for newest in backups(folder)[-1:]:  # clocks may have gone back
        with contextlib.suppress(OverflowError):  # the end of all years
            when = max(when, datetime.strptime(newest.name, _BACKUP_NAME) + timedelta(seconds=1))
    return old_files.take_name(folder, _BACKUP_NAME, when, functools.partial(old_files.link, partial))


def backups(folder: Path) -> List[Path]:
    """The backups in a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.glob("*.db") if _is_backup(path.name) and path.is_file())


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
    with _open_backup(backup) as source, replacing(path, backup_dir, probe=False) as staged:
        problems = _problems_in(target, looked_at(staged))
        if not problems:
            _make_way(target, backup_dir)
        create_private(staged, exclusive=True).close()
        with errors(path, source=backup):
            copy(source, staged, "the backup %s" % backup)
        if not problems:
            return publish(staged, path, backup_dir)
        if backup_dir is not None:
            aside = old_files.set_aside(target, backup_dir)
            log.warning("%s is no sound database: its files are set aside as %s", target, aside)
        for companion in list(old_files.all_of(target))[1:]:  # they are of the unsound one
            with contextlib.suppress(FileNotFoundError):
                os.unlink(str(companion))
        if target.exists():
            _keep_owner(target, staged)
        os.replace(str(staged), str(target))
        sync_folder(target.parent)
        return None


@contextlib.contextmanager
def _open_backup(backup: Path) -> Iterator[sqlite3.Connection]:
    """A connection to a backup, whose files stay as they are."""
    with errors(backup), reading(backup, untouched=True) as connect, contextlib.closing(connect()) as source:
        try:
            empty = source.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)
            problems = _problems_of_old(source)
        except (sqlite3.Error, OSError) as error:
            problems, empty = [str(error)], False
        if problems or empty:
            raise failed(
                "the backup %s is damaged: %s" % (backup, problems[0] if problems else "it holds no table"),
                "restore another one: --restore FILE" + of_newer("".join(problems[:1])),
            )
        yield source
