"""The ledger of migrations of many users: one SQLite row a user, one a run. It names users by id alone.

Each change is committed before anything is built on it, so whatever kills a run, the ledger tells the next one what
is not yet done. A rollback journal and no write-ahead log: the file may lie on storage that several machines share.
"""

from __future__ import annotations

import contextlib
import sqlite3
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional

from migration import target
from migration.bundle import create_private
from migration.errors import ExitCode

NAME = "ledger.db"
PAGE = 500  # users read at a time

SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    run INTEGER PRIMARY KEY,
    started TEXT NOT NULL,
    ended TEXT,                   -- NULL: going on, or killed
    snapshot TEXT,                -- what PostgreSQL says of the run's one snapshot; NULL: one for each user
    instant TEXT NOT NULL,        -- when the coordinator's transaction began, by PostgreSQL's clock
    source TEXT NOT NULL,         -- user@host:port/database
    server_version TEXT NOT NULL,
    exit_code INTEGER,
    error TEXT
);
CREATE TABLE IF NOT EXISTS users (
    user_id TEXT PRIMARY KEY,
    state TEXT NOT NULL,          -- pending, running, done (validated) or failed
    wanted INTEGER NOT NULL REFERENCES runs,  -- the last run that was to migrate the user
    run INTEGER REFERENCES runs,  -- the run that did, and under whose snapshot the user's files are
    snapshot TEXT,                -- which transactions were visible (txid_current_snapshot)
    attempts INTEGER NOT NULL DEFAULT 0,
    started TEXT,
    ended TEXT,
    export_seconds REAL,
    import_seconds REAL,
    validation_seconds REAL,
    rows INTEGER,
    bytes INTEGER,                -- bundle, reports and database
    exit_code INTEGER,            -- that of migrate.py; NULL where there is none: a worker died, or a bug
    error TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS users_by_state ON users (wanted, state);
"""


class Outcome(NamedTuple):
    """How one user's migration ended. ``fatal``: the run cannot go on, and the user is still to be done."""

    user_id: str
    exit_code: Optional[int]
    error: Optional[str] = None
    fatal: bool = False
    hint: Optional[str] = None
    attempts: int = 1
    started: Optional[str] = None
    ended: Optional[str] = None
    export_seconds: Optional[float] = None
    import_seconds: Optional[float] = None
    validation_seconds: Optional[float] = None
    rows: Optional[int] = None
    bytes: Optional[int] = None
    snapshot: Optional[str] = None

    @property
    def words(self) -> Optional[str]:
        """The error, and what to do about it."""
        return "%s\ntry: %s" % (self.error, self.hint) if self.error and self.hint else self.error


class Migrated(NamedTuple):
    users: int
    rows: int
    bytes: int


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class Ledger:
    """An open ledger. Every method is one transaction."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        connection.row_factory = sqlite3.Row

    def begin(self, snapshot: Optional[str], instant: str, source: str, server_version: str) -> int:
        """A new run; returns its number."""
        with self._db:
            made = self._db.execute(
                "INSERT INTO runs (started, snapshot, instant, source, server_version) VALUES (?, ?, ?, ?, ?)",
                (now(), snapshot, instant, source, server_version),
            )
        return int(made.lastrowid or 0)

    def want(self, users: Iterable[str], run: int, resume: bool) -> int:
        """Have ``run`` migrate these users; with ``resume`` not those that are done. Returns how many that is."""
        with self._db:
            self._db.executemany(
                "INSERT INTO users (user_id, state, wanted) VALUES (?, 'pending', ?) ON CONFLICT (user_id)"
                " DO UPDATE SET wanted = excluded.wanted, state = CASE WHEN ? AND state = 'done' THEN state ELSE 'pending' END",
                ((user, run, resume) for user in users),
            )
        return self.count(run, "pending")

    def pending(self, run: int) -> Iterator[str]:
        """The users that are still to be begun, page by page."""
        last = ""
        while True:
            page = self._db.execute(
                "SELECT user_id FROM users WHERE wanted = ? AND state = 'pending' AND user_id > ? ORDER BY user_id LIMIT ?",
                (run, last, PAGE),
            ).fetchall()
            if not page:
                return
            for (last,) in page:
                yield last

    def again(self, user: str) -> None:
        """A user that was done is to be done again: the files are not there."""
        with self._db:
            self._db.execute("UPDATE users SET state = 'pending' WHERE user_id = ?", (user,))

    def done(self, run: int) -> Iterator[str]:
        """The users of the run that an earlier one has done."""
        for user in self.users(run, "done"):
            yield user["user_id"]

    def start(self, users: Iterable[str]) -> None:
        with self._db:
            self._db.executemany(
                "UPDATE users SET state = 'running', started = ?, ended = NULL, exit_code = NULL, error = NULL"
                " WHERE user_id = ?",
                ((now(), user) for user in users),
            )

    def finish(self, run: int, outcomes: Iterable[Outcome]) -> None:
        with self._db:
            for outcome in outcomes:
                done = outcome.exit_code == ExitCode.DONE
                self._db.execute(
                    "UPDATE users SET state = :state, run = CASE WHEN :done THEN :run ELSE run END,"
                    " snapshot = CASE WHEN :done THEN :snapshot ELSE snapshot END, attempts = attempts + :attempts,"
                    " started = coalesce(:started, started), ended = coalesce(:ended, :now),"
                    " export_seconds = :export_seconds, import_seconds = :import_seconds,"
                    " validation_seconds = :validation_seconds, rows = coalesce(:rows, rows),"
                    " bytes = coalesce(:bytes, bytes), exit_code = :exit_code, error = :error WHERE user_id = :user_id",
                    {
                        **outcome._asdict(),
                        "error": outcome.words,
                        "state": "done" if done else "failed",
                        "done": done,
                        "run": run,
                        "now": now(),
                    },
                )

    def end(self, run: int, exit_code: Optional[int], error: Optional[str] = None) -> None:
        """What was running is pending again: its outcome will not be heard."""
        with self._db:
            self._db.execute(
                "UPDATE users SET state = 'pending' WHERE wanted = ? AND state = 'running'", (run,)
            )
            self._db.execute(
                "UPDATE runs SET ended = ?, exit_code = ?, error = ? WHERE run = ?",
                (now(), exit_code, error, run),
            )

    def count(self, run: int, state: str) -> int:
        found = self._db.execute("SELECT count(*) FROM users WHERE wanted = ? AND state = ?", (run, state))
        return int(found.fetchone()[0])

    def bytes_of(self, run: int) -> int:
        """What the files of the users that are to be migrated again take now."""
        found = self._db.execute(
            "SELECT coalesce(sum(bytes), 0) FROM users WHERE wanted = ? AND state <> 'done'", (run,)
        )
        return int(found.fetchone()[0])

    def totals(self) -> Dict[str, Any]:
        """Of all users that any run was to migrate."""
        totals: Dict[str, Any] = {"users": 0, "rows": 0, "bytes": 0, "done": 0, "failed": 0, "pending": 0}
        for state, users, rows, size in self._db.execute(
            "SELECT CASE state WHEN 'running' THEN 'pending' ELSE state END, count(*),"
            " coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM users GROUP BY 1"
        ):
            totals[state] = users
            totals["users"] += users
            totals["rows"] += rows
            totals["bytes"] += size
        return totals

    def runs(self) -> List[Dict[str, Any]]:
        return [
            dict(row)
            for row in self._db.execute(
                "SELECT runs.*, (SELECT count(*) FROM users WHERE users.run = runs.run) AS users FROM runs ORDER BY run"
            )
        ]

    def migrated(self, run: int) -> Migrated:
        """What this very run has done."""
        found = self._db.execute(
            "SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM users"
            " WHERE run = ? AND wanted = ? AND state = 'done'",
            (run, run),
        )
        return Migrated(*found.fetchone())

    def users(self, run: Optional[int] = None, state: Optional[str] = None) -> Iterator[Dict[str, Any]]:
        """Every user's row by id, page by page; of those that ``run`` was to migrate, and in ``state``."""
        last = ""
        while True:
            page = self._db.execute(
                "SELECT * FROM users WHERE user_id > ? AND coalesce(wanted = ?, true) AND coalesce(state = ?, true)"
                " ORDER BY user_id LIMIT ?",
                (last, run, state, PAGE),
            ).fetchall()
            if not page:
                return
            yield from map(dict, page)
            last = page[-1]["user_id"]


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Ledger]:
    """The ledger at ``path``, made where there is none. Raises MigrationError (exit 5)."""
    with target.errors(path):
        if not path.exists():
            create_private(path, exclusive=True).close()
        with contextlib.closing(sqlite3.connect(str(path), timeout=30)) as connection:
            connection.executescript(SCHEMA)
            yield Ledger(connection)
