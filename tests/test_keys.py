"""Rows and records are paired by keys of any type, or as whole rows: every cell is compared, and each damage is named."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from typing import Any, List, Tuple

import pytest
from conftest import ANNA, Database, Place, extended_schema, settings_of

import config
from export_from_postgres import export
from import_to_sqlite import import_
from migration.report import Report
from migration.settings import Settings
from migration.tables import Table, owned_by
from validate_migration import validate

# type in PostgreSQL, three values of a key in an order that is not SQLite's everywhere, the column's type in SQLite
KINDS = [
    ("numeric", "1.50 10 9", "REAL"),
    ("numeric", "1.50 10 9", "TEXT"),
    ("numeric(30,10)", "12345678901234567890.5 -1 NaN", "TEXT"),
    ("date", "2025-01-01 0044-03-15_BC 10000-01-01", "TEXT"),
    ("timestamptz", "2025-01-01T00:00:00.5+02 infinity 2025-01-01T00:00:00", "TEXT"),
    ("timestamp", "2025-01-01T00:00:00.123 2025-01-01T00:00:00 0044-03-15T00:00:00_BC", "TEXT"),
    ("time", "10:00 09:59:59.5 24:00", "TEXT"),
    ("bytea", r"\x00ff \xff \x", "BLOB"),
    ("bytea", r"\x00ff \xff \x", "TEXT"),
    ("float8", "0.1 -Infinity NaN", "REAL"),
    ("float8", "1e300 -2.5 0", "REAL"),
    ("interval", "P1D PT1H P1M", "TEXT"),
    ("int[]", "{1,2} {10} {}", "TEXT"),
    ("mood", "calm tense odd", "TEXT"),
    ("inet", "10.0.0.1 ::1 9.0.0.1/8", "TEXT"),
    ("citext", "b A c", "TEXT"),
    ("char(3)", "b a c", "TEXT"),
    ("bigint", "9007199254740993 -1 10", "TEXT"),
    ("bigint", "9007199254740993 -1 10", "INTEGER"),
    ("text", "é 😀 z", "TEXT"),
    ("text", "é 😀 z", "TEXT COLLATE NOCASE"),
]


def migrated(
    database: Database, place: Place, made: str, lite: str, schema_head: str = ""
) -> Tuple[Settings, Report]:
    """Anna's things, of a table that ``made`` makes and ``lite`` describes for SQLite."""
    database.execute("CREATE EXTENSION citext; CREATE TYPE mood AS ENUM ('tense', 'odd', 'calm');" + made)
    database.execute("UPDATE things SET user_id = (SELECT id FROM users WHERE email = %s)", ANNA)
    schema = extended_schema(place.folder, lite)
    schema.write_text(schema_head + schema.read_text(encoding="utf-8"), encoding="utf-8")
    tables = (*config.TABLES, Table("things", owned_by("user_id")))
    settings = settings_of(database.url, place, tables=tables, schema_path=schema)
    export(settings)
    import_(settings)
    return settings, validate(settings)


def assert_whole(settings: Settings, report: Report, rows: int, columns: int) -> None:
    for against in ("bundle", "source"):
        report = validate(dataclasses.replace(settings, against=against, strict=True))
        assert report.errors == []
        result = report.validation_results["things"]
        assert result.match
        assert result.cells == rows * columns


def damaged(settings: Settings, sql: str, *values: Any) -> List[str]:
    """What the validation says of a damage, which is mended afterwards."""
    before = settings.sqlite_path.read_bytes()
    with contextlib.closing(sqlite3.connect(str(settings.sqlite_path))) as connection:
        assert connection.execute(sql, values).rowcount
        connection.commit()
        connection.execute("PRAGMA journal_mode = DELETE")
    found = []
    for against in ("bundle", "source"):
        report = validate(dataclasses.replace(settings, against=against))
        assert not report.passed, sql
        assert not report.validation_results["things"].match, sql
        found += [message for message in report.errors if "things" in message]
    settings.sqlite_path.write_bytes(before)
    assert found, sql
    return found


@pytest.mark.parametrize(("kind", "values", "target"), KINDS)
def test_key_of_any_type_pairs_rows_and_records(
    database: Database, place: Place, kind: str, values: str, target: str
) -> None:
    made = "CREATE TABLE things (k %s PRIMARY KEY, user_id uuid, a int, b text);" % kind
    for number, value in enumerate(values.split(" ")):
        made += "INSERT INTO things VALUES ('%s', NULL, %d, 'b%d');" % (
            value.replace("_", " "),
            number,
            number,
        )
    settings, report = migrated(
        database, place, made, "CREATE TABLE things (k %s PRIMARY KEY, a INTEGER, b TEXT)" % target
    )
    assert_whole(settings, report, 3, 3)
    assert any("column a" in line for line in damaged(settings, "UPDATE things SET a = 9 WHERE a = 1"))
    damaged(settings, "DELETE FROM things WHERE a = 0")
    damaged(settings, "UPDATE things SET b = CASE a WHEN 1 THEN 'b2' ELSE 'b1' END WHERE a > 0")


def test_key_of_many_columns_of_many_types(database: Database, place: Place) -> None:
    made = (
        "CREATE TABLE things (a numeric, b date, c bytea, d bool, e text, f float8, g int, h uuid, i timestamptz, j interval,"
        " user_id uuid, x text, PRIMARY KEY (f, a, b, c, d, e, g, h, i, j));"
        "INSERT INTO things SELECT n % 3, date '2025-01-01' + n, decode(md5(n::text), 'hex'), n % 2 = 0, 'e' || n, n / 3.0, n,"
        " md5(n::text)::uuid, timestamptz '2025-01-01 00:00+00' + n * interval '1 h', n * interval '1 d', NULL, 'x' || n"
        " FROM generate_series(1, 40) n;"
    )
    lite = (
        "CREATE TABLE things (a REAL, b TEXT, c BLOB, d INTEGER, e TEXT, f REAL, g INTEGER, h TEXT, i TEXT, j TEXT, x TEXT,"
        " PRIMARY KEY (j, i, h, g, f, e, d, c, b, a))"
    )
    settings, report = migrated(database, place, made, lite)
    assert_whole(settings, report, 40, 11)
    for column in "abcdefghijx":
        damaged(settings, "UPDATE things SET %s = 'other' WHERE g = 7" % column)


WHOLE = (
    "CREATE TABLE things (user_id uuid, a int, b text, c numeric(9,2));"
    "INSERT INTO things SELECT NULL, n % 4, CASE WHEN n % 3 > 0 THEN 'b' || n % 3 END, 1.5 FROM generate_series(1, 24) n;"
)
WHOLE_LITE = "CREATE TABLE things (a INTEGER, b TEXT, c REAL)"


def test_table_without_a_key_is_compared_row_by_row(database: Database, place: Place) -> None:
    settings, report = migrated(database, place, WHOLE, WHOLE_LITE)
    assert_whole(settings, report, 24, 3)
    (message, *_) = damaged(settings, "UPDATE things SET c = 1.6 WHERE rowid = 5")
    damaged(settings, "UPDATE things SET b = NULL WHERE rowid = 1")
    (message, *_) = damaged(settings, "DELETE FROM things WHERE rowid = 3")
    assert "1 times in SQLite, 2 times expected" in "".join(
        damaged(settings, "DELETE FROM things WHERE rowid = 3")
    )
    damaged(settings, "INSERT INTO things SELECT * FROM things WHERE rowid = 3")
    damaged(settings, "INSERT INTO things VALUES (99, 'new', 1.5)")
    damaged(
        settings,
        "UPDATE things SET b = CASE rowid WHEN 1 THEN 'b2' ELSE 'b1' END WHERE rowid IN (1, 2) AND b IS NOT NULL",
    )


def test_two_exports_of_a_table_without_a_key_are_the_same_bytes(database: Database, place: Place) -> None:
    settings, _ = migrated(database, place, WHOLE, WHOLE_LITE)
    first = (place.data / "things.json").read_bytes()
    database.execute("UPDATE things SET c = c; CREATE INDEX by_b ON things (b); CLUSTER things USING by_b")
    export(settings)
    assert (place.data / "things.json").read_bytes() == first


def test_changes_at_the_source_of_a_table_without_a_key_are_counted(database: Database, place: Place) -> None:
    settings, _ = migrated(database, place, WHOLE, WHOLE_LITE)
    database.execute("INSERT INTO things SELECT * FROM things WHERE a = 0 LIMIT 1")
    report = validate(settings)
    assert not report.passed
    assert report.source_changes["things"].added.rows == 1
    assert report.source_changes["things"].removed.rows == 0


@pytest.mark.parametrize(
    "lite",
    [
        "CREATE TABLE things (k TEXT, a INTEGER, b TEXT)",
        "CREATE TABLE things (k TEXT PRIMARY KEY, a INTEGER, b TEXT) WITHOUT ROWID",
        "CREATE TABLE things (own INTEGER PRIMARY KEY, k TEXT, a INTEGER, b TEXT)",
        "CREATE TABLE things (k TEXT, a INTEGER PRIMARY KEY, b TEXT)",
    ],
    ids=["no key", "without rowid", "a key of its own", "another column"],
)
def test_sqlites_key_need_not_be_the_sources(database: Database, place: Place, lite: str) -> None:
    made = (
        "CREATE TABLE things (k uuid PRIMARY KEY, user_id uuid, a int, b text);"
        "INSERT INTO things SELECT md5(n::text)::uuid, NULL, n, 'b' || n FROM generate_series(1, 30) n;"
    )
    settings, report = migrated(database, place, made, lite)
    assert_whole(settings, report, 30, 3)
    for column in ("k", "a", "b"):
        damaged(settings, "UPDATE things SET %s = 9999 WHERE b = 'b7'" % column)


def test_unique_key_stands_in_for_a_missing_primary_key(database: Database, place: Place) -> None:
    made = (
        "CREATE TABLE things (user_id uuid, a int NOT NULL, b text NOT NULL, c text, UNIQUE (a, b), UNIQUE (c));"
        "INSERT INTO things SELECT NULL, n % 5, 'b' || n, NULL FROM generate_series(1, 30) n;"
    )
    settings, report = migrated(database, place, made, "CREATE TABLE things (a INTEGER, b TEXT, c TEXT)")
    assert_whole(settings, report, 30, 3)
    found = damaged(settings, "UPDATE things SET c = 'x' WHERE b = 'b7'")
    assert any("things 2, b7, column c" in line for line in found)


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_database_of_another_encoding_is_compared_alike(
    database: Database, place: Place, encoding: str
) -> None:
    made = (
        "CREATE TABLE things (k text PRIMARY KEY, user_id uuid, a int);"
        "INSERT INTO things SELECT chr(n), NULL, n FROM generate_series(97, 1500) n"
        " WHERE n NOT BETWEEN 127 AND 160;"
        "INSERT INTO things VALUES ('\U0001f600', NULL, 1), ('\uffee', NULL, 2);"
    )
    head = "PRAGMA encoding = '%s';\n" % encoding
    settings, report = migrated(
        database, place, made, "CREATE TABLE things (k TEXT PRIMARY KEY, a INTEGER)", head
    )
    with contextlib.closing(sqlite3.connect(str(place.app))) as connection:
        assert connection.execute("PRAGMA encoding").fetchone() == (encoding,)
    rows = database.rows("SELECT count(*) FROM things")[0][0]
    assert_whole(settings, report, rows, 2)
    damaged(settings, "UPDATE things SET a = 0 WHERE k = 'é'")
