"""Connections to a SQLite database: to read it and lose nothing of its files, or alone, to replace it."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import tempfile
import threading
from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional

from migration.sqlite import old_files
from migration.sqlite.errors import CANTOPEN, IOERR, READONLY, code_of, errors, failed

log = logging.getLogger(__name__)

CACHE = (
    8192  # kilobytes of SQLite's page cache: a larger one does not fit the processor's cache and is slower
)
BUSY_SECONDS = 2.0


def resolved(path: Path) -> Path:
    """The path with all links followed. Raises MigrationError (exit 5) for a loop of links."""
    try:
        return path.resolve()
    except RuntimeError as error:  # Python before 3.13 says a loop of links so
        raise failed("%s is a link that leads to itself" % path, "set --sqlite-path") from error


def _any_text(content: bytes) -> str:
    """Text that is not UTF-8, too: a difference to report."""
    return content.decode("utf-8", "surrogateescape")


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Connection]:
    """A connection that reads one state of a database. Raises MigrationError (exit 5) if the file does not exist."""
    with several(path, 1) as (connection,):
        yield connection


@contextlib.contextmanager
def several(path: Path, number: int) -> Iterator[List[Connection]]:
    """As ``opened``, with more than one connection, for other threads."""
    if not path.is_file():
        raise failed("no database at %s" % path, "run import_to_sqlite.py first, or set --sqlite-path")
    with reading(path) as connect, contextlib.ExitStack() as stack:
        connections = [stack.enter_context(contextlib.closing(connect())) for _ in range(number)]
        for connection in connections:
            connection.execute("PRAGMA cache_size = %d" % -CACHE)
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # the state of now
        yield connections


class Connection(sqlite3.Connection):
    """A connection that a thread may use, ``with connection.in_use``, and that is closed when the thread has left it.

    An interrupt can end the starting of a thread, which nobody knows of then but the thread itself.
    """

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.in_use = threading.Lock()

    def close(self) -> None:
        while not self.in_use.acquire(timeout=0.01):
            self.interrupt()  # once is not enough: SQLite forgets it before a statement's first step
        try:
            super().close()
        finally:
            self.in_use.release()


Connect = Callable[[], Connection]


@contextlib.contextmanager
def reading(path: Path, untouched: bool = False) -> Iterator[Connect]:
    """Yields a function that opens a connection to read the database, without losing anything in its files.

    The last connection to close writes a sound write-ahead log into the database and removes it. A private copy of the
    files is read instead if SQLite could not read all of the logs, if it may not write here to roll a journal back, or
    if the files are to stay ``untouched``. Raises MigrationError (exit 5) for an empty database with a log.
    """
    path = resolved(path)
    logs, trouble = old_files.logs_of(path), old_files.trouble(path)
    if logs and not old_files.size(path):
        raise failed(trouble or "", LOST)
    mode = "rw" if os.access(str(path.parent), os.W_OK) else "ro"
    with contextlib.ExitStack() as stack:
        unused: List[Connection] = []
        if logs and (untouched or trouble is not None) and not old_files.is_locked(path, 0):
            if trouble is not None:
                log.warning("%s: the last changes may be missing; the files stay as they are", trouble)
            path, mode = stack.enter_context(_copied(path)), "rw"
        else:
            first = _readable(path, mode)
            if first is not None:
                stack.enter_context(contextlib.closing(first))
                unused.append(first)
            else:
                # Without a log, nobody has it open in a folder where we cannot make one.
                path, mode = (stack.enter_context(_copied(path)), "rw") if logs else (path, "ro&immutable=1")
        yield lambda: unused.pop() if unused else _to_read(path, mode)


def _readable(path: Path, mode: str) -> Optional[Connection]:
    """A connection; None where SQLite may not read here. Of a damaged file the caller gets the error."""
    connection = None
    try:
        connection = _to_read(path, mode)
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        if code_of(error) in (READONLY, CANTOPEN, IOERR):
            if connection is not None:
                connection.close()
            return None
        if connection is None:
            raise
    return connection


def _to_read(path: Path, mode: str) -> Connection:
    connection = connected(path, mode)
    connection.text_factory = _any_text
    connection.execute("PRAGMA query_only = ON")
    return connection


def connected(path: Path, mode: str) -> Connection:
    return sqlite3.connect(
        path.as_uri() + "?mode=" + mode,
        uri=True,
        isolation_level=None,
        timeout=BUSY_SECONDS,
        check_same_thread=False,
        factory=Connection,
    )


@contextlib.contextmanager
def _copied(path: Path) -> Iterator[Path]:
    """A private copy of a database's files; removed after the block."""
    with tempfile.TemporaryDirectory(prefix="migration-") as folder:  # for its owner alone
        copied = Path(folder, "copy.db")
        with errors(Path(folder).parent, "TMPDIR (a folder for temporary files)"):
            old_files.copy(path, copied)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(str(copied) + "-shm")  # of the other one's log
        yield copied


LOST = (
    "it may hold the last changes of a database that was moved or cut off: put that back beside it, or move all of"
    " these files away"
)


def exclusive(target: Path) -> sqlite3.Connection:
    """The only connection to a database. Raises sqlite3.OperationalError if another program has it open."""
    connection = sqlite3.connect(str(target), isolation_level=None, timeout=BUSY_SECONDS)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN EXCLUSIVE")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        connection.execute("ROLLBACK")  # a COMMIT would write a header to an empty file
    except BaseException:
        connection.close()
        raise
    return connection
