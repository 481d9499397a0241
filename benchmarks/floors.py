"""What the way out of PostgreSQL and the way into SQLite take at the least, with nothing done on the way.

python -m benchmarks.floors copy POSTGRES_URL EMAIL     COPY of the user's rows as JSON, to nowhere
python -m benchmarks.floors insert OLD.db NEW.db        INSERT … SELECT of all rows, and the indexes
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import sys
from typing import Sequence

OF_CLIENT = "client_id IN (SELECT id FROM clients WHERE user_id = {user})"
OF_CHART = "chart_id IN (SELECT id FROM charts WHERE user_id = {user})"
ROWS_OF_USER = {
    "clients": "user_id = {user}",
    "birth_data": OF_CLIENT,
    "charts": "user_id = {user}",
    "chart_interpretations": OF_CHART,
    "interpretations": "user_id = {user} OR user_id IS NULL",
    "aspect_patterns": OF_CHART,
    "transit_events": OF_CHART,
    "session_notes": "user_id = {user}",
    "location_cache": "true",
}


def copy(postgres_url: str, email: str) -> None:
    """COPY the user's rows as the export does, but in any order, unchecked and to nowhere."""
    import psycopg2  # here, because the other floor does without it

    with contextlib.closing(psycopg2.connect(postgres_url)) as connection, open(os.devnull, "wb") as nowhere:
        cursor = connection.cursor()
        cursor.execute("SELECT quote_literal(id) FROM users WHERE email = %s", [email])
        (user,) = cursor.fetchall()[0]
        for table, condition in ROWS_OF_USER.items():
            rows = f"SELECT row_to_json(t) FROM {table} AS t WHERE {condition.format(user=user)}"
            cursor.copy_expert(f"COPY ({rows}) TO STDOUT", nowhere)


def insert(old: str, new: str) -> None:
    """Fill a new database with the tables of an old one, then make its indexes, in one transaction.

    SQLite's settings are its defaults. The columns are named, because with ``SELECT *`` SQLite would move the
    records of like tables unread (xferOptimization in https://www.sqlite.org/src/file/src/insert.c).
    """
    with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as database:
        database.execute("ATTACH ? AS old", [old])
        database.execute("BEGIN")
        for table, sql in _declared(database, "table"):
            database.execute(sql)
            names = ", ".join(column[1] for column in database.execute(f"PRAGMA old.table_info({table})"))
            database.execute(f"INSERT INTO main.{table} ({names}) SELECT {names} FROM old.{table}")
        for _, sql in _declared(database, "index"):
            database.execute(sql)
        database.execute("COMMIT")


def _declared(database: sqlite3.Connection, kind: str) -> Sequence[Sequence[str]]:
    return database.execute(
        "SELECT name, sql FROM old.sqlite_master WHERE type = ? AND sql IS NOT NULL ORDER BY rowid", [kind]
    ).fetchall()


if __name__ == "__main__":
    {"copy": copy, "insert": insert}[sys.argv[1]](*sys.argv[2:])
