"""One user's data from PostgreSQL to a validated SQLite database: export, import, validate.

    python migrate.py --user-email you@example.com

    python migrate.py --skip-export                  import again from the bundle that is there
    python migrate.py --skip-export --skip-import    validate the database that is there
    python migrate.py --dry-run                      show what would be migrated, write nothing
    python migrate.py --restore                      put the newest backup back

Whatever ends a run, the old database or the new one is there, whole.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what may fail is imported
    from migration.cli import running

    running.begin(required=())

import argparse
import contextlib
import dataclasses
import enum
import sys
from typing import TYPE_CHECKING, Collection, ContextManager, Iterator, NamedTuple, Optional, Sequence

from migration.cli import configuration, options, packages, running
from migration.cli.log import log
from migration.cli.summary import summary_of_phases
from migration.errors import ExitCode
from migration.printing import counted
from migration.settings import Settings

# The phases are imported inside functions, so that --help is quick.
if TYPE_CHECKING:
    from export_from_postgres import Exported
    from import_to_sqlite import Imported
    from migration.postgres.snapshot import Snapshot
    from migration.validation.report import Report


class Phase(enum.Enum):
    EXPORT = "export"
    IMPORT = "import"
    VALIDATION = "validation"


class Done(NamedTuple):
    """The result of one phase: one of these is set."""

    exported: Optional[Exported] = None
    imported: Optional[Imported] = None
    report: Optional[Report] = None


NEWEST = "\0newest"  # no file has such a name


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = options.parser(__doc__ or "")
    options.add_user(parser)
    options.add_source(parser)
    options.add_target(parser)
    options.add_schema(parser)
    options.add_backup(parser)
    options.add_orphans(parser)
    options.add_validation(parser)
    phases = parser.groups[options.PHASES]
    phases.add_argument("--skip-export", action="store_true", help="use the bundle that is there")
    phases.add_argument("--skip-import", action="store_true", help="leave the database as it is")
    phases.add_argument("--skip-validation", action="store_true", help="do not check the database afterwards")
    phases.add_argument(
        "--dry-run", action="store_true", help="show rows, bytes, conversions and disk space; write nothing"
    )
    phases.add_argument(
        "--restore",
        metavar="FILE",
        nargs="?",
        const=NEWEST,
        help="put a backup in the database's place (default: the newest) and do nothing else",
    )
    arguments = parser.parse_args(argv)
    if arguments.restore is not None and (
        arguments.dry_run
        or arguments.offline
        or arguments.skip_export
        or arguments.skip_import
        or arguments.skip_validation
    ):
        parser.error("--restore does nothing else: leave --dry-run, --offline and --skip-… away")
    if arguments.restore == "":
        parser.error("--restore names an empty file")
    if arguments.dry_run and (arguments.skip_export or arguments.skip_import):
        parser.error("--dry-run looks at what PostgreSQL holds: leave --skip-export and --skip-import away")
    if arguments.offline and not arguments.skip_export:
        parser.error("--offline validates without PostgreSQL: it goes with --skip-export")
    options.check_validation(parser, arguments)
    for name in ("skip_validation", "dry_run", "restore"):
        if getattr(arguments, name) not in (None, False) and options.validation_options(arguments):
            parser.error(
                "%s belongs to the validation, which --%s leaves out"
                % (options.validation_options(arguments)[0], name.replace("_", "-"))
            )
    if arguments.skip_export and arguments.skip_import and arguments.skip_validation:
        parser.error("every phase is skipped: nothing to do")
    without = arguments.offline or arguments.restore is not None
    without = without or (arguments.skip_export and arguments.skip_validation)
    return running.run(
        lambda args: _main(args, configuration.settings(args, asks_postgres=not without)), arguments
    )


def _main(arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.restore is not None:
        return _restore(arguments.restore, settings)
    packages.require()  # before the first phase, not when the database is already replaced
    if arguments.dry_run:
        from migration.cli import plan as dry_run

        dry_run.show(dry_run.plan(settings), settings)
        return ExitCode.DONE
    skipped = {
        Phase.EXPORT: arguments.skip_export,
        Phase.IMPORT: arguments.skip_import,
        Phase.VALIDATION: arguments.skip_validation,
    }
    return migrate(settings, [phase for phase in Phase if not skipped[phase]])


def migrate(settings: Settings, chosen: Collection[Phase]) -> int:
    """Run these phases, print what they did, and return the exit code."""
    exported = imported = None
    for done in phases_in_a_row(settings, chosen):
        exported, imported = done.exported or exported, done.imported or imported
        if done.report is not None:
            from validate_migration import conclude

            return conclude(done.report, settings)
        if done.imported is not None or Phase.IMPORT not in chosen:
            _summarize(exported, imported, settings, Phase.VALIDATION in chosen)
    return ExitCode.DONE


def phases_in_a_row(
    settings: Settings,
    chosen: Collection[Phase] = tuple(Phase),
    db: Optional[Snapshot] = None,
    importing: Optional[ContextManager[object]] = None,
) -> Iterator[Done]:
    """Run the chosen phases one after another; yield the result of each.

    ``db``: an open snapshot to read and leave open; None: each phase opens one. ``importing``: entered around the import.
    Raises MigrationError as the phases do, where possible before the first phase starts.
    """
    exported: Optional[Exported] = None
    if Phase.EXPORT in chosen:
        from export_from_postgres import export

        if Phase.IMPORT in chosen and db is None:
            from migration.sqlite import publishing
            from migration.sqlite.schema import read_schema

            # Fail before the export if the import would fail.
            read_schema(settings.schema_path)
            with publishing.replacing(settings.sqlite_path, settings.wanted_backups):
                pass
        exported = export(settings, db)
        yield Done(exported=exported)
        # Refuse to import a bundle that another run has put there since.
        user_id = settings.user_id and exported.manifest.user_id
        settings = dataclasses.replace(settings, user_email=exported.manifest.user_email, user_id=user_id)
    elif Phase.IMPORT in chosen and Phase.VALIDATION in chosen and not settings.offline:
        from migration.validation.inputs import require_source

        require_source(settings)  # fail before the database is replaced if the validation would fail
    stamp = equal = None
    if Phase.IMPORT in chosen:
        from import_to_sqlite import import_

        with importing or contextlib.nullcontext():
            imported = import_(settings, Phase.VALIDATION in chosen, exported is None)
        stamp, equal = imported.stamp, imported.equal
        yield Done(imported=imported)
    if Phase.VALIDATION in chosen:
        from validate_migration import validate

        taken = None if exported is None else exported.taken
        yield Done(report=validate(settings, db, stamp, equal, taken))


def _summarize(
    exported: Optional[Exported], imported: Optional[Imported], settings: Settings, validates: bool
) -> None:
    """Say what was done. ``validates``: the validation follows, and says what config.py leaves out."""
    done = exported or imported
    assert done is not None
    manifest = done.manifest
    phases = {"export seconds": exported, "import seconds": imported}
    if not settings.json:  # stdout holds only the report
        title = (
            "Exported to %s" % settings.data_dir
            if imported is None
            else "%s to %s" % ("Imported" if exported is None else "Migrated", settings.sqlite_path)
        )
        seconds = {what: phase.seconds for what, phase in phases.items() if phase is not None}
        summary_of_phases(title, settings, manifest, seconds)
    for name, left_out in manifest.orphans_skipped.items():
        if manifest.skipped_by != "config.py":
            rows = "%d rows that refer" % left_out
        elif not validates:
            rows = "%s with references" % counted(left_out, "row")
        else:
            continue
        log.warning("left out of %s by %s: %s to rows of others", name, manifest.skipped_by, rows)
    if imported is not None and imported.backup is not None:
        log.info(
            "to go back: python migrate.py --restore %s --sqlite-path %s",
            imported.backup,
            settings.sqlite_path,
        )


def _restore(name: str, settings: Settings) -> int:
    from migration.sqlite import backups, restoring

    backup = (
        backups.newest_backup(settings.backups, settings.sqlite_path)
        if name == NEWEST
        else configuration.expanded(name)
    )
    saved = restoring.restore(backup, settings.sqlite_path, settings.wanted_backups)
    log.info("%s restored from %s", settings.sqlite_path, backup)
    if saved is not None:
        log.info("what was there is backed up to %s", saved)
        backups.prune(settings.backups, settings.keep_backups, settings.sqlite_path, saved)
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
