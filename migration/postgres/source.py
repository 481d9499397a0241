"""PostgreSQL: a read-only snapshot, its catalog, and one user's rows as JSON text.

Nothing here ever writes, and rows are never turned into Python objects: the server renders them
with ``row_to_json`` and they are copied out as they are.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
import queue
import re
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
    Callable,
    Dict,
    Generator,
    Iterable,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Set,
    Tuple,
)

import psycopg2
import psycopg2.extensions
from psycopg2 import errors as pg

from migration.bundle import undecodable
from migration.errors import MigrationError, SourceError, UsageError
from migration.model import Column, Equality, ForeignKey
from migration.postgres import kinds, table_locks, waits
from migration.postgres.catalog import Catalog, Collation, Relation, apart_from, declared_tables, within
from migration.postgres.kinds import Type, read_types
from migration.postgres.waits import Guard
from migration.settings import Settings
from migration.sql import literal, quote

log = logging.getLogger("migration.source")

APPLICATION = "theprogram_migration"
CONNECT_SECONDS = "10"
GIVING_WAY_AFTER = 5.0  # seconds that nobody minds
PIPE = 1 << 18  # bytes read from a stream at a time

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


_HASHING = {"enable_nestloop": "off", "enable_mergejoin": "off", "work_mem": "256MB"}


class Digest(NamedTuple):
    """Of a set of records, in whatever order: how many, and the sum of the first 64 bits of each one's SHA256.

    Tells sets apart that differ by accident; it is no protection against somebody who forges records.
    """

    rows: int
    sum: int


class SharedRows(NamedTuple):
    """The rows of one table that are everybody's, in a file that is laid out as a bundle's."""

    path: Path
    rows: int
    size: int
    checksum: str
    digest: Digest


class Digester:
    """Makes the Digest of records here that ``Snapshot.digest`` makes in PostgreSQL."""

    def __init__(self) -> None:
        self.rows = 0
        self._sum = 0

    def add(self, records: Sequence[bytes]) -> None:
        self.rows += len(records)
        hashes = b"".join([hashlib.sha256(record).digest() for record in records])
        self._sum += sum(first for (first,) in _FIRST(hashes))

    @property
    def digest(self) -> Digest:
        return Digest(self.rows, self._sum)


_FIRST = struct.Struct(">q24x").iter_unpack


class Snapshot:
    """An open connection in one ``REPEATABLE READ READ ONLY`` transaction, and the schema it reads.

    ``exported``: tables whose rows for everybody have been read under this very snapshot before.
    """

    def __init__(
        self,
        connection: Any,
        guard: Guard,
        schema: str,
        exported: Optional[Mapping[str, SharedRows]] = None,
    ) -> None:
        self.connection = connection
        self.guard = guard
        self.schema = schema
        self.exported: Mapping[str, SharedRows] = exported or {}
        # what is explained where it fails: the last SQL, and the query of records in it
        self.asked = ""
        self.reading: Optional[str] = None
        self._courtesy = table_locks.Courtesy()
        self._lock = threading.Lock()  # psycopg2 lets other threads in while a COPY runs, libpq does not

    @functools.cached_property
    def catalog(self) -> Catalog:
        """What the server says of its tables: the same as long as the snapshot lasts."""
        return read_catalog(self)

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
            text.encode(_codec(encoding))
        except UnicodeEncodeError:
            return False
        return True

    def value(self, sql: str, parameters: Optional[Sequence[object]] = None) -> Any:
        return self.rows(sql, parameters)[0][0]

    def copy(self, query: str, sink: Any, taken: Optional[Callable[[], object]] = None) -> None:
        """Write each row of a one-column JSON query to ``sink.write`` as bytes that end in a newline.

        ``taken``: something that changes with each row, where the sink has it for nothing.

        JSON text holds no control character, so with these two as quote and delimiter nothing in it
        is ever quoted or escaped. The server sends one message a row.
        Source: https://www.postgresql.org/docs/current/sql-copy.html (CSV format)
        """
        if taken is None:
            sink = _Counted(sink)
            taken = sink.taken
        with self._lock, self.guard.waiting(taken), self.connection.cursor() as cursor:
            self.asked = self.reading = query
            cursor.copy_expert(
                "COPY (" + query + r") TO STDOUT (FORMAT csv, QUOTE E'\x01', DELIMITER E'\x02')", sink
            )
            self.reading = None

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

    def size(self, tables: Iterable[str]) -> int:
        """Bytes of tables on the server's disk, those of all users; without the partitions of one."""
        names = [self.quoted(table) for table in tables]
        sql = "SELECT sum(pg_total_relation_size(name::regclass)) FROM unnest(%s::text[]) name"
        return int(self.value(sql, (names,)) or 0)

    @property
    def server_version(self) -> str:
        """As PostgreSQL says it when one connects."""
        return str(self.connection.get_parameter_status("server_version"))

    def can_share(self) -> bool:
        """Whether the server lets this transaction share its snapshot."""
        sql = "SELECT has_function_privilege('pg_catalog.pg_export_snapshot()', 'EXECUTE') AND NOT pg_is_in_recovery()"
        return bool(self.value(sql))

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

    def visible(self) -> str:
        """Which transactions the snapshot sees: xmin, xmax and those in progress between them."""
        return str(self.value("SELECT pg_catalog.txid_current_snapshot()::text"))

    def require_unchanged(self) -> None:
        """Raises MigrationError (exit 3) where a table that was read is not the one that the snapshot knows."""
        changed = [name for (name,) in self.rows(table_locks.CHANGED)]
        if changed:
            raise SourceError(
                "changed in PostgreSQL while it was read: table %s" % ", ".join(changed),
                "run again when nobody changes tables there; nothing was changed",
            )

    def require_nobody_waits(self) -> None:
        """Raises MigrationError (exit 3) where somebody has waited too long for a lock that this transaction holds."""
        waiting = self.rows(table_locks.WAITING, (self.process,))
        if waiting:  # what PostgreSQL says of sessions is otherwise of the transaction's first look at them
            self.rows("SELECT pg_catalog.pg_stat_clear_snapshot()")
            waiting = self.rows(table_locks.WAITING, (self.process,))
        overdue = self._courtesy.overdue([table_locks.Holder(*row) for row in waiting])
        if overdue is not None:
            raise _waited_for(overdue)

    @functools.cached_property
    def process(self) -> int:
        """The server's process that holds the locks; behind a connection pool, libpq knows another one."""
        return int(self.value("SELECT pg_catalog.pg_backend_pid()"))

    def cancel(self) -> None:
        """Have what another thread is waiting for end, by the server or without it. Does not wait for that."""
        self.guard.interrupt()

    def close(self) -> None:
        with self._lock:  # never under the hands of a thread that an interrupt left behind
            self.connection.close()
        self.guard.close()

    @contextlib.contextmanager
    def hashing(self) -> Iterator[None]:
        """Join by hash tables alone meanwhile: linear, whatever the planner expects of what it cannot know."""
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
        sql = _EQUALITY.format(key=literal(key.type), reference=literal(reference.type))
        ((operator, cast),) = self.rows(sql)
        return Equality(operator, cast)


class _Counted:
    """Hands records on, and tells how many."""

    def __init__(self, sink: Any) -> None:
        self._write = sink.write
        self._records = 0

    def write(self, line: bytes) -> None:
        self._records += 1
        self._write(line)

    def taken(self) -> int:
        return self._records


class _Unread:
    """Takes records until nobody reads them any more, and then drops them: a COPY has to be heard out."""

    def __init__(self, sink: BinaryIO) -> None:
        self._sink = sink
        self._read = True

    def write(self, line: bytes) -> None:
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


# Connecting


def parameters(url: str) -> Dict[str, str]:
    """libpq's parameters of a URL or conninfo string. SQLAlchemy's ``postgresql+driver://`` is taken too."""
    plain = re.sub(r"\A(postgres(?:ql)?)\+\w+://", r"\1://", url.strip())
    unreadable = UsageError(
        "the PostgreSQL URL cannot be read",
        "postgresql://user:password@host:5432/database (percent-encode special characters), or a conninfo string",
    )
    try:
        parsed = psycopg2.extensions.parse_dsn(plain)
    except psycopg2.ProgrammingError:  # its text quotes the URL, and so the password
        unknown = _unknown_parameter(plain)
        if unknown is None:
            raise unreadable from None
        raise UsageError(
            "the PostgreSQL URL has a parameter that PostgreSQL's library does not know: " + unknown,
            _OTHERS_PARAMETERS.get(unknown, _ELSEWHERE),
        ) from None
    # libpq takes what follows a bare @ or / in a password for the host, the port or the database, which are shown
    url_part = re.match(r"postgres(?:ql)?://([^/?]*)([^?]*)", plain)
    if url_part and (url_part[1].count("@") > 1 or "@" in url_part[2]):
        raise unreadable
    if not re.fullmatch(r"[\d,]*", parsed.get("port", "")):
        raise unreadable
    return {name: str(value) for name, value in parsed.items()}


_ELSEWHERE = "leave it out; what there is: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS"

# What other clients' URLs hold, and what to write instead.
_OTHERS_PARAMETERS = {
    **dict.fromkeys(
        ("schema", "currentSchema", "search_path"),
        "leave it out: config.POSTGRES_SCHEMA names the schema",
    ),
    **dict.fromkeys(
        ("ssl", "tls", "sslaccept", "sslidentity", "ssl_mode", "use_ssl"), "write sslmode=require instead"
    ),
    **dict.fromkeys(
        ("timeout", "connectTimeout", "connection_timeout", "pool_timeout", "socket_timeout"),
        "leave it out, or write connect_timeout with seconds instead",
    ),
    **dict.fromkeys(("charset", "encoding", "client_charset"), "leave it out: text is always read as UTF-8"),
    **dict.fromkeys(("username",), "write user instead"),
    **dict.fromkeys(("database", "db", "name"), "write dbname instead"),
    **dict.fromkeys(
        (
            "pgbouncer",
            "connection_limit",
            "pool",
            "pool_size",
            "pool_max_conns",
            "max_overflow",
            "prepareThreshold",
            "prepared_statements",
            "prepared_statement_cache_size",
            "statement_cache_size",
            "sslcompression_level",
            "uselibpqcompat",
            "ApplicationName",
        ),
        "leave it out: it is for another client",
    ),
}


def _unknown_parameter(plain: str) -> Optional[str]:
    """The first parameter that libpq does not know, where that is what is wrong and no part of a password can be shown."""
    if re.match(r"postgres(?:ql)?://", plain):
        url, _, query = plain.rpartition("?")
        if "@" in query or not _is_readable(url):
            return None
        pairs = [part.partition("=") for part in query.split("&")]
        names = [name for name, sign, _ in pairs if sign]
        shown = re.compile(r"[A-Za-z_.]+")
    else:
        names = re.findall(r"([A-Za-z_]+)\s*=", plain)
        shown = re.compile("|".join(_OTHERS_PARAMETERS))
    unknown = [name for name in names if not _is_readable("postgresql://?%s=x" % name)]
    return next((name for name in unknown if shown.fullmatch(name)), None)


def _is_readable(url: str) -> bool:
    try:
        psycopg2.extensions.parse_dsn(url)
    except psycopg2.ProgrammingError:
        return False
    return True


def masked(postgres: Mapping[str, str]) -> str:
    """Where the connection leads, without the password: ``user@host:port/database``."""
    if "service" in postgres:
        return "service " + postgres["service"]
    shown = postgres["user"] + "@" if postgres.get("user") else ""
    shown += postgres.get("host") or postgres.get("hostaddr") or "the default host"
    shown += ":" + postgres["port"] if postgres.get("port") else ""
    return shown + ("/" + postgres["dbname"] if postgres.get("dbname") else "")


@contextlib.contextmanager
def snapshot(
    settings: Settings,
    shared: Optional[str] = None,
    exported: Optional[Mapping[str, SharedRows]] = None,
    optional: bool = False,
) -> Iterator[Snapshot]:
    """Connect, lock the tables, pin the session, and hold one read-only snapshot until the block ends.

    ``shared``: the id of another transaction's snapshot (``Snapshot.share``), to see what that one sees;
    ``exported``: what has been read under it already; ``optional``: the caller can do without, and does not wait long.

    Raises MigrationError (exit 3) for everything that PostgreSQL refuses inside the block, too, and where a table
    is locked by somebody else for longer than ``table_locks.SECONDS``.
    """
    db = None
    try:
        with waits.listening():
            connection = _connect(settings, waits.SECOND if optional else waits.CONNECTING)
            watched = Guard(
                connection, masked(settings.postgres), waits.SECOND if optional else waits.OPENING
            )
            db = Snapshot(connection, watched, settings.postgres_schema, exported)
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            _begin(db, settings, shared, 0 if optional else table_locks.SECONDS)
            watched.opened()
            yield db
    except psycopg2.Error as error:
        raise _explained(error, settings, db) from error
    finally:
        if db is not None:
            db.close()


@contextlib.contextmanager
def opened(settings: Settings, db: Optional[Snapshot] = None) -> Iterator[Snapshot]:
    """The snapshot that is given, left open, or one of the block's own. Raises as ``snapshot`` does."""
    if db is None:
        with snapshot(settings) as own, _giving_way(own, settings):
            yield own
            own.require_unchanged()
        return
    try:
        yield db
        db.require_unchanged()
    except psycopg2.Error as error:
        raise _explained(error, settings, db) from error


@contextlib.contextmanager
def _giving_way(db: Snapshot, settings: Settings) -> Iterator[None]:
    """End a long read for which somebody waits: an ALTER TABLE, and behind it whoever uses the table.

    A thread looks by a connection of its own, which only a run of some seconds makes, and can do without.
    """
    process = db.process
    ended = threading.Event()

    def look() -> None:
        if ended.wait(GIVING_WAY_AFTER):
            return
        courtesy = table_locks.Courtesy()
        with contextlib.suppress(psycopg2.Error, MigrationError, OSError), contextlib.ExitStack() as stack:
            connection = _connect(settings, waits.SECOND)
            stack.callback(connection.close)
            watched = Guard(connection, masked(settings.postgres), waits.SECOND)
            stack.callback(watched.close)
            while not ended.wait(waits.TICK):
                with watched.waiting():
                    waiting = table_locks.waiting_for(connection, process)
                overdue = courtesy.overdue(waiting)
                if overdue is not None:
                    db.guard.fail(_waited_for(overdue))
                    return
                if connection.closed:
                    return

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _waited_for(one: table_locks.Holder) -> MigrationError:
    return SourceError(
        "stopped, as %s waits to change table %s, which this run reads, and whoever uses it next waits behind that"
        % (one.who, one.table),
        "run again when that is done; nothing was changed",
    )


def _connect(settings: Settings, limit: float) -> Any:
    """Connect. What is set here gives way to URL, service file and environment, in libpq's own order.

    ``limit``: seconds, where libpq does not give up before.
    """
    given: Dict[str, Any] = dict(settings.postgres)
    given["client_encoding"] = "UTF8"
    given["fallback_application_name"] = APPLICATION
    os.environ.setdefault("PGCONNECT_TIMEOUT", CONNECT_SECONDS)  # a parameter would win over a service file

    def connect() -> Any:
        try:
            return waits.in_a_thread(lambda: psycopg2.connect(**given), _close, limit)
        except queue.Empty:
            raise SourceError(
                "no connection to PostgreSQL at %s within %d s" % (masked(settings.postgres), limit)
            ) from None

    try:
        return connect()
    except psycopg2.OperationalError as error:
        # ~/.pgpass comes first; only where it has nothing is config.py's password used
        if settings.fallback_password and "no password supplied" in str(error):
            given["password"] = settings.fallback_password
            return connect()
        raise


def _close(connection: Any) -> None:
    connection.close()


def _begin(db: Snapshot, settings: Settings, shared: Optional[str], seconds: float) -> None:
    """Begin the transaction: the locks, and PINNED for it alone, so that a pooler hands nothing on.

    Raises MigrationError (exit 3) where a lock is not to be had.
    """
    pinned = _pinned(db)
    tables = _declared(db, settings)
    given_up = time.monotonic() + seconds
    said = False
    while True:
        if shared is not None:  # before any other statement
            db.adopt(shared)
        try:
            with db.guard.waiting(), db.connection.cursor() as cursor:
                table_locks.lock(cursor, list(tables), pinned)
            return
        except pg.LockNotAvailable as error:
            if time.monotonic() >= given_up:
                raise _locked(_in_the_way(db, tables)) from error
            if not said:
                for holder in _in_the_way(db, tables):
                    log.info("waiting for a lock on table %s: %s", holder.table, holder)
                said = True
            db.connection.rollback()
            time.sleep(table_locks.PAUSE)


def _pinned(db: Snapshot) -> str:
    server = db.connection.server_version
    return "".join(
        "SET LOCAL {} = {};".format(name, literal(value))
        for name, value in PINNED.items()
        if server >= _SINCE.get(name, 0)
    )


_SINCE = {"transaction_timeout": 170000}


def _declared(db: Snapshot, settings: Settings) -> Dict[str, str]:
    """What config.py's tables can be called in SQL, known without the catalog: SQL name → config's name.

    A name with a dot is that of another schema's table, or just such a name.
    """
    found = {}
    for name in declared_tables(settings):
        found[quote(db.schema) + "." + quote(name)] = name
        schema, _, table = name.partition(".")
        if schema and table:
            found[quote(schema) + "." + quote(table)] = name
    return found


def _in_the_way(db: Snapshot, tables: Mapping[str, str]) -> List[table_locks.Holder]:
    with db.guard.waiting():
        return table_locks.in_the_way(db.connection, tables)


def _locked(holders: Sequence[table_locks.Holder]) -> MigrationError:
    hint = "wait until that has ended, then run again; nothing was changed"
    limit = "%d s" % table_locks.SECONDS
    if not holders:
        return SourceError("a table is locked by another session, and was not free within %s" % limit, hint)
    first = holders[0]
    if first.process is not None:
        hint += "; or end it: SELECT pg_terminate_backend(%d)" % first.process
    return SourceError(
        "table %s is locked, and was not free within %s: %s" % (first.table, limit, first), hint
    )


# Why there is no connection is only said as text: libpq's own, which is English (Python leaves LC_MESSAGES alone), or a
# server's, in its language: what is not known here is shown as it stands. First match counts.
_REASONS = (
    ("password authentication failed", "wrong user or password", "POSTGRES_USER and POSTGRES_PASSWORD, or --postgres-url"),
    ("no password supplied", "a password is needed", "set POSTGRES_PASSWORD, or add a line to ~/.pgpass"),
    ("could not translate host name", "unknown host", "check POSTGRES_HOST, or the host in --postgres-url"),
    ("Connection refused", "nothing listens there", "start PostgreSQL, or check POSTGRES_HOST and POSTGRES_PORT"),
    ("No such file or directory", "nothing listens there", "start PostgreSQL, or check the socket folder in POSTGRES_HOST"),
    ("timeout expired", "no answer", "check the address and the firewall between"),
    ("pg_hba.conf", "the server does not let this user in from here", "add a line to the server's pg_hba.conf"),
    ("too many", "too many connections", "wait, or close other clients"),
    ("starting up", "the server is still starting", "wait a moment and run again"),
)  # fmt: skip
_CHECK = "check the server and run again; nothing was changed"
_CHECK_ALL = "check host, port, database, user and password: POSTGRES_HOST and the like, or --postgres-url"

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_CONNECTION_EXCEPTION = "08"  # a class
_ENDED = ("57P01", "57P02", "57P03", "57P05", "25P03", "25P04")  # by an administrator, a crash, a time limit
_CANCELED = "57014"
_NO_MEMORY = "53200"
_CONFLICT = "40001"  # on a standby: with what it has to replay
_NOT_IN_THE_ENCODING = ("22021", "22P05")
_NO_PERMISSION = "42501"
_LIMIT_EXCEEDED = "54000"
_ELOG = "XX000"  # of messages that are never translated
_NO_SUCH_SIZE = "invalid memory alloc request size"


class ConnectionLost(SourceError):
    """An open connection has ended; what it was for can perhaps be done on another one."""


def _explained(error: psycopg2.Error, settings: Settings, db: Optional[Snapshot]) -> MigrationError:
    """The same failure as one that says what to do. Never carries row contents or the password.

    Once there is a connection, errors are told apart by their type and code: their text is in the server's language.
    """
    where = masked(settings.postgres)
    if db is None:
        message, hint = _unconnected(str(error), where)
        return SourceError(message, hint)
    if db.guard.failure is not None:
        return db.guard.failure
    if isinstance(error, pg.LockNotAvailable):
        return _locked(_in_the_way(db, _declared(db, settings)))
    code, text = error.pgcode, str(error).strip().split("\n")[0]
    if code in _ENDED or (code or "").startswith(_CONNECTION_EXCEPTION) or _has_ended(error):
        # within a COPY, libpq says nothing of it, and psycopg2 that
        said = ": " + text if code or isinstance(error, psycopg2.OperationalError) else ""
        return ConnectionLost(
            "lost the connection to PostgreSQL at %s%s" % (where, said),
            _CHECK,
        )
    message, hint_ = "PostgreSQL refuses: %s (SQLSTATE %s)" % (text, code), None
    if code == _NO_PERMISSION:
        message, hint_ = _no_permission(text, settings, db)
    elif code in _NOT_IN_THE_ENCODING:
        message, hint_ = _not_in_the_encoding(text, settings, db)
    elif code == _LIMIT_EXCEEDED or (code == _ELOG and _NO_SUCH_SIZE in text):
        message, hint_ = _too_large(text, settings, db)
    elif code == _CANCELED:
        message, hint_ = "a query was cancelled in PostgreSQL: " + text, "run again; nothing was changed"
    elif code == _NO_MEMORY:
        hint_ = (
            "free memory there; with thousands of partitions, raise the server's max_locks_per_transaction"
        )
    elif code == _CONFLICT:
        hint_ = (
            "on a standby, ask the primary instead, or raise max_standby_streaming_delay; nothing was changed"
        )
    return SourceError(message, hint_)


def _has_ended(error: psycopg2.Error) -> bool:
    """The server said nothing: there is no code. (Errors of other types without one are psycopg2's about its use.)"""
    return error.pgcode is None and (
        isinstance(error, (psycopg2.OperationalError, psycopg2.InterfaceError))
        or type(error) is psycopg2.DatabaseError
    )


def _unconnected(text: str, where: str) -> Tuple[str, str]:
    beginning = "cannot connect to PostgreSQL at %s: " % where
    name = re.search(r'(database|role) "[^"]*" does not exist', text)
    if name:
        return (
            beginning + name.group(),
            "check POSTGRES_DB and POSTGRES_USER, or --postgres-url; psql -l lists the databases",
        )
    for pattern, meaning, advice in _REASONS:
        if pattern in text:
            return beginning + meaning, advice
    first = text.strip().split("\n")[0]
    return beginning + re.sub(r"\Aconnection to server .*? failed: ", "", first), _CHECK_ALL


def _no_permission(text: str, settings: Settings, db: Snapshot) -> Tuple[str, str]:
    asked = _asked(
        db,
        "SELECT n.name FROM unnest(%s::text[], %s::text[]) AS n (sql, name)"
        " WHERE pg_catalog.row_security_active(pg_catalog.to_regclass(n.sql)::oid)",
        *map(list, zip(*_declared(db, settings).items())),
    )
    hidden = list(asked)
    if hidden:
        return (
            "a row-level security policy would hide rows of " + ", ".join(hidden),
            "export as the tables' owner or a role with BYPASSRLS, so that nothing is left out silently",
        )
    return (
        "PostgreSQL refuses: " + text,
        "GRANT USAGE ON SCHEMA {0} TO role; GRANT SELECT ON ALL TABLES IN SCHEMA {0} TO role;".format(
            quote(settings.postgres_schema)
        ),
    )


def _asked(db: Snapshot, sql: str, *parameters: object) -> Iterator[str]:
    """Text that helps to explain a failure, asked in a transaction of its own; nothing where that fails, too."""
    with contextlib.suppress(psycopg2.Error, MigrationError):
        db.connection.rollback()
        with db.guard.waiting(), db.connection.cursor() as cursor:
            cursor.execute(_pinned(db))
        with db.connection.cursor("explaining") as cursor:  # at flat memory
            with db.guard.waiting():
                cursor.execute(sql, parameters or None)
            while True:
                with db.guard.waiting():
                    rows = cursor.fetchmany(100)
                if not rows:
                    break
                for (value,) in rows:
                    yield str(value)


def _not_in_the_encoding(text: str, settings: Settings, db: Snapshot) -> Tuple[str, str]:
    """Name the value that has no form in UTF-8: the server says its bytes, and not where it is."""
    encoding = str(db.connection.get_parameter_status("server_encoding"))
    message = "the database's encoding is %s and this text is not%s: %s" % (
        encoding,
        " UTF-8" if encoding == "SQL_ASCII" else "",
        text,
    )
    advice = "correct the value in PostgreSQL, then run again; nothing was changed"
    table = _table_read(db.asked, settings, db)
    if db.reading is not None:
        records = _asked(
            db,
            "SELECT pg_catalog.encode(pg_catalog.convert_to(j.line::text, pg_catalog.getdatabaseencoding()), 'hex')"
            " FROM (%s) j (line)" % db.reading,
        )
        for record in map(bytes.fromhex, records):
            column = undecodable.column_of(record, _codec(encoding))
            if column is not None:
                return "%s: %s" % (
                    undecodable.place(record, table, column, db.catalog.primary_keys[table]),
                    message,
                ), advice
    if table:
        message = "table %s: %s" % (table, message)
    return message, advice


def _too_large(text: str, settings: Settings, db: Snapshot) -> Tuple[str, str]:
    """Name the largest value of the records that were read: the server says that one is too large, and not which."""
    advice = "make it smaller in PostgreSQL, or leave its table behind; nothing was changed"
    query = db.reading or db.asked
    table = _table_read(query, settings, db)
    for found in _asked(db, _largest(query, table, db.catalog)) if _ROWS in query and table else ():
        *key, column, size = json.loads(found)
        row = "row %s, " % ", ".join(map(str, key)) if key else ""
        return (
            "table %s, %scolumn %s: PostgreSQL cannot write a record as JSON that is larger than a gigabyte; "
            "this value has %d bytes before that: %s" % (table, row, column, size, text)
        ), advice
    return (
        "table %s: " % table if table else ""
    ) + "PostgreSQL cannot handle so large a record: " + text, advice


def _largest(query: str, table: str, catalog: Catalog) -> str:
    """SQL: a JSON array of key, column and size of the largest value in a query of ``select_json``."""
    rows = query[query.index(_ROWS) : query.rindex(") r")]
    sizes = []
    for column in catalog.columns[table]:
        name = "r." + quote(column.name)
        size = {
            "text": "pg_catalog.octet_length(%s::pg_catalog.text)",  # of what it is unpacked
            "bytea": "pg_catalog.octet_length(%s)",
        }.get(column.kind, "pg_catalog.pg_column_size(%s)")
        sizes.append("(%s, (%s)::pg_catalog.int8)" % (literal(column.name), size % name))
    key = "".join("r.%s::pg_catalog.text, " % quote(name) for name in catalog.primary_keys.get(table, ()))
    return (
        "SELECT pg_catalog.json_build_array({}c.name, c.size)::text FROM ({}) r, LATERAL (VALUES {}) c (name, size)"
        " WHERE c.size IS NOT NULL ORDER BY c.size DESC LIMIT 1"
    ).format(key, rows, ", ".join(sizes))


def _table_read(query: str, settings: Settings, db: Snapshot) -> str:
    """The table that a query names first, as config calls it."""
    read = {query.find(sql): name for sql, name in _declared(db, settings).items() if sql in query}
    return read[min(read)] if read else ""


def _codec(encoding: str) -> str:
    """Python's name of PostgreSQL's encoding; bytes without one have to be UTF-8."""
    return "utf-8" if encoding == "SQL_ASCII" else psycopg2.extensions.encodings.get(encoding, "utf-8")


# The catalog

# PostgreSQL 18 has NOT NULL constraints that the rows from before, or those of heirs, need not fulfil.
_COLUMNS = """
SELECT c.oid::bigint, a.attname, format_type(a.atttypid, a.atttypmod), a.atttypid::bigint,
       CASE WHEN t.oid < 16384 THEN t.typname::text ELSE '' END,
       a.attnotnull AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'n'
                                    AND k.conkey = ARRAY[a.attnum] AND NOT (k.convalidated AND NOT k.connoinherit)),
       has_column_privilege(c.oid, a.attnum, 'SELECT'),
       quote_ident(s.nspname) || '.' || quote_ident(l.collname), l.collisdeterministic
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
LEFT JOIN pg_collation l ON l.oid = a.attcollation
LEFT JOIN pg_namespace s ON s.oid = l.collnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition
  AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\\_toast%'
ORDER BY n.nspname, c.relname, a.attnum
"""

# Partitions are one with their table. Tables that an extension keeps for itself are nobody's.
_RELATIONS = """
SELECT c.oid::bigint, n.nspname, c.relname,
       ARRAY(SELECT i.inhparent::bigint FROM pg_inherits i WHERE i.inhrelid = c.oid),
       EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'f') AND NOT c.relispartition AND c.relpersistence <> 't'
  AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast')
ORDER BY n.nspname, c.relname
"""

# A key that only some partitions have is their table's; those that PostgreSQL makes of one for partitions are left out.
# The operators of a foreign key are those that PostgreSQL itself checks it with (left the key, right the reference),
# in the key's collation. The period of a temporal key is left out: there, references are not equal but contained.
_KEYS = """
SELECT k.contype::text, coalesce(pg_partition_root(k.conrelid), k.conrelid)::bigint,
       ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u (num, i)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.i),
       p.oid::bigint,
       ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u (num, i)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.i),
       ARRAY(SELECT format('%I.%s', s.nspname, o.oprname) FROM unnest(k.conpfeqop) WITH ORDINALITY u (op, i)
             JOIN pg_operator o ON o.oid = u.op JOIN pg_namespace s ON s.oid = o.oprnamespace ORDER BY u.i),
       ARRAY(SELECT CASE WHEN a.attcollation <> b.attcollation THEN format('%I.%I', s.nspname, l.collname) ELSE '' END
             FROM unnest(k.confkey, k.conkey) WITH ORDINALITY u (theirs, mine, i)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.theirs
             JOIN pg_attribute b ON b.attrelid = k.conrelid AND b.attnum = u.mine
             LEFT JOIN pg_collation l ON l.oid = a.attcollation
             LEFT JOIN pg_namespace s ON s.oid = l.collnamespace ORDER BY u.i),
       coalesce((to_jsonb(k.*) ->> 'conperiod')::boolean, false)
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
LEFT JOIN pg_class p ON p.oid = coalesce(pg_partition_root(k.confrelid), k.confrelid)
WHERE k.contype = 'p' AND NOT c.relispartition OR k.contype = 'f' AND k.conparentid = 0
ORDER BY c.relname, k.conrelid, k.conname
"""

_WRITTEN_ALIKE = (
    {"uuid"},
    {"smallint", "integer", "bigint"},
    {"text", "character varying", "character"},
)


def are_written_alike(*columns: Column) -> bool:
    """Whether columns are of types whose equal values are the same text, but for the padding of ``char(n)``."""
    types = {column.type.partition("(")[0] for column in columns}
    return any(types <= alike for alike in _WRITTEN_ALIKE)


# Unique indexes of all rows, by columns alone, the best one of each table first
_UNIQUE_KEYS = """
SELECT i.indrelid::bigint,
       ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY u (num, i)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.num
             WHERE u.i <= i.indnkeyatts ORDER BY u.i)
FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indrelid, i.indisreplident DESC, i.indnkeyatts, c.relname
"""

# The types as their operator classes name them, then the operator; where there is none, numbers or text.
_EQUALITY = """
WITH RECURSIVE given (side, oid) AS (
    VALUES (1, {key}::regtype::oid), (2, {reference}::regtype::oid)
    UNION ALL
    SELECT g.side, t.typbasetype FROM given g JOIN pg_type t ON t.oid = g.oid WHERE t.typtype = 'd'
), named (side, oid, number) AS (
    SELECT g.side,
           CASE WHEN t.typtype = 'e' THEN 'anyenum'::regtype
                WHEN t.typtype = 'r' THEN 'anyrange'::regtype
                WHEN t.typtype = 'm' THEN to_regtype('anymultirange')
                WHEN t.typtype = 'c' THEN 'record'::regtype
                WHEN t.typcategory = 'A' AND t.typlen = -1 THEN 'anyarray'::regtype
                WHEN t.oid = 'varchar'::regtype THEN 'text'::regtype
                ELSE t.oid END::oid,
           t.typcategory = 'N'
    FROM given g JOIN pg_type t ON t.oid = g.oid WHERE t.typtype <> 'd'
), found (operator) AS (
    SELECT format('%I.%s', n.nspname, o.oprname)
    FROM named k, named r, pg_opclass c, pg_am a, pg_amop p, pg_operator o, pg_namespace n
    WHERE k.side = 1 AND r.side = 2 AND c.opcdefault AND c.opcintype = k.oid
      AND a.oid = c.opcmethod AND p.amopfamily = c.opcfamily
      AND (a.amname, p.amopstrategy) IN (('btree', 3), ('hash', 1))
      AND p.amoplefttype = k.oid AND p.amoprighttype = r.oid AND o.oid = p.amopopr AND n.oid = o.oprnamespace
    ORDER BY a.amname LIMIT 1
)
SELECT operator, '' FROM found
UNION ALL
SELECT 'pg_catalog.=', CASE WHEN (SELECT bool_and(number) FROM named) THEN '::pg_catalog.numeric' ELSE '::pg_catalog.text' END
WHERE NOT EXISTS (SELECT FROM found)
"""


def read_catalog(db: Snapshot) -> Catalog:
    """Tables, columns and keys of every schema but the system's. Reading it takes no privilege."""
    relations: Dict[str, Relation] = {}
    names: Dict[int, str] = {}
    listed = [
        (oid, Relation(schema, name, oid, tuple(parents), extension))
        for oid, schema, name, parents, extension in db.rows(_RELATIONS)
    ]
    for oid, relation in sorted(listed, key=lambda pair: pair[1].schema != db.schema):
        name = relation.name if relation.schema == db.schema else relation.schema + "." + relation.name
        if name in relations:  # a dot in a name
            name = quote(relation.schema) + "." + quote(relation.name)
        relations[name], names[oid] = relation, name

    columns: Dict[str, List[Column]] = {}
    values: Dict[str, Dict[str, Type]] = {}
    collations: Dict[str, Dict[str, Collation]] = {}
    unreadable: Set[str] = set()
    found = [row for row in db.rows(_COLUMNS) if row[0] in names]
    types = read_types(db.rows, {row[3] for row in found if row[4] not in kinds.PLAIN})
    for oid, column, shown, type_oid, known, not_null, readable, collation, deterministic in found:
        name, kind = names[oid], kinds.PLAIN.get(known)
        if kind is None:
            kind = kinds.kind(types[type_oid])
            values.setdefault(name, {})[column] = types[type_oid]
        columns.setdefault(name, []).append(Column(column, shown, kind, not_null))
        if not readable:
            unreadable.add(name)
        if deterministic is not None:
            collations.setdefault(name, {})[column] = Collation(collation, deterministic)

    primary_keys: Dict[str, Tuple[str, ...]] = {}
    foreign_keys: List[ForeignKey] = []
    for contype, oid, mine, parent, theirs, operators, collated, temporal in db.rows(_KEYS):
        if oid not in names or (contype == "f" and parent not in names):
            continue
        if contype == "p":
            primary_keys[names[oid]] = tuple(mine)
            continue
        equalities = tuple(Equality(*pair) for pair in zip(operators, [""] * len(mine), collated))
        end = len(mine) - 1 if temporal else len(mine)
        foreign_keys.append(
            ForeignKey(names[oid], tuple(mine[:end]), names[parent], tuple(theirs[:end]), equalities[:end])
        )
    keys = dict(primary_keys)
    for oid, mine in db.rows(_UNIQUE_KEYS):
        never_null = {column.name for column in columns.get(names.get(oid, ""), ()) if column.not_null}
        if set(mine) <= never_null:
            keys.setdefault(names[oid], tuple(mine))
    # No key holds for the rows of the tables that inherit from one.
    parents = {parent for relation in relations.values() for parent in relation.parents}
    return Catalog(
        relations,
        {table: tuple(listed) for table, listed in columns.items()},
        primary_keys,
        {name: () if relation.oid in parents else keys.get(name, ()) for name, relation in relations.items()},
        tuple(dict.fromkeys(foreign_keys)),
        tuple(sorted(unreadable)),
        values,
        collations,
    )


def everybody(db: Snapshot, settings: Settings) -> str:
    """FROM clause: the users, as ``t``, without those of tables that inherit from theirs and are tables of their own."""
    users = settings.root.name
    apart = apart_from(settings, db.catalog, users)
    table = db.quoted(users) + " t"
    return "(SELECT * FROM {} WHERE {}) t".format(table, within("t", apart)) if apart else table


def without_key(settings: Settings) -> MigrationError:
    return SourceError(
        "a user in table %s has no %s" % (settings.root.name, settings.root.key),
        "give that user one in PostgreSQL; without it, nothing there is theirs",
    )


def select_json(db: Snapshot, catalog: Catalog, table: str, condition: str, ordered: bool = True) -> str:
    """Query of one column, the rows of ``table`` as JSON objects, keys = columns.

    If ``ordered``, by the table's key, or by the objects' text where it has none: always the same for the same rows.
    SQL NULL and JSON ``null`` are both ``null`` in JSON. A record with a JSON ``null`` in a column that
    could be NULL carries one more member, ``"$json_null": [columns]``, that tells them apart.
    """
    columns, values = catalog.columns[table], catalog.values.get(table, {})
    chosen, order, nulls = [], [], []
    for column in columns:
        name = "t." + quote(column.name)
        if column.name in values:
            name = "{} AS {}".format(kinds.rendered(values[column.name], name), quote(column.name))
        chosen.append(name)
        if column.kind in ("json", "jsonb") and not column.not_null:
            nulls.append(
                (column, "pg_catalog.{}_typeof(r.{}) = 'null'".format(column.kind, quote(column.name)))
            )
    for key in catalog.keys[table]:
        kind = next(c.kind for c in columns if c.name == key)
        order.append(
            "t." + quote(key) + (' COLLATE "C"' if kind == "text" and _collatable(columns, key) else "")
        )
    inner = _ROWS + "SELECT {} FROM {} t WHERE {}".format(", ".join(chosen), db.quoted(table), condition)
    if ordered and order:
        inner += " ORDER BY " + ", ".join(order)
    line = "pg_catalog.row_to_json(r.*)"  # r alone could be a column
    if any(column.kind in ("json", "structure") for column in columns):
        # a json value keeps its white space; a newline in it would break the record's line
        for sign in ("n", "r"):
            line = "pg_catalog.replace({}::text, E'\\{}', ' ')".format(line, sign)
    query = _marked(line, inner, nulls) if nulls else "SELECT " + line + " FROM (" + inner + ") r"
    if ordered and not order:
        return 'SELECT l.line FROM (%s) l (line) ORDER BY l.line::text COLLATE "C"' % query
    return query


_ROWS = "/* rows */ "  # by which ``_largest`` finds them again


def _marked(line: str, inner: str, nulls: Sequence[Tuple[Column, str]]) -> str:
    """The query with the member ``"$json_null"`` in the records of which a test in ``nulls`` is true."""
    line += "::text"
    marks = ", ".join("CASE WHEN {} THEN {} END".format(test, literal(column.name)) for column, test in nulls)
    return (
        "SELECT CASE WHEN {any} THEN pg_catalog.left({line}, -1) || "
        "',\"$json_null\":' || pg_catalog.array_to_json(pg_catalog.array_remove(ARRAY[{marks}]::text[], NULL))::text || '}}' "
        "ELSE {line} END FROM ({inner}) r"
    ).format(any=" OR ".join(test for _, test in nulls), line=line, marks=marks, inner=inner)


def _collatable(columns: Sequence[Column], name: str) -> bool:
    shown = next(c.type for c in columns if c.name == name)
    return shown.startswith(("text", "character", "citext", "name"))
