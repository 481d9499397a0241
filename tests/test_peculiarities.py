"""What PostgreSQL, a schema file or a shell may bring along that is allowed and easily overlooked."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import stat
import subprocess
import sys

import pytest

import config
from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import MigrationError
from migration.model import Table, child_of
from migration.settings import Settings
from support.migrations import export_and_import, settings_of
from support.places import ANNA, BRUNO, SCHEMA, SUITE, Place, extended_schema
from support.runs import Run
from support.servers import Database
from validate_migration import validate


def migrated(settings: Settings) -> sqlite3.Connection:
    export_and_import(settings)
    report = validate(settings)
    assert report.passed, report.errors
    return sqlite3.connect(str(settings.sqlite_path))


def clients_of(database: Database, email: str) -> list:
    return [
        row[0]
        for row in database.rows(
            "SELECT c.id::text FROM clients c JOIN users u ON u.id = c.user_id WHERE u.email = %s ORDER BY 1",
            email,
        )
    ]


# The command line


@pytest.mark.parametrize(
    "options",
    [
        ("--restore", "--dry-run"),
        ("--restore", "--skip-import"),
        ("--restore", ""),
        ("--user-email", ""),
        ("--postgres-url", ""),
        ("--dry-run", "--skip-export"),
        ("--offline",),
        ("--skip-export", "--skip-import", "--skip-validation"),
    ],
    ids=" ".join,
)
def test_options_that_contradict_or_are_empty_change_nothing(options: tuple, place: Place, run: Run) -> None:
    place.app.write_bytes(b"")
    place.backups.mkdir()
    (place.backups / "theprogram_backup_20250101_000000.db").write_bytes(b"not to be touched")
    done = run("migrate.py", *options, env={"MIGRATION_USER_EMAIL": BRUNO}, code=2)
    assert "error: " in done.err
    assert place.app.read_bytes() == b""


@pytest.mark.parametrize("variable", ["POSTGRES_HOST", "POSTGRES_DB"])
def test_url_in_a_part_variable_is_refused_and_not_shown(variable: str, place: Place, run: Run) -> None:
    url = "postgresql://me:s3cretpw@localhost/db"
    done = run("migrate.py", "--user-email", ANNA, env={variable: url}, code=2)
    assert "%s holds a URL" % variable in done.err
    assert "s3cretpw" not in done.err + done.out


@pytest.mark.parametrize("redirection", ["2>&-", ">&-", ">/dev/full"])
def test_run_without_anybody_to_read_it_still_migrates(
    redirection: str, sample_database: Database, place: Place
) -> None:
    command = '"%s" "%s" "$@" %s' % (sys.executable, SUITE / "migrate.py", redirection)
    options = [
        *("--user-email", ANNA, "--postgres-url", sample_database.url, "--sqlite-path", str(place.app)),
        *("--data-dir", str(place.data), "--backup-dir", str(place.backups), "--schema-path", SCHEMA),
    ]
    assert subprocess.run(["sh", "-c", command, "sh", *options], timeout=60).returncode == 0
    report = json.loads((place.data / "validation_report.json").read_text(encoding="utf-8"))
    assert report["overall_status"] == "PASS"


def test_folder_that_others_use_keeps_its_mode(sample_database: Database, place: Place) -> None:
    place.data.mkdir(mode=0o755)
    (place.data / "notes.txt").write_text("somebody's", encoding="utf-8")
    export(settings_of(sample_database.url, place))
    assert stat.S_IMODE(place.data.stat().st_mode) == 0o755
    assert stat.S_IMODE((place.data / "clients.json").stat().st_mode) == 0o600


def test_folder_with_json_of_others_is_refused_before_the_export(
    sample_database: Database, place: Place
) -> None:
    place.data.mkdir()
    (place.data / "package.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MigrationError, match=r"package\.json, which is no file of a bundle") as caught:
        export(settings_of(sample_database.url, place))
    assert caught.value.exit_code == 4


# config.py


def test_text_where_a_tuple_belongs_is_refused() -> None:
    with pytest.raises(MigrationError, match="dropped of aspect_patterns is text"):
        Table("aspect_patterns", child_of("charts", "chart_id"), dropped=("note_old"))  # type: ignore[arg-type]


# PostgreSQL


def test_chain_of_references_within_a_table_is_left_out_to_its_end(database: Database, place: Place) -> None:
    stranger = clients_of(database, BRUNO)[0]
    first, second, third, *rest = clients_of(database, ANNA)
    database.execute("ALTER TABLE clients ADD COLUMN ref uuid REFERENCES clients (id)")
    for client, ref in ((first, stranger), (second, first), (third, second), (rest[0], rest[1])):
        database.execute("UPDATE clients SET ref = %s WHERE id = %s", ref, client)
    schema = extended_schema(place.folder, "ALTER TABLE clients ADD COLUMN ref TEXT REFERENCES clients (id);")
    settings = settings_of(database.url, place, schema_path=schema, skip_orphans=True)
    found = migrated(settings).execute("SELECT id FROM clients ORDER BY id").fetchall()
    assert [row[0] for row in found] == rest


def test_reference_in_a_dropped_column_leaves_nothing_out(database: Database, place: Place) -> None:
    database.execute("ALTER TABLE clients ADD COLUMN ref uuid REFERENCES clients (id)")
    database.execute(
        "UPDATE clients SET ref = %s WHERE id = %s",
        clients_of(database, BRUNO)[0],
        clients_of(database, ANNA)[0],
    )
    tables = tuple(
        dataclasses.replace(table, dropped=("ref",)) if table.name == "clients" else table
        for table in config.TABLES
    )
    migrated(settings_of(database.url, place, tables=tables))


def test_columns_that_differ_only_in_case_are_refused(database: Database, place: Place) -> None:
    database.execute("ALTER TABLE clients ADD COLUMN \"Phone\" text DEFAULT 'another'")
    with pytest.raises(MigrationError, match="differ only in case") as caught:
        export(settings_of(database.url, place))
    assert caught.value.exit_code == 2


def test_newline_in_a_json_array_keeps_its_record_on_one_line(database: Database, place: Place) -> None:
    database.execute("ALTER TABLE clients ADD COLUMN js json[]")
    database.execute("UPDATE clients SET js = ARRAY[E'{\"a\":\\n1.10}'::json]")
    schema = extended_schema(place.folder, "ALTER TABLE clients ADD COLUMN js TEXT;")
    found = (
        migrated(settings_of(database.url, place, schema_path=schema))
        .execute("SELECT js FROM clients")
        .fetchone()
    )
    assert found == ('[{"a": 1.10}]',)


def test_integer_keys_become_text_keys(database: Database, place: Place) -> None:
    database.execute(
        "ALTER TABLE location_cache DROP COLUMN id; ALTER TABLE location_cache ADD COLUMN id serial PRIMARY KEY"
    )
    database.execute(
        "INSERT INTO location_cache (city_name, country, latitude, longitude, timezone) "
        "SELECT 'City', 'X', 1, 2, 'UTC' FROM generate_series(1, 10)"
    )
    found = (
        migrated(settings_of(database.url, place))
        .execute("SELECT typeof(id), count(*) FROM location_cache")
        .fetchall()
    )
    assert found == [("text", 16)]


def test_table_keyed_to_a_partition_is_accounted_for(database: Database, place: Place) -> None:
    database.execute(
        "CREATE TABLE px (id uuid PRIMARY KEY, u uuid REFERENCES users (id)) PARTITION BY HASH (id)"
    )
    database.execute("CREATE TABLE px1 PARTITION OF px FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    database.execute("CREATE TABLE pdet (id uuid PRIMARY KEY, px_id uuid REFERENCES px1 (id))")
    with pytest.raises(MigrationError, match="does not account for: table pdet"):
        export(settings_of(database.url, place, excluded_tables=("px",)))


# The schema file


def test_schema_that_replaces_on_conflict_loses_no_row(database: Database, place: Place) -> None:
    schema = extended_schema(place.folder, "CREATE TABLE other (id TEXT PRIMARY KEY);")
    script = schema.read_text(encoding="utf-8").replace(
        "geonames_id INTEGER UNIQUE", "geonames_id INTEGER UNIQUE ON CONFLICT REPLACE"
    )
    assert "REPLACE" in script
    schema.write_text(script, encoding="utf-8")
    database.execute("ALTER TABLE location_cache DROP CONSTRAINT location_cache_geonames_id_key")
    database.execute("UPDATE location_cache SET geonames_id = 1")
    settings = settings_of(database.url, place, schema_path=schema)
    export(settings)
    with pytest.raises(MigrationError, match="UNIQUE constraint failed") as caught:
        import_(settings)
    assert caught.value.exit_code == 5
    assert not place.app.exists()


def test_schema_that_fills_a_table_itself_is_refused(sample_database: Database, place: Place) -> None:
    settings = settings_of(
        sample_database.url,
        place,
        lite="INSERT INTO location_cache (id, city_name, country, latitude, longitude, timezone) VALUES ('x', 'X', 'X', 1, 1, 'X');",
    )
    export(settings)
    with pytest.raises(MigrationError, match="fills it with rows of its own"):
        import_(settings)
    assert not place.app.exists()


def test_unique_index_that_rows_do_not_fit_is_named(database: Database, place: Place) -> None:
    database.execute("UPDATE clients SET email = 'same@example.com'")
    settings = settings_of(database.url, place, lite="CREATE UNIQUE INDEX one_address ON clients (email);")
    export(settings)
    with pytest.raises(MigrationError, match="do not fit an index of the schema") as caught:
        import_(settings)
    assert "one_address" in (caught.value.hint or "")


def test_key_of_sqlite_alone_has_no_bearing_on_the_export(sample_database: Database, place: Place) -> None:
    schema = extended_schema(
        place.folder, "ALTER TABLE clients ADD COLUMN merged_into TEXT REFERENCES clients (id);"
    )
    migrated(settings_of(sample_database.url, place, schema_path=schema))


def test_insert_trigger_that_did_not_run_is_named(sample_database: Database, place: Place, run: Run) -> None:
    schema = extended_schema(
        place.folder,
        "CREATE TABLE tally (n); CREATE TRIGGER count_notes AFTER INSERT ON session_notes BEGIN INSERT INTO tally VALUES (1); END;",
    )
    done = run(
        "migrate.py", "--user-email", ANNA, "--postgres-url", sample_database.url, "--schema-path", schema
    )
    assert done.code == 0, done.err
    assert "trigger count_notes did not run for the imported rows" in done.err
