"""What an error of PostgreSQL or libpq means, in words: told apart by code, with the place of what was refused."""

from __future__ import annotations

import contextlib
import json
import re
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

import psycopg2
import psycopg2.extensions
from psycopg2 import errors as pg

from migration.bundle import undecodable
from migration.errors import MigrationError, SourceError
from migration.model import Kind
from migration.postgres import table_locks
from migration.postgres.catalog import Catalog, declared_tables
from migration.postgres.parameters import masked
from migration.postgres.records import ROWS
from migration.postgres.snapshot import Snapshot, codec, pinned_settings
from migration.settings import Settings
from migration.sql import literal, quote


def declared(db: Snapshot, settings: Settings) -> Dict[str, str]:
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


def in_the_way(db: Snapshot, tables: Mapping[str, str]) -> List[table_locks.Holder]:
    with db.guard.waiting():
        return table_locks.in_the_way(db.connection, tables)


def locked(holders: Sequence[table_locks.Holder]) -> MigrationError:
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


def explained(error: psycopg2.Error, settings: Settings, db: Optional[Snapshot]) -> MigrationError:
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
        return locked(in_the_way(db, declared(db, settings)))
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
        *map(list, zip(*declared(db, settings).items())),
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
            cursor.execute(pinned_settings(db))
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
    """Find the value that is not valid UTF-8; the server gives only its bytes."""
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
            column = undecodable.column_of(record, codec(encoding))
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
    for found in _asked(db, largest(query, table, db.catalog)) if ROWS in query and table else ():
        *key, column, size = json.loads(found)
        row = "row %s, " % ", ".join(map(str, key)) if key else ""
        return (
            "table %s, %scolumn %s: PostgreSQL cannot write a record as JSON that is larger than a gigabyte; "
            "this value has %d bytes before that: %s" % (table, row, column, size, text)
        ), advice
    return (
        "table %s: " % table if table else ""
    ) + "PostgreSQL cannot handle so large a record: " + text, advice


def largest(query: str, table: str, catalog: Catalog) -> str:
    """SQL: a JSON array of key, column and size of the largest value in a query of ``select_json``."""
    rows = query[query.index(ROWS) : query.rindex(") r")]
    sizes = []
    for column in catalog.columns[table]:
        name = "r." + quote(column.name)
        size = {
            Kind.TEXT: "pg_catalog.octet_length(%s::pg_catalog.text)",  # of what it is unpacked
            Kind.BYTEA: "pg_catalog.octet_length(%s)",
        }.get(column.kind, "pg_catalog.pg_column_size(%s)")
        sizes.append("(%s, (%s)::pg_catalog.int8)" % (literal(column.name), size % name))
    key = "".join("r.%s::pg_catalog.text, " % quote(name) for name in catalog.primary_keys.get(table, ()))
    return (
        "SELECT pg_catalog.json_build_array({}c.name, c.size)::text FROM ({}) r, LATERAL (VALUES {}) c (name, size)"
        " WHERE c.size IS NOT NULL ORDER BY c.size DESC LIMIT 1"
    ).format(key, rows, ", ".join(sizes))


def _table_read(query: str, settings: Settings, db: Snapshot) -> str:
    """The table that a query names first, as config calls it."""
    read = {query.find(sql): name for sql, name in declared(db, settings).items() if sql in query}
    return read[min(read)] if read else ""
