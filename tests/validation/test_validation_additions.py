"""What is in a database beyond its schema file: the application's own, unless an import has just ended."""

from __future__ import annotations

import contextlib
import dataclasses
import sqlite3
from pathlib import Path
from typing import Iterator, List

import pytest

from export_from_postgres import export
from import_to_sqlite import import_
from migration.settings import Settings
from migration.sqlite import publishing
from migration.sqlite.schema import table_names
from migration.validation.page import render
from support.migrations import export_and_import, settings_of
from support.places import SCHEMA, Place, extended_schema
from support.runs import Run
from support.servers import Database
from support.sqlite_files import change
from validate_migration import validate

ADDITIONS = {
    "column": ("ALTER TABLE clients ADD COLUMN nick TEXT", "table clients has a column nick too many"),
    "column with rules": (
        "ALTER TABLE charts ADD COLUMN looks TEXT NOT NULL DEFAULT 'x' CHECK (looks <> '') COLLATE NOCASE",
        "table charts has a column looks too many",
    ),
    "column that refers": (
        "ALTER TABLE charts ADD COLUMN twin TEXT REFERENCES charts (id)",
        "table charts has a column twin too many",
    ),
    "generated column": (
        "ALTER TABLE clients ADD COLUMN name TEXT AS (first_name || ' ' || last_name)",
        "table clients has a column name too many",
    ),
    "table": ("CREATE TABLE theirs (id, secret)", "table theirs is not in the schema file"),
    "index": ("CREATE INDEX mine ON clients (phone)", "index mine is not in the schema file"),
    "unique index": ("CREATE UNIQUE INDEX mine ON clients (id)", "index mine is not in the schema file"),
    "trigger": (
        "CREATE TRIGGER loss AFTER INSERT ON clients BEGIN DELETE FROM charts; END",
        "trigger loss is not in the schema file",
    ),
    "view": (
        "CREATE VIEW all_clients AS SELECT * FROM clients",
        "view all_clients is not in the schema file",
    ),
    "search": ("CREATE VIRTUAL TABLE found USING fts5(note)", "table found is not in the schema file"),
    "statistics": ("ANALYZE", "table sqlite_stat1 has"),
    "version": ("PRAGMA user_version = 7", "user_version is 7, and the schema file makes it 0"),
    "application": ("PRAGMA application_id = 9", "application_id is 9, and the schema file makes it 0"),
}


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(str(settings.sqlite_path), isolation_level=None)) as application:
        yield application


@pytest.mark.parametrize("name", ADDITIONS)
def test_addition_is_worth_a_warning(settings: Settings, name: str) -> None:
    statement, message = ADDITIONS[name]
    change(settings.sqlite_path, statement)
    report = validate(settings)
    assert report.passed
    assert {finding.check for finding in report.findings} == {"additions"}
    assert any(message in warning for warning in report.warnings), report.warnings


@pytest.mark.parametrize("name", ADDITIONS)
def test_addition_is_an_error_after_an_import_in_the_same_run(settings: Settings, name: str) -> None:
    statement, message = ADDITIONS[name]
    imported = publishing.stamp(settings.sqlite_path)
    change(settings.sqlite_path, statement)
    for stamp in (imported, publishing.stamp(settings.sqlite_path)):
        report = validate(settings, sound=stamp)
        assert any(message in error for error in report.errors), report.errors


def test_import_makes_nothing_beyond_its_schema_file(sample_database: Database, place: Place) -> None:
    schema = extended_schema(
        place.folder,
        "PRAGMA user_version = 3; PRAGMA application_id = 4; CREATE TABLE signs (id INTEGER PRIMARY KEY, name,"
        " at DEFAULT CURRENT_TIMESTAMP, seen, own); INSERT INTO signs (name, seen, own)"
        " VALUES ('Aries', strftime('%s', 'now'), random()), ('Taurus', date('now'), hex(randomblob(8)));"
        "CREATE VIRTUAL TABLE found USING fts5(note); INSERT INTO found VALUES ('x');"
        "CREATE TABLE counted (id INTEGER PRIMARY KEY AUTOINCREMENT); ANALYZE;",
    )
    made = settings_of(sample_database.url, place, schema_path=schema)
    export(made)
    stamp = import_(made).stamp
    assert validate(made, sound=stamp).findings == []
    change(made.sqlite_path, "UPDATE signs SET name = 'Libra' WHERE id = 1", "INSERT INTO counted VALUES (7)")
    change(made.sqlite_path, "UPDATE sqlite_stat1 SET stat = '1'")
    errors = validate(made, sound=stamp).errors
    assert len(errors) == 3
    assert "table signs has other rows than the schema file makes" in errors[0] + errors[1] + errors[2]
    assert "table counted has 1 rows, and the schema file makes 0" in errors[0] + errors[1] + errors[2]


def test_application_that_has_run_since_is_no_reason_for_a_rebuild(settings: Settings, run: Run) -> None:
    with opened(settings) as application:
        for table in table_names(application):
            application.execute('ALTER TABLE "%s" ADD COLUMN added_since TEXT DEFAULT "x"' % table)
            application.execute('CREATE TABLE "more_of_%s" (id INTEGER PRIMARY KEY, note)' % table)
            application.execute('CREATE INDEX "idx_more_of_%s" ON "%s" (added_since)' % (table, table))
            application.execute('INSERT INTO "more_of_%s" DEFAULT VALUES' % table)
        application.execute("ANALYZE")
    report = validate(settings)
    assert report.passed
    page = render(report.as_json())
    assert "python " not in page
    assert "An import replaces" not in page


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (["DROP INDEX idx_clients_last_name"], "index idx_clients_last_name is missing"),
        (["DROP TRIGGER clients_updated_at"], "trigger clients_updated_at is missing"),
        (["ALTER TABLE clients DROP COLUMN phone"], "table clients lacks column phone"),
        (["ALTER TABLE clients RENAME COLUMN phone TO mobile"], "table clients lacks column phone"),
        (
            [
                "PRAGMA writable_schema = ON",
                "UPDATE sqlite_master SET sql = replace(sql, 'ON DELETE CASCADE', '') WHERE name = 'charts'",
            ],
            "table charts differs from the schema file",
        ),
        (
            [
                "PRAGMA writable_schema = ON",
                "UPDATE sqlite_master SET sql = replace(sql, 'CHECK (id = 1)', '') WHERE name = 'app_config'",
            ],
            "table app_config differs from the schema file",
        ),
    ],
)
def test_what_is_missing_or_changed_is_an_error_beside_any_addition(
    settings: Settings, statements: List[str], named: str
) -> None:
    if "DROP COLUMN" in statements[0] and sqlite3.sqlite_version_info < (3, 35):
        pytest.skip("this SQLite drops no columns")
    change(settings.sqlite_path, "DROP VIEW client_summary", "DROP VIEW recent_charts", *statements)
    for table in ("clients", "charts", "app_config", "location_cache"):
        change(settings.sqlite_path, "ALTER TABLE %s ADD COLUMN added_since TEXT" % table)
    assert any(named in error for error in validate(settings).errors)


def test_quotes_that_sqlite_has_put_around_names_are_no_difference(settings: Settings) -> None:
    change(
        settings.sqlite_path,
        "DROP VIEW client_summary",
        "DROP VIEW recent_charts",
        "ALTER TABLE clients RENAME TO customers",
        "ALTER TABLE customers RENAME TO clients",
        "ALTER TABLE clients RENAME COLUMN phone TO mobile",
        "ALTER TABLE clients RENAME COLUMN mobile TO phone",
    )
    with opened(settings) as application:
        (sql,) = application.execute("SELECT sql FROM sqlite_master WHERE name = 'clients'").fetchone()
    assert '"clients"' in sql
    assert {error for error in validate(settings).errors if "missing" not in error} == set()


def test_case_of_a_bare_word_that_is_a_default_counts(sample_database: Database, place: Place) -> None:
    added = "ALTER TABLE app_config ADD COLUMN state TEXT DEFAULT %s;"
    made = settings_of(sample_database.url, place, lite=added % "Pending")
    export_and_import(made)
    extended_schema(place.folder, added % "PENDING")
    errors = validate(made).errors
    assert any("column state with another type, default" in error for error in errors)


def test_index_on_a_collation_of_the_application_is_no_damage(settings: Settings) -> None:
    with opened(settings) as application:
        application.create_collation("ours", lambda one, other: (one > other) - (one < other))
        application.create_function("ours", 1, lambda value: value, deterministic=True)
        application.execute("CREATE INDEX ours ON clients (last_name COLLATE ours)")
        application.execute("CREATE INDEX ours_too ON clients (ours(last_name))")
    report = validate(settings)
    assert report.passed
    assert {finding.check for finding in report.findings} == {"additions", "integrity"}


def test_views_and_triggers_of_the_schema_file_are_held_by_their_text(
    settings: Settings, place: Place
) -> None:
    change(settings.sqlite_path, "DROP TRIGGER clients_updated_at")
    text = Path(SCHEMA).read_text(encoding="utf-8")
    begin = text.index("CREATE TRIGGER IF NOT EXISTS clients_updated_at")
    trigger = text[begin : text.index("END;", begin) + 4]
    change(settings.sqlite_path, trigger.replace("WHERE id = NEW.id", "WHERE id <> NEW.id"))
    report = validate(dataclasses.replace(settings))
    assert report.errors == ["Schema: trigger clients_updated_at differs from the schema file"]
