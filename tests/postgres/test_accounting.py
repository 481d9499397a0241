"""Every table and column of the user is migrated, or declared as left behind, or stops the run."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path

import psycopg2
import pytest

import config
from export_from_postgres import export
from migration.errors import ExitCode, MigrationError
from migration.model import Table, child_of, owned_by
from migration.settings import Settings
from support.migrations import WHOLE, export_and_import, settings_of
from support.places import ANNA, BRUNO, SCHEMA, Place, extended_schema
from support.servers import Database
from support.sqlite_files import lawless, rows_of
from validate_migration import validate

INVOICES = """
CREATE TABLE invoices (id uuid PRIMARY KEY, user_id uuid NOT NULL REFERENCES users, amount numeric(9,2), paid bool);
INSERT INTO invoices SELECT md5(random()::text)::uuid, users.id, n + 0.5, n = 1 FROM users, generate_series(1, 3) n
"""
LINES = """
CREATE TABLE invoice_lines (id uuid PRIMARY KEY, invoice_id uuid NOT NULL REFERENCES invoices, item text);
INSERT INTO invoice_lines SELECT md5(random()::text)::uuid, id, 'of ' || user_id FROM invoices
"""


def refused(settings: Settings) -> MigrationError:
    with pytest.raises(MigrationError) as caught:
        export(settings)
    assert caught.value.exit_code == ExitCode.USAGE
    assert not settings.data_dir.exists()
    return caught.value


# Tables


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        pytest.param(INVOICES, "invoices", id="foreign key to users"),
        pytest.param(INVOICES + ";" + LINES, "invoice_lines", id="two hops away"),
        pytest.param("CREATE TABLE visits (user_id uuid)", "visits", id="user_id without a key"),
        pytest.param(
            "CREATE TABLE photos (id int, client_id uuid REFERENCES clients)", "photos", id="through clients"
        ),
        pytest.param(
            "CREATE TABLE parts (id int, owner uuid REFERENCES users) PARTITION BY RANGE (id);"
            "CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9)",
            "parts",
            id="partitioned",
        ),
        pytest.param(
            "CREATE SCHEMA billing; CREATE TABLE billing.cards (id int, owner uuid REFERENCES users)",
            "billing.cards",
            id="another schema",
        ),
        pytest.param('CREATE TABLE "Odd name" (user_id uuid)', "Odd name", id="quoted name"),
    ],
)
def test_undeclared_table_of_the_user_stops_the_export(
    database: Database, place: Place, sql: str, named: str
) -> None:
    database.execute(sql)
    error = refused(settings_of(database.url, place))
    assert named in error.message
    assert "config.TABLES" in (error.hint or "")
    assert "config.EXCLUDED_TABLES" in (error.hint or "")


def test_command_exits_with_2_and_says_what_to_add(database: Database, place: Place, run) -> None:
    database.execute(INVOICES)
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", database.url, code=2)
    assert "error: users' data that config does not account for: table invoices" in done.err
    assert 'try: add Table("invoices", owned_by("user_id")) to config.TABLES' in done.err
    assert not place.app.exists()


def test_excluded_tables_are_left_behind(database: Database, place: Place) -> None:
    database.execute(
        INVOICES
        + ";"
        + LINES
        + "; CREATE SCHEMA billing; CREATE TABLE billing.cards (id int, owner uuid REFERENCES users)"
    )
    error = refused(settings_of(database.url, place, excluded_tables=("invoices",)))
    assert "invoice_lines" in error.message
    assert "table billing.cards, invoice_lines" in error.message
    excluded = ("invoices", "invoice_lines", "billing.cards")
    export(settings_of(database.url, place, excluded_tables=excluded))
    assert not list(place.data.glob("*invoice*"))


def test_table_that_is_nobodys_has_to_be_said_to_be(database: Database, place: Place) -> None:
    database.execute(
        "CREATE TABLE alembic_version (version_num text); CREATE TABLE planets (id int PRIMARY KEY);"
        "CREATE SCHEMA jobs; CREATE TABLE jobs.queue (id int); CREATE TABLE jobs.done (id int)"
    )
    error = refused(settings_of(database.url, place))
    assert error.message == (
        "tables that config does not account for: alembic_version, jobs.done, jobs.queue, planets"
    )
    assert 'add "planets" to config.UNRELATED_TABLES' in (error.hint or "")
    export(settings_of(database.url, place, unrelated_tables=("alembic_version", "planets", "jobs.*")))


def test_without_a_list_of_nobodys_tables_only_what_has_a_way_to_the_user_counts(
    database: Database, place: Place
) -> None:
    database.execute(
        "CREATE TABLE planets (id int PRIMARY KEY); CREATE SCHEMA jobs; CREATE TABLE jobs.queue (id int, user_id uuid)"
    )
    settings = settings_of(database.url, place, every_table=False)
    assert refused(settings).message == "users' data that config does not account for: table jobs.queue"
    settings = dataclasses.replace(settings, excluded_tables=("jobs.*",))
    database.execute("ALTER TABLE charts ADD planet int REFERENCES planets")
    error = refused(settings)
    assert error.message == "tables that config does not account for: planets"
    assert 'add Table("planets", shared()) to config.TABLES' in (error.hint or "")
    database.execute(
        "ALTER TABLE charts DROP planet; CREATE TABLE trips (id int, chart uuid REFERENCES charts)"
    )
    assert 'Table("trips", child_of("charts", "chart"))' in (refused(settings).hint or "")
    database.execute("DROP TABLE trips")
    export(settings)


def test_temporary_table_of_another_session_is_nobodys(database: Database, place: Place) -> None:
    other = psycopg2.connect(database.url)
    other.cursor().execute("CREATE TEMP TABLE report AS SELECT user_id FROM clients")
    other.commit()
    export(settings_of(database.url, place))
    other.close()


def test_added_table_takes_one_entry_and_its_schema(database: Database, place: Place, tmp_path: Path) -> None:
    database.execute(INVOICES + ";" + LINES)
    settings = settings_of(
        database.url,
        place,
        tables=(
            *config.TABLES,
            Table("invoices", owned_by("user_id"), ranges={"amount": (0, 100)}),
            Table("invoice_lines", child_of("invoices", "invoice_id")),
        ),
        schema_path=extended_schema(
            tmp_path,
            "CREATE TABLE invoices (id TEXT PRIMARY KEY, amount REAL, paid INTEGER);"
            "CREATE TABLE invoice_lines (id TEXT PRIMARY KEY, invoice_id TEXT REFERENCES invoices (id), item TEXT)",
        ),
    )
    export_and_import(settings)
    report = validate(settings)
    assert report.errors == []
    assert report.validation_results["invoices"].sqlite_count == 3
    anna = database.rows("SELECT id::text FROM users WHERE email = %s", ANNA)[0][0]
    connection = sqlite3.connect(str(place.app))
    assert connection.execute("SELECT amount, typeof(amount), paid FROM invoices ORDER BY 1").fetchall() == [
        (1.5, "real", 1),
        (2.5, "real", 0),
        (3.5, "real", 0),
    ]
    assert connection.execute("SELECT item FROM invoice_lines").fetchall() == [("of " + anna,)] * 3
    connection.execute("UPDATE invoices SET amount = 101 WHERE amount = 1.5")
    connection.commit()
    connection.close()
    assert any("invoices" in error and "amount" in error for error in validate(settings).errors)


def test_table_that_the_schema_lacks_is_named(database: Database, place: Place) -> None:
    database.execute(INVOICES)
    error = refused(
        settings_of(database.url, place, tables=(*config.TABLES, Table("invoices", owned_by("user_id"))))
    )
    assert "invoices" in error.message
    assert "CREATE TABLE" in (error.hint or "")


# Columns


@pytest.mark.parametrize("table", ["clients", "charts", "location_cache", "users", "user_preferences"])
def test_undeclared_column_stops_the_export(database: Database, place: Place, table: str) -> None:
    database.execute("ALTER TABLE %s ADD moon_phase text" % table)
    error = refused(settings_of(database.url, place))
    assert "%s.moon_phase" % table in error.message
    assert "dropped=(...) of %s in config.py" % table in (error.hint or "")


def test_declared_drop_lets_the_column_pass(database: Database, place: Place) -> None:
    database.execute("ALTER TABLE clients ADD moon_phase text DEFAULT 'full'")
    tables = (Table("clients", owned_by("user_id"), dropped=("moon_phase",)), *WHOLE[1:])
    settings = settings_of(database.url, place, tables=tables)
    export_and_import(settings)
    assert validate(settings).errors == []
    # the bundle keeps what SQLite has no place for
    assert json.loads((place.data / "clients.json").read_text(encoding="utf-8"))[0]["moon_phase"] == "full"


def test_added_column_of_both_schemas_is_migrated(database: Database, place: Place, tmp_path: Path) -> None:
    database.execute("ALTER TABLE clients ADD moon_phase text DEFAULT 'full'")
    schema = extended_schema(tmp_path, "ALTER TABLE clients ADD moon_phase TEXT")
    settings = settings_of(database.url, place, schema_path=schema)
    export_and_import(settings)
    assert validate(settings).errors == []
    assert rows_of(place.app, "SELECT DISTINCT moon_phase FROM clients") == [("full",)]


def test_only_the_declared_column_is_let_through(database: Database, place: Place) -> None:
    database.execute("ALTER TABLE clients ADD a1 text, ADD a2 text")
    tables = (Table("clients", owned_by("user_id"), dropped=("a1",)), *WHOLE[1:])
    error = refused(settings_of(database.url, place, tables=tables))
    assert "clients.a2" in error.message
    assert "a1" not in error.message


def test_column_that_sqlite_requires_and_the_source_lacks_is_refused(
    database: Database, place: Place, tmp_path: Path
) -> None:
    schema = tmp_path / "schema.sql"
    text = Path(SCHEMA).read_text(encoding="utf-8")
    changed = text.replace("    first_name TEXT,", "    first_name TEXT,\n    nickname TEXT NOT NULL,", 1)
    assert changed != text
    schema.write_text(changed, encoding="utf-8")
    error = refused(settings_of(database.url, place, schema_path=schema))
    assert "clients.nickname" in error.message
    schema.write_text(changed.replace("nickname TEXT NOT NULL", "nickname TEXT NOT NULL DEFAULT '-'"))
    settings = settings_of(database.url, place, schema_path=schema)
    export_and_import(settings)


def test_text_for_an_integer_key_is_refused_with_what_to_write(database: Database, place: Place) -> None:
    """As where an entry of user_preferences forgets that everybody's one row becomes row 1."""
    tables = [
        Table(table.name, owned_by("user_id")) if table.name == "user_preferences" else table
        for table in config.TABLES
    ]
    error = refused(settings_of(database.url, place, tables=tables))
    assert "user_preferences.id is of type uuid" in str(error)
    assert error.hint is not None and 'becomes=row_one("user_preferences"' in error.hint


def test_column_that_was_dropped_in_postgresql_is_no_concern(database: Database, place: Place) -> None:
    database.execute("ALTER TABLE clients ADD gone text; ALTER TABLE clients DROP gone")
    export(settings_of(database.url, place))


def test_source_column_that_is_missing_leaves_sqlites_default(database: Database, place: Place) -> None:
    database.execute("ALTER TABLE interpretations DROP is_user_custom")
    settings = settings_of(database.url, place, BRUNO)
    export_and_import(settings)
    assert rows_of(place.app, "SELECT DISTINCT is_user_custom FROM interpretations") == [(0,)]


@pytest.mark.parametrize(("column", "value"), [("is_user_custom", "1"), ("source", "'x'")])
def test_value_that_the_source_has_nothing_for_is_named(
    database: Database, place: Place, column: str, value: str
) -> None:
    database.execute("ALTER TABLE interpretations DROP " + column)
    settings = settings_of(database.url, place, BRUNO)
    export_and_import(settings)
    with lawless(settings) as connection:
        connection.execute("UPDATE interpretations SET %s = %s" % (column, value))
    report = validate(settings)
    assert report.passed
    found = {(finding.check, finding.table, finding.column) for finding in report.findings}
    assert ("contents", "interpretations", column) in found
