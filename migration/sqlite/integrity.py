"""What SQLite finds wrong with a database: broken pages and indexes, and references that lead nowhere."""

from __future__ import annotations

import contextlib
import logging
import re
import sqlite3
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple, Optional, Tuple, TypeVar

from migration.sql import quote
from migration.sqlite import connecting, old_files
from migration.sqlite.connecting import Connection, connected
from migration.sqlite.errors import CORRUPT, ERROR, NOTADB, code_of, failed, in_use

log = logging.getLogger(__name__)

LISTED = 10
SMALL = 1 << 20  # bytes of a file that SQLite has looked through before a thread has started


def problems_in(target: Path, copied: Path) -> List[str]:
    """What SQLite finds wrong with a database. If it has logs, a copy is checked: opening it would remove them."""
    if not old_files.logs_of(target):
        if not old_files.size(target):
            return []
        problems = _problems_at(target)
        if problems and old_files.is_locked(target, 0):
            raise in_use(target)  # somebody is writing it now
        return problems
    if old_files.is_locked(target, connecting.BUSY_SECONDS):
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
        with contextlib.closing(connected(path, "rw")) as connection:
            return problems_of_old(connection)
    except sqlite3.DatabaseError as error:
        if code_of(error) in (CORRUPT, NOTADB):
            return [str(error)]
        raise


Result = TypeVar("Result")


@contextlib.contextmanager
def looking_through(database: Connection, look: Callable[[Connection], Result]) -> "Iterator[Future[Result]]":
    """Have SQLite look through a database in a thread while the block runs; nobody else uses the connection.

    It is closed where an error or an interrupt ends the block. A small database is looked through at once.
    """

    def work() -> Result:
        with database.in_use:
            return look(database)

    if _size(database) < SMALL:
        looking: "Future[Result]" = Future()
        try:
            looking.set_result(work())
        except sqlite3.Error as error:
            looking.set_exception(error)
        yield looking
        return
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(work)
        try:
            yield looking
        except BaseException:
            database.close()
            raise


def _size(database: sqlite3.Connection) -> int:
    pages, page = (database.execute("PRAGMA " + name).fetchone()[0] for name in ("page_count", "page_size"))
    return int(pages * page)


class Found(NamedTuple):
    """What SQLite found wrong with a file, and how long it looked."""

    problems: List[str]
    seconds: float


def found_in(database: Connection) -> Found:
    started = time.perf_counter()
    return Found(integrity_problems(database), time.perf_counter() - started)


def _all(database: Connection) -> Tuple[List[str], List[Violation]]:
    return integrity_problems(database), list(foreign_key_violations(database))


@contextlib.contextmanager
def looked_through(path: Path) -> Iterator[None]:
    """Have SQLite look through a new database while the block runs.

    Raises MigrationError (exit 5) after the block for broken pages or indexes, and for dangling references.
    """
    with connecting.opened(path) as database, looking_through(database, _all) as looking:
        yield
        problems, violations = looking.result()
    if violations:
        shown = "\n  ".join(
            "%s %s: %s leads to no row of %s" % violation for violation in violations[:LISTED]
        )
        raise failed(
            "foreign keys that lead nowhere: %d%s\n  %s"
            % (len(violations), ", of which the first:" if len(violations) > LISTED else "", shown),
            "export again with this version: it finds such rows in PostgreSQL, and --orphans skip leaves them out; where"
            " key and reference differ in case or padding alone, declare the key's column COLLATE NOCASE or RTRIM",
        )
    if problems:
        raise failed("the new database is not sound: %s" % "; ".join(problems))


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


# Problems that a sound file can show when its application's own functions or collations are missing here.
_OF_RULES = re.compile(r"(?:CHECK constraint failed|\S+ value) in ")
_OF_INDEX = re.compile(
    r"(?:row \d+ (?:missing|values differ) from|wrong # of entries in|non-unique entry in) index (.*)",
    re.DOTALL,
)


def _is_of_rules(connection: sqlite3.Connection, problem: str) -> bool:
    """Whether a problem may come only from a function, collation or check that the application defines and we lack."""
    index = _OF_INDEX.fullmatch(problem)
    if index is None:
        return _OF_RULES.match(problem) is not None
    columns = connection.execute("PRAGMA index_xinfo(%s)" % quote(index[1])).fetchall()
    return any(number == -2 or collation != "BINARY" for _, number, _, _, collation, _ in columns)


def problems_of_old(connection: sqlite3.Connection, what: Optional[str] = None) -> List[str]:
    """``integrity_problems`` of a database made by another program, whose functions and collations we may lack.

    ``what``: name of the database, for a warning about the problems that are ignored.
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
