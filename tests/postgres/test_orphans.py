"""Rows of the user that refer to rows that are not in the export."""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Dict

import pytest

import config
from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from support.migrations import settings_of
from support.places import ANNA, BRUNO, Place
from support.runs import Run
from support.servers import Database
from support.sqlite_files import rows_of
from validate_migration import validate

NOWHERE = "00000000-0000-4000-8000-000000000000"


def one(database: Database, sql: str, *parameters: object) -> str:
    return str(database.rows(sql, *parameters)[0][0])


def first(database: Database, table: str, email: str) -> str:
    return one(
        database,
        "SELECT t.id::text FROM %s t JOIN users u ON u.id = t.user_id WHERE u.email = %%s ORDER BY t.id LIMIT 1"
        % table,
        email,
    )


def chart_at_anothers_client(database: Database) -> Dict[str, str]:
    row = one(
        database,
        "SELECT c.id::text FROM charts c JOIN users u ON u.id = c.user_id WHERE u.email = %s AND client_id IS NOT NULL"
        " ORDER BY c.id LIMIT 1",
        ANNA,
    )
    client = first(database, "clients", BRUNO)
    database.execute("UPDATE charts SET client_id = %s WHERE id = %s", client, row)
    return {"table": "charts", "row": row, "column": "client_id", "leads to": client}


def chart_at_anothers_birth_data(database: Database) -> Dict[str, str]:
    row = first(database, "charts", ANNA)
    birth = one(
        database, "SELECT id::text FROM birth_data WHERE client_id = %s", first(database, "clients", BRUNO)
    )
    database.execute("UPDATE charts SET birth_data_id = %s WHERE id = %s", birth, row)
    return {"table": "charts", "row": row, "column": "birth_data_id", "leads to": birth}


def note_at_anothers_client(database: Database) -> Dict[str, str]:
    row, client = first(database, "session_notes", ANNA), first(database, "clients", BRUNO)
    database.execute("UPDATE session_notes SET client_id = %s WHERE id = %s", client, row)
    return {"table": "session_notes", "row": row, "column": "client_id", "leads to": client}


def note_that_dangles_where_the_key_was_lost(database: Database) -> Dict[str, str]:
    row = first(database, "session_notes", ANNA)
    database.execute("ALTER TABLE session_notes DROP CONSTRAINT session_notes_client_id_fkey")
    database.execute("UPDATE session_notes SET client_id = %s WHERE id = %s", NOWHERE, row)
    return {"table": "session_notes", "row": row, "column": "client_id", "leads to": NOWHERE}


def chart_that_dangles_where_the_key_was_lost(database: Database) -> Dict[str, str]:
    row = first(database, "charts", ANNA)
    database.execute("ALTER TABLE charts DROP CONSTRAINT charts_birth_data_id_fkey")
    database.execute("UPDATE charts SET birth_data_id = %s WHERE id = %s", NOWHERE, row)
    return {"table": "charts", "row": row, "column": "birth_data_id", "leads to": NOWHERE}


CASES = [
    chart_at_anothers_client,
    chart_at_anothers_birth_data,
    note_at_anothers_client,
    note_that_dangles_where_the_key_was_lost,
    chart_that_dangles_where_the_key_was_lost,
]
cases = pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)


def record_ids(place: Place, table: str) -> Dict[str, Dict[str, Any]]:
    rows = json.loads((place.data / (table + ".json")).read_text(encoding="utf-8"))
    return {row["id"]: row for row in rows}


@cases
def test_orphan_stops_the_export_and_is_named(database: Database, place: Place, make) -> None:
    orphan = make(database)
    with pytest.raises(MigrationError) as caught:
        export(settings_of(database.url, place))
    assert caught.value.exit_code == ExitCode.SOURCE
    assert "%s %s: %s" % (orphan["table"], orphan["row"], orphan["column"]) in caught.value.message
    assert orphan["leads to"] in caught.value.message
    assert "--orphans skip" in (caught.value.hint or "")
    assert not (place.data / "manifest.json").exists()


@cases
def test_skipped_orphan_takes_what_hangs_on_it_along(database: Database, place: Place, make) -> None:
    complete = Place(place.folder / "complete")
    export(settings_of(database.url, complete))
    orphan = make(database)
    settings = settings_of(database.url, place, skip_orphans=True)
    manifest = export(settings).manifest
    import_(settings)
    report = validate(settings)
    by_the_bundle = validate(dataclasses.replace(settings, skip_orphans=False))  # what it left out, it says
    assert by_the_bundle.errors == report.errors == []

    expected = {orphan["table"]: 1}
    for child in ("chart_interpretations", "aspect_patterns", "transit_events"):
        hanging = [row for row in record_ids(complete, child).values() if row["chart_id"] == orphan["row"]]
        if hanging:
            expected[child] = len(hanging)
    assert len(expected) == (4 if orphan["table"] == "charts" else 1)
    assert dict(manifest.orphans_skipped) == expected
    for table in [
        "clients",
        "birth_data",
        "charts",
        "chart_interpretations",
        "session_notes",
        "transit_events",
    ]:
        before, now = record_ids(complete, table), record_ids(place, table)
        assert len(now) == len(before) - expected.get(table, 0), table
        assert orphan["row"] not in now
        assert set(now) < set(before) or now.keys() == before.keys()

    assert report.errors == []
    assert report.passed
    assert {check.result for check in report.checks} == {
        "ok"
    }  # what an option leaves out is no check's finding
    assert dict(report.facts["orphans_skipped"]) == expected
    assert any(orphan["table"] in warning and "orphans" in warning for warning in report.warnings)
    assert rows_of(place.app, "PRAGMA foreign_key_check") == []


def test_many_orphans_are_counted_and_the_first_listed(database: Database, place: Place) -> None:
    database.execute(
        "UPDATE charts SET client_id = %s WHERE user_id = (SELECT id FROM users WHERE email = %s)",
        first(database, "clients", ANNA),
        BRUNO,
    )
    with pytest.raises(MigrationError) as caught:
        export(settings_of(database.url, place, BRUNO))
    assert caught.value.message.startswith("rows of the user refer to rows that are not exported: 200")
    assert caught.value.message.count("\n") == 20


def test_chart_of_nobody_is_no_orphan(sample_database: Database, place: Place) -> None:
    export(settings_of(sample_database.url, place))
    assert any(row["client_id"] is None for row in record_ids(place, "charts").values())


def test_another_users_row_at_our_client_is_not_taken(database: Database, place: Place) -> None:
    client = first(database, "clients", ANNA)
    chart, note = first(database, "charts", BRUNO), first(database, "session_notes", BRUNO)
    database.execute("UPDATE charts SET client_id = %s WHERE id = %s", client, chart)
    database.execute("UPDATE session_notes SET client_id = %s WHERE id = %s", client, note)
    with pytest.raises(MigrationError) as caught:
        export(settings_of(database.url, place))
    assert "charts %s: client_id refers to a row of the user in clients (%s)" % (chart, client) in str(
        caught.value
    )
    assert 'left_behind=("client_id",)' in (caught.value.hint or "")
    tables = tuple(
        dataclasses.replace(table, left_behind=("client_id",))
        if table.name in ("charts", "session_notes")
        else table
        for table in config.TABLES
    )
    manifest = export(settings_of(database.url, place, tables=tables)).manifest
    assert manifest.left_behind == {"charts (client_id)": 1, "session_notes (client_id)": 1}
    assert chart not in record_ids(place, "charts")
    assert note not in record_ids(place, "session_notes")


def test_command_stops_with_3_or_skips_and_says_so(database: Database, place: Place, run: Run) -> None:
    place.app.write_bytes(b"")
    orphan = chart_at_anothers_client(database)
    stopped = run("migrate.py", "--user-email", ANNA, "--postgres-url", database.url, code=3)
    assert "charts %s: client_id" % orphan["row"] in stopped.err
    assert orphan["leads to"] in stopped.err
    assert place.app.read_bytes() == b""  # not so much as a header was written

    skipped = run("migrate.py", "--user-email", ANNA, "--postgres-url", database.url, "--orphans", "skip")
    assert skipped.code == 0, skipped.err
    assert "left out: charts %s: client_id" % orphan["row"] in skipped.err
    assert "left out of charts by --orphans skip: 1 rows" in skipped.err
    manifest = json.loads((place.data / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["orphans_skipped"]["charts"] == 1
    report = json.loads((place.data / "validation_report.json").read_text(encoding="utf-8"))
    assert report["orphans_skipped"] == manifest["orphans_skipped"]
    assert report["overall_status"] == "PASS"
