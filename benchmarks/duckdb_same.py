"""The suite's duties, done by DuckDB: what `migrate.py` is held against.

    python -m benchmarks.duckdb_same POSTGRES_URL EMAIL FOLDER NEW.db SCHEMA.sql

One user's rows of one snapshot to JSON files with their SHA256, from these into the declared schema in one
transaction, in the forms of the type contract; indexes, `integrity_check`, `foreign_key_check`; and every cell
compared with PostgreSQL, both ways. Fails where one differs. No backup, no lock, nothing published whole or not at
all, no report, no other type than the schema's, nothing said of a row that is lost on the way out.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any, Dict, List, Sequence, Tuple

from benchmarks.duckdb_copy import EXTENSIONS, INDEX, extension
from benchmarks.floors import ROWS_OF_USER

# DuckDB's type in PostgreSQL's table → SQL for the form that SQLite is given. A fraction has six digits or none.
MOMENT = "replace(regexp_replace(regexp_replace({0}::VARCHAR, '(\\.\\d+)', '\\1000000'), '(\\.\\d{{6}})\\d+', '\\1'), ' ', 'T')"
FORMS = {"TIMESTAMP": MOMENT, "TIME": MOMENT, "BOOLEAN": "{0}::INTEGER", "DECIMAL": "{0}::DOUBLE"}
TEXT = "{0}::VARCHAR"
DEFAULT = re.compile(r"DEFAULT \(strftime\([^)]*\)\)")  # which DuckDB takes for a function of its own
SAME = {"INTEGER", "BIGINT", "DOUBLE", "VARCHAR"}


def migrate(url: str, email: str, folder: Path, sqlite_path: str, schema_path: str) -> None:
    import duckdb  # type: ignore[import-not-found, unused-ignore]  # here, because it may not be there

    script = DEFAULT.sub("", Path(schema_path).read_text(encoding="utf-8"))
    with contextlib.closing(sqlite3.connect(sqlite_path)) as database:
        database.executescript("PRAGMA journal_mode = DELETE;" + re.sub(INDEX, "", script))
        columns = {table: _columns(database, table) for table in ROWS_OF_USER}
    with contextlib.closing(duckdb.connect()) as connection:
        for package in EXTENSIONS:
            connection.execute(f"LOAD '{extension(package)}'")
        connection.execute(f"ATTACH '{url}' AS source (TYPE postgres, READ_ONLY)")
        connection.execute(f"ATTACH '{sqlite_path}' AS target (TYPE sqlite)")
        connection.execute("BEGIN")
        ((user,),) = connection.execute(
            "SELECT id::VARCHAR FROM source.public.users WHERE email = ?", [email]
        ).fetchall()
        for table, condition in ROWS_OF_USER.items():
            rows = f"FROM source.public.{table} WHERE {_of_source(condition, user)}"
            types = _types(connection, table)
            exported, taken = _forms(columns[table], types)
            file = folder / f"{table}.json"
            connection.execute(f"COPY (SELECT * {rows} ORDER BY id) TO '{file}' (FORMAT json, ARRAY true)")
            file.with_suffix(".sha256").write_text(_sha256(file))
            if _sha256(file) != file.with_suffix(".sha256").read_text():
                raise SystemExit(f"{file} is damaged")
            described = ", ".join(
                f"'{name}': '{'JSON' if kind == 'JSON' else 'VARCHAR'}'" for name, kind in types.items()
            )
            read = (
                f"read_json('{file}', format='array', columns={{{described}}}, maximum_object_size=100000000)"
            )
            names = ", ".join(columns[table])
            connection.execute(f"INSERT INTO target.{table} ({names}) SELECT {taken} FROM {read}")
        connection.execute("COMMIT")
        with contextlib.closing(sqlite3.connect(sqlite_path)) as database, database:
            for index in INDEX.findall(script):
                database.execute(index)
            if database.execute("PRAGMA integrity_check").fetchall() != [("ok",)]:
                raise SystemExit("the file is not sound")
            if database.execute("PRAGMA foreign_key_check").fetchall():
                raise SystemExit("references lead nowhere")
        for table, condition in ROWS_OF_USER.items():
            exported, _ = _forms(columns[table], _types(connection, table))
            there = f"SELECT {exported} FROM source.public.{table} WHERE {_of_source(condition, user)}"
            here = f"SELECT {', '.join(columns[table])} FROM target.{table}"
            for one, other in ((there, here), (here, there)):
                ((rows,),) = connection.execute(f"SELECT count(*) FROM ({one} EXCEPT ALL {other})").fetchall()
                if rows:
                    raise SystemExit(f"{table}: {rows} rows differ")


def _of_source(condition: str, user: str) -> str:
    return re.sub(r"FROM (\w+)", r"FROM source.public.\1", condition).format(user=f"'{user}'")


def _columns(database: sqlite3.Connection, table: str) -> List[str]:
    return [column[1] for column in database.execute(f"PRAGMA table_info({table})")]


def _types(connection: Any, table: str) -> Dict[str, str]:
    described = connection.execute(f"DESCRIBE source.public.{table}").fetchall()
    return {name: kind.partition("(")[0] for name, kind, *_ in described}


def _forms(columns: Sequence[str], types: Dict[str, str]) -> Tuple[str, str]:
    """What PostgreSQL's row, and a record of JSON, say of each column of SQLite."""
    exported, taken = [], []
    for name in columns:
        kind = types[name]
        form = FORMS.get(kind, "{0}" if kind in SAME else TEXT)
        exported.append(form.format(name))
        typed = (
            name
            if kind in ("VARCHAR", "JSON")
            else f"{name}::{'DECIMAL(18, 7)' if kind == 'DECIMAL' else kind}"
        )
        taken.append(form.format(typed))
    return ", ".join(exported), ", ".join(taken)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


if __name__ == "__main__":
    migrate(sys.argv[1], sys.argv[2], Path(sys.argv[3]), *sys.argv[4:])
