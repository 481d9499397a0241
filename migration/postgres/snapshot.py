"""One connection in one read-only snapshot: queries, rows copied out as they are, digests made by the server.

Nothing here ever writes, and rows are never turned into Python objects.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import (
    Any,
    BinaryIO,
    Callable,
    Dict,
    Generator,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

import psycopg2
import psycopg2.extensions
from psycopg2 import errors as pg

from migration.errors import MigrationError, SourceError
from migration.model import Column, Equality, Kind, Table
from migration.postgres import table_locks
from migration.postgres.catalog import Catalog
from migration.postgres.catalog_queries import read_catalog
from migration.postgres.declared_keys import with_declared_keys
from migration.postgres.digests import Digest, SharedRows
from migration.postgres.operators import EQUALITY, UUID_OF_TEXT, are_written_alike, holds_other_uuids
from migration.postgres.waits import Guard
from migration.sql import literal, qualified, quote

PIPE = 1 << 18  # bytes read from a stream at a time


_HASHING = {"enable_nestloop": "off", "enable_mergejoin": "off", "work_mem": "256MB"}


Made = TypeVar("Made")


class Snapshot:
    """An open connection in one ``REPEATABLE READ READ ONLY`` transaction, and the schema it reads.

    ``exported``: tables whose rows for everybody have been read under this very snapshot before. ``tables``: config's, for
    the keys that they declare.
    """

    def __init__(
        self,
        connection: Any,
        guard: Guard,
        schema: str,
        exported: Optional[Mapping[str, SharedRows]] = None,
        tables: Sequence[Table] = (),
    ) -> None:
        self.connection = connection
        self.guard = guard
        self.schema = schema
        self.tables = tables
        self.exported: Mapping[str, SharedRows] = exported or {}
        # what is explained where it fails: the last SQL, and the query of records in it
        self.asked = ""
        self.reading: Optional[str] = None
        self._streamed: Optional[BinaryIO] = None  # the newest stream's
        self._made: Dict[str, Tuple[object, Any]] = {}
        self._other_uuids: Dict[Tuple[str, str], bool] = {}
        self._unchanged: Optional[str] = (
            None  # the locked tables when they were last compared with the catalog
        )
        self._courtesy = table_locks.Courtesy()
        self._lock = threading.Lock()  # psycopg2 lets other threads in while a COPY runs, libpq does not

    @functools.cached_property
    def catalog(self) -> Catalog:
        """What the server says of its tables: the same as long as the snapshot lasts. Config's keys are part of it."""
        return with_declared_keys(read_catalog(self.rows, self.schema), self.tables, self.rows)

    def once(self, what: str, made_of: object, make: Callable[[], Made]) -> Made:
        """What is the same for all users of a snapshot: made anew only where it would be made of something else."""
        known = self._made.get(what)
        if known is None or known[0] != made_of:
            known = self._made[what] = made_of, make()
        made: Made = known[1]
        return made

    def rows(self, sql: str, parameters: Optional[Sequence[object]] = None) -> List[Tuple[Any, ...]]:
        """``parameters``: only for SQL without names, as a name may hold the % of a placeholder."""
        with self._lock, self.guard.waiting(), self.connection.cursor() as cursor:
            self.asked = sql
            cursor.execute(sql, parameters)
            return list(cursor.fetchall())

    def can_be_told(self, text: str) -> bool:
        """Whether the database's encoding has these characters; where not, it has no such text either."""
        encoding = str(self.connection.get_parameter_status("server_encoding"))
        try:
            text.encode(codec(encoding))
        except UnicodeEncodeError:
            return False
        return True

    def value(self, sql: str, parameters: Optional[Sequence[object]] = None) -> Any:
        return self.rows(sql, parameters)[0][0]

    def copy(self, query: str, sink: Any) -> int:
        """Write each row of a one-column JSON query to ``sink.write`` as bytes that end in a newline.

        Returns how many rows PostgreSQL says it sent. ``sink.taken`` changes with each row, if the sink has that: a sign of life.

        JSON text holds no control character, so with these two as quote and delimiter nothing in it
        is ever quoted or escaped. The server sends one message a row.
        Source: https://www.postgresql.org/docs/current/sql-copy.html (CSV format)
        """
        taken = functools.partial(getattr, sink, "taken", None)
        with self._lock, self.guard.waiting(taken), self.connection.cursor() as cursor:
            self.asked = self.reading = query
            cursor.copy_expert(
                "COPY (" + query + r") TO STDOUT (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')", sink
            )
            self.reading = None
            return int(cursor.rowcount)

    def stream(self, query: str) -> Generator[bytes, None, None]:
        """Each record of a one-column JSON query, at flat memory: a thread reads it into a pipe meanwhile.

        The connection is free for other queries when the generator has ended or is closed.
        """
        read, write = os.pipe()

        def copy() -> None:
            with contextlib.suppress(BrokenPipeError), open(write, "wb") as sink:
                self.copy(query, _Unread(sink))

        # The reader's end is closed first, which lets the copy know that nobody reads on.
        with ThreadPoolExecutor(1) as pool, open(read, "rb", buffering=PIPE) as lines:
            self._streamed = lines
            copied = pool.submit(copy)
            for line in lines:
                text, line = line[:-1], b""  # a record may be large: one copy is enough
                yield text
            copied.result()

    def digest(self, query: str) -> Digest:
        """Count and digest of a one-column JSON query's records; nothing but these comes over."""
        first = (
            "('x' || encode(substr(sha256(convert_to(j.line::text, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint"
        )
        self.reading = query
        rows, total = self.rows("SELECT count(*), sum(%s) FROM (%s) j (line)" % (first, query))[0]
        self.reading = None
        return Digest(rows, int(total or 0))

    @property
    def server_version(self) -> str:
        """As PostgreSQL says it when one connects."""
        return str(self.connection.get_parameter_status("server_version"))

    def share(self) -> str:
        """An id by which ``snapshot(settings, shared=…)`` sees this very moment, as long as this transaction lasts.

        Source: https://www.postgresql.org/docs/current/functions-admin.html#FUNCTIONS-SNAPSHOT-SYNCHRONIZATION
        """
        return str(self.value("SELECT pg_catalog.pg_export_snapshot()"))

    def adopt(self, shared: str) -> None:
        """See what the transaction sees that shared its snapshot by this id. The transaction's first statement."""
        try:
            with self._lock, self.guard.waiting(), self.connection.cursor() as cursor:
                cursor.execute("SET TRANSACTION SNAPSHOT %s", (shared,))
        except (pg.InvalidParameterValue, pg.UndefinedObject) as error:
            raise snapshot_gone() from error

    @functools.cached_property
    def visible(self) -> str:
        """Which transactions the snapshot sees: xmin, xmax and those in progress between them."""
        return str(self.value("SELECT pg_catalog.txid_current_snapshot()::text"))

    @functools.cached_property
    def has_large_objects(self) -> bool:
        return bool(self.value("SELECT EXISTS (SELECT FROM pg_catalog.pg_largeobject_metadata)"))

    def require_unchanged(self) -> None:
        """Raises MigrationError (exit 3) where a table that was read is not the one that the snapshot knows."""
        if self.asked in (table_locks.LOCKED, table_locks.CHANGED):  # nothing has been read since
            return
        locked = self.value(table_locks.LOCKED)
        if locked == self._unchanged:
            return
        changed = [name for (name,) in self.rows(table_locks.CHANGED)]
        if changed:
            raise SourceError(
                "changed in PostgreSQL while it was read: table %s" % ", ".join(changed),
                "run again when nobody changes tables there; nothing was changed",
            )
        self._unchanged = locked

    def require_nobody_waits(self) -> None:
        """Raises MigrationError (exit 3) where somebody has waited too long for a lock that this transaction holds."""
        waiting = self.rows(table_locks.WAITING, (self.process,))
        if waiting:  # what PostgreSQL says of sessions is otherwise of the transaction's first look at them
            self.rows("SELECT pg_catalog.pg_stat_clear_snapshot()")
            waiting = self.rows(table_locks.WAITING, (self.process,))
        overdue = self._courtesy.overdue([table_locks.Holder(*row) for row in waiting])
        if overdue is not None:
            raise waited_for(overdue)

    @functools.cached_property
    def process(self) -> int:
        """The server's process that holds the locks; behind a connection pool, libpq knows another one."""
        return int(self.value("SELECT pg_catalog.pg_backend_pid()"))

    def cancel(self) -> None:
        """Have what another thread is waiting for end, by the server or without it. Does not wait for that."""
        self.guard.interrupt()

    def close(self) -> None:
        if self._streamed is not None:  # whoever reads may have met an error or an interrupt, and not read on
            self._streamed.close()
        with self._lock:  # never under the hands of a thread that an interrupt left behind
            self.connection.close()
        self.guard.close()

    @contextlib.contextmanager
    def hashing(self) -> Iterator[None]:
        """Allow only hash joins in this block: linear time even if the planner's estimates are wrong."""
        set_ = "SELECT %s" % ", ".join("set_config('%s', %%s, true)" % name for name in _HASHING)
        before = self.rows("SELECT %s" % ", ".join("current_setting('%s')" % name for name in _HASHING))[0]
        self.rows(set_, list(_HASHING.values()))
        yield
        self.rows(set_, before)

    def quoted(self, table: str) -> str:
        """The SQL name of a table that the catalog lists."""
        relation = self.catalog.relations[table]
        return quote(relation.schema) + "." + quote(relation.name)

    def equality(self, key: Column, reference: Column) -> Equality:
        """How to compare columns that no foreign key connects: by the equality of their types' own operator class.

        Types of different families are compared as numbers, else as text.
        """
        if are_written_alike(key, reference):
            return Equality("pg_catalog.=")
        sql = EQUALITY.format(key=literal(key.type), reference=literal(reference.type))
        ((operator, cast),) = self.rows(sql)
        return Equality(operator, cast)

    def equality_with(self, key: Column, table: str, reference: Column) -> Equality:
        """The same for a column of this table: text in which a uuid is written in another form than PostgreSQL's is read as a uuid."""
        found = self.equality(key, reference)
        is_text = key.kind is Kind.UUID and found.cast
        return UUID_OF_TEXT if is_text and self.holds_other_uuids(table, reference.name) else found

    def holds_other_uuids(self, table: str, column: str) -> bool:
        """Whether a text column holds uuids that are not written as PostgreSQL writes them. Reads the table, once a connection."""
        if (table, column) not in self._other_uuids:
            sql = holds_other_uuids(self.quoted(table), qualified("t", column))
            self._other_uuids[table, column] = bool(self.value(sql))
        return self._other_uuids[table, column]


class _Unread:
    """Accepts records until the reader stops, then discards the rest: a COPY must be read to its end."""

    def __init__(self, sink: BinaryIO) -> None:
        self.taken = 0
        self._sink = sink
        self._read = True

    def write(self, line: bytes) -> None:
        self.taken += 1
        if self._read:
            try:
                self._sink.write(line)
            except BrokenPipeError:
                self._read = False


def snapshot_gone() -> MigrationError:
    return SourceError(
        "the shared snapshot is gone: the connection that held it has ended",
        "check the server and run again; nothing was changed",
    )


def codec(encoding: str) -> str:
    """Python's name of PostgreSQL's encoding; bytes without one have to be UTF-8."""
    return "utf-8" if encoding == "SQL_ASCII" else psycopg2.extensions.encodings.get(encoding, "utf-8")


def waited_for(one: table_locks.Holder) -> MigrationError:
    return SourceError(
        "stopped, as %s waits to change table %s, which this run reads, and whoever uses it next waits behind that"
        % (one.who, one.table),
        "run again when that is done; nothing was changed",
    )


# Whatever the server, database, role or environment sets, the bytes of the bundle stay the same.
# row_security off turns rows that a policy would hide silently into an error.
PINNED = {
    "search_path": "pg_catalog",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "iso_8601",
    "TimeZone": "UTC",
    "bytea_output": "hex",
    "extra_float_digits": "3",
    "quote_all_identifiers": "off",
    "xmlbinary": "base64",
    "transform_null_equals": "off",
    "row_security": "off",
    "jit": "off",
    "work_mem": "64MB",  # sorts and look-ups of a heavy user stay in memory, whatever the server gives
    "statement_timeout": "0",
    "lock_timeout": "%ds" % table_locks.SECONDS,  # of an index, say, that is being made anew
    "idle_in_transaction_session_timeout": "0",
    "transaction_timeout": "0",
}
_SINCE = {"transaction_timeout": 170000}  # the first server version that has a setting


def pinned_settings(db: Snapshot) -> str:
    """SET LOCAL for each of PINNED that the server knows."""
    server = db.connection.server_version
    return "".join(
        "SET LOCAL {} = {};".format(name, literal(value))
        for name, value in PINNED.items()
        if server >= _SINCE.get(name, 0)
    )
