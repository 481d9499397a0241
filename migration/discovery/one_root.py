"""How many rows of each table are one root's: counted by the queries of the export."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Dict, Optional

from migration.discovery.classed import Classes, Group
from migration.discovery.source import Source
from migration.model import Table
from migration.postgres.rows import Rows
from migration.postgres.users import find_user, user_of_id
from migration.settings import Settings
from migration.sqlite.schema import Schema

_NO_SCHEMA = Schema(
    Path(), "", {}, {}, (), {}, {}, {}, {}
)  # what SQLite says of references, PostgreSQL says too


def rows_of_one(
    source: Source, classes: Classes, settings: Settings, name: Optional[str], key: Optional[str] = None
) -> Dict[str, int]:
    """Rows of the root of this name, or of this key, by table; of an open question by its first answer. Raises SourceError if there is none."""
    known = dataclasses.replace(
        settings,
        postgres_schema=source.db.schema,
        root=classes.root,
        tables=tuple(Table(table.name, table.assumed) for table in classes.migrated if table.assumed),
        excluded_tables=tuple(table.name for table in classes.of(Group.FOREIGN)),
        unrelated_tables=tuple(table.name for table in classes.of(Group.UNRELATED)),
        references=tuple(classes.inferred),
    )
    if key is not None:
        user = user_of_id(source.db, known, key)
    else:
        assert name is not None
        user = find_user(source.db, known, name)
    rows = Rows(source.db, known, user, _NO_SCHEMA)
    return {table.name: rows.count(table) for table in known.tables}
