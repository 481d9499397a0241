"""Phase 1: one user's rows from PostgreSQL to an export bundle of JSON files with a SHA256 manifest.

    python export_from_postgres.py --user-email you@example.com

Reads in one REPEATABLE READ READ ONLY transaction; PostgreSQL is never changed.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what may fail is imported
    from migration.cli import running

    running.begin()

import logging
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from migration.bundle.manifest import Manifest
from migration.bundle.writing import Writer, new_bundle
from migration.cli import configuration, options, running, terminal
from migration.cli.summary import summary_of_phases
from migration.errors import ExitCode, SourceError
from migration.model import Table, Way, reference_name
from migration.postgres import connecting, parameters
from migration.postgres.orphans import LISTED_ORPHANS, Orphans
from migration.postgres.rows import Rows, rows_of_user
from migration.postgres.snapshot import Snapshot
from migration.postgres.unchanged import Taken, taken
from migration.printing import conjugated, counted
from migration.python_text import names, reference_text, text
from migration.settings import Settings
from migration.sqlite.schema import read_schema

log = logging.getLogger("migration.export")


@dataclass(frozen=True)
class Exported:
    """What an export wrote, the seconds of each table, and what a validation in the same process may rely on.

    ``gone_along``: ``Rows.gone_along``, for runs of many users.
    """

    manifest: Manifest
    seconds: Mapping[str, float]
    taken: Taken
    gone_along: Mapping[str, int]


def export(settings: Settings, db: Optional[Snapshot] = None) -> Exported:
    """Export the user of ``settings`` to a new bundle in ``settings.data_dir``.

    ``db``: an open snapshot to read from and leave open; None: open one.

    Raises MigrationError: exit 2 if config or schema do not account for a table or column, 3 if PostgreSQL refuses,
    4 if the bundle cannot be written. The old bundle stays until the new one is complete.
    """
    schema = read_schema(settings.schema_path)
    started, ends = time.perf_counter(), db is None
    with connecting.opened(settings, db) as db:
        log.debug("export: PostgreSQL %s, snapshot %s", db.server_version, db.visible)
        rows = rows_of_user(
            db, settings, schema, settings.user_email or settings.default_email, settings.skip_orphans
        )
        rows.require_kept()
        suspects = rows.suspects()
        if ends:  # a run of many users does not read whole tables for each of them
            suspects += rows.unmeant()
        for line in suspects:
            log.warning("%s", line)
        skipped, cut = _orphans(rows, settings)
        left_behind = _left_behind(rows)
        columns = sum(len(rows.catalog.columns[table.name]) for table in settings.tables)
        log.debug(
            "export: %s %s found, and %s of %s accounted for, in %.2f s",
            settings.root.called,
            rows.user.id,
            counted(columns, "column"),
            counted(len(settings.tables), "table"),
            time.perf_counter() - started,
        )
        sql_ascii = db.connection.get_parameter_status("server_encoding") == "SQL_ASCII"
        with new_bundle(settings.data_dir, [table.file for table in settings.whole_tables], sql_ascii) as out:
            records = {table: rows.record(table) for table in settings.single_rows}
            out.single_rows(records)
            seconds, sent = _write_tables(rows, settings, out)
            log.debug("export: %s read in %.2f s", counted(len(seconds), "table"), sum(seconds.values()))
            out.changes(rows.leaving.listed())
            read = taken(rows, {**out.row_counts, **sent}, out.checksums, ends)
            gone_along = {} if ends else rows.gone_along(out.row_counts)
            db.require_unchanged()
            manifest = Manifest(
                export_timestamp=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                user_email=rows.user.email,
                user_id=rows.user.id,
                row_counts=out.row_counts,
                checksums=out.checksums,
                sizes=out.sizes,
                columns={table.name: rows.catalog.columns[table.name] for table in settings.tables},
                keys={table.name: rows.catalog.keys[table.name] for table in settings.tables},
                orphans_skipped=skipped,
                left_behind=left_behind,
                orphans=rows.leaving.declared,
                cut=cut,
                brought=rows.leaving.brought,
                brought_by=rows.leaving.brought_by(),
                owners=rows.owner_texts,
                source=parameters.masked(settings.postgres),
                server_version=db.server_version,
                snapshot=db.visible,
                lc_monetary=rows.lc_monetary,
            )
            started = time.perf_counter()
            out.finish(manifest)
    log.debug(
        "export: %s of %d bytes synced and published in %.2f s",
        counted(len(manifest.checksums) + 1, "file"),
        sum(manifest.sizes.values()),
        time.perf_counter() - started,
    )
    called = settings.root.called
    if not _owns_rows(settings, records, manifest):
        log.warning(
            "%s %s owns no rows: only their own row and shared ones are exported", called, manifest.user_id
        )
    log.info("bundle of %s %s written to %s", called, manifest.user_id, settings.data_dir)
    return Exported(manifest, seconds, read, gone_along)


def _owns_rows(settings: Settings, records: Mapping[Table, Optional[bytes]], manifest: Manifest) -> bool:
    """Whether the user has a row beside their own, by what owns rows for itself, be it left out."""
    return bool(manifest.orphans_skipped) or any(
        manifest.row_counts[table.name] if table.becomes is None else records[table] is not None
        for table in settings.tables
        if table.ownership.way not in (Way.ROOT, Way.SHARED) and not table.ownership.or_shared
    )


def _write_tables(rows: Rows, settings: Settings, out: Writer) -> Tuple[Dict[str, float], Dict[str, int]]:
    """Write each table's file; return the seconds of each and the number of rows that PostgreSQL sent."""
    seconds: Dict[str, float] = {}
    sent: Dict[str, int] = {}
    total = sum(map(rows.count, settings.whole_tables)) if terminal.wants_progress() else None
    with terminal.progress("export", total) as advance:
        for table in settings.whole_tables:
            started = time.perf_counter()
            with out.table(table.name, table.file, advance) as sink:
                sent[table.name] = rows.copy(table, sink)
            seconds[table.name] = time.perf_counter() - started
            log.info("exported %s: %s in %.1f s", table.name, counted(sink.rows, "row"), seconds[table.name])
    return seconds, sent


def _orphans(rows: Rows, settings: Settings) -> Tuple[Dict[str, int], Dict[str, int]]:
    """Raise SourceError for rows that refer to rows that are not the user's, or count those left out and those cut.

    The first by table, the second by reference.
    """
    rows.leaving.require_no_explosion()
    found = rows.orphans()
    stopping = [orphans for orphans in found if orphans.leaving == "stop"]
    if stopping:
        raise SourceError(
            "rows of the %s refer to rows that are not exported: " % settings.root.called
            + _listed(stopping, "leads to no exported row of"),
            _to_roots(rows, stopping)
            or "correct them in PostgreSQL, or leave these rows out with --orphans skip"
            + (_declared(stopping[0]) if settings.declares_leaving else ""),
        )
    for line in _lines(
        [orphans for orphans in found if orphans.leaving == "skip"], "leads to no exported row of"
    ):
        log.warning("left out: %s", line)
    cut: Dict[str, int] = {}
    for orphans in found:
        if orphans.leaving == "cut":
            rows.leaving.require_cuttable(orphans.table, orphans.columns, orphans.parent)
            name = reference_name(orphans.table, orphans.columns, orphans.parent)
            cut[name] = cut.get(name, 0) + orphans.rows
            log.warning("cut to NULL: %s in %s", name, counted(orphans.rows, "row"))
    for line in rows.leaving.brought_lines():
        log.warning("brought: %s", line)
    return dict(rows.skipped), cut


def _to_roots(rows: Rows, stopping: Sequence[Orphans]) -> Optional[str]:
    """What to do about rows that are brought and name another root's own row."""
    for found in stopping:
        if rows.leaving.names_roots(found.table, found.parent):
            return (
                "rows of %s are brought, and name other rows of %s, which come along only if that is declared: write"
                ' Reference(%s, %s, %s, leaving="bring") in config.REFERENCES for these whole rows, "cut" for NULL'
                " in their place, or bring no such rows"
                % (found.table, found.parent, text(found.table), names(found.columns), text(found.parent))
            )
    return None


def _declared(orphans: Orphans) -> str:
    return (
        ', or say in config.REFERENCES what becomes of them: Reference(%s, leaving=…), with "skip", "cut" or "bring"'
        % reference_text(orphans.table, orphans.columns, orphans.parent)
    )


def _left_behind(rows: Rows) -> Dict[str, int]:
    """Raise SourceError for rows that refer to the user's and are not exported, or count those that config lets stay."""
    found = rows.left_behind()
    called = rows.settings.root.called
    undeclared = [orphans for orphans in found if not rows.declared_left_behind(orphans)]
    if undeclared:
        first = undeclared[0]
        raise SourceError(
            "rows that are not exported refer to rows of the %s: " % called
            + _listed(undeclared, "refers to a row of the %s in" % called),
            "if they are the %s's, correct %s's entry in config.TABLES or the rows in PostgreSQL; if they are"
            " to stay there, add left_behind=(%s,) to that entry"
            % (called, first.table, ", ".join('"%s"' % name for name in first.columns)),
        )
    for orphans in found:
        log.info(
            "left behind: %s of %s that %s by %s to %s in %s",
            counted(orphans.rows, "row"),
            orphans.table,
            conjugated(orphans.rows, "refer"),
            ", ".join(orphans.columns),
            orphans.to,
            orphans.parent,
        )
    outside = rows.outside()
    for reference, count in outside.items():
        log.info(
            "left behind: what %s %s to by %s", counted(count, "row"), conjugated(count, "refer"), reference
        )
    declared: Dict[str, int] = {}
    for orphans in found:
        name = "%s (%s)" % (orphans.table, ", ".join(orphans.columns))
        declared[name] = declared.get(name, 0) + orphans.rows
    return {**declared, **outside}


def _listed(found: Sequence[Orphans], what: str) -> str:
    total = sum(orphans.rows for orphans in found)
    shown = "\n  ".join(_lines(found, what)[:LISTED_ORPHANS])
    return "%d%s\n  %s" % (total, ", of which the first:" if total > LISTED_ORPHANS else "", shown)


def _lines(found: Sequence[Orphans], what: str) -> List[str]:
    return [
        "%s %s: %s %s %s (%s)"
        % (orphans.table, row, ", ".join(orphans.columns), what, orphans.parent, reference)
        for orphans in found
        for row, reference in orphans.sample
    ]


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = options.parser(__doc__ or "")
    options.add_user(parser)
    options.add_source(parser)
    options.add_schema(parser)
    options.add_orphans(parser)
    return running.run(lambda args: _main(configuration.settings(args)), parser.parse_args(argv))


def _main(settings: Settings) -> int:
    exported = export(settings)
    title = "Exported to %s" % settings.data_dir
    summary_of_phases(title, settings, exported.manifest, {"seconds": exported.seconds})
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
