"""Columns that the source has nothing for: the schema's default holds, whatever its form, and nothing else does."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import List, Optional

import pytest

import config
from migration.model import Table, shared
from migration.settings import Settings
from migration.sqlite.schema import read_schema
from migration.validation.defaults import is_moment, of_rows
from migration.validation.report import Finding
from support.migrations import export_and_import, own_copy, settings_of
from support.places import SCHEMA, Place, edited_schema, extended_schema
from support.servers import Database
from support.sqlite_files import lawless
from validate_migration import validate

CONSTANT = {
    "bare_word": "TEXT DEFAULT pending",
    "bare_keyword": "TEXT NOT NULL DEFAULT CURRENT_USER",
    "double_quotes": 'TEXT DEFAULT "x(y)"',
    "text": "TEXT DEFAULT 'it''s'",
    "parenthesis": "TEXT DEFAULT 'f(x)'",
    "keyword_in_text": "TEXT DEFAULT 'CURRENT_TIMESTAMP'",
    "negative": "INTEGER DEFAULT -1",
    "positive": "INTEGER DEFAULT +1",
    "number_as_text": "TEXT DEFAULT 1",
    "text_as_number": "INTEGER DEFAULT '1'",
    "real": "REAL DEFAULT 1",
    "exponent": "REAL DEFAULT 1e3",
    "hexadecimal": "INTEGER DEFAULT 0x10",
    "blob": "BLOB DEFAULT x'00'",
    "truth": "BOOLEAN DEFAULT TRUE",
    "no_default": "TEXT",
    "default_null": "TEXT DEFAULT NULL",
    "expression": "INTEGER DEFAULT (1 + 2)",
    "function": "INTEGER DEFAULT (abs(-5))",
    "joined": "TEXT DEFAULT ('a' || 'b')",
    "collated": "TEXT COLLATE NOCASE DEFAULT 'Pending'",
    "json": "TEXT DEFAULT '{}'",
    "empty": "TEXT DEFAULT ''",
    "fixed_day": "TEXT DEFAULT '2026-01-25 22:18:49'",
    "declared": "DATETIME",
}
VARYING = {
    "stamp": "TEXT DEFAULT CURRENT_TIMESTAMP",
    "stamp_expression": "TEXT NOT NULL DEFAULT (datetime('now'))",
    "iso": "TEXT DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now'))",
    "day": "TEXT DEFAULT CURRENT_DATE",
    "clock": "TEXT DEFAULT (time('now'))",
    "seconds": "INTEGER DEFAULT (strftime('%s', 'now'))",
    "seconds_as_text": "TEXT DEFAULT (strftime('%s', 'now'))",
    "julian": "REAL DEFAULT (julianday('now'))",
    "chance": "INTEGER DEFAULT (random())",
    "random_id": "TEXT DEFAULT (lower(hex(randomblob(4))) || '-' || lower(hex(randomblob(2))))",
    "random_blob": "BLOB DEFAULT (randomblob(8))",
}
COLUMNS = {**CONSTANT, **VARYING}
OTHER = {
    "bare_word": "'PENDING'",
    "collated": "'PENDING'",
    "number_as_text": "CAST('1' AS BLOB)",
    "real": "2",
    "truth": "0",
    "no_default": "''",
    "default_null": "'NULL'",
    "blob": "x'0000'",
    "fixed_day": "'2026-01-25 22:18:50'",
    "declared": "'2026-01-25'",
}
MALFORMED = {
    "fixed_day": "'2026-21-25 22:18:49'",
    "declared": "'2026-02-30'",
    "stamp": "'2026-21-25 22:18:49'",
    "stamp_expression": "'2026-11-26 25:18:49'",
    "iso": "'2026-02-29T22:18:49.000Z'",
    "day": "'2026-06-31'",
    "clock": "'24:00:01'",
    "seconds": "'soon'",
    "seconds_as_text": "'1764'||char(0)||'00000'",
    "julian": "'2461000.5 days'",
    "chance": "'x'",
    "random_id": "'0123456G-0123'",
    "random_blob": "'text'",
}


@pytest.fixture(scope="module")
def finished(sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A migration with a column for each default, in a table of which the source has the id and one more."""
    place = Place(tmp_path_factory.mktemp("defaults"))
    listed = ", ".join("%s %s" % column for column in COLUMNS.items())
    schema = extended_schema(
        place.folder,
        "DROP VIEW client_summary; DROP VIEW recent_charts; DROP TABLE location_cache;"
        "CREATE TABLE location_cache (id TEXT PRIMARY KEY, city_name TEXT NOT NULL CHECK (city_name > ''), %s);"
        "CREATE TRIGGER meddling AFTER INSERT ON location_cache BEGIN DELETE FROM location_cache; END;"
        % listed,
    )
    names = [
        "state_province",
        "country",
        "latitude",
        "longitude",
        "timezone",
        "geonames_id",
        "created_at",
        "updated_at",
    ]
    tables = (*config.TABLES[:-1], Table("location_cache", shared(), dropped=tuple(names)))
    made = settings_of(
        sample_database.url, place, schema_path=schema, tables=tables, offline=True, max_differences=100
    )
    export_and_import(made)
    return made


@pytest.fixture()
def settings(finished: Settings, place: Place) -> Settings:
    return own_copy(finished, place)


def of_column(findings: List[Finding], name: str) -> List[Finding]:
    return [finding for finding in findings if finding.column == name]


def test_right_migration_passes_whatever_the_default(settings: Settings) -> None:
    assert validate(settings).findings == []


def test_value_that_is_not_the_default_is_named(settings: Settings) -> None:
    changed = {name: OTHER.get(name, "'changed'") for name in CONSTANT}
    with lawless(settings) as database:
        sets = ", ".join("%s = %s" % item for item in changed.items())
        database.execute(
            "UPDATE location_cache SET %s WHERE id = (SELECT min(id) FROM location_cache)" % sets
        )
    findings = validate(settings).findings
    for name in changed:
        assert [(found.check, found.count) for found in of_column(findings, name)] == [("contents", 1)], name


def test_value_that_is_not_of_the_defaults_form_is_an_error(settings: Settings) -> None:
    assert set(MALFORMED) >= set(VARYING)
    with lawless(settings) as database:
        sets = ", ".join("%s = %s" % item for item in MALFORMED.items())
        database.execute(
            "UPDATE location_cache SET %s WHERE id = (SELECT max(id) FROM location_cache)" % sets
        )
    report = validate(settings)
    for name in MALFORMED:
        found = [(found.check, found.error, found.count) for found in of_column(report.findings, name)]
        assert found == [("types", True, 1)], name


def test_null_where_the_schema_has_a_value_is_named(settings: Settings) -> None:
    with lawless(settings) as database:
        database.execute("UPDATE location_cache SET stamp = NULL, bare_word = NULL")
    assert {found.column for found in validate(settings).findings} == {"stamp", "bare_word"}


def test_date_of_another_form_is_worth_a_warning(settings: Settings) -> None:
    with lawless(settings) as database:
        database.execute("UPDATE location_cache SET stamp = replace(stamp, ' ', 'T'), iso = iso || '+00:00'")
    found = {(found.check, found.column, found.error) for found in validate(settings).findings}
    assert found == {("contents", "stamp", False), ("types", "iso", True)}


def test_default_that_is_no_date_is_named_though_the_schema_file_has_it(
    sample_database: Database, place: Place
) -> None:
    default = "ALTER TABLE location_cache ADD COLUMN made TEXT DEFAULT '2026-21-25 22:18:49';"
    settings = settings_of(sample_database.url, place, lite=default)
    export_and_import(settings)
    (found,) = validate(settings).findings
    assert (found.check, found.column, found.error) == ("types", "made", True)
    assert "location_cache.made is not a date or time" in found.message


def test_default_of_the_users_row_is_held_against_it_too(sample_database: Database, place: Place) -> None:
    made = settings_of(
        sample_database.url,
        place,
        lite="ALTER TABLE app_config ADD COLUMN state DEFAULT pending;"
        "ALTER TABLE app_config ADD COLUMN migrated_at TEXT;"
        "UPDATE app_config SET migrated_at = datetime('now'), app_version = '2.0';",
    )
    export_and_import(made)
    assert validate(made).findings == []
    with lawless(made) as database:
        database.execute("UPDATE app_config SET migrated_at = '2026-21-25 22:18:49', app_version = '1.0.0'")
    found = {(found.column, found.error) for found in validate(made).findings}
    assert found == {("migrated_at", True), ("app_version", False)}


POINTS = ("displayed_points TEXT,", "displayed_points TEXT NOT NULL DEFAULT '[]',")
ORBS = ("aspect_orbs TEXT,", "aspect_orbs TEXT DEFAULT '{}',")


@pytest.mark.parametrize("against", ["bundle", "source"])
@pytest.mark.parametrize(
    ("source", "edit", "damage"),
    [
        ("aspect_orbs = 'null', displayed_points = 'null'", POINTS, None),
        ("displayed_points = NULL", POINTS, None),
        ("aspect_orbs = NULL", ORBS, "aspect_orbs = '{}'"),
    ],
    ids=["JSON's is the user's", "becomes the default where it may not stay", "stays where it may"],
)
def test_null_of_a_column_with_a_default(
    database: Database,
    place: Place,
    against: str,
    source: str,
    edit: "tuple[str, str]",
    damage: Optional[str],
) -> None:
    database.execute("UPDATE user_preferences SET " + source)
    made = settings_of(database.url, place, schema_path=edited_schema(place.folder, *edit), against=against)
    export_and_import(made)
    assert validate(made).findings == []
    if damage is not None:
        with lawless(made) as connection:
            connection.execute("UPDATE user_preferences SET " + damage)
        assert not validate(made).passed


def test_default_that_sqlite_has_no_function_for_is_not_evaluated_needlessly(
    sample_database: Database, place: Place
) -> None:
    schema = edited_schema(
        place.folder, "city_name TEXT NOT NULL,", "city_name TEXT NOT NULL DEFAULT (of_the_application()),"
    )
    made = settings_of(sample_database.url, place, schema_path=schema)
    export_and_import(made)
    assert validate(made).findings == []  # nothing asks for it: the source has a value


def test_default_is_evaluated_in_a_table_of_many_rules(place: Place) -> None:
    if sqlite3.sqlite_version_info < (3, 37):
        pytest.skip("this SQLite has no STRICT tables")
    path = place.folder / "schema.sql"
    path.write_text(
        "PRAGMA foreign_keys = ON; BEGIN; CREATE TABLE parent (id INTEGER PRIMARY KEY);"
        "CREATE TABLE strict_one (id TEXT NOT NULL, parent INT NOT NULL REFERENCES parent, content BLOB NOT NULL,"
        " j TEXT NOT NULL CHECK (json_valid(j)), size INT AS (length(j)) STORED, state TEXT DEFAULT pending,"
        " at TEXT DEFAULT (datetime('now', 'localtime')), never TEXT NOT NULL DEFAULT NULL, share ANY DEFAULT 1.5,"
        " PRIMARY KEY (id, parent)) STRICT, WITHOUT ROWID;"
        "CREATE TRIGGER never_any BEFORE INSERT ON strict_one BEGIN SELECT RAISE (ABORT, 'no'); END;",
        encoding="utf-8",
    )
    made = of_rows(read_schema(path), "strict_one", ("state", "at", "share"))
    assert [made[name].constant for name in ("state", "at", "share")] == [True, False, True]
    assert (made["state"].value, made["share"].value, made["at"].moment) == ("pending", 1.5, True)


# One form of time


def test_what_the_application_writes_has_the_form_of_what_was_migrated(
    settings: Settings, place: Place
) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.executescript(Path(SCHEMA).read_text(encoding="utf-8"))
        database.execute("INSERT INTO clients (id) VALUES ('x')")
        moments = list(database.execute("SELECT created_at, updated_at FROM clients").fetchone())
        database.execute("UPDATE clients SET created_at = '', updated_at = '' WHERE id = 'x'")
        moments += database.execute("SELECT updated_at FROM clients").fetchone()
    assert all(is_moment(moment) and moment[10] == "T" and len(moment) == 19 for moment in moments)


def test_each_default_and_trigger_of_the_schema_writes_that_form() -> None:
    schema = read_schema(Path(SCHEMA))
    for table, columns in schema.columns.items():
        names = tuple(column.name for column in columns.values() if "now" in (column.default or ""))
        assert names or table == "sqlite_sequence"
        for made in of_rows(schema, table, names).values():
            assert made.moment and made.value[10] == "T"
    assert "datetime(" not in Path(SCHEMA).read_text(encoding="utf-8")


def test_form_that_the_operators_schema_writes_is_no_error(database: Database, place: Place) -> None:
    database.execute("ALTER TABLE users ALTER created_at DROP NOT NULL")
    database.execute("UPDATE users SET created_at = NULL")
    schema = edited_schema(place.folder, "strftime('%Y-%m-%dT%H:%M:%S', 'now')", "datetime('now')")
    made = settings_of(database.url, place, schema_path=schema)
    export_and_import(made)
    assert validate(made).findings == []
    with contextlib.closing(sqlite3.connect(str(made.sqlite_path), isolation_level=None)) as application:
        application.execute("UPDATE clients SET phone = 'x'")  # and the trigger updated_at
    found = validate(made).findings
    assert {finding.check for finding in found} == {"contents"}
