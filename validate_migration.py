"""Phase 3: prove that the SQLite database equals the export bundle, and the bundle equals PostgreSQL.

    python validate_migration.py --user-email you@example.com

Writes validation_report.json and validation_report.html to the data folder; exit 1 if they hold an error.
It changes nothing else.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what may fail is imported
    from migration.cli import running

    running.begin()

import argparse
import contextlib
import dataclasses
import logging
import sys
import time
from datetime import datetime
from typing import Iterator, Optional, Sequence

from migration.bundle.folder import held
from migration.cli import configuration, options, running, terminal
from migration.errors import ExitCode
from migration.postgres.snapshot import Snapshot
from migration.postgres.unchanged import Taken
from migration.settings import Settings
from migration.sqlite import publishing
from migration.sqlite.integrity import found_in, looking_through
from migration.sqlite.schema import read_schema
from migration.validation import (
    checked_file,
    comparison,
    file_checks,
    inputs,
    isolation,
    own_row,
    report,
    since_export,
    verdict,
)
from migration.validation.at_import import Equal
from migration.validation.checks import Check, Evidence, bundle_files, run
from migration.validation.report import Report

log = logging.getLogger("migration.validate")

# Every check, in the order of the report: what it looks at, and what it counts
CHECKS = (
    Check("bundle", "SHA256, size and names of the bundle's files", "file", bundle_files),
    Check("contents", "cells, each against its record", "cell", comparison.contents),
    Check("counts", "rows of each table", "table", comparison.counts),
    Check("isolation", "whose each record and row is", "table", isolation.owners),
    Check("source", "PostgreSQL now, against the bundle", "table", since_export.changed_tables),
    Check("user", "the user's own row and the preferences", "row", own_row.own_rows),
    Check("schema", "what the schema file makes", "object", file_checks.schema),
    Check("additions", "what the database holds beyond it", "object", file_checks.additions),
    Check("integrity", "SQLite's integrity_check", "page", file_checks.integrity),
    Check("references", "rows that foreign keys lead to", "foreign key", file_checks.references),
    Check("forms", "JSON, dates, numbers, ranges and NULL, by column", "column", file_checks.malformed),
    Check("defaults", "columns that the source has nothing for", "column", file_checks.changed_defaults),
)


def validate(
    settings: Settings,
    db: Optional[Snapshot] = None,
    sound: Optional[publishing.Stamp] = None,
    equal: Optional[Equal] = None,
    taken: Optional[Taken] = None,
) -> Report:
    """Check ``settings.sqlite_path`` and write the report.

    ``db``: an open snapshot to compare with and leave open; None: open one. ``sound``: the stamp of a file whose
    integrity and references ``import_`` has checked; they are not checked again in this file. ``equal``: the result
    of its comparison with the bundle, reused if nobody has written to either. ``taken``: what this process has
    exported; PostgreSQL makes no digest of tables that cannot have changed since.

    Raises MigrationError: exit 2 for the schema, 3 for PostgreSQL (unless ``settings.offline``), 4 for the bundle,
    5 if there is no database. Differences are not raised: the report lists them.
    """
    with _data_folder(settings):
        made = _checked(settings, db, sound, equal, taken)
        for check in made.checks:
            log.debug("check %s", check)
        for message in made.errors:
            log.error("%s", message)
        for message in made.warnings:
            log.warning("%s", message)
        for path in report.write(made, settings.data_dir, settings.root.called):
            log.info("report written to %s", path)
    return made


@contextlib.contextmanager
def _data_folder(settings: Settings) -> Iterator[None]:
    """Lock the data folder and remove an earlier report, so that no old verdict remains if this validation fails."""
    with contextlib.ExitStack() as stack:
        # Without folder and PostgreSQL, the missing bundle is reported later.
        if settings.data_dir.is_dir() or not inputs.is_bundle_needed(settings):
            report.require_writable(settings.data_dir)
            stack.enter_context(held(settings.data_dir))
            report.withdraw(settings.data_dir)
        yield


def _checked(
    settings: Settings,
    db: Optional[Snapshot],
    sound: Optional[publishing.Stamp],
    equal: Optional[Equal],
    taken: Optional[Taken],
) -> Report:
    started, timestamp = time.perf_counter(), datetime.now().isoformat(timespec="seconds")
    schema = read_schema(settings.schema_path)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(checked_file.opened(settings.sqlite_path, sound))
        context = stack.enter_context(
            inputs.context_of(
                file.database, settings, schema, db, taken.rows if taken else None, fresh=sound is not None
            )
        )
        if taken is not None:
            unchanged = since_export.unchanged_tables(context, taken)
            context = dataclasses.replace(context, doubted=context.doubted - unchanged)
        digests = stack.enter_context(since_export.digests(context))
        integrity = None
        if file.other is not None:
            integrity = stack.enter_context(looking_through(file.other, found_in))
        if equal is not None and integrity is None and equal.holds_for(context):
            tables = comparison.with_digests(context, equal.tables)
        else:
            with terminal.progress("validate", context.expected_rows) as advance:
                tables = comparison.compare_tables(context, advance)
        evidence = Evidence(context, tables, digests, integrity)
        looked = run(CHECKS, evidence)
        return verdict.report_of(CHECKS, looked, evidence, file, timestamp, started)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = options.parser(__doc__ or "")
    options.add_user(parser)
    options.add_source(parser)
    options.add_target(parser)
    options.add_schema(parser)
    options.add_orphans(parser)
    options.add_validation(parser)
    arguments = parser.parse_args(argv)
    options.check_validation(parser, arguments)
    return running.run(_main, arguments)


def _main(arguments: argparse.Namespace) -> int:
    settings = configuration.settings(arguments, asks_postgres=not arguments.offline)
    return conclude(validate(settings), settings)


def conclude(made: Report, settings: Settings) -> int:
    """Print the verdict, or the report with ``--json``, and return the exit code."""
    code = ExitCode.DONE if made.passed else ExitCode.DIFFERENCES
    if settings.json:
        terminal.output(made.text(), code)
    else:
        terminal.summary(
            "Validation: %s" % ("PASS" if made.passed else "FAIL, %d errors" % made.error_count),
            ("table", "PostgreSQL", "bundle", "SQLite", "cells", "differences", "match"),
            made.rows(),
        )
    return code


if __name__ == "__main__":
    sys.exit(main())
