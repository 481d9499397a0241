"""A new database compared with its bundle by the import, while SQLite looks through the file on another connection.

The validation that follows in the same process takes the result over if neither file nor bundle was written since.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Callable, Mapping, NamedTuple, Optional

from migration.bundle.manifest import Manifest
from migration.bundle.reading import Reader
from migration.errors import MigrationError
from migration.files import FileStamp
from migration.settings import Settings
from migration.sqlite import connecting
from migration.sqlite.schema import Schema
from migration.validation import comparison, inputs
from migration.validation.checks import Compared
from migration.validation.inputs import Context

LEAST_BYTES = 8 << 20  # of a database file: comparing a smaller one takes no longer than to begin twice


class Equal(NamedTuple):
    """Every cell of a database was equal to its record in this bundle. ``tables``: table → what comparing it gave."""

    manifest: Manifest
    files: Mapping[str, FileStamp]
    tables: Mapping[str, Compared]

    def holds_for(self, context: Context) -> bool:
        """Whether ``context`` compares with the same bundle, and nobody has written it since."""
        export = context.export
        if export is None or context.against != "bundle":
            return False
        return export.manifest == self.manifest and export.stamps == self.files


def compare(
    staged: Path,
    settings: Settings,
    schema: Schema,
    export: Reader,
    digested: bool,
    advance: Callable[[int], None],
) -> Optional[Equal]:
    """Compare a new database with the bundle; ``advance`` is told how many records are done.

    ``digested``: with digests of the records, if PostgreSQL is to be asked.

    None where a small file makes it no gain, and where anything differs: the validation then finds it and reports it.
    """
    if staged.stat().st_size < LEAST_BYTES or settings.against == "source":
        return None
    try:
        with connecting.opened(staged) as database:
            context = inputs.of_bundle(database, settings, schema, export, digested and not settings.offline)
            tables = comparison.compare_tables(context, advance)
    except (MigrationError, sqlite3.Error):
        return None
    if any(found.findings or not found.result.match for found in tables.values()):
        return None
    return Equal(export.manifest, export.stamps, tables)
