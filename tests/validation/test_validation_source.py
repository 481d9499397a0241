"""Phase 3 and the live source: what changed there since the export is told apart from what the import did."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Dict, List

import pytest

from import_to_sqlite import import_
from migration.model import USER_DATA, Table
from migration.settings import Settings
from migration.validation.report import Report
from support.bundles import forget_types, rewrite
from support.migrations import WHOLE
from support.places import ANNA
from support.runs import Run
from support.servers import NOWHERE, Database
from support.sqlite_files import lawless
from validate_migration import validate

STRANGER = "99999999-0000-4000-8000-000000000000"


@pytest.fixture()
def settings(own_migration: Settings) -> Settings:
    return own_migration


def checks(report: Report) -> set:
    return {found.check for found in report.findings}


def test_every_column_changed_in_the_source_names_its_row(settings: Settings, database: Database) -> None:
    """One row a column, in every table: the digest sees it and the rows are named; the import is not blamed."""
    expected: Dict[str, List[str]] = {}
    for table in WHOLE:
        types = dict(
            database.rows(
                "SELECT column_name::text, udt_name::text FROM information_schema.columns WHERE table_name = %s",
                table.name,
            )
        )
        ids = bundle_ids(settings, table)
        changed = []
        for name in sorted(name for name, kind in types.items() if kind != "uuid"):
            row = ids[len(changed) % len(ids)]
            change = CHANGES.get(types[name], CHANGES["text"])
            database.execute(
                "UPDATE {t} SET {c} = {e} WHERE id = %s".format(t=table.name, c=name, e=change.format(name)),
                row,
            )
            changed.append(row)
        expected[table.name] = sorted(set(changed))
    report = validate(dataclasses.replace(settings, max_differences=1000))
    found = {name: sorted(changes.changed.ids) for name, changes in report.source_changes.items()}
    assert found == expected
    assert checks(report) == {"source"}
    assert not report.passed


CHANGES = {
    "text": "coalesce({0}, '') || 'x'",
    "varchar": "left(coalesce({0}, ''), 1) || 'x'",
    "int4": "coalesce({0}, 0) + 1",
    "bool": "NOT coalesce({0}, false)",
    "numeric": "coalesce({0}, 0) + 0.01",
    "date": "coalesce({0}, '2000-01-01') + 1",
    "time": "coalesce({0}, '10:00') + interval '1 microsecond'",
    "timestamp": "coalesce({0}, '2000-01-01') + interval '1 microsecond'",
    "jsonb": "coalesce({0}, '[]') || '[1]'",
}


def bundle_ids(settings: Settings, table: Table) -> List[str]:
    records = json.loads((settings.data_dir / table.file).read_text(encoding="utf-8"))
    return [record["id"] for record in records]


def test_rows_added_and_removed_in_the_source_are_named(settings: Settings, database: Database) -> None:
    removed, changed = bundle_ids(settings, WHOLE[-1])[:2]
    database.execute("DELETE FROM location_cache WHERE id = %s", removed)
    database.execute("UPDATE location_cache SET city_name = 'Elsewhere' WHERE id = %s", changed)
    database.execute(
        "INSERT INTO location_cache SELECT %s, city_name, state_province, country, latitude, longitude, timezone,"
        " NULL, created_at, updated_at FROM location_cache LIMIT 1",
        STRANGER,
    )
    report = validate(settings)
    (error,) = report.errors
    assert error.startswith("Source has changed since the export of ")
    assert error.endswith(
        "location_cache 1 added (%s), 1 removed (%s), 1 changed (%s); migrate again to take them over"
        % (STRANGER, removed, changed)
    )
    assert report.as_json()["source_changes"]["location_cache"]["added"] == {"rows": 1, "ids": [STRANGER]}


def test_change_in_the_source_and_damage_by_the_import_are_told_apart(
    settings: Settings, database: Database
) -> None:
    first, second = bundle_ids(settings, WHOLE[0])[:2]
    database.execute("UPDATE clients SET last_name = 'Newly Wed' WHERE id = %s", first)
    with sqlite3.connect(str(settings.sqlite_path)) as connection:
        connection.execute("UPDATE clients SET phone = 'x' WHERE id = ?", (second,))
    connection.close()
    report = validate(settings)
    cells = {(f.table, f.row, f.column) for f in report.findings if f.check == "contents"}
    assert cells == {("clients", second, "phone"), ("clients", second, "updated_at")}  # by its trigger
    assert report.source_changes["clients"].changed.ids == [first]
    assert "Newly Wed" not in report.text()


def test_change_to_a_column_that_is_not_migrated_does_not_count(
    settings: Settings, database: Database
) -> None:
    database.execute("UPDATE users SET last_login = now(), subscription_tier = 'other'")
    report = validate(settings)
    assert report.passed
    assert report.source_changes == {}


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("UPDATE users SET password_hash = 'another'", "users password_hash changed"),
        ("UPDATE user_preferences SET aspect_orbs = '{}'", "user_preferences aspect_orbs changed"),
        ("DELETE FROM user_preferences", "user_preferences 1 removed"),
    ],
)
def test_changed_user_data_in_the_source_is_named(
    settings: Settings, database: Database, sql: str, named: str
) -> None:
    database.execute(sql)
    report = validate(settings)
    (error,) = report.errors
    assert error.startswith("Source has changed since the export of ")
    assert named in error


def test_new_column_of_the_source_is_named(settings: Settings, database: Database, tmp_path: Path) -> None:
    database.execute("ALTER TABLE clients ADD COLUMN nickname text")
    schema = tmp_path / "schema.sql"
    text = settings.schema_path.read_text(encoding="utf-8")
    schema.write_text(text.replace("    phone TEXT,", "    phone TEXT, nickname TEXT,"), encoding="utf-8")
    report = validate(dataclasses.replace(settings, schema_path=schema))
    assert any("clients has a new column nickname" in error for error in report.errors), report.errors
    assert any("table clients lacks column nickname" in error for error in report.errors), report.errors
    assert report.source_changes == {}


def test_row_that_went_to_another_user_is_named(settings: Settings, database: Database) -> None:
    (bruno,) = database.rows("SELECT id::text FROM users WHERE email = 'bruno@example.com'")[0]
    row = bundle_ids(settings, next(table for table in WHOLE if table.name == "interpretations"))[0]
    database.execute("UPDATE interpretations SET user_id = %s WHERE id = %s", bruno, row)
    report = validate(settings)
    assert ("isolation", "interpretations", row) in {(f.check, f.table, f.row) for f in report.findings}


def test_row_of_another_user_in_the_database_is_named_as_such(settings: Settings, database: Database) -> None:
    ((row, bruno),) = database.rows(
        "SELECT c.id::text, user_id::text FROM clients c JOIN users u ON u.id = user_id"
        " WHERE u.email = 'bruno@example.com' ORDER BY 1 LIMIT 1"
    )
    with sqlite3.connect(str(settings.sqlite_path)) as connection:
        connection.execute(
            "INSERT INTO clients (id, created_at, updated_at) SELECT ?, created_at, updated_at FROM clients LIMIT 1",
            (row,),
        )
    connection.close()
    report = validate(settings)
    assert {f.check for f in report.findings if f.row == row} == {"contents", "isolation"}


# Two references, one comparison


def test_database_is_compared_with_the_source_where_there_is_no_bundle(settings: Settings) -> None:
    shutil.rmtree(str(settings.data_dir))
    report = validate(settings)
    assert report.passed and report.warnings == []
    assert [report.facts[name] for name in ("against", "compared_with", "bundle")] == [
        "source",
        ["source"],
        None,
    ]
    assert report.validation_results["clients"].cells == 12 * 8
    break_a_cell(settings)
    report = validate(settings)
    assert [(f.check, f.table, f.column) for f in report.findings] == [
        ("contents", "session_notes", "note_content")
    ]


def test_source_is_compared_cell_by_cell_where_it_is_asked_for(
    settings: Settings, database: Database
) -> None:
    against_source = dataclasses.replace(settings, against="source")
    report = validate(against_source)
    assert report.passed and report.warnings == []
    assert report.facts["compared_with"] == ["bundle", "source"] and report.facts["against"] == "source"
    database.execute("UPDATE clients SET last_name = 'Newly Wed'")
    report = validate(against_source)
    assert checks(report) == {"contents", "source"}
    assert {(f.table, f.column) for f in report.findings if f.column} == {("clients", "last_name")}
    assert report.validation_results["clients"].differences == 12
    assert validate(dataclasses.replace(settings, offline=True)).passed


def break_a_cell(settings: Settings) -> None:
    with lawless(settings) as database:
        database.execute(
            "UPDATE session_notes SET note_content = 'x' WHERE id = (SELECT min(id) FROM session_notes)"
        )


def test_option_against_needs_what_it_compares_with(settings: Settings, run: Run) -> None:
    offline = run("validate_migration.py", "--against", "source", "--offline", code=2)
    assert "--offline" in offline.err and "--against source" in offline.err
    run("validate_migration.py", "--against", "source", "--postgres-url", NOWHERE, code=3)
    shutil.rmtree(str(settings.data_dir))
    assert (
        run(
            "validate_migration.py", "--against", "bundle", "--user-email", ANNA, "--postgres-url", NOWHERE
        ).code
        == 4
    )


# A bundle that another program made


@pytest.fixture(params=["sorted", "shuffled"])
def foreign(request: pytest.FixtureRequest, settings: Settings) -> Settings:
    """Five keys in the manifest, pretty-printed, JSON numbers as another program writes them; imported."""
    for name in [USER_DATA, *(table.file for table in WHOLE)]:
        text = (settings.data_dir / name).read_text(encoding="utf-8")
        # as Python's isoformat() has it: six digits or none
        text = re.sub(r'(?<=:\d\d\.)\d{1,5}(?=")', lambda found: found[0].ljust(6, "0"), text)
        content = json.loads(text)
        if request.param == "shuffled" and isinstance(content, list):
            random.Random(1).shuffle(content)
        rewrite(settings.data_dir, name, json.dumps(content, indent=2, ensure_ascii=False))
    forget_types(settings.data_dir)
    import_(settings)
    return settings


def test_bundle_of_another_layout_equals_its_source(foreign: Settings) -> None:
    report = validate(foreign)
    assert report.errors == []
    assert report.source_changes == {}


def test_change_is_named_against_a_bundle_of_another_layout(foreign: Settings, database: Database) -> None:
    (row, *_) = sorted(bundle_ids(foreign, WHOLE[0]))
    database.execute("UPDATE clients SET last_name = 'Newly Wed' WHERE id = %s", row)
    break_a_cell(foreign)
    report = validate(foreign)
    assert report.source_changes["clients"].changed.ids == [row]
    assert [(f.table, f.column) for f in report.findings if f.check == "contents"] == [
        ("session_notes", "note_content")
    ]


@pytest.mark.parametrize(
    "change",
    ["created_at = created_at + interval '1 second'", "phone = CASE WHEN phone IS NULL THEN 'x' END"],
)
def test_each_kind_of_change_is_named_against_a_bundle_of_another_layout(
    foreign: Settings, database: Database, change: str
) -> None:
    (row, *_) = sorted(bundle_ids(foreign, WHOLE[0]))
    database.execute("UPDATE clients SET %s WHERE id = %%s" % change, row)
    assert validate(foreign).source_changes["clients"].changed.ids == [row]


def test_column_that_the_source_has_no_more_is_named(settings: Settings, database: Database) -> None:
    database.execute("ALTER TABLE clients DROP COLUMN phone")
    errors = validate(settings).errors
    assert any("clients has no column phone any more" in error for error in errors), errors
