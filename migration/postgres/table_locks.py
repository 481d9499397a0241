"""Locks on the tables that are read, and whoever stands in their way.

A snapshot does not hide everything: TRUNCATE, an ALTER TABLE that rewrites, and DROP show an older snapshot an empty
table or another one. Each of them needs ACCESS EXCLUSIVE, which an ACCESS SHARE lock keeps away, and LOCK TABLE takes
no snapshot: as the first statement of a transaction it makes sure that what the snapshot sees stays.
Source: https://www.postgresql.org/docs/current/mvcc-caveats.html
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

import psycopg2
from psycopg2 import errors as pg

SECONDS = 10.0  # to wait for a lock, and to let others wait for ours
PAUSE = 0.1  # between two attempts

# What a single table can be refused for. Reading it says the same in better words, or works all the same: SELECT may be
# granted on columns alone, and foreign tables cannot be locked.
NOT_LOCKABLE = (pg.UndefinedTable, pg.InvalidSchemaName, pg.InsufficientPrivilege, pg.WrongObjectType)


class Holder(NamedTuple):
    """A session with an ACCESS EXCLUSIVE lock on a table (or its index), or one that waits for it.

    ``process``: None for a prepared transaction. ``application`` and ``seconds`` (of its transaction): None where
    PostgreSQL does not tell this role.
    """

    table: str
    granted: bool
    process: Optional[int]
    application: Optional[str]
    seconds: Optional[float]

    @property
    def who(self) -> str:
        if self.process is None:
            return "a prepared transaction (see pg_prepared_xacts)"
        known = [repr(self.application)] if self.application else []
        if self.seconds is not None:
            known.append("for %d s" % self.seconds)
        return "process %d%s" % (self.process, " (%s)" % ", ".join(known) if known else "")

    def __str__(self) -> str:
        return self.who + (" holds it" if self.granted else " waits for it")


def lock(cursor: Any, tables: Sequence[str], settings: str) -> None:
    """Lock quoted names in this transaction, which has done nothing yet but adopt a snapshot.

    ``settings``: SET LOCAL statements to go before. It never stands in a lock's queue: there, with some of the locks
    already, it could be one part of a deadlock, for which PostgreSQL may end the other one.

    Raises psycopg2.errors.LockNotAvailable where another session is in the way.
    """
    if not tables:
        cursor.execute(settings)
        return
    try:
        # A savepoint, as one refusal would end the transaction; released, as a snapshot cannot be shared within one.
        cursor.execute("SAVEPOINT locks;" + settings + _LOCK % ", ".join(tables) + ";RELEASE SAVEPOINT locks")
        return
    except NOT_LOCKABLE:
        cursor.execute("ROLLBACK TO SAVEPOINT locks;RELEASE SAVEPOINT locks;" + settings)
    for table in tables:
        try:
            cursor.execute("SAVEPOINT locks;" + _LOCK % table)
        except NOT_LOCKABLE:
            cursor.execute("ROLLBACK TO SAVEPOINT locks")
        cursor.execute("RELEASE SAVEPOINT locks")


_LOCK = "LOCK TABLE %s IN ACCESS SHARE MODE NOWAIT"

_IN_THE_WAY = """
WITH RECURSIVE family (oid, name) AS (
    SELECT pg_catalog.to_regclass(name)::oid, name FROM pg_catalog.unnest(%s::text[]) name
    UNION
    SELECT i.inhrelid, f.name FROM family f JOIN pg_catalog.pg_inherits i ON i.inhparent = f.oid
), relations (oid, name) AS (
    SELECT oid, name FROM family
    UNION
    SELECT x.indexrelid, f.name FROM family f JOIN pg_catalog.pg_index x ON x.indrelid = f.oid
)
SELECT r.name, l.granted, l.pid, a.application_name, extract(epoch FROM clock_timestamp() - a.xact_start)::float8
FROM pg_catalog.pg_locks l
JOIN relations r ON r.oid = l.relation
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.pid IS DISTINCT FROM pg_catalog.pg_backend_pid()
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
ORDER BY l.granted DESC, a.xact_start, l.pid
"""


def in_the_way(connection: Any, tables: Mapping[str, str]) -> List[Holder]:
    """Who holds or wants the whole of a table, holders first. The connection's transaction is given up before and after.

    ``tables``: quoted name → what it is called in messages.
    """
    with _transaction_between(connection), connection.cursor() as cursor:
        cursor.execute("SET LOCAL search_path = pg_catalog")
        cursor.execute(_IN_THE_WAY, (list(tables),))
        return [Holder(tables[name], *others) for name, *others in cursor.fetchall()]
    return []


@contextlib.contextmanager
def _transaction_between(connection: Any) -> Iterator[None]:
    with contextlib.suppress(psycopg2.Error):  # what is asked here only helps to explain another failure
        connection.rollback()
        yield
    with contextlib.suppress(psycopg2.Error):
        connection.rollback()


# Who waits for a lock that a session has: only ACCESS EXCLUSIVE has to wait for our ACCESS SHARE. How long, PostgreSQL
# tells from version 14 on.
WAITING = """
SELECT coalesce(x.indrelid, w.relation)::regclass::text, false, w.pid, a.application_name,
       extract(epoch FROM clock_timestamp() - (to_jsonb(w) ->> 'waitstart')::timestamptz)::float8
FROM pg_catalog.pg_locks w
JOIN pg_catalog.pg_locks h ON h.pid = %s AND h.locktype = 'relation' AND h.granted
  AND h.database = w.database AND h.relation = w.relation
LEFT JOIN pg_catalog.pg_index x ON x.indexrelid = w.relation
LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = w.pid
WHERE w.locktype = 'relation' AND NOT w.granted AND w.mode = 'AccessExclusiveLock'
ORDER BY 5 DESC NULLS LAST, 3
"""


class Courtesy:
    """Who waits for our locks, look by look, and who has waited too long."""

    def __init__(self) -> None:
        self._since: Dict[Optional[int], float] = {}

    def overdue(self, waiting: Sequence[Holder]) -> Optional[Holder]:
        """The first of those who wait now that has waited for longer than ``SECONDS``."""
        now = time.monotonic()
        self._since = {one.process: self._since.get(one.process, now - (one.seconds or 0)) for one in waiting}
        for one in waiting:
            seconds = now - self._since[one.process]
            if seconds >= SECONDS:
                return one._replace(seconds=seconds)
        return None


def waiting_for(connection: Any, process: int) -> List[Holder]:
    """Who waits for a lock of the session ``process``, by another connection."""
    with _transaction_between(connection), connection.cursor() as cursor:
        cursor.execute("SET LOCAL search_path = pg_catalog")
        cursor.execute(WAITING, (process,))
        return [Holder(*row) for row in cursor.fetchall()]
    return []


# What CHANGED looks at beside the snapshot's own catalog, in a third of its time: where this is as it was, its answer is, too.
LOCKED = """
SELECT string_agg(format('%s %s %s %s', l.relation, l.relation::regclass, pg_relation_filenode(l.relation),
                         pg_partition_root(l.relation)), ',' ORDER BY l.relation)
FROM pg_locks l
WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.relation >= 16384::oid
"""

# A relation that this transaction has locked, by LOCK TABLE or by reading it, cannot be changed any more. So what is not
# now as the snapshot's catalog says was changed between the snapshot and the lock. The functions look at the catalog as
# it is now, the tables as it was: relations that the snapshot does not know, and renamed, moved (ALTER SCHEMA … RENAME
# asks for no lock of a table), rewritten, attached or detached ones. Indexes may be new.
CHANGED = """
SELECT DISTINCT CASE WHEN c.oid IS NULL THEN l.relation::regclass::text ELSE format('%I.%I', n.nspname, c.relname) END
FROM pg_locks l
LEFT JOIN pg_class c ON c.oid = l.relation
LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE l.locktype = 'relation' AND l.pid = pg_backend_pid() AND l.relation >= 16384::oid
  AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
  AND CASE
      WHEN c.oid IS NULL THEN pg_get_indexdef(l.relation) IS NULL
      WHEN c.relkind NOT IN ('r', 'p', 'f') THEN false
      ELSE coalesce(pg_relation_filenode(c.oid), 0::oid) <> c.relfilenode
        OR c.oid::regclass::text NOT IN (format('%I.%I', n.nspname, c.relname), format('%I', c.relname))
        OR coalesce(pg_partition_root(c.oid) <> c.oid, false) <> c.relispartition
      END
ORDER BY 1
"""
