"""The command-line options that several scripts share, and the help's table of exit codes."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Dict, List

from migration.cli.log import print_error
from migration.cli.terminal import output
from migration.errors import MigrationError
from migration.printing import LINES, say

EXIT_CODES = """\
exit codes:
  0    done
  1    the validation or --verify found differences, or of many users some failed or rows do not add up
  2    usage or configuration
  3    PostgreSQL: unreachable, refused, user not found, data it cannot represent
  4    export bundle or ledger: missing, damaged, of another user, in use; it or the report cannot be written
  5    SQLite database, its backup or the output folder: in use, not writable, disk full, constraint; the old database is untouched
  70   a bug in the program, or the machine lacks memory, threads, open files or a package
  130  interrupted
"""


WHO, SOURCE, TARGET, VALIDATION, PHASES = "who", "source", "target", "validation", "phases"


def parser(description: str, data_dir: bool = True, needs_config: bool = True) -> "Parser":
    """A parser with the options that every script has. ``data_dir``: add --data-dir. ``needs_config``: there is a default one."""
    made = Parser(
        description=description,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.groups = {name: made.add_argument_group(name) for name in (WHO, SOURCE, TARGET, VALIDATION, PHASES)}
    if data_dir:
        made.groups[TARGET].add_argument(
            "--data-dir", metavar="DIR", help="export bundle (MIGRATION_DATA_DIR; default: migration_data)"
        )
    made.add_argument(
        "--config",
        metavar="FILE",
        help="the application's config.py (MIGRATION_CONFIG; default: the suite's own)"
        if needs_config
        else "a config.py that says where PostgreSQL is (default: none, also not MIGRATION_CONFIG)",
    )
    made.set_defaults(needs_config=needs_config)
    made.add_argument("--log-file", metavar="FILE", help="also write the log here (LOG_FILE)")
    loudness = made.add_mutually_exclusive_group()
    loudness.add_argument("--verbose", "-v", action="store_true", help="log details (LOG_LEVEL=DEBUG)")
    loudness.add_argument(
        "--quiet", "-q", action="store_true", help="print warnings and errors only (LOG_LEVEL=WARNING)"
    )
    return made


class Parser(argparse.ArgumentParser):
    """Prints like ``running.run``. ``groups``: the help's sections by name; argparse omits empty ones."""

    groups: "Dict[str, argparse._ArgumentGroup]"

    def _print_message(self, message: str, file: Any = None) -> None:
        if file is not sys.stdout:
            say(message.rstrip("\n"), LINES)
            return
        try:
            output(message)
        except MigrationError as error:
            print_error(error)
            sys.exit(int(error.exit_code))


def add_user(made: Parser) -> None:
    who = made.groups[WHO].add_mutually_exclusive_group()
    who.add_argument(
        "--user-email",
        metavar="EMAIL",
        help="the user to migrate (MIGRATION_USER_EMAIL; default: the bundle's user if the export is skipped, else config.DEFAULT_USER_EMAIL)",
    )
    who.add_argument(
        "--user",
        metavar="NAME",
        dest="user_email",
        help="the same, where config.ROOT names users by something else (MIGRATION_USER)",
    )
    who.add_argument("--user-id", metavar="KEY", help="the user to migrate, by their key (MIGRATION_USER_ID)")


def add_source(made: Parser) -> None:
    made.groups[SOURCE].add_argument(
        "--postgres-url",
        metavar="URL",
        help="postgresql://user:password@host:port/database or conninfo (POSTGRES_URL, or POSTGRES_HOST, _PORT, _DB, _USER, _PASSWORD)",
    )


def add_schema(made: Parser) -> None:
    made.groups[TARGET].add_argument(
        "--schema-path",
        metavar="FILE",
        help="SQLite schema (SCHEMA_PATH; default: the application's, else the suite's own)",
    )


def add_target(made: Parser) -> None:
    made.groups[TARGET].add_argument(
        "--sqlite-path", metavar="FILE", help="SQLite database (SQLITE_PATH; default: in config.py)"
    )


def add_backup(made: Parser) -> None:
    made.groups[TARGET].add_argument(
        "--backup-dir", metavar="DIR", help="backups of the database (BACKUP_DIR; default: backups)"
    )
    made.groups[TARGET].add_argument(
        "--no-backup", action="store_true", help="replace the database without a backup"
    )
    made.groups[TARGET].add_argument(
        "--keep-backups",
        metavar="N",
        type=positive,
        help="after a backup remove all but the N newest (default: keep all)",
    )


def positive(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise argparse.ArgumentTypeError("%r is not a number from 1 up" % text)
    return int(text)


def add_orphans(made: Parser) -> None:
    made.groups[SOURCE].add_argument(
        "--orphans",
        choices=("stop", "skip"),
        default="stop",
        help="rows that refer to rows which are not the user's: stop and name them, or skip them and log how many (default: stop)",
    )


def add_validation(made: Parser) -> None:
    made.groups[VALIDATION].add_argument(
        "--offline", action="store_true", help="validate against the bundle alone, without PostgreSQL"
    )
    made.groups[VALIDATION].add_argument(
        "--against",
        choices=("bundle", "source"),
        help="what every cell of SQLite is compared with (default: the bundle, if there is one)",
    )
    add_strict(made)
    made.groups[VALIDATION].add_argument(
        "--max-differences",
        metavar="N",
        type=positive,
        help="list the first N differences of each table and check; all are counted (default: 20)",
    )
    made.groups[VALIDATION].add_argument(
        "--show-values",
        action="store_true",
        help="quote differing values: puts personal data into log and reports",
    )
    made.groups[VALIDATION].add_argument(
        "--json", action="store_true", help="print the validation report to stdout as JSON"
    )


def add_strict(made: Parser) -> None:
    made.groups[VALIDATION].add_argument("--strict", action="store_true", help="count warnings as errors")


def check_validation(made: Parser, arguments: argparse.Namespace) -> None:
    if arguments.offline and arguments.against == "source":
        made.error("--against source asks PostgreSQL, --offline does not: leave one of them away")


def validation_options(arguments: argparse.Namespace) -> List[str]:
    """The given options that affect only the validation, except --offline."""
    names = ("against", "strict", "max_differences", "show_values", "json")
    return ["--" + name.replace("_", "-") for name in names if getattr(arguments, name)]
