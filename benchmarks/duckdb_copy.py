"""PostgreSQL to SQLite through DuckDB, which needs no program of its own but a few lines.

    python -m benchmarks.duckdb_copy POSTGRES_URL NEW.db SCHEMA.sql

DuckDB makes bare tables. The keys, and the indexes of the SQLite schema file, are added afterwards.
"""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sqlite3
import sys
from pathlib import Path

EXTENSIONS = ("duckdb_extension_postgres_scanner", "duckdb_extension_sqlite_scanner")  # packages
INDEX = re.compile(r"CREATE (?:UNIQUE )?INDEX[^;]*;")


def copy(postgres_url: str, sqlite_path: str, schema_path: str) -> None:
    import duckdb  # type: ignore[import-not-found, unused-ignore]  # here, because it may not be there

    with contextlib.closing(duckdb.connect()) as connection:
        for package in EXTENSIONS:
            connection.execute(f"LOAD '{extension(package)}'")
        connection.execute(f"ATTACH '{postgres_url}' AS source (TYPE postgres, READ_ONLY)")
        connection.execute(f"ATTACH '{sqlite_path}' AS target (TYPE sqlite)")
        tables = connection.execute(
            "SELECT table_name FROM duckdb_tables() WHERE database_name = 'source' AND schema_name = 'public'"
        ).fetchall()
        for (table,) in tables:
            connection.execute(f"CREATE TABLE target.{table} AS FROM source.public.{table}")
    with contextlib.closing(sqlite3.connect(sqlite_path)) as database, database:
        database.execute("BEGIN")
        for (table,) in tables:
            database.execute(f"CREATE UNIQUE INDEX pk_{table} ON {table} (id)")
        for index in INDEX.findall(Path(schema_path).read_text(encoding="utf-8")):
            database.execute(index)


def extension(package: str) -> Path:
    """The file in the wheel, so that DuckDB does not download it."""
    found = importlib.util.find_spec(package)
    assert found is not None and found.origin is not None
    return next(Path(found.origin).parent.rglob("*.duckdb_extension"))


if __name__ == "__main__":
    copy(*sys.argv[1:])
