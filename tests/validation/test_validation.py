"""Phase 3: what is broken in a migrated database is found, one thing at a time, and named."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sqlite3
from typing import Any, Iterator, NamedTuple, Tuple

import jsonschema
import pytest

from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.settings import Settings
from migration.validation import comparison
from support.migrations import WHOLE, copy_of, export_and_import, settings_of
from support.places import ANNA, SUITE, Place
from support.runs import Run
from support.servers import Database
from support.sqlite_files import set_rules
from validate_migration import conclude, validate


@contextlib.contextmanager
def opened(settings: Settings) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(str(settings.sqlite_path))
    yield connection
    connection.commit()
    connection.close()


class Fault(NamedTuple):
    """SQL with ``:id`` for the first row of ``table``, and what the report must name besides it."""

    table: str
    sql: str
    named: Tuple[str, ...]


def _set(table: str, cell: str, *named: str) -> Fault:
    return Fault(table, "UPDATE %s SET %s WHERE id = :id" % (table, cell), named)


FAULTS = {
    "deleted row": Fault("session_notes", "DELETE FROM session_notes WHERE id = :id", ("session_notes",)),
    "added row": Fault(
        "location_cache",
        "INSERT INTO location_cache (id, city_name, country, latitude, longitude, timezone)"
        " VALUES ('00000000-0000-4000-8000-000000000000', 'x', 'x', 0, 0, 'UTC')",
        ("location_cache",),
    ),
    "dangling reference": _set(
        "transit_events",
        "chart_id = '00000000-0000-4000-8000-000000000000'",
        "Foreign key violation",
        "chart_id",
    ),
    "invalid JSON": _set("charts", "chart_data = '{\"a\": '", "chart_data", "is not valid JSON"),
    "JSON that is no list": _set(
        "aspect_patterns", "planets_involved = '{}'", "planets_involved", "not a list"
    ),
    "JSON as a BLOB": _set("charts", "chart_data = x'7b7d'", "chart_data", "is not JSON text"),
    "date that is not ISO": _set(
        "birth_data", "birth_date = '15.11.2025'", "birth_date", "is not an ISO 8601 date"
    ),
    "impossible date": _set(
        "birth_data", "birth_date = '2025-02-30'", "birth_date", "is not an ISO 8601 date"
    ),
    "impossible month": _set(
        "session_notes", "note_date = '2025-13-01'", "note_date", "is not an ISO 8601 date"
    ),
    "time that is none": _set(
        "birth_data", "birth_time = '25:00:00'", "birth_time", "is not an ISO 8601 time"
    ),
    "impossible minute": _set(
        "transit_events", "event_date = '2025-11-15T09:60:00'", "event_date", "is not an ISO 8601 timestamp"
    ),
    "impossible hour": _set(
        "transit_events",
        "event_date = '2025-11-15T24:30:00.000001'",
        "event_date",
        "is not an ISO 8601 timestamp",
    ),
    "fraction of five digits": _set(
        "transit_events",
        "event_date = '2025-11-15T09:30:00.00001'",
        "event_date",
        "is not an ISO 8601 timestamp",
    ),
    "day zero": _set(
        "transit_events", "event_date = '2025-11-00T09:30:00'", "event_date", "is not an ISO 8601 timestamp"
    ),
    "timestamp with a blank": _set(
        "transit_events", "event_date = '2025-11-15 09:30:00'", "event_date", "is not an ISO 8601 timestamp"
    ),
    "boolean of 2": _set("birth_data", "time_unknown = 2", "time_unknown", "0 or 1"),
    "boolean as text": _set("transit_events", "is_applying = 'true'", "is_applying", "0 or 1"),
    "latitude of 91": _set("birth_data", "latitude = 91", "latitude", "between -90 and 90"),
    "longitude of -181": _set("location_cache", "longitude = -181", "longitude", "between -180 and 180"),
    "number as text": _set("birth_data", "latitude = 'north'", "column latitude is not a number"),
    "integer as text": _set("birth_data", "utc_offset = 'one'", "column utc_offset is not an integer"),
    "malformed uuid": _set("charts", "client_id = 'not-a-uuid'", "client_id", "is not a UUID"),
    "required value missing": _set("clients", "created_at = NULL", "column created_at is NULL"),
    "changed text": _set("clients", "last_name = 'x'", "last_name"),
    "NULL instead of a text": _set("chart_interpretations", "element_key = NULL", "element_key"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_broken_value_fails_the_validation_and_is_named(settings: Settings, fault: str) -> None:
    table, sql, named = FAULTS[fault]
    with opened(settings) as connection:
        _without_rules(connection, table)
        (row,) = connection.execute("SELECT min(id) FROM %s" % table).fetchone()
        changed = connection.execute(sql, {"id": row} if ":id" in sql else {})
        assert changed.rowcount == 1
    report = validate(settings)
    assert not report.passed
    assert conclude(report, settings) == ExitCode.DIFFERENCES
    written = json.loads((settings.data_dir / "validation_report.json").read_text(encoding="utf-8"))
    assert written["overall_status"] == "FAIL"
    naming = [error for error in written["errors"] if all(text in error for text in named)]
    assert naming, written["errors"]
    assert any(table in error for error in naming)
    if fault not in ("deleted row", "added row"):
        assert any(row in error for error in naming)


def _without_rules(connection: sqlite3.Connection, table: str) -> None:
    """Have SQLite forget the table's NOT NULL and its trigger, so that a damaged row has nothing else to be noticed by."""
    connection.execute("DROP TRIGGER IF EXISTS %s_updated_at" % table)
    (sql,) = connection.execute("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    set_rules(connection, [(table, sql.replace(" NOT NULL", ""))])


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("UPDATE app_config SET password_hash = 'x'", "app_config.password_hash"),
        ("UPDATE app_config SET password_hash = NULL", "app_config.password_hash"),
        ("UPDATE user_preferences SET default_zodiac = 'tropical'", "user_preferences.default_zodiac"),
        ("UPDATE user_preferences SET aspect_orbs = '{}'", "user_preferences.aspect_orbs"),
        ("DELETE FROM user_preferences", "user_preferences holds 0 rows"),
    ],
)
def test_changed_user_data_is_found(settings: Settings, sql: str, named: str) -> None:
    secret = json.loads((settings.data_dir / "user_data.json").read_text(encoding="utf-8"))["user"][
        "password_hash"
    ]
    with opened(settings) as connection:
        connection.execute(sql)
    report = validate(settings)
    assert any(named in error for error in report.errors), report.errors
    assert secret not in (settings.data_dir / "validation_report.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("DROP INDEX idx_charts_client_id", "index idx_charts_client_id is missing"),
        ("DROP TRIGGER charts_updated_at", "trigger charts_updated_at is missing"),
        ("DROP VIEW client_summary", "view client_summary is missing"),
        ("DROP TABLE session_notes", "table session_notes is missing"),
        ("DROP TABLE app_config", "table app_config is missing"),
        ("ALTER TABLE clients DROP COLUMN phone", "table clients lacks column phone"),
    ],
)
def test_missing_part_of_the_schema_is_found(settings: Settings, sql: str, named: str) -> None:
    with opened(settings) as connection:
        connection.execute("PRAGMA foreign_keys = OFF")
        if sql.endswith("phone"):
            connection.execute("DROP VIEW client_summary")
            if sqlite3.sqlite_version_info < (3, 35):
                pytest.skip("this SQLite cannot drop a column")
        connection.execute(sql)
    assert any(named in error for error in validate(settings).errors)


def _hide_row_from_index(settings: Settings) -> None:
    with opened(settings) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        where = "WHERE name = 'idx_charts_client_id'"
        index = connection.execute("SELECT * FROM sqlite_master " + where).fetchone()
        connection.execute("DELETE FROM sqlite_master " + where)
        connection.commit()
        (version,) = connection.execute("PRAGMA schema_version").fetchone()
        connection.execute("PRAGMA schema_version = %d" % (version + 1))
    with opened(settings) as connection:
        connection.execute("UPDATE charts SET client_id = (SELECT max(id) FROM clients)")
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("INSERT INTO sqlite_master VALUES (?, ?, ?, ?, ?)", index)


def test_row_that_an_index_lacks_is_found(settings: Settings) -> None:
    _hide_row_from_index(settings)
    assert any(
        error.startswith("Integrity") and "idx_charts_client_id" in error
        for error in validate(settings).errors
    )


def test_all_checks_are_of_one_state_of_a_database_that_is_written_meanwhile(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(settings) as connection:
        connection.execute("PRAGMA journal_mode = WAL")  # so that one can write while others read
    compare = comparison.compare_tables

    def late(*arguments: Any) -> Any:
        with opened(settings) as connection:
            connection.execute("DROP TRIGGER charts_updated_at")
            connection.execute("UPDATE charts SET chart_data = '{'")
        return compare(*arguments)

    monkeypatch.setattr(comparison, "compare_tables", late)
    assert validate(settings).passed
    monkeypatch.setattr(comparison, "compare_tables", compare)
    assert {finding.check for finding in validate(settings).findings} >= {"schema", "json", "contents"}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in the file", "in the write-ahead log"])
def test_file_written_since_it_was_found_sound_is_looked_through_again(
    database: Database, place: Place, elsewhere: bool
) -> None:
    settings = settings_of(database.url, place)
    export(settings)
    stamp = import_(settings).stamp
    with contextlib.closing(sqlite3.connect(str(settings.sqlite_path))) as holder:
        if elsewhere:  # as long as it is open, the log is not folded in
            holder.execute("SELECT count(*) FROM clients").fetchone()
        else:
            holder.close()
        _hide_row_from_index(settings)
        errors = validate(settings, sound=stamp).errors
    assert any(error.startswith("Integrity") and "idx_charts_client_id" in error for error in errors)


def test_null_beside_a_malformed_cell_is_not_accused(settings: Settings) -> None:
    with opened(settings) as connection:
        _without_rules(connection, "birth_data")
        connection.execute(
            "UPDATE birth_data SET latitude = 91, birth_time = NULL, utc_offset = NULL"
            " WHERE id = (SELECT min(id) FROM birth_data)"
        )
    found = validate(settings).findings
    assert {finding.column for finding in found if finding.check == "types"} == {"latitude"}


def test_untouched_database_passes(finished: Place, sample_database: Database, place: Place) -> None:
    copy_of(finished, place)
    settings = settings_of(sample_database.url, place)
    report = validate(settings)
    assert report.errors == []
    assert report.warnings == []
    assert conclude(report, settings) == ExitCode.DONE


def test_report_has_the_keys_of_the_specification(settings: Settings) -> None:
    validate(settings)
    written = json.loads((settings.data_dir / "validation_report.json").read_text(encoding="utf-8"))
    for key in (
        "timestamp",
        "user_email",
        "user_id",
        "validation_results",
        "errors",
        "warnings",
        "overall_status",
    ):
        assert key in written
    assert written["user_email"] == ANNA
    assert set(written["validation_results"]) == {table.name for table in WHOLE}
    for result in written["validation_results"].values():
        assert {"pg_count", "sqlite_count", "match"} <= set(result)
        assert result["match"] is True
    assert written["overall_status"] == "PASS"


def test_validation_changes_nothing_in_the_database(settings: Settings) -> None:
    before = settings.sqlite_path.read_bytes()
    validate(settings)
    assert settings.sqlite_path.read_bytes() == before


def test_source_that_changed_since_the_export_is_said_as_such(database: Database, place: Place) -> None:
    settings = settings_of(database.url, place)
    export_and_import(settings)
    database.execute("DELETE FROM session_notes")
    report = validate(settings)
    assert any(
        "Source has changed since the export" in text and "session_notes" in text for text in report.errors
    )
    assert not any("mismatch" in text for text in report.errors)


def test_offline_needs_no_postgresql(settings: Settings) -> None:
    nowhere = dataclasses.replace(settings, postgres={"host": "/nowhere", "dbname": "none"})
    assert validate(nowhere).passed
    with pytest.raises(MigrationError) as caught:
        validate(dataclasses.replace(nowhere, offline=False))
    assert caught.value.exit_code == ExitCode.SOURCE


def test_command_returns_1_and_names_the_fault(settings: Settings, run: Run) -> None:
    with opened(settings) as connection:
        connection.execute("UPDATE birth_data SET latitude = 91 WHERE id = (SELECT min(id) FROM birth_data)")
    done = run("validate_migration.py", "--offline", code=1)
    assert "column latitude is not between -90 and 90" in done.err
    assert "FAIL" in done.out


def test_missing_database_is_named(settings: Settings) -> None:
    settings.sqlite_path.unlink()
    with pytest.raises(MigrationError, match="no database at") as caught:
        validate(settings)
    assert caught.value.exit_code == ExitCode.TARGET


# What is printed and written


def break_cells(settings: Settings, number: int) -> None:
    """Put a text that nobody should read where notes were, in the first rows."""
    with opened(settings) as connection:
        connection.execute(
            "UPDATE session_notes SET note_content = 'PRIVATE ' || id WHERE id IN"
            " (SELECT id FROM session_notes ORDER BY id LIMIT %d)" % number
        )


def test_first_differences_are_listed_and_all_are_counted(settings: Settings) -> None:
    break_cells(settings, 7)
    report = validate(dataclasses.replace(settings, max_differences=3))
    assert report.validation_results["session_notes"].differences == 14  # and updated_at, by the trigger
    assert not report.validation_results["session_notes"].match
    listed = [found for found in report.findings if found.check == "contents"]
    assert len(listed) == 4
    assert listed[-1].message == "Difference: session_notes: 11 more"
    assert listed[-1].count == 11


def test_values_are_shown_only_where_they_are_asked_for(settings: Settings) -> None:
    break_cells(settings, 1)
    for show in (False, True):
        report = validate(dataclasses.replace(settings, show_values=show))
        page = (settings.data_dir / "validation_report.html").read_text(encoding="utf-8")
        assert ("PRIVATE" in report.text()) is show
        assert ("PRIVATE" in page) is show
        assert report.facts["values_shown"] is show


def test_password_hash_is_never_shown(settings: Settings) -> None:
    with opened(settings) as connection:
        connection.execute("UPDATE app_config SET password_hash = 'SECRET'")
    report = validate(dataclasses.replace(settings, show_values=True))
    assert any("app_config.password_hash" in error for error in report.errors)
    assert "SECRET" not in report.text()
    secret = json.loads((settings.data_dir / "user_data.json").read_text(encoding="utf-8"))["user"][
        "password_hash"
    ]
    assert secret not in report.text()


def test_strict_turns_warnings_into_errors(settings: Settings, run: Run) -> None:
    with opened(settings) as connection:
        connection.execute("CREATE TABLE notes_of_the_application (id)")
    lenient = validate(settings)
    assert lenient.passed and len(lenient.warnings) == 1
    strict = validate(dataclasses.replace(settings, strict=True))
    assert not strict.passed and strict.errors == lenient.warnings and strict.warnings == []
    assert run("validate_migration.py", "--offline").code == 0
    assert run("validate_migration.py", "--offline", "--strict").code == 1


@pytest.mark.parametrize("broken", [0, 2])
@pytest.mark.parametrize("offline", [True, False])
def test_report_is_as_its_schema_says(settings: Settings, broken: int, offline: bool) -> None:
    break_cells(settings, broken)
    validate(dataclasses.replace(settings, offline=offline))
    written = json.loads((settings.data_dir / "validation_report.json").read_text(encoding="utf-8"))
    schema = json.loads(
        (SUITE / "schema_design" / "validation_report.schema.json").read_text(encoding="utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(written, schema)


@pytest.mark.parametrize("script", ["validate_migration.py", "migrate.py"])
def test_json_goes_to_stdout_alone(settings: Settings, run: Run, script: str) -> None:
    break_cells(settings, 1)
    phases = ("--skip-export", "--skip-import") if script == "migrate.py" else ()
    done = run(script, *phases, "--offline", "--json", code=1)
    printed = json.loads(done.out)
    assert printed["overall_status"] == "FAIL"
    written = json.loads((settings.data_dir / "validation_report.json").read_text(encoding="utf-8"))
    assert printed == written


def test_migration_with_json_prints_nothing_else(sample_database: Database, run: Run) -> None:
    done = run("migrate.py", "--user-email", ANNA, "--postgres-url", sample_database.url, "--json", code=0)
    assert json.loads(done.out)["overall_status"] == "PASS"


@pytest.mark.parametrize(
    "option", ["--strict", "--json", "--show-values", "--against=bundle", "--max-differences=3"]
)
def test_option_of_a_validation_that_is_skipped_is_refused(run: Run, option: str) -> None:
    done = run("migrate.py", "--skip-validation", option, code=2)
    assert "--skip-validation" in done.err


@pytest.mark.parametrize("number", ["0", "-1", "many", ""])
def test_number_of_listed_differences_is_one_or_more(run: Run, number: str) -> None:
    done = run("validate_migration.py", "--max-differences=" + number, code=2)
    assert "--max-differences" in done.err


def test_schema_differences_are_named_whatever_the_layout(settings: Settings, place: Place) -> None:
    text = settings.schema_path.read_text(encoding="utf-8")
    laid_out = place.folder / "laid_out.sql"
    laid_out.write_text(
        "/* another */ " + text.replace("(\n    id", " ( -- x\n\tID").replace("TEXT", "text"),
        encoding="utf-8",
    )
    report = validate(dataclasses.replace(settings, schema_path=laid_out))
    assert report.errors == [] and report.warnings == []


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("notes TEXT,", "notes BLOB,", "table clients has column notes with another type"),
        ("phone TEXT,", "phone TEXT NOT NULL,", "table clients has column phone with another type"),
        ("phone TEXT,", "phone TEXT, nick TEXT,", "table clients lacks column nick"),
        (
            "birth_data_id TEXT NOT NULL REFERENCES birth_data (id) ON DELETE CASCADE",
            "birth_data_id TEXT NOT NULL",
            "table charts has one too many: foreign key birth_data_id → birth_data",
        ),
        ("ON clients (last_name)", "ON clients (first_name)", "index idx_clients_last_name differs"),
        ("geonames_id INTEGER UNIQUE", "geonames_id INTEGER", "table location_cache differs"),
    ],
)
def test_difference_from_the_schema_file_is_named(
    settings: Settings, place: Place, old: str, new: str, named: str
) -> None:
    text = settings.schema_path.read_text(encoding="utf-8")
    assert old in text
    other = place.folder / "other.sql"
    view = text.index("CREATE VIEW")  # which names columns that are gone
    other.write_text(text[:view].replace(old, new, 1), encoding="utf-8")
    report = validate(dataclasses.replace(settings, schema_path=other))
    assert any(named in error for error in report.errors), report.errors
