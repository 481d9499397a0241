"""Connecting to PostgreSQL: pinned session settings, locks on what is read, the snapshot, giving way to others."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import time
from typing import Any, Dict, Iterator, Mapping, Optional

import psycopg2
import psycopg2.extensions
from psycopg2 import errors as pg

from migration.errors import MigrationError, SourceError
from migration.postgres import table_locks, waits
from migration.postgres.digests import SharedRows
from migration.postgres.explanations import declared, explained, in_the_way, locked
from migration.postgres.parameters import masked
from migration.postgres.snapshot import Snapshot, pinned_settings, waited_for
from migration.postgres.waits import Guard
from migration.settings import Settings

log = logging.getLogger(__name__)

CONNECT_SECONDS = "10"
GIVING_WAY_AFTER = 5.0  # seconds that nobody minds
# One user after another reads a few rows of the same tables, which are soon in memory. At PostgreSQL's default, 4, it would
# rather read a table of 20,000 rows whole for each of them than look up a hundred by an index.
_MANY_READ = (
    "SELECT set_config('random_page_cost', least(current_setting('random_page_cost')::float8, 2)::text, true)"
)


@contextlib.contextmanager
def snapshot(
    settings: Settings,
    shared: Optional[str] = None,
    exported: Optional[Mapping[str, SharedRows]] = None,
) -> Iterator[Snapshot]:
    """Connect, lock the tables, pin the session, and hold one read-only snapshot until the block ends.

    ``shared``: the id of another transaction's snapshot (``Snapshot.share``), to see what that one sees;
    ``exported``: what has been read under it already.

    Raises MigrationError (exit 3) for everything that PostgreSQL refuses inside the block, too, and where a table
    is locked by somebody else for longer than ``table_locks.SECONDS``.
    """
    db = None
    try:
        with waits.listening():
            connection = _connect(settings, waits.CONNECTING)
            watched = Guard(connection, masked(settings.postgres), waits.OPENING)
            db = Snapshot(connection, watched, settings.postgres_schema, exported, settings.tables)
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            _begin(db, settings, shared)
            if shared is not None:
                db.rows(_MANY_READ)
            watched.opened()
            yield db
    except psycopg2.Error as error:
        raise explained(error, settings, db) from error
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
        raise explained(error, settings, db) from error


@contextlib.contextmanager
def _giving_way(db: Snapshot, settings: Settings) -> Iterator[None]:
    """Abort a long read if another session waits for our lock, such as an ALTER TABLE and the queries behind it.

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
                    db.guard.fail(waited_for(overdue))
                    return
                if connection.closed:
                    return

    threading.Thread(target=look, daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _connect(settings: Settings, limit: float) -> Any:
    """Connect. What is set here gives way to URL, service file and environment, in libpq's own order.

    ``limit``: seconds, where libpq does not give up before.
    """
    given: Dict[str, Any] = dict(settings.postgres)
    given["client_encoding"] = "UTF8"
    given["fallback_application_name"] = settings.application + "_migration"
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


def _begin(db: Snapshot, settings: Settings, shared: Optional[str]) -> None:
    """Begin the transaction: the locks, and PINNED for it alone, so that a pooler hands nothing on.

    Raises MigrationError (exit 3) where a lock is not to be had.
    """
    settings_of_session = pinned_settings(db)
    tables = declared(db, settings)
    given_up = time.monotonic() + table_locks.SECONDS
    said = False
    while True:
        if shared is not None:  # before any other statement
            db.adopt(shared)
        try:
            with db.guard.waiting(), db.connection.cursor() as cursor:
                table_locks.lock(cursor, list(tables), settings_of_session)
            return
        except pg.LockNotAvailable as error:
            if time.monotonic() >= given_up:
                raise locked(in_the_way(db, tables)) from error
            if not said:
                for holder in in_the_way(db, tables):
                    log.info("waiting for a lock on table %s: %s", holder.table, holder)
                said = True
            db.connection.rollback()
            time.sleep(table_locks.PAUSE)
