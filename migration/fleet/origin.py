"""What results are the results of: one database of one server, one SQLite schema, one configuration.

The ledger keeps it for each run, so that ``--resume`` never takes another database's users for this one's.
"""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple, Optional

from migration.postgres.snapshot import Snapshot
from migration.settings import Settings
from migration.sqlite.schema import Schema


class Database(NamedTuple):
    """Which database it is, by whatever address it was reached.

    ``system``: the server's own identifier, made with it and kept by its standbys; None where the role may not ask.
    ``address``: the server's own, None over a socket; it decides only where there is no ``system``.
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
    if db.value(allowed):  # a query of its own: a call that is not reached is refused all the same
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
    """Of all in config.py that decides what a user's files hold. Tables left behind do not."""
    decides = (settings.root, settings.tables, settings.postgres_schema)
    return hashlib.sha256(repr(decides).encode("utf-8")).hexdigest()
