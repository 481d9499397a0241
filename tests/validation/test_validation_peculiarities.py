"""Phase 3 on what is allowed, odd or broken: nothing is overlooked, nothing ends in a traceback, nobody is blamed wrongly."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sqlite3
from typing import Any, Dict, Iterator, List

import pytest

import config
from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.model import Table, shared
from migration.settings import Settings
from migration.validation.report import Report
from support.bundles import array, forget_types, rewrite
from support.migrations import WHOLE, copy_of, export_and_import, own_copy, settings_of, with_odd
from support.places import Place
from support.runs import Run
from support.servers import Database, Server
from support.sqlite_files import lawless
from validate_migration import validate


@pytest.fixture()
def settings(finished: Place, sample_database: Database, place: Place) -> Settings:
    """A copy of Anna's migration, whose source nobody changes."""
    copy_of(finished, place)
    return settings_of(sample_database.url, place)


def with_odd_table(database: Database, place: Place, source: str, target: str, rows: str) -> Settings:
    """A migration with one more table, ``odd``, of these columns and rows."""
    database.execute("CREATE TABLE odd (%s)" % source)
    database.execute("INSERT INTO odd VALUES " + rows)
    made = with_odd(database, place, target)
    export_and_import(made)
    return made


def with_odd_values(database: Database, place: Place, kind: str, target: str, *values: str) -> Settings:
    """The same with the columns ``id``, 1 for the first row, and ``v``, of these types."""
    columns = "id int PRIMARY KEY, v " + kind, "id INTEGER PRIMARY KEY, v " + target
    rows = ", ".join("(%d, %s)" % row for row in enumerate(values, 1))
    return with_odd_table(database, place, *columns, rows)


def named(report: Report) -> set:
    return {(found.check, found.table, found.row, found.column) for found in report.findings}


def records_of(settings: Settings, name: str) -> List[Dict[str, Any]]:
    return json.loads((settings.data_dir / (name + ".json")).read_text(encoding="utf-8"))


# Digits and types


@pytest.mark.parametrize(
    ("kind", "target", "then", "now"),
    [
        ("jsonb", "TEXT", """'{"a": 1.1}'""", """'{"a": 1.10}'"""),
        (
            "jsonb",
            "TEXT",
            "'[1234567890123456789012345678901234567]'",
            "'[1234567890123456789012345678901234568]'",
        ),
        ("numeric", "TEXT", "1.1", "1.10"),
        ("numeric", "TEXT", "0.12345678901234567890123456789012345", "0.12345678901234567890123456789012346"),
        ("text", "TEXT", "'1'", "'1 '"),
        ("timestamp", "TEXT", "'infinity'", "'-infinity'"),
    ],
)
@pytest.mark.parametrize("against", ["bundle", "source"])
def test_changed_digit_of_the_source_is_found(
    database: Database, place: Place, kind: str, target: str, then: str, now: str, against: str
) -> None:
    settings = with_odd_values(database, place, kind, target, then)
    assert validate(dataclasses.replace(settings, against=against)).passed
    database.execute("UPDATE odd SET v = " + now)
    report = validate(dataclasses.replace(settings, against=against))
    assert report.source_changes["odd"].changed.ids == ["1"]
    assert (("contents", "odd", "1", "v") in named(report)) is (against == "source")


# type in PostgreSQL and in SQLite, value, what it is made in SQLite
RETYPED = [
    ("bytea", "BLOB", r"'\x31'", r"'\x31'"),
    ("bytea", "TEXT", r"'\x31'", "x'31'"),
    ("numeric", "REAL", "'Infinity'", "9e999"),
    ("float8", "REAL", "'-Infinity'", "-9e999"),
    ("boolean", "TEXT", "true", "'true'"),
    ("boolean", "INTEGER", "true", "'true'"),
    ("json", "TEXT", "'\"x\"'", "'x'"),
    ("text", "TEXT", "'x'", "CAST('x' AS BLOB)"),
    ("text", "TEXT", "'x'", "'x' || char(0)"),
    ("text", "TEXT", "NULL", "'null'"),
    ("jsonb", "TEXT", "NULL", "'null'"),
    ("jsonb", "TEXT", "'{}'", "'{}' || char(0) || 'x'"),
    ("float8", "REAL", "1.5", "1.5000000000000002"),
    ("numeric", "REAL", "1.5", "1.5000000000000002"),
    ("numeric(5,2)", "REAL", "1.50", "1.5000000000000002"),
    ("numeric(5,2)", "BLOB", "1.50", "'1.50'"),
    ("int", "BLOB", "2", "2.0"),
    ("int", "BLOB", "2", "'2'"),
    ("boolean", "BLOB", "true", "1.0"),
    ("time", "TEXT", "'08:00:00.5'", "'08:00:00.5'"),
    ("timetz", "TEXT", "'08:00:00+00'", "'08:00:00+00'"),
    ("timestamp", "TEXT", "'2021-03-01 08:00:00.12345'", "'2021-03-01T08:00:00.12345'"),
    ("timestamptz", "TEXT", "'2021-03-01 08:00:00.5+00'", "'2021-03-01T08:00:00.5+00:00'"),
    ("timestamp", "TEXT", "'infinity'", "'infinity000000000000000000'"),
    ("timestamp", "TEXT", "'0044-03-15 00:00:00 BC'", "'0044-03-15T00:00:00 BC0000'"),
    ("timestamp", "TEXT", "'0044-03-15 00:00:00.123 BC'", "'0044-03-15T00:00:00.123 BC'"),
    ("timestamp", "TEXT", "'12025-01-01 00:00:00.12345'", "'12025-01-01T00:00:00.12345'"),
    ("date", "TEXT", "'0044-03-15 BC'", "'0043-03-15'"),
    ("date", "TEXT", "'0044-03-15 BC'", "'0044-03-15 BC'"),
    ("timetz", "TEXT", "'08:00:00+00'", "'08:00:00+01:00'"),
    ("timestamptz", "TEXT", "'2021-03-01 08:00:00+00'", "'2021-03-01T08:00:00+01:00'"),
    ("time", "TEXT", "'08:00:01'", "'08:00:010000000'"),
    ("timestamptz", "TEXT", "'2021-03-01 08:00:01+00'", "'2021-03-01T08:00:010000000+00:00'"),
    ("jsonb", "TEXT", "'null'", "NULL"),
    ("jsonb NOT NULL", "TEXT", "'null'", "NULL"),
    ("jsonb", "TEXT", "'{}'", "CAST('{}' AS BLOB)"),
    ("jsonb", "TEXT", "'{\"a\": 1}'", '\'{"a": "1"}\''),
    ("jsonb", "TEXT", "'{\"a\": 1.5}'", '\'{"a": "1.5"}\''),
    ("json", "TEXT", '\'{"a":1,"a":2}\'', "'{\"a\":2}'"),
    ("text[]", "TEXT", "'{a}'", "CAST('[\"a\"]' AS BLOB)"),
    ("bytea", "BLOB", r"'\x31'", "'1'"),
]


@pytest.fixture(scope="module")
def retyped(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A migration of one row with a column of each case."""
    with server.new_database() as database:
        place = Place(tmp_path_factory.mktemp("retyped"))
        has_infinity = database.rows("SELECT current_setting('server_version_num')::int >= 140000") == [
            (True,)
        ]
        cases = [
            (number, *case)
            for number, case in enumerate(RETYPED)
            if has_infinity or case[0] != "numeric" or "Infinity" not in case[2]
        ]
        source, target = (
            ", ".join(["id int PRIMARY KEY", *("v%d %s" % (case[0], case[at]) for case in cases)])
            for at in (1, 2)
        )
        target = target.replace("int", "INTEGER", 1)
        settings = with_odd_table(
            database, place, source, target, "(1, %s)" % ", ".join(case[3] for case in cases)
        )
        report = validate(settings)
        assert report.passed, report.errors
        yield settings


@pytest.mark.parametrize("number", range(len(RETYPED)), ids=lambda number: "-".join(RETYPED[number]))
def test_retyped_value_is_found(retyped: Settings, place: Place, number: int) -> None:
    settings = own_copy(retyped, place)
    kind, _, value, damage = RETYPED[number]
    with lawless(settings) as connection:
        if "v%d" % number not in [row[1] for row in connection.execute("PRAGMA table_info(odd)")]:
            pytest.skip("PostgreSQL has an infinite numeric since 14")
        connection.execute("UPDATE odd SET v%d = %s" % (number, damage))
    found = {name for name in named(validate(settings)) if name[0] == "contents"}
    assert found == {("contents", "odd", "1", "v%d" % number)}


@pytest.mark.parametrize("target", ["TEXT", "REAL", "INTEGER"])
def test_boolean_is_sound_in_whatever_column(database: Database, place: Place, target: str) -> None:
    settings = with_odd_values(database, place, "boolean", target, "true", "false")
    assert validate(settings).errors == []


def test_text_null_for_a_null_is_found_in_a_bundle_without_types(settings: Settings) -> None:
    forget_types(settings.data_dir)
    import_(settings)
    with lawless(settings) as connection:
        (row,) = connection.execute("SELECT min(id) FROM clients WHERE notes IS NULL").fetchone()
        connection.execute("UPDATE clients SET notes = 'null' WHERE id = ?", (row,))
        (other,) = connection.execute("SELECT min(id) FROM clients WHERE last_name NOTNULL").fetchone()
        connection.execute("UPDATE clients SET last_name = '\"' || last_name || '\"' WHERE id = ?", (other,))
    found = named(validate(dataclasses.replace(settings, offline=True)))
    assert {("contents", "clients", row, "notes"), ("contents", "clients", other, "last_name")} <= found


@pytest.mark.parametrize("form", ["%s", " %s", "%s\n", "\t%s\r"])
def test_numbers_as_text_in_a_bundle_without_types_equal_the_source(settings: Settings, form: str) -> None:
    records = records_of(settings, "birth_data")
    for record in records:
        record["latitude"], record["longitude"] = form % record["latitude"], form % record["longitude"]
    rewrite(settings.data_dir, "birth_data.json", array(records))
    forget_types(settings.data_dir)
    import_(settings)
    report = validate(settings)
    assert report.source_changes == {}
    assert not [name for name in named(report) if name[0] == "contents"]


@pytest.mark.parametrize("digits", ["\N{SUPERSCRIPT TWO}", "\N{ARABIC-INDIC DIGIT TWO}", "2\n", "2_0", " 2"])
def test_number_in_other_digits_in_a_bundle_is_a_difference(settings: Settings, digits: str) -> None:
    records = records_of(settings, "birth_data")
    records[0]["latitude"] = 2.0 if digits != "2_0" else 20.0
    rewrite(settings.data_dir, "birth_data.json", array(records))
    import_(settings)
    records[0]["latitude"] = digits
    rewrite(settings.data_dir, "birth_data.json", array(records))
    found = named(validate(dataclasses.replace(settings, offline=True)))
    assert ("contents", "birth_data", records[0]["id"], "latitude") in found


# Keys


KEYS = {
    "an integer in a TEXT column": ("int", "TEXT", "(9, 'a'), (10, 'b')"),
    "an enum": ("mood", "TEXT", "('sad', 'a'), ('glad', 'b')"),
    "text": ('text COLLATE "C"', "TEXT", "('a', 'a'), ('B', 'b'), ('é', 'c')"),
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("reference", ["bundle", "source", "no bundle", "without types"])
def test_rows_are_paired_by_any_key(database: Database, place: Place, key: str, reference: str) -> None:
    database.execute("CREATE TYPE mood AS ENUM ('sad', 'glad')")
    kind, target, rows = KEYS[key]
    settings = with_odd_table(
        database,
        place,
        "id %s PRIMARY KEY, v text" % kind,
        "id %s PRIMARY KEY NOT NULL, v TEXT" % target,
        rows,
    )
    if reference == "without types":
        forget_types(settings.data_dir)
        import_(settings)
    if reference == "no bundle":
        shutil.rmtree(str(settings.data_dir))
    settings = dataclasses.replace(settings, against="source" if reference == "source" else None)
    report = validate(settings)
    assert named(report) == set() or (reference, {f.check for f in report.findings}) == (
        "without types",
        {"types"},
    )
    database.execute("UPDATE odd SET v = 'x' WHERE v = 'b'")
    report = validate(settings)
    assert not report.passed
    if reference != "no bundle":
        assert report.source_changes["odd"].changed.rows == 1


@pytest.mark.parametrize("damage", ["CAST(id AS BLOB)", "NULL", "7", "id || char(10, 27)"])
def test_key_of_another_type_is_a_row_of_its_own(settings: Settings, damage: str) -> None:
    with lawless(settings) as connection:
        (row,) = connection.execute("SELECT max(id) FROM location_cache").fetchone()
        connection.execute("UPDATE location_cache SET id = %s WHERE id = ?" % damage, (row,))
    report = validate(settings)
    assert ("contents", "location_cache", row, None) in named(report)
    assert report.validation_results["location_cache"].differences == 2
    assert not any("\n" in error or "\x1b" in error for error in report.errors)


def test_two_records_of_one_key_are_refused(settings: Settings) -> None:
    records = records_of(settings, "location_cache")
    records[1]["id"] = records[0]["id"]
    rewrite(settings.data_dir, "location_cache.json", array(records))
    with pytest.raises(MigrationError, match="two records of the same primary key") as caught:
        validate(settings)
    assert caught.value.exit_code == 4


# What SQLite balks at


def test_text_that_is_not_utf8_is_a_difference_and_is_not_quoted(settings: Settings, run: Run) -> None:
    with lawless(settings) as connection:
        (row,) = connection.execute("SELECT min(id) FROM clients").fetchone()
        connection.execute(
            "UPDATE clients SET notes = CAST(x'53656372657420ff' AS TEXT) WHERE id = ?", (row,)
        )
    report = validate(settings)
    assert ("contents", "clients", row, "notes") in named(report)
    assert "Secret" not in report.text()
    shown = validate(dataclasses.replace(settings, show_values=True))
    assert "Secret \\udcff" in shown.text().replace("\\\\", "\\")


@pytest.mark.parametrize(
    "sql",
    [
        "ALTER TABLE clients RENAME TO elsewhere; CREATE VIEW clients AS SELECT * FROM elsewhere",
        "DROP TABLE clients; CREATE TABLE clients (id, first_name, last_name, email, phone, notes, created_at, updated_at)",
        "DROP TABLE clients; CREATE VIEW clients AS SELECT * FROM nowhere",
    ],
    ids=["a view for the table", "no primary key", "a broken view"],
)
def test_damaged_structure_is_reported(settings: Settings, sql: str) -> None:
    connection = sqlite3.connect(str(settings.sqlite_path))
    connection.executescript("PRAGMA legacy_alter_table = ON; " + sql)
    connection.close()
    report = validate(settings)
    assert any("table clients" in error for error in report.errors), report.errors
    if "DROP TABLE clients; CREATE TABLE" in sql:
        refused = "Integrity: SQLite refuses: foreign key mismatch"
        assert any(error.startswith(refused) for error in report.errors), report.errors


def test_deep_json_is_compared(database: Database, place: Place) -> None:
    deep = "(repeat('[', 3000) || repeat(']', 3000))::json"
    database.execute("UPDATE user_preferences SET aspect_orbs = %s::jsonb" % deep)
    settings = with_odd_values(database, place, "json", "TEXT", deep)
    assert validate(settings).passed
    assert validate(dataclasses.replace(settings, against="source")).passed


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_rows_of_a_write_ahead_log_in_a_read_only_folder_are_not_overlooked(
    settings: Settings, place: Place, run: Run, permissions_count: None
) -> None:
    connection = sqlite3.connect(str(settings.sqlite_path))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("DELETE FROM session_notes")
    connection.commit()
    folder = place.folder / "read-only"
    folder.mkdir()
    for path in place.folder.glob("app.db*"):
        shutil.copyfile(str(path), str(folder / path.name))
    connection.close()
    assert (folder / "app.db-wal").stat().st_size
    folder.chmod(0o555)
    try:
        done = run("validate_migration.py", "--offline", "--sqlite-path", folder / "app.db", ordinary=True)
    finally:
        folder.chmod(0o755)
    assert done.code in (1, 5), done.err


# Whose it is


@pytest.mark.parametrize(("member", "column"), [("user", "id"), ("preferences", "user_id")])
def test_record_of_another_user_in_user_data_is_named(settings: Settings, member: str, column: str) -> None:
    path = settings.data_dir / "user_data.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content[member][column] = "00000000-0000-4000-8000-000000000000"
    rewrite(settings.data_dir, path.name, json.dumps(content))
    report = validate(dataclasses.replace(settings, offline=True))
    assert [found.column for found in report.findings if found.check == "isolation"] == [column]


def test_preferences_of_nobody_are_the_defaults(database: Database, place: Place) -> None:
    database.execute("DELETE FROM user_preferences")
    settings = settings_of(database.url, place)
    export_and_import(settings)
    assert validate(settings).errors == []
    with lawless(settings) as connection:
        connection.execute("UPDATE user_preferences SET default_zodiac = 'sidereal'")
    report = validate(settings)
    assert ("user", "user_preferences", None, "default_zodiac") in named(report)
    assert not report.passed


def test_column_that_the_source_lacks_keeps_the_default(settings: Settings) -> None:
    with lawless(settings) as connection:
        connection.execute("UPDATE app_config SET app_version = '9'")
    report = validate(settings)
    assert report.passed
    assert ("user", "app_config", None, "app_version") in named(report)


def test_rows_of_others_are_named_beyond_those_listed(settings: Settings, database: Database) -> None:
    strangers = database.rows(
        "SELECT c.id::text FROM clients c JOIN users u ON u.id = user_id WHERE u.email = 'bruno@example.com' LIMIT 3"
    )
    with lawless(settings) as connection:
        for row in [("00000000-0000-4000-8000-000000000000",), *strangers]:
            connection.execute("INSERT INTO clients (id) VALUES (?)", row)
    report = validate(dataclasses.replace(settings, max_differences=1))
    assert sum(found.count for found in report.findings if found.check == "isolation") == 3


def test_orphans_that_were_left_out_are_not_missed_without_the_bundle(
    own_migration: Settings, database: Database, run: Run
) -> None:
    database.execute(
        "UPDATE charts SET client_id = (SELECT c.id FROM clients c JOIN users u ON u.id = user_id"
        " WHERE u.email = 'bruno@example.com' LIMIT 1) WHERE id = (SELECT id FROM charts ORDER BY id LIMIT 1 OFFSET 0)"
        " AND user_id = (SELECT id FROM users WHERE email = 'anna@example.com')"
    )
    made = dataclasses.replace(own_migration, skip_orphans=True)
    export_and_import(made)
    shutil.rmtree(str(own_migration.data_dir))
    options = ("--user-email", "anna@example.com", "--postgres-url", database.url)
    assert run("validate_migration.py", *options, "--orphans", "skip").code == 0


# The bundle


def test_row_count_of_the_manifest_is_held_against_the_records(settings: Settings) -> None:
    path = settings.data_dir / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["row_counts"]["clients"] += 1
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(MigrationError, match="clients.json has 12 records; the manifest says 13"):
        validate(settings)


def test_pretty_printed_bundle_is_read_beside_the_source(settings: Settings) -> None:
    for table in WHOLE:
        path = settings.data_dir / table.file
        rewrite(settings.data_dir, path.name, path.read_text(encoding="utf-8").replace('{"', '{\n  "'))
    report = validate(dataclasses.replace(settings, against="source"))
    assert report.passed, report.errors


# What is shown


def test_more_warnings_than_are_listed_are_warnings(settings: Settings) -> None:
    with lawless(settings) as connection:
        for number in range(5):
            connection.execute("CREATE TABLE of_the_application_%d (id)" % number)
    report = validate(dataclasses.replace(settings, max_differences=2))
    assert report.passed
    assert sum(found.count for found in report.findings) == 5


def test_value_cannot_be_found_by_trying(settings: Settings) -> None:
    """The same difference has another fingerprint in each report: no table of dates opens it."""
    with lawless(settings) as connection:
        connection.execute("UPDATE birth_data SET birth_date = '1988-04-09'")
    first, second = validate(settings), validate(settings)
    assert first.errors != second.errors
    assert len(first.errors) == len(second.errors)


def test_advice_fits_what_was_compared(own_migration: Settings, database: Database) -> None:
    """An import from an old bundle cannot mend a database that is behind its source."""
    database.execute("UPDATE clients SET last_name = 'Newly Wed'")
    validate(dataclasses.replace(own_migration, against="source"))
    page = (own_migration.data_dir / "validation_report.html").read_text(encoding="utf-8")
    assert "migrate.py --skip-export" not in page


@pytest.mark.parametrize("kind", ["numeric", "numeric(16,0)"])
def test_integer_that_a_double_cannot_hold_is_refused(database: Database, place: Place, kind: str) -> None:
    with pytest.raises(MigrationError, match="a double cannot hold its digits"):
        with_odd_values(database, place, kind, "REAL", "9007199254740993")


@pytest.mark.parametrize(
    "content",
    ["", "not json", "[]x\n", "[\n\n", "[,", "[1]", '[\n{"id":1,}\n]\n', '[\n{"id":1,"v":1}\n{"id":2}\n]\n'],
)
def test_damaged_table_file_is_named(database: Database, place: Place, content: str) -> None:
    settings = dataclasses.replace(with_odd_values(database, place, "int", "INTEGER", "1"), offline=True)
    rewrite(settings.data_dir, "odd.json", content, 1)
    with pytest.raises(MigrationError, match="odd.json is damaged in record [12]: ") as caught:
        validate(settings)
    assert caught.value.exit_code == ExitCode.BUNDLE


def test_record_without_a_key_is_paired_with_its_row(database: Database, place: Place) -> None:
    columns = "id text PRIMARY KEY, v int", "id TEXT PRIMARY KEY, v INTEGER"
    settings = dataclasses.replace(with_odd_table(database, place, *columns, "('a', 1)"), offline=True)
    rewrite(settings.data_dir, "odd.json", array([{"id": key, "v": 1} for key in (None, "a", "b")]), 3)
    forget_types(settings.data_dir)
    import_(settings)
    report = validate(settings)
    assert report.passed, report.errors


def test_record_with_a_key_beyond_sqlites_integers_is_missing(database: Database, place: Place) -> None:
    settings = dataclasses.replace(with_odd_values(database, place, "int", "INTEGER", "1"), offline=True)
    rewrite(settings.data_dir, "odd.json", array([{"id": key, "v": 1} for key in (1, 2**70)]), 2)
    assert ("contents", "odd", str(2**70), None) in named(validate(settings))


def test_row_without_a_part_of_its_key_is_found_once(database: Database, place: Place) -> None:
    columns = "a int, b int, PRIMARY KEY (a, b)", "a INTEGER, b INTEGER, PRIMARY KEY (a, b)"
    settings = with_odd_table(database, place, *columns, "(1, 1), (3, 3)")
    with lawless(settings) as connection:
        connection.execute("INSERT INTO odd VALUES (2, NULL)")
    found = [error for error in validate(settings).errors if "is in SQLite alone" in error]
    assert len(found) == 1


def test_many_long_rows_too_many_are_found(database: Database, place: Place) -> None:
    columns = "id int PRIMARY KEY, v text", "id INTEGER PRIMARY KEY, v TEXT"
    settings = with_odd_table(database, place, *columns, "(1, 'a'), (100000, 'b')")
    with lawless(settings) as connection:
        connection.executemany(
            "INSERT INTO odd VALUES (?, ?)", [(number, "x" * 10**6) for number in range(2, 40)]
        )
    report = validate(dataclasses.replace(settings, max_differences=100))
    assert ("contents", "odd", "39", None) in named(report)


# Forms of cells that the sample has none of


@pytest.mark.parametrize(
    ("kind", "value", "damage", "problem"),
    [
        ("timetz", "'08:00:00+00'", "'08:00:00'", "is not an ISO 8601 time"),
        ("timetz", "'08:00:00+00'", "'08:00:00+16:00'", "is not an ISO 8601 time"),
        ("timetz", "'08:00:00-15:59'", "'08:00:00-15:60'", "is not an ISO 8601 time"),
        ("timestamptz", "'2021-03-01 08:00:00+00'", "'2021-03-01T08:00:00'", "is not an ISO 8601 timestamp"),
        ("numeric", "1.5", "'1,5'", "is not a number"),
        ("int", "1", "'one'", "is not an integer"),
        ("int", "1", "'\u0661'", "is not an integer"),
    ],
)
def test_cell_out_of_its_form_is_named_by_its_form(
    database: Database, place: Place, kind: str, value: str, damage: str, problem: str
) -> None:
    settings = with_odd_values(database, place, kind, "TEXT", value)
    with lawless(settings) as connection:
        connection.execute("UPDATE odd SET v = " + damage)
    assert "Type: odd 1, column v " + problem in validate(settings).errors


def test_json_that_is_no_object_is_named(database: Database, place: Place) -> None:
    settings = with_odd_values(database, place, "jsonb", "TEXT", "'[]'")
    odd = Table("odd", shared(), json_types={"v": dict})
    report = validate(dataclasses.replace(settings, tables=(*config.TABLES, odd)))
    assert report.errors == ["JSON: odd 1, column v is JSON but not an object"]


def test_json_of_another_type_is_named_in_a_bundle_without_types(database: Database, place: Place) -> None:
    database.execute("UPDATE aspect_patterns SET planets_involved = '{}'")
    settings = settings_of(database.url, place, offline=True)
    export(settings)
    forget_types(settings.data_dir)
    import_(settings)
    assert {found.check for found in validate(settings).findings} == {"json"}


def test_form_is_looked_at_by_the_types_of_the_source_where_the_bundle_has_none(settings: Settings) -> None:
    forget_types(settings.data_dir)
    import_(settings)
    with lawless(settings) as connection:
        connection.execute("UPDATE birth_data SET birth_date = '2025-02-30'")
    found = {(check, table, column) for check, table, _, column in named(validate(settings))}
    assert ("types", "birth_data", "birth_date") in found


def test_column_behind_the_hundredth_is_looked_at(database: Database, place: Place) -> None:
    names = ["c%d" % number for number in range(101)]
    settings = with_odd_table(
        database,
        place,
        "id int PRIMARY KEY, %s" % ", ".join(name + " int" for name in names),
        "id INTEGER PRIMARY KEY, %s" % ", ".join(name + " INTEGER" for name in names),
        "(1%s)" % (", 1" * 101),
    )
    with lawless(settings) as connection:
        connection.execute("UPDATE odd SET c100 = 'x'")
    assert ("types", "odd", "1", "c100") in named(validate(settings))


def test_malformed_json_of_the_preferences_is_named(settings: Settings) -> None:
    with lawless(settings) as connection:
        connection.execute("UPDATE user_preferences SET aspect_orbs = '{'")
    assert ("json", "user_preferences", "1", "aspect_orbs") in named(validate(settings))


def test_true_as_text_is_named_in_a_bundle_without_types(settings: Settings) -> None:
    forget_types(settings.data_dir)
    import_(settings)
    with lawless(settings) as connection:
        (row,) = connection.execute("SELECT min(id) FROM birth_data").fetchone()
        connection.execute(
            "UPDATE birth_data SET time_unknown = CASE time_unknown WHEN 1 THEN 'true' ELSE 'false' END WHERE id = ?",
            (row,),
        )
    report = validate(dataclasses.replace(settings, offline=True))
    assert ("contents", "birth_data", row, "time_unknown") in named(report)


# Keys


def test_key_that_ignores_case_pairs_rows_all_the_same(database: Database, place: Place) -> None:
    columns = (
        'id text COLLATE "C" PRIMARY KEY, v int',
        "id TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, v INTEGER",
    )
    settings = with_odd_table(database, place, *columns, "('a', 1), ('B', 2), ('c', 3)")
    assert validate(settings).errors == []
    with lawless(settings) as connection:
        connection.execute("UPDATE odd SET v = 4 WHERE id = 'a'")
    assert named(validate(settings)) == {("contents", "odd", "a", "v")}


@pytest.mark.parametrize(("then", "now"), [("NULL", "'null'"), ("'null'", "NULL")])
def test_null_of_json_that_became_one_of_sql_is_a_change(
    database: Database, place: Place, then: str, now: str
) -> None:
    settings = with_odd_values(database, place, "jsonb", "TEXT", then)
    database.execute("UPDATE odd SET v = " + now)
    assert validate(settings).source_changes["odd"].changed.ids == ["1"]
