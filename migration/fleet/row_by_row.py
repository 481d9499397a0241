"""Which rows are in which users' files, row by row: what does not fit into memory is in a SQLite file of its own.

A row is expected in the files of all users whose it is. Where a user's file may hold others, its keys are read from the bundle.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import sqlite3
from operator import itemgetter
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

import msgspec

from migration.bundle.reading import open_bundle
from migration.files import create_private
from migration.fleet import results
from migration.json_text import members
from migration.model import Table
from migration.postgres.coverage import FIRST, EachRow
from migration.settings import Settings

MANY = 10000  # users whose rows are asked for at once
ENOUGH = 2  # files in which a row is found: whether in several, and not in how many, is asked
EVERYBODYS = "shared, and in no {root}'s file"

SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE pairs (     -- a row, and a root whose it is; neither root nor reason: everybody's
    n INTEGER,           -- the table
    row TEXT,
    root TEXT,
    reason TEXT,         -- the row is there; why it has no root, if it has none
    content TEXT         -- of a row that is there and has no key
);
CREATE TABLE absent (root TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID;         -- users of whom there is no file
CREATE TABLE uncertain (root TEXT, n INTEGER, reason TEXT, PRIMARY KEY (root, n)) WITHOUT ROWID;
CREATE TABLE files_read (n INTEGER, sha256 TEXT, user TEXT, PRIMARY KEY (n, sha256, user)) WITHOUT ROWID;
-- What is in these files: rows, and contents of rows without a key
CREATE TABLE held (n INTEGER, row TEXT, root TEXT, PRIMARY KEY (n, row, root)) WITHOUT ROWID;
CREATE TABLE held_contents (n INTEGER, content TEXT, root TEXT, PRIMARY KEY (n, content, root)) WITHOUT ROWID;
"""


class Reason(NamedTuple):
    """Why rows are in no file. ``keys``, ``users``: the first ones."""

    reason: str
    rows: int
    keys: Sequence[str]
    users: Sequence[str]


class Found(NamedTuple):
    """Where a table's rows are."""

    in_files: int
    in_several: int
    reasons: Sequence[Reason]


class InBundle(NamedTuple):
    """A table, and the columns by which its rows are called, ``hashed`` or not."""

    table: Table
    named_by: Sequence[str]
    hashed: bool


class RowByRow:
    """The rows of tables, which are called by numbers."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def enter_rows(self, number: int, rows: Iterable[EachRow]) -> None:
        """Every row of a table."""
        self._enter(
            entry
            for row, root, reason, content in rows
            for entry in (
                [(number, row, None, reason, content)]
                if reason is not None
                else [(number, row, None, "", content), (number, row, root, None, None)]
            )
        )

    def enter_pairs(self, pairs: Iterable[Tuple[int, str, Optional[str]]]) -> None:
        """Rows, by the number of their table, and one of their roots each; None: everybody's."""
        self._enter((number, row, root, None, None) for number, row, root in pairs)

    def _enter(self, entries: Iterable[Tuple[int, str, Optional[str], Optional[str], Optional[str]]]) -> None:
        with self._db:
            self._db.executemany("INSERT INTO pairs VALUES (?, ?, ?, ?, ?)", entries)

    def index(self) -> None:
        """Sort what has been entered. Few rows can be entered afterwards."""
        self._db.execute("CREATE INDEX pairs_by_row ON pairs (n, row, root, reason DESC)")

    def of_roots(self) -> Iterator[Tuple[str, Mapping[int, int]]]:
        """Each root's key, with rows by the table's number; in the order of their UTF-8 bytes."""
        sql = "SELECT root, n, count(*) FROM pairs WHERE root IS NOT NULL GROUP BY root, n ORDER BY root"
        for root, rows in itertools.groupby(self._db.execute(sql), itemgetter(0)):
            yield root, {number: count for _, number, count in rows}

    def everybodys(self, number: int) -> int:
        sql = "SELECT count(DISTINCT row) FROM pairs WHERE n = ? AND root IS NULL AND reason IS NULL"
        return int(self._db.execute(sql, (number,)).fetchone()[0])

    def has_no_files(self, user: str, reason: str) -> None:
        self._db.execute("INSERT INTO absent VALUES (?, ?)", (user, reason))

    def is_uncertain(self, user: str, number: int, reason: str) -> None:
        """The user's file may lack rows of a table, for this reason: it has those that are ``held``."""
        self._db.execute("INSERT INTO uncertain VALUES (?, ?, ?)", (user, number, reason))

    def held(self, user: str, number: int, sha256: str, rows: Iterable[str], are_contents: bool) -> None:
        """The rows, or their contents, that the user's file of this SHA256 holds of a table."""
        sql = "SELECT count(*) FROM files_read WHERE n = ? AND sha256 = ?"
        if self._db.execute(sql, (number, sha256)).fetchone()[0] >= ENOUGH:
            return
        with self._db:
            self._db.execute("INSERT INTO files_read VALUES (?, ?, ?)", (number, sha256, user))
            self._db.executemany(
                _HOLDS.format(*("held_contents", "content") if are_contents else ("held", "row")),
                ({"n": number, "row": row, "user": user} for row in rows),
            )

    def uncertain(self, number: int) -> Iterator[List[str]]:
        """Users whose file may lack rows of a table, many at a time."""
        users = self._db.execute("SELECT root FROM uncertain WHERE n = ? ORDER BY root", (number,))
        while True:
            some = [root for (root,) in itertools.islice(users, MANY)]
            if not some:
                return
            yield some

    def found(self, number: int, whole: int, order: Sequence[str], shows_keys: bool) -> Found:
        """Where the rows of a table are that have been entered. ``whole``: users whose files hold all that they should.

        ``order``: reasons, of which the first counts where users whose the row is have several.
        """
        self._db.execute(_ROWS_OF_CONTENTS, (number,))
        in_files = in_several = 0
        sql = "SELECT DISTINCT reason FROM uncertain WHERE n = ?"
        reasons_of_some = [reason for (reason,) in self._db.execute(sql, (number,))]
        everybodys = min(reasons_of_some, key=order.index, default=EVERYBODYS)
        reasons: Dict[str, _Reason] = {}
        rows = self._db.execute(_ROWS, (number,))
        for row, entries in itertools.groupby(rows, itemgetter(0)):
            files, why, user = _files(entries, whole, order, everybodys)
            if files:
                in_files += 1
                in_several += files > 1
            else:
                reasons.setdefault(why, _Reason()).add(json.loads(row) if shows_keys else None, user)
        return Found(in_files, in_several, [each.named(why) for why, each in sorted(reasons.items())])


def _files(
    entries: Iterable[Tuple[Any, ...]], whole: int, order: Sequence[str], everybodys: str
) -> Tuple[int, str, Optional[str]]:
    """How many files a row is in; if none, why, and a user whose it is. ``everybodys``: why, if it is shared."""
    files, why, user, rank = 0, "", None, len(order)
    for _, root, is_pair, reason, held in entries:  # that the row is there comes first
        if not is_pair:
            files, why = held, why or reason
        elif root is None:
            files, why = max(files, whole + held), everybodys
        elif reason is None:
            files += 1
        elif order.index(reason) < rank:
            rank, why, user = order.index(reason), reason, root
    return files, why, user


_ROWS = """
SELECT p.row, p.root, p.reason IS NULL,
    CASE WHEN p.reason IS NULL THEN coalesce(a.reason, u.reason) ELSE p.reason END,
    CASE WHEN p.root IS NULL THEN (SELECT count(*) FROM held h WHERE h.n = p.n AND h.row = p.row) END
FROM pairs p LEFT JOIN absent a ON a.root = p.root LEFT JOIN uncertain u ON u.root = p.root AND u.n = p.n
WHERE p.n = ? ORDER BY p.row, p.root, p.reason DESC
"""

_HOLDS = (
    """
INSERT OR IGNORE INTO {0} SELECT :n, :row, :user
WHERE (SELECT count(*) FROM {0} WHERE n = :n AND {1} = :row) < %d
"""
    % ENOUGH
)

# Of equal rows without a key, each counts as held where one is: that there are fewer is found by their number
_ROWS_OF_CONTENTS = """
INSERT OR IGNORE INTO held SELECT p.n, p.row, h.root FROM pairs p JOIN held_contents h ON h.n = p.n AND h.content = p.content
WHERE p.n = ? AND p.content IS NOT NULL
"""


class _Reason:
    """Rows in no file for one reason."""

    def __init__(self) -> None:
        self._rows = 0
        self._keys: List[List[Any]] = []
        self._users: List[str] = []

    def add(self, key: Optional[List[Any]], user: Optional[str]) -> None:
        self._rows += 1
        if key is not None:
            self._keys = _with(self._keys, key)
        if user is not None and user not in self._users:
            self._users = _with(self._users, user)

    def named(self, reason: str) -> Reason:
        return Reason(reason, self._rows, [", ".join(map(str, key)) for key in self._keys], self._users)


def _with(first: List[Any], one: Any) -> List[Any]:
    return sorted([*first, one])[:FIRST] if len(first) < FIRST or one < first[-1] else first


@contextlib.contextmanager
def opened(path: Path) -> Iterator[RowByRow]:
    """Make a new file at ``path``. Raises TargetError where it cannot be written during the block."""
    with results.errors(path):
        create_private(path, exclusive=True).close()
        with contextlib.closing(sqlite3.connect(str(path))) as db:
            db.executescript(SCHEMA)
            yield RowByRow(db)


# What a user's bundle holds


def rows_in_bundle(
    output: Path, user: str, settings: Settings, tables: Mapping[int, InBundle]
) -> Iterator[Tuple[int, str, Iterator[str]]]:
    """The rows that a user's bundle holds, of tables by number, as ``Counting`` calls them, and the SHA256 of the file.

    Raises MigrationError (exit 4) where the bundle is damaged.
    """
    folder = results.folder_of(output, user) / results.BUNDLE
    files = {table.name: table.file for table in settings.whole_tables}
    with open_bundle(folder, files, user_id=user, is_held=True, called=settings.root.called) as reader:
        for number, of in tables.items():
            decode = _decoder(of)
            sha256 = reader.manifest.checksums[of.table.file]
            if of.table.becomes is None:
                yield number, sha256, reader.records(of.table.file, decode)
            else:
                record = reader.user_data().get(of.table.member)
                yield number, sha256, iter([] if record is None else [decode(record)])


def _decoder(of: InBundle) -> Callable[[bytes], str]:
    """Reads from a record what its row is called, as PostgreSQL writes an array of the same values."""
    fields: Any = [("c%d" % number, msgspec.Raw) for number in range(len(of.named_by))]
    names = {"c%d" % number: name for number, name in enumerate(of.named_by)}
    decoder = msgspec.json.Decoder(msgspec.defstruct("Row", fields, rename=names))

    def decode(record: bytes) -> str:
        try:
            found = decoder.decode(record)
            values = [bytes(getattr(found, field)) for field, _ in fields]
        except msgspec.ValidationError:
            raise
        except (msgspec.DecodeError, RecursionError):  # JSON that only PostgreSQL takes
            taken = members(record)
            values = [taken[name] for name in of.named_by]
        row = b"[%s]" % b", ".join(values)
        return hashlib.sha256(row).hexdigest() if of.hashed else row.decode("ascii")

    return decode
