"""Show a whole migration on sample data: ``python -m demo``.

Starts a throwaway PostgreSQL server, fills it, and runs migrate.py as its user would.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Sequence

import psycopg2

from demo import sample
from demo.postgres import temp_postgres

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = Path("demo") / "output"  # relative to ROOT, in which migrate.py runs: shorter to read and to retype

# What would configure libpq or migrate.py from outside. Options win over these, but not every setting is an option.
CONFIGURATION_PREFIXES = ("PG", "POSTGRES_", "MIGRATION_")
CONFIGURATION = ("SQLITE_PATH", "SCHEMA_PATH", "BACKUP_DIR", "LOG_FILE", "LOG_LEVEL")
KEPT = "PG_BINDIR"  # chooses the server to start

NEXT_STEPS = """
The result is in {output}; look at it from the directory {root}:
  sqlite3 {output}/app.db "SELECT first_name, last_name, chart_count FROM client_summary"
or, with nothing but Python:
  {python} -c "import sqlite3; [print(*row) for row in sqlite3.connect('{output}/app.db')
    .execute('SELECT first_name, last_name, chart_count FROM client_summary')]"
The validation report, a page for the browser: {output}/migration_data/validation_report.html
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo and return migrate.py's exit code."""
    options = _parser().parse_args(argv)
    forget_configuration()
    (ROOT / OUTPUT / "logs").mkdir(parents=True, exist_ok=True)
    with temp_postgres() as url:
        _fill(url)
        print(f"PostgreSQL runs with sample data of {', '.join(sample.USERS)}.", flush=True)
        exit_code = _migrate(url, options.user_email)
        if exit_code == 0:
            python = os.path.relpath(sys.executable, str(ROOT))
            print(NEXT_STEPS.format(output=OUTPUT.as_posix(), root=ROOT, python=python), end="")
        if options.keep:
            _wait(url)
    return exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m demo", description="Migrate sample data, to see how it goes."
    )
    parser.add_argument(
        "--user-email",
        default=sample.USERS[0],
        metavar="EMAIL",
        help=f"whom to migrate: {', '.join(sample.USERS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--keep", action="store_true", help="keep the PostgreSQL server running afterwards, until Ctrl-C"
    )
    return parser


def _fill(url: str) -> None:
    with contextlib.closing(psycopg2.connect(url)) as connection:
        sample.create_schema(connection)
        sample.fill(connection)


def _migrate(url: str, email: str) -> int:
    options = {
        "--postgres-url": url,
        "--user-email": email,
        "--sqlite-path": OUTPUT / "app.db",
        "--schema-path": Path("schema_design") / "sqlite_schema.sql",
        "--data-dir": OUTPUT / "migration_data",
        "--backup-dir": OUTPUT / "backups",
        "--log-file": OUTPUT / "logs" / "migration.log",
    }
    arguments = [str(word) for option in options.items() for word in option]
    return subprocess.run([sys.executable, "migrate.py", *arguments], cwd=str(ROOT), check=False).returncode


def forget_configuration() -> None:
    """Take out of the environment what would configure libpq or the scripts."""
    for name in list(os.environ):
        if name != KEPT and (name in CONFIGURATION or name.startswith(CONFIGURATION_PREFIXES)):
            del os.environ[name]
    os.environ["LOG_LEVEL"] = "INFO"  # set, because .env would fill what is missing


def _wait(url: str) -> None:
    print(f"PostgreSQL stays at {url} until Ctrl-C.", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
