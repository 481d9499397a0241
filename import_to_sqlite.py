"""Phase 2: load an export bundle into a new SQLite database in one transaction, and replace the old database.

    python import_to_sqlite.py

It verifies the bundle first, backs up the old database, and publishes the new one whole or not at all.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what may fail is imported
    from migration.cli import running

    running.begin()

import logging
import sqlite3
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Mapping, Optional, Sequence, Tuple

from migration.bundle.changes import read_changes
from migration.bundle.manifest import Manifest, files_of
from migration.bundle.reading import Reader, open_bundle
from migration.cli import configuration, options, running, terminal
from migration.cli.summary import summary_of_phases
from migration.errors import ExitCode, MigrationError
from migration.files import sync_path
from migration.model import Column
from migration.printing import counted
from migration.settings import Settings
from migration.sqlite import backups, building, integrity, mapping, publishing
from migration.sqlite.loading import Filled, fill, fill_row_1
from migration.sqlite.schema import Schema, read_schema
from migration.validation import report

if TYPE_CHECKING:  # what an import alone does not need
    from migration.validation.at_import import Equal

log = logging.getLogger("migration.import")


@dataclass(frozen=True)
class Imported:
    """What an import wrote: the bundle's manifest, the seconds of each table, and the backup it made.

    ``stamp`` identifies the file whose integrity the import has checked. ``equal``: set if it has compared the file
    with the bundle too, and nothing differed.
    """

    manifest: Manifest
    seconds: Mapping[str, float]
    backup: Optional[Path]
    stamp: Optional[publishing.Stamp]
    equal: Optional[Equal]


def import_(settings: Settings, validated: bool = False, digested: bool = True) -> Imported:
    """Import the bundle in ``settings.data_dir`` to ``settings.sqlite_path``.

    ``validated``: a validation follows in this process, so compare the database while SQLite looks through it.
    ``digested``: it may need digests of all records, as this process has not exported them.

    Raises MigrationError: exit 2 if the schema does not fit, 3 for a value that SQLite cannot hold,
    4 for the bundle, 5 for SQLite. In each case the old database is as it was.
    """
    schema = read_schema(settings.schema_path)
    mapping.require_own_targets(settings, schema)
    to, called = settings.wanted_backups, settings.root.called
    tables = files_of(settings.whole_tables)
    with open_bundle(
        settings.data_dir, tables, settings.user_email, settings.user_id, called=called
    ) as export:
        log.debug(
            "import: bundle of %s, %s", export.manifest.export_timestamp, counted(len(export.stamps), "file")
        )
        columns = mapping.columns_of(export, settings, schema)
        with publishing.replacing(settings.sqlite_path, to) as staged:
            with building.building(staged, schema, settings.sqlite_path) as database:
                log.debug("import: %d objects made from %s", len(schema.objects), schema.path)
                deferred = building.defer_indexes(database)
                filled = _load(database, export, settings, columns, schema)
                loaded = time.perf_counter()
                _index(database, deferred)
                as_checked = publishing.stamp(staged)
                equal = _check(staged, settings, schema, export if validated else None, digested)
                publishing.require_unwritten(staged, as_checked)
                log.info("indexes, triggers and checks: %.1f s", time.perf_counter() - loaded)
                building.finish(database, staged, schema)
            finished = publishing.stamp(staged)
            _withdraw_report(settings.data_dir)
            backup = publishing.publish(staged, settings.sqlite_path, to)
            stamp = publishing.published_stamp(settings.sqlite_path, finished)
    if backup is not None:
        log.info("old database backed up to %s", backup)
        backups.prune(settings.backups, settings.keep_backups, settings.sqlite_path, backup)
    log.info("database of %s %s published as %s", called, export.manifest.user_id, settings.sqlite_path)
    seconds = {table: done.seconds for table, done in filled.items()}
    return Imported(export.manifest, seconds, backup, stamp, equal)


def _load(
    database: sqlite3.Connection,
    export: Reader,
    settings: Settings,
    columns: Mapping[str, Tuple[Column, ...]],
    schema: Schema,
) -> Dict[str, Filled]:
    """Load every table. The results leave out single rows."""
    filled: Dict[str, Filled] = {}
    called = settings.root.called
    records, brought = export.user_data(), read_changes(export).brought
    total = sum(export.manifest.row_counts[table.name] for table in settings.whole_tables)
    with terminal.progress("import", total) as advance:
        for table in settings.tables:
            if table.becomes is not None:
                record = records.get(table.member)
                fill_row_1(database, record, table, columns[table.name], schema, export.manifest, called)
                continue
            others = brought.get(table.name, frozenset())
            done = fill(database, export, table, columns[table.name], schema, others, advance, called)
            log.info("imported %s: %s in %.1f s", table.name, counted(done.rows, "row"), done.seconds)
            filled[table.name] = done
    return filled


def _index(database: sqlite3.Connection, deferred: Sequence[str]) -> None:
    """Create the indexes and triggers, and commit."""
    started = time.perf_counter()
    with terminal.progress("index", len(deferred), "steps") as advance:
        for sql in deferred:
            building.create_deferred(database, sql)
            advance(1)
        database.execute("COMMIT")
    seconds = time.perf_counter() - started
    log.debug("import: %d indexes and triggers made in %.2f s", len(deferred), seconds)


def _check(
    staged: Path, settings: Settings, schema: Schema, export: Optional[Reader], digested: bool
) -> Optional[Equal]:
    """Check the new database. Concurrently sync the file, and compare it with ``export`` if given."""
    started, equal = time.perf_counter(), None
    with integrity.looked_through(staged):
        if staged.stat().st_size >= integrity.SMALL:
            sync_path(staged)  # it is synced at its end in any case
        if export is not None:
            from migration.validation import at_import

            with terminal.progress("compare", sum(export.manifest.row_counts.values())) as advance:
                equal = at_import.compare(staged, settings, schema, export, digested, advance)
    seconds = time.perf_counter() - started
    log.debug("import: integrity, foreign keys%s checked in %.2f s", " and cells" if equal else "", seconds)
    return equal


def _withdraw_report(folder: Path) -> None:
    """Remove the report of an earlier validation: it does not describe the new database."""
    try:
        report.withdraw(folder)
    except MigrationError as error:  # a bundle on read-only media
        log.warning("an earlier validation report is not about the new database: %s", error)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = options.parser(__doc__ or "")
    options.add_user(parser)
    options.add_target(parser)
    options.add_schema(parser)
    options.add_backup(parser)
    return running.run(
        lambda args: _main(configuration.settings(args, asks_postgres=False)), parser.parse_args(argv)
    )


def _main(settings: Settings) -> int:
    imported = import_(settings)
    title = "Imported to %s" % settings.sqlite_path
    summary_of_phases(title, settings, imported.manifest, {"seconds": imported.seconds})
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
