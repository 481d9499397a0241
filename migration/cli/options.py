"""The command-line options that several scripts share, and the help's table of exit codes."""

from __future__ import annotations

import argparse
import sys
from typing import Any, List

from migration.cli.log import print_error
from migration.cli.terminal import output
from migration.errors import MigrationError
from migration.printing import LINES, say

EXIT_CODES = """\
exit codes:
  0    done
  1    the validation found differences, or some of many users failed
  2    usage or configuration
  3    PostgreSQL: unreachable, refused, user not found, data it cannot represent
  4    export bundle missing, damaged or of another user
  5    SQLite: locked, not writable, disk full, constraint; the old database is untouched
  70   a bug in the program, or the machine lacks memory, threads, open files or a package
  130  interrupted
"""


def parser(description: str, data_dir: bool = True) -> argparse.ArgumentParser:
    """A parser with the options that every script has; ``data_dir``: also that for the bundle's folder."""
    made = _Parser(
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if data_dir:
        made.add_argument(
            "--data-dir", metavar="DIR", help="export bundle (MIGRATION_DATA_DIR; default: migration_data)"
        )
    made.add_argument("--log-file", metavar="FILE", help="also write the log here (LOG_FILE)")
    loudness = made.add_mutually_exclusive_group()
    loudness.add_argument("--verbose", "-v", action="store_true", help="log details (LOG_LEVEL=DEBUG)")
    loudness.add_argument(
        "--quiet", "-q", action="store_true", help="print warnings and errors only (LOG_LEVEL=WARNING)"
    )
    return made


class _Parser(argparse.ArgumentParser):
    """Prints as ``run`` does."""

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not sys.stdout:
            say(message.rstrip("\n"), LINES)
            return
        try:
            output(message)
        except MigrationError as error:
            print_error(error)
            sys.exit(int(error.exit_code))


def add_user(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--user-email",
        metavar="EMAIL",
        help="who is migrated (MIGRATION_USER_EMAIL; default: the bundle's user where the export is skipped, else config.DEFAULT_USER_EMAIL)",
    )


def add_source(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--postgres-url",
        metavar="URL",
        help="postgresql://user:password@host:port/database or conninfo (POSTGRES_URL, or POSTGRES_HOST, _PORT, _DB, _USER, _PASSWORD)",
    )


def add_schema(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--schema-path",
        metavar="FILE",
        help="SQLite schema (SCHEMA_PATH; default: the application's, else the suite's own)",
    )


def add_target(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--sqlite-path", metavar="FILE", help="SQLite database (SQLITE_PATH; default: ../app.db)"
    )


def add_backup(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--backup-dir", metavar="DIR", help="backups of the database (BACKUP_DIR; default: backups)"
    )
    made.add_argument("--no-backup", action="store_true", help="replace the database without a backup of it")
    made.add_argument(
        "--keep-backups",
        metavar="N",
        type=positive,
        help="after a backup remove all but the N newest (default: keep all)",
    )


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError("%r is not a number from 1 up" % text)
    return int(text)


def add_orphans(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--orphans",
        choices=("stop", "skip"),
        default="stop",
        help="rows that point at rows which are not the user's: stop and name them, or leave them out and say so (default: stop)",
    )


def add_validation(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--offline", action="store_true", help="validate against the bundle alone, without PostgreSQL"
    )
    made.add_argument(
        "--against",
        choices=("bundle", "source"),
        help="what every cell of SQLite is compared with (default: the bundle, where there is one)",
    )
    add_strict(made)
    made.add_argument(
        "--max-differences",
        metavar="N",
        type=positive,
        help="list the first N of each kind and table; all are counted (default: 20)",
    )
    made.add_argument(
        "--show-values",
        action="store_true",
        help="quote the values that differ: personal data in log and reports",
    )
    made.add_argument("--json", action="store_true", help="print the validation report to stdout as JSON")


def add_strict(made: argparse.ArgumentParser) -> None:
    made.add_argument("--strict", action="store_true", help="count warnings as errors")


def check_validation(made: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.offline and arguments.against == "source":
        made.error("--against source asks PostgreSQL, --offline does not: leave one of them away")


def validation_options(arguments: argparse.Namespace) -> List[str]:
    """The options given that only a validation has an effect of, --offline aside."""
    names = ("against", "strict", "max_differences", "show_values", "json")
    return ["--" + name.replace("_", "-") for name in names if getattr(arguments, name)]
