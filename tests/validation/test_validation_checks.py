"""A verdict says which checks it rests on: each with what it looked at, how much of it, how long, and what it found."""

from __future__ import annotations

import dataclasses
import json
import shutil
from typing import Any, Dict

import pytest

from migration.settings import Settings
from migration.sqlite import publishing
from migration.validation.report import Report
from support.migrations import copy_of, migrate_to, settings_of
from support.places import ANNA, Place
from support.runs import Run
from support.servers import Database
from support.sqlite_files import change
from validate_migration import CHECKS, validate

NAMES = [check.name for check in CHECKS]


@pytest.fixture()
def settings(finished: Place, sample_database: Database, place: Place) -> Settings:
    copy_of(finished, place)
    return settings_of(sample_database.url, place)


def results(report: Report) -> Dict[str, str]:
    return {check.name: check.result for check in report.checks}


def test_each_check_is_told_with_its_number(settings: Settings) -> None:
    report = validate(settings)
    assert results(report) == dict.fromkeys(NAMES, "ok")
    numbers = {check.name: check.number for check in report.checks}
    assert numbers["bundle"] == len(settings.whole_tables) + 1
    assert numbers["contents"] == sum(result.cells for result in report.validation_results.values()) > 1000
    assert numbers["counts"] == len(settings.whole_tables)
    assert all(numbers.values()), numbers
    assert all(
        check.seconds is not None for check in report.checks if check.name not in ("counts", "isolation")
    )


def test_check_that_was_not_done_says_why(settings: Settings) -> None:
    notes = {check.name: check.note for check in validate(dataclasses.replace(settings, offline=True)).checks}
    assert {name for name, note in notes.items() if note is not None} == {"source"}
    report = validate(settings, sound=publishing.stamp(settings.sqlite_path))
    assert {name for name, result in results(report).items() if result == "not done"} == {
        "integrity",
        "references",
    }
    shutil.rmtree(str(settings.data_dir))
    report = validate(settings)
    assert {name for name, result in results(report).items() if result == "not done"} == {"bundle", "source"}


FOUND = {
    "UPDATE clients SET phone = 'x'": {"contents": "errors"},
    "DELETE FROM session_notes WHERE id = (SELECT min(id) FROM session_notes)": {
        "contents": "errors",
        "counts": "errors",
    },
    "UPDATE app_config SET password_hash = 'x'": {"user": "errors"},
    "DROP INDEX idx_clients_last_name": {"schema": "errors"},
    "ALTER TABLE clients ADD COLUMN nick TEXT": {"additions": "warnings"},
    "UPDATE birth_data SET birth_time = '25:00:00'": {"contents": "errors", "forms": "errors"},
    "UPDATE app_config SET app_version = '9'": {"defaults": "warnings"},
    "UPDATE transit_events SET chart_id = 'x' WHERE id = (SELECT min(id) FROM transit_events)": {
        "contents": "errors",
        "references": "errors",
        "forms": "errors",
    },
}


@pytest.mark.parametrize("statement", FOUND)
def test_what_is_found_stands_with_its_check(settings: Settings, statement: str) -> None:
    change(settings.sqlite_path, "DROP TRIGGER clients_updated_at", "DROP TRIGGER app_config_updated_at")
    kept = results(validate(settings))
    change(settings.sqlite_path, statement)
    found = results(validate(settings))
    assert {name: found[name] for name in found if found[name] != kept[name] or name in FOUND[statement]} == (
        FOUND[statement]
    )


def test_change_of_the_source_stands_with_its_check(database: Database, place: Place) -> None:
    migrate_to(place.folder, database.url)
    database.execute("UPDATE clients SET phone = 'x'")
    report = validate(settings_of(database.url, place))
    assert {name for name, result in results(report).items() if result == "errors"} == {"source"}


def test_verbose_says_each_check_and_each_phase_on_the_terminal(
    sample_database: Database, place: Place, run: Run
) -> None:
    options = ("--user-email", ANNA, "--postgres-url", sample_database.url)
    done = run("migrate.py", *options, "--verbose")
    lines = [line.split("DEBUG", 1)[1].strip() for line in done.err.splitlines() if " DEBUG " in line]
    assert [line.split(": ")[0] for line in lines if line.startswith("check ")] == [
        "check " + name for name in NAMES
    ]
    for beginning in ("export: ", "import: "):
        assert len([line for line in lines if line.startswith(beginning)]) >= 4, lines
    assert ANNA not in done.err
    again = run("validate_migration.py", *options, "-v")
    assert "check contents: cells, each against its record: " in again.err
    assert "check " not in run("validate_migration.py", *options).err
    assert run("validate_migration.py", *options, "-q").out == ""
    report: Any = json.loads((place.data / "validation_report.json").read_text(encoding="utf-8"))
    assert [check["name"] for check in report["checks"]] == NAMES
