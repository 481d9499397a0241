"""The ledger of a run of all users: a SQLite table of users and one of runs. It names users by id only.

Each change is committed before anything relies on it, so the ledger of a killed run shows the next run what is left.
It uses a rollback journal, not a write-ahead log, because the file may be on storage that several machines share.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from migration.errors import ExitCode
from migration.files import create_private
from migration.fleet import origin, results
from migration.fleet.origin import Origin
from migration.fleet.results import Made
from migration.sqlite.errors import failed

NAME = "ledger.db"
BUSY_SECONDS = 30.0
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
    error TEXT,
    coverage TEXT,                -- JSON: every table's rows in PostgreSQL and in files; NULL: not counted
    database TEXT,                -- which one it is, by whatever address: [system, oid, name, address]
    schema_sha256 TEXT,           -- of the SQLite schema
    config_sha256 TEXT,           -- of the tables in config.py
    warnings TEXT                 -- JSON: a list of texts on rows of whomever; NULL: none
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
    exit_code INTEGER,            -- that of migrate.py; 70: a worker died, no time was left, or a bug
    error TEXT,
    database_sha256 TEXT,         -- of app.db as it was made; NULL: never, or by a version that did not note it
    bundle_sha256 TEXT,           -- of the list of the bundle's files with their own
    reports_sha256 TEXT,          -- of that of the validation's reports
    left_out INTEGER,             -- rows, by --orphans skip or config.py
    warnings INTEGER,             -- of the validation
    cut INTEGER,                  -- references that left the export; NULL where none was cut
    brought INTEGER,              -- rows of others; NULL where none was brought
    table_rows TEXT               -- JSON: [rows in the files by table, rows left out by table, with those that went along]
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS users_by_state ON users (wanted, state);
"""
# Columns that ledgers of earlier versions lack: table → columns
ADDED = {
    "runs": ("database TEXT", "schema_sha256 TEXT", "config_sha256 TEXT", "coverage TEXT", "warnings TEXT"),
    "users": (
        "database_sha256 TEXT",
        "bundle_sha256 TEXT",
        "reports_sha256 TEXT",
        "left_out INTEGER",
        "warnings INTEGER",
        "cut INTEGER",
        "brought INTEGER",
        "table_rows TEXT",
    ),
}
INTERRUPTED = ""  # instead of a digest: the files come from an attempt that did not report its end


class Outcome(NamedTuple):
    """How one user's migration ended. ``fatal``: the whole run must stop; the user stays pending."""

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
    database_sha256: Optional[str] = None
    bundle_sha256: Optional[str] = None
    reports_sha256: Optional[str] = None
    left_out: Optional[int] = None
    warnings: Optional[int] = None
    cut: Optional[int] = None
    brought: Optional[int] = None
    table_rows: Optional[str] = None

    @property
    def words(self) -> Optional[str]:
        """The error and its hint."""
        return "%s\ntry: %s" % (self.error, self.hint) if self.error and self.hint else self.error


class Migrated(NamedTuple):
    users: int
    rows: int
    bytes: int


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")


class Pending(NamedTuple):
    """A user to migrate. ``database``: the digest of the database to replace, INTERRUPTED, or None if unknown."""

    user_id: str
    database: Optional[str]


class Before(NamedTuple):
    """An earlier run. ``origin`` is None if an earlier version did not record it."""

    run: int
    source: str
    origin: Optional[Origin]


class Ledger:
    """An open ledger. Every method is one transaction and raises TargetError if that fails."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._db = connection
        self._path = path
        connection.row_factory = sqlite3.Row

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with results.errors(self._path), self._db:
            yield self._db

    def _read(self, sql: str, parameters: Sequence[object] = ()) -> List[Any]:
        with results.errors(self._path):
            return self._db.execute(sql, parameters).fetchall()

    def begin(
        self, snapshot: Optional[str], instant: str, source: str, server_version: str, origin_: Origin
    ) -> int:
        """Add a run and return its number."""
        with self._writing() as db:
            made = db.execute(
                "INSERT INTO runs (started, snapshot, instant, source, server_version, database, schema_sha256,"
                " config_sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    now(),
                    snapshot,
                    instant,
                    source,
                    server_version,
                    origin.as_text(origin_.database),
                    *origin_[1:],
                ),
            )
        return int(made.lastrowid or 0)

    def before(self) -> List[Before]:
        """The runs that files may be of, the last one first."""
        rows = self._read(
            "SELECT run, source, database, schema_sha256, config_sha256 FROM runs WHERE run IN"
            " (SELECT run FROM users UNION SELECT wanted FROM users WHERE started IS NOT NULL) ORDER BY run DESC"
        )
        return [_before(row) for row in rows]

    def origins_of_done(self) -> List[Before]:
        """The runs that have done users, the last one first."""
        rows = self._read(
            "SELECT run, source, database, schema_sha256, config_sha256 FROM runs WHERE run IN"
            " (SELECT run FROM users WHERE state = 'done') ORDER BY run DESC"
        )
        return [_before(row) for row in rows]

    def want(self, users: Iterable[str], run: int, resume: bool) -> int:
        """Assign users to ``run``; with ``resume``, users already done stay done. Returns how many users were given."""
        with self._writing() as db:
            db.executemany(
                "INSERT INTO users (user_id, state, wanted) VALUES (?, 'pending', ?) ON CONFLICT (user_id)"
                " DO UPDATE SET wanted = excluded.wanted, state = CASE WHEN ? AND state = 'done' THEN state ELSE 'pending' END",
                ((user, run, resume) for user in users),
            )
        return int(self._read("SELECT count(*) FROM users WHERE wanted = ?", (run,))[0][0])

    def pending(self, run: int) -> Iterator[Pending]:
        """The users that have not been started, read page by page."""
        for user in self.users(run, "pending"):
            digest = user["database_sha256"]
            if digest is None and user["started"] is not None:
                digest = INTERRUPTED
            yield Pending(user["user_id"], digest)

    def again(self, users: Iterable[str]) -> None:
        """Mark done users as pending; the size of their files is no longer known."""
        with self._writing() as db:
            db.executemany(
                "UPDATE users SET state = 'pending', bytes = NULL WHERE user_id = ?",
                ((user,) for user in users),
            )

    def start(self, users: Iterable[str]) -> None:
        with self._writing() as db:
            db.executemany(
                "UPDATE users SET state = 'running', started = ?, ended = NULL, exit_code = NULL, error = NULL"
                " WHERE user_id = ?",
                ((now(), user) for user in users),
            )

    def finish(self, run: int, outcomes: Iterable[Outcome]) -> None:
        """Record outcomes. A failed user keeps the files of the last run that succeeded, so the columns about files stay."""
        kept = ", ".join("{0} = CASE WHEN :done THEN :{0} ELSE {0} END".format(name) for name in _OF_FILES)
        with self._writing() as db:
            for outcome in outcomes:
                done = outcome.exit_code == ExitCode.DONE
                db.execute(
                    "UPDATE users SET state = :state, " + kept + ", attempts = attempts + :attempts,"
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
        """End the run. Users still running become pending: their outcome will not arrive."""
        with self._writing() as db:
            db.execute("UPDATE users SET state = 'pending' WHERE wanted = ? AND state = 'running'", (run,))
            db.execute(
                "UPDATE runs SET ended = ?, exit_code = ?, error = ? WHERE run = ?",
                (now(), exit_code, error, run),
            )

    def note_coverage(self, run: int, coverage: Mapping[str, Any]) -> None:
        with self._writing() as db:
            text = json.dumps(coverage, ensure_ascii=False)
            db.execute("UPDATE runs SET coverage = ? WHERE run = ?", (text, run))

    def note_warnings(self, run: int, lines: Sequence[str]) -> None:
        if lines:
            with self._writing() as db:
                text = json.dumps(lines, ensure_ascii=False)
                db.execute("UPDATE runs SET warnings = ? WHERE run = ?", (text, run))

    def coverage(self) -> Optional[Dict[str, Any]]:
        """That of the last run; None if it did not count."""
        rows = self._read("SELECT coverage FROM runs ORDER BY run DESC LIMIT 1")
        found: Optional[Dict[str, Any]] = json.loads(rows[0][0]) if rows and rows[0][0] else None
        return found

    def count(self, run: int, state: str) -> int:
        sql = "SELECT count(*) FROM users WHERE wanted = ? AND state = ?"
        return int(self._read(sql, (run, state))[0][0])

    def bytes_of(self, run: int) -> int:
        """Bytes that the files of the pending users take now."""
        sql = "SELECT coalesce(sum(bytes), 0) FROM users WHERE wanted = ? AND state <> 'done'"
        return int(self._read(sql, (run,))[0][0])

    def totals(self) -> Dict[str, Any]:
        """Totals over all users of all runs."""
        totals: Dict[str, Any] = {"users": 0, "rows": 0, "bytes": 0, "done": 0, "failed": 0, "pending": 0}
        for state, users, rows, size in self._read(
            "SELECT CASE state WHEN 'running' THEN 'pending' ELSE state END, count(*),"
            " coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM users GROUP BY 1"
        ):
            totals[state] = users
            totals["users"] += users
            totals["rows"] += rows
            totals["bytes"] += size
        return totals

    def runs(self) -> List[Dict[str, Any]]:
        """``warnings`` is a list, and only there where the run warned."""
        runs = [
            dict(row)
            for row in self._read(
                "SELECT runs.*, (SELECT count(*) FROM users WHERE users.run = runs.run) AS users FROM runs ORDER BY run"
            )
        ]
        for run in runs:
            warnings = run.pop("warnings")
            run.update({} if warnings is None else {"warnings": json.loads(warnings)})
        return runs

    def last_run_ended(self) -> bool:
        rows = self._read("SELECT ended FROM runs ORDER BY run DESC LIMIT 1")
        return bool(rows) and rows[0][0] is not None

    def owner_of(self, database_sha256: str) -> Optional[str]:
        """A user whose database has this digest."""
        rows = self._read("SELECT user_id FROM users WHERE database_sha256 = ? LIMIT 1", (database_sha256,))
        return str(rows[0][0]) if rows else None

    def migrated(self, run: int) -> Migrated:
        """Users, rows and bytes that this run has done."""
        return self._sum("wanted = ? AND run = ? AND state = 'done'", (run, run))

    def done_before(self, run: int) -> Migrated:
        """Users, rows and bytes that were done before this run."""
        return self._sum("wanted = ? AND run <> ? AND state = 'done'", (run, run))

    def _sum(self, condition: str, parameters: Sequence[object]) -> Migrated:
        sql = "SELECT count(*), coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM users WHERE "
        return Migrated(*self._read(sql + condition, parameters)[0])

    def users(self, run: Optional[int] = None, state: Optional[str] = None) -> Iterator[Dict[str, Any]]:
        """Users' rows in the order of ids, read page by page; only those of ``run`` or in ``state`` if given."""
        last: Tuple[str, ...] = ()
        while True:
            page = self._read(
                "SELECT * FROM users WHERE coalesce(wanted = ?, true) AND coalesce(state = ?, true)"
                + " AND user_id > ?" * len(last)
                + " ORDER BY user_id LIMIT ?",
                (run, state, *last, PAGE),
            )
            if not page:
                return
            yield from map(dict, page)
            last = (page[-1]["user_id"],)


# Columns that identify the files of a user
_OF_FILES = (
    "run", "snapshot", "database_sha256", "bundle_sha256", "reports_sha256", "left_out", "warnings", "cut", "brought", "table_rows",
)  # fmt: skip


def _before(row: Mapping[str, Any]) -> Before:
    of = None
    if row["database"] is not None:
        of = Origin(origin.from_text(row["database"]), row["schema_sha256"], row["config_sha256"])
    return Before(row["run"], row["source"], of)


def made_of(user: Mapping[str, Any]) -> Optional[Made]:
    """The digests of a user's files; None if an earlier version did not record them."""
    database, bundle = user.get("database_sha256"), user.get("bundle_sha256")
    return None if database is None or bundle is None else Made(database, bundle, user.get("reports_sha256"))


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Ledger]:
    """Open the ledger at ``path``, or create it. Raises TargetError."""
    for end in ("", *results.COMPANIONS):
        results.require_no_link(path.with_name(path.name + end))
    with contextlib.ExitStack() as stack:
        with results.errors(path):
            if not path.exists():
                create_private(path, exclusive=True).close()
            connection = stack.enter_context(
                contextlib.closing(sqlite3.connect(str(path), timeout=BUSY_SECONDS))
            )
            _bring_up_to_date(connection, path)
        yield Ledger(connection, path)


def _bring_up_to_date(connection: sqlite3.Connection, path: Path) -> None:
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    there = {
        table: {row[1] for row in connection.execute("PRAGMA table_info(%s)" % table)} for table in ADDED
    }
    if tables and not ({"run", "instant"} <= there["runs"] and {"user_id", "wanted"} <= there["users"]):
        raise failed("%s is a database of another program" % path, "choose another --output-dir")
    connection.executescript(SCHEMA)
    for table, columns in ADDED.items():
        for column in columns if there[table] else ():
            if column.split()[0] not in there[table]:
                connection.execute("ALTER TABLE {} ADD COLUMN {}".format(table, column))
