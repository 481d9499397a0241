"""What the results of a run depend on: the database, the SQLite schema and the configuration.

The ledger records it for each run, so that ``--resume`` never mixes the users of two databases.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple, Optional

from migration.postgres.snapshot import Snapshot
from migration.settings import Settings
from migration.sqlite.schema import Schema


class Database(NamedTuple):
    """Identifies a database, whatever address it is reached by.

    ``system``: the server's own identifier, which its standbys share; None if the role may not read it.
    ``address``: the server's own, None over a socket; compared only if ``system`` is unknown.
    """

    system: Optional[str]
    oid: str
    name: str
    address: Optional[str]

    def is_same(self, other: Database) -> bool:
        if self.system is not None and other.system is not None:
            return (self.system, self.oid) == (other.system, other.oid)
        return self[1:] == other[1:]


class Origin(NamedTuple):
    """``schema`` and ``config`` are digests."""

    database: Database
    schema: str
    config: str


def origin_of(db: Snapshot, settings: Settings, schema: Schema) -> Origin:
    return Origin(database_of(db), schema_digest(schema), config_digest(settings))


def database_of(db: Snapshot) -> Database:
    """Source: https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-CONTROLDATA"""
    system = None
    allowed = "SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'EXECUTE')"
    # A separate query, because PostgreSQL checks the privilege even of a call that is not reached.
    if db.value(allowed):
        system = db.value("SELECT system_identifier::text FROM pg_catalog.pg_control_system()")
    found = db.rows(
        "SELECT d.oid::text, d.datname::text,"
        " host(pg_catalog.inet_server_addr()) || ':' || pg_catalog.inet_server_port()::text"
        " FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()"
    )
    return Database(system, *found[0])


def as_text(database: Database) -> str:
    return json.dumps(database)


def from_text(text: str) -> Database:
    return Database(*json.loads(text))


def schema_digest(schema: Schema) -> str:
    return hashlib.sha256(schema.script.encode("utf-8")).hexdigest()


def config_digest(settings: Settings) -> str:
    """A digest of everything in config.py that affects a user's files. Excluded tables do not."""
    decides = (settings.root, settings.tables, settings.postgres_schema)
    return hashlib.sha256(repr(decides).encode("utf-8")).hexdigest()
