"""What is measured: the suite's phases, the tools that somebody could take instead, and the floors.

Each is a command line, made for a `Place`. Who is not there is not an error: `Peer.version` says None.
"""

from __future__ import annotations

import importlib.util
import platform
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Callable, List, Optional, Tuple
from urllib.parse import parse_qs, urlsplit

from benchmarks.data import USER_EMAIL
from benchmarks.duckdb_copy import EXTENSIONS
from demo import sample

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "schema_design" / "sqlite_schema.sql"
SQLITE_FILE = "app.db"
BUNDLE = "bundle"

OURS, OTHERS, FLOOR = "the suite", "other tools", "floors"  # in the order of the results


@dataclass(frozen=True)
class Place:
    """Where a peer finds its data and leaves its own.

    ``source_url`` is the database of all users, ``user_url`` one with nothing but the user's rows. ``folder`` holds
    a folder for each peer, of the peer's name.
    """

    source_url: str
    user_url: str
    folder: Path

    @property
    def bundle(self) -> Path:
        return self.folder / "export" / BUNDLE

    @property
    def database(self) -> Path:
        return self.folder / "import" / SQLITE_FILE


@dataclass(frozen=True)
class Peer:
    """Something to measure. ``what`` it does, and what it ``lacks`` of the suite's duties.

    ``command`` is given the place and the peer's own empty folder. ``needs`` names the peers whose results it reads.
    ``fills`` says that it leaves the user's rows in `SQLITE_FILE`.
    """

    name: str
    kind: str
    what: str
    lacks: str
    command: Callable[[Place, Path], List[str]]
    version: Callable[[], Optional[str]]
    needs: Tuple[str, ...] = ()
    fills: bool = False


def _python() -> str:
    return "Python " + platform.python_version()


def _export(place: Place, folder: Path) -> List[str]:
    return [
        *_script("export_from_postgres.py", "--postgres-url", place.source_url, "--user-email", USER_EMAIL),
        *("--data-dir", str(folder / BUNDLE)),
    ]


def _import(place: Place, folder: Path) -> List[str]:
    return [
        *_script("import_to_sqlite.py", "--data-dir", str(place.bundle)),
        *("--sqlite-path", str(folder / SQLITE_FILE), "--backup-dir", str(folder)),
    ]


def _validate(place: Place, folder: Path) -> List[str]:
    return [
        *_script("validate_migration.py", "--postgres-url", place.source_url, "--user-email", USER_EMAIL),
        *("--data-dir", str(place.bundle), "--sqlite-path", str(place.database)),
    ]


def _migrate(place: Place, folder: Path, email: str = USER_EMAIL) -> List[str]:
    return [
        *_script("migrate.py", "--postgres-url", place.source_url, "--user-email", email),
        *("--data-dir", str(folder / BUNDLE), "--sqlite-path", str(folder / SQLITE_FILE)),
        *("--backup-dir", str(folder)),
    ]


def _migrate_sample(place: Place, folder: Path) -> List[str]:
    return _migrate(place, folder, sample.USERS[0])


def _help(place: Place, folder: Path) -> List[str]:
    return [sys.executable, "migrate.py", "--help"]


def _script(name: str, *options: str) -> List[str]:
    return [sys.executable, name, "--schema-path", str(SCHEMA), *options]


def _db_to_sqlite(place: Place, folder: Path) -> List[str]:
    # The driver is named: SQLAlchemy's own choice changes with its version.
    url = place.user_url.replace("postgresql:", "postgresql+psycopg2:", 1)
    return [sys.executable, "-m", "db_to_sqlite.cli", url, str(folder / SQLITE_FILE), "--all"]


def _db_to_sqlite_version() -> Optional[str]:
    return _package_version("db-to-sqlite", "db_to_sqlite", "sqlalchemy")


def _duckdb(place: Place, folder: Path) -> List[str]:
    return [
        *(sys.executable, "-m", "benchmarks.duckdb_copy"),
        *(place.user_url, str(folder / SQLITE_FILE), str(SCHEMA)),
    ]


def _duckdb_same(place: Place, folder: Path) -> List[str]:
    return [
        *(sys.executable, "-m", "benchmarks.duckdb_same"),
        *(place.source_url, USER_EMAIL, str(folder), str(folder / SQLITE_FILE), str(SCHEMA)),
    ]


def _duckdb_version() -> Optional[str]:
    return _package_version("duckdb", "duckdb", *EXTENSIONS)


def _package_version(package: str, *modules: str) -> Optional[str]:
    if any(importlib.util.find_spec(module) is None for module in modules):
        return None
    return f"{package} {metadata.version(package)}"


def _ogr2ogr(place: Place, folder: Path) -> List[str]:
    # Tables without geometry are listed on request; a transaction for every 100,000 rows is the default.
    return [
        *("ogr2ogr", "-f", "SQLite", str(folder / SQLITE_FILE), "PG:" + _conninfo(place.user_url)),
        *("--config", "PG_LIST_ALL_TABLES", "YES", "-gt", "unlimited"),
    ]


def _ogr2ogr_version() -> Optional[str]:
    said = _output("ogr2ogr", "--version")
    return None if said is None else said.split(",")[0]


def _sequel(place: Place, folder: Path) -> List[str]:
    url = urlsplit(place.user_url)
    source = f"postgres://{url.path}?user={url.username}&{url.query}"
    return ["sequel", "-C", source, f"sqlite://{folder / SQLITE_FILE}"]


def _sequel_version() -> Optional[str]:
    if _output("ruby", "-e", "require 'pg'; require 'sqlite3'") is None:
        return None
    return _output("sequel", "--version")


def _conninfo(url: str) -> str:
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    words = {"dbname": parts.path.lstrip("/"), "user": parts.username, **query}
    return " ".join(f"{name}={word}" for name, word in words.items())


def _output(*command: str) -> Optional[str]:
    """What a program says, None where it is not there or fails."""
    if shutil.which(command[0]) is None:
        return None
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else None


def _copy_floor(place: Place, folder: Path) -> List[str]:
    return [sys.executable, "-m", "benchmarks.floors", "copy", place.source_url, USER_EMAIL]


def _psycopg2() -> str:
    return f"psycopg2 {metadata.version('psycopg2-binary')}"


def _insert_floor(place: Place, folder: Path) -> List[str]:
    return [
        *(sys.executable, "-m", "benchmarks.floors", "insert"),
        *(str(place.database), str(folder / SQLITE_FILE)),
    ]


def _sqlite() -> str:
    return f"SQLite {sqlite3.sqlite_version}"


# Without a scale.
SMALL = (
    Peer("help", OURS, "`migrate.py --help`", "", _help, _python),
    Peer("sample", OURS, "`migrate.py` on the demo's sample user", "", _migrate_sample, _python),
)

# At every scale, in this order: what one needs stands before it.
PEERS = (
    Peer("export", OURS, "PostgreSQL to bundle", "", _export, _python),
    Peer("import", OURS, "bundle to SQLite", "", _import, _python, needs=("export",), fills=True),
    Peer(
        *("validate", OURS, "PostgreSQL, bundle and SQLite compared", "", _validate, _python),
        needs=("export", "import"),
    ),
    Peer("migrate", OURS, "the three in one run", "", _migrate, _python, fills=True),
    Peer(
        "duckdb-same",
        OTHERS,
        "the suite's duties by DuckDB: JSON with SHA256, the declared schema, every cell compared both ways",
        "backup, locks, publishing whole or not at all, a report, types that our schema lacks",
        _duckdb_same,
        _duckdb_version,
        fills=True,
    ),
    Peer(
        "duckdb",
        OTHERS,
        "`CREATE TABLE … AS` through its extensions, on all cores; then keys and indexes",
        "exact types (numbers become text), NOT NULL, foreign keys, triggers, views, any check",
        _duckdb,
        _duckdb_version,
        fills=True,
    ),
    Peer(
        "ogr2ogr",
        OTHERS,
        "tables with a unique `id`, in one transaction",
        "indexes, foreign keys, microseconds (cut to milliseconds), any check",
        _ogr2ogr,
        _ogr2ogr_version,
        fills=True,
    ),
    Peer(
        "db-to-sqlite",
        OTHERS,
        "tables with primary and foreign keys, and their indexes",
        "NOT NULL, defaults, other indexes, JSON as it was written, any check",
        _db_to_sqlite,
        _db_to_sqlite_version,
        fills=True,
    ),
    Peer(
        "sequel",
        OTHERS,
        "`sequel -C`: tables with keys, NOT NULL and PostgreSQL's indexes",
        "our indexes, dates and times as they were (no `T`, more zeros), any check",
        _sequel,
        _sequel_version,
        fills=True,
    ),
    Peer(
        "copy",
        FLOOR,
        "least of an export: `COPY` of the user's rows as JSON, thrown away",
        "order, checks, checksums, files",
        _copy_floor,
        _psycopg2,
    ),
    Peer(
        "insert",
        FLOOR,
        "least of an import: `INSERT … SELECT` from the finished database, then indexes",
        "reading JSON, checks",
        _insert_floor,
        _sqlite,
        needs=("export", "import"),
        fills=True,
    ),
)
