"""Estimate the disk space that the files of many users will take, before anything is written."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Mapping

from migration import disk
from migration.cli.log import log
from migration.errors import TargetError
from migration.model import Way
from migration.postgres.digests import SharedRows
from migration.postgres.records import select_json
from migration.postgres.snapshot import Snapshot
from migration.printing import plural, size
from migration.settings import Settings
from migration.sqlite.schema import Schema

SAMPLE = 1000  # rows of a table that are measured as JSON


def require_space(
    db: Snapshot,
    settings: Settings,
    schema: Schema,
    exported: Mapping[str, SharedRows],
    users: int,
    there: int,
    output: Path,
) -> None:
    """Raises TargetError if ``users`` will not fit. ``there``: bytes of their files that will be replaced."""
    needed = max(0, bytes_needed(db, settings, schema, exported, users) - there)
    free = disk.free(output)
    log.info("%s needed in %s, estimated; %s free", size(needed), output, size(free))
    if needed > free:
        raise TargetError(
            "no space for %d %s in %s: about %s needed, %s free"
            % (users, plural(settings.root.called), output, size(needed), size(free)),
            "free some space, choose another --output-dir, or migrate fewer at a time with --users-from",
        )


def bytes_needed(
    db: Snapshot, settings: Settings, schema: Schema, exported: Mapping[str, SharedRows], users: int
) -> int:
    """Bytes that ``users`` of average size take. ``exported``: the shared rows already exported."""
    total = max(1, int(db.value("SELECT count(*) FROM " + db.quoted(settings.root.name))))
    json = 0
    for table in settings.whole_tables:
        is_shared = table.ownership.way is Way.SHARED
        if table.name in exported:
            json += users * exported[table.name].size
        if not (is_shared and table.name in exported):
            size = _json_bytes(db, table.name)
            json += size * users if is_shared else size * users // total
    return disk.bytes_of_many(json, users, _empty_database(schema))


def _json_bytes(db: Snapshot, table: str) -> int:
    """The server's estimate of a table's rows, times the average size of its first rows as JSON."""
    line = select_json(db, db.catalog, table, "true", ordered=False)
    average = db.value(
        "SELECT avg(octet_length(j.line::text) + 2) FROM (%s LIMIT %d) j (line)" % (line, SAMPLE)
    )
    if average is None:
        return 0
    rows = int(
        db.value("SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", (db.quoted(table),))
    )
    if rows <= 0:  # never analyzed
        rows = int(db.value("SELECT count(*) FROM " + db.quoted(table)))
    return int(rows * average)


def _empty_database(schema: Schema) -> int:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.executescript(schema.script)
        pages, size = (
            database.execute("PRAGMA " + name).fetchone()[0] for name in ("page_count", "page_size")
        )
        return int(pages * size)
