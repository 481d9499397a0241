"""What changes in PostgreSQL between export and validation of one run is found as a later validation finds it.

A later one has PostgreSQL render every row again; that of the same run only the tables that may have changed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from typing import Any, Callable, Dict, Iterator, List, Tuple

import psycopg2
import pytest

from demo import sample
from demo.postgres import temp_postgres
from migrate import phases_in_a_row
from migration.model import Table, owned_by
from migration.postgres import connecting, shared_rows
from migration.postgres.rows import Rows
from migration.settings import Settings
from migration.sqlite.schema import read_schema
from migration.validation import at_import
from migration.validation.report import Report
from support.bundles import array, rewrite
from support.migrations import WHOLE, settings_of, with_odd
from support.places import Place
from support.servers import Database, holding
from validate_migration import validate

EVERY = [table.name for table in WHOLE]


@pytest.fixture()
def digested(monkeypatch: pytest.MonkeyPatch) -> List[str]:
    """The tables of which PostgreSQL is asked for a digest."""
    asked: List[str] = []
    digest = Rows.digest

    def noted(rows: Rows, table: Table) -> Any:
        asked.append(table.name)
        return digest(rows, table)

    monkeypatch.setattr(Rows, "digest", noted)
    return asked


@pytest.fixture()
def settings(database: Database, place: Place) -> Settings:
    return settings_of(database.url, place, show_values=True, unrelated_tables=("twin",))


def run(settings: Settings, between: Callable[[], object], **how: Any) -> Report:
    """The three phases, and something between import and validation."""
    for done in phases_in_a_row(settings, **how):
        if done.imported is not None:
            between()
    assert done.report is not None
    return done.report


def told(report: Report) -> Tuple[Any, ...]:
    """All that a report says of the source."""
    counts = {name: result.pg_count for name, result in report.validation_results.items()}
    return report.findings, report.source_changes, counts


def nothing() -> None:
    pass


def test_rows_that_cannot_have_changed_are_not_rendered_again(
    settings: Settings, database: Database, digested: List[str]
) -> None:
    database.execute("CREATE INDEX later ON clients (notes)")
    report = run(
        settings, lambda: database.execute("UPDATE clients SET notes = 'x' WHERE user_id <> %s" % ANNA)
    )
    assert report.passed and digested == []
    assert told(report) == told(validate(settings))
    assert digested == EVERY


ANNA, BRUNO = ("(SELECT id FROM users WHERE email = '%s@example.com')" % name for name in ("anna", "bruno"))
MINE = {  # one of each kind of ownership: whose rows they are, and a change
    "clients": ("user_id = " + ANNA, "notes = 'changed'"),
    "transit_events": ("chart_id IN (SELECT id FROM charts WHERE user_id = %s)" % ANNA, "orb = 9.5"),
    "interpretations": ("user_id IS NULL", "text_content = 'changed'"),
    "location_cache": ("true", "city_name = 'changed'"),
}
REMOVED = "DELETE FROM {t} WHERE id = (SELECT id FROM {t} WHERE {mine} ORDER BY id LIMIT 1);"
ADDED = (
    "CREATE TEMP TABLE added AS SELECT * FROM {t} WHERE {mine} LIMIT 1; UPDATE added SET id = md5('new')::uuid;"
    "INSERT INTO {t} SELECT * FROM added ON CONFLICT DO NOTHING;"
)
CHANGES: Dict[str, str] = {
    **{
        "%s %s" % (table, what): sql.format(t=table, mine=mine, change=change)
        for table, (mine, change) in MINE.items()
        for what, sql in {
            "changed": "UPDATE {t} SET {change} WHERE id = (SELECT max(id::text)::uuid FROM {t} WHERE {mine})",
            "removed": REMOVED,
            "added": "ALTER TABLE location_cache DROP geonames_id;" * (table == "location_cache") + ADDED,
            "one replaced by another": ADDED.replace("INSERT", REMOVED + "INSERT"),
        }.items()
    },
    # no row of what hangs on them is touched, and there may be as many as before
    "parent given away": "UPDATE charts SET user_id = %s WHERE user_id = %s" % (BRUNO, ANNA),
    "one parent exchanged for another": "UPDATE charts SET user_id = CASE user_id WHEN {0} THEN {1} ELSE {0} END"
    " WHERE id IN (SELECT min(id::text)::uuid FROM charts WHERE user_id IN ({0}, {1}) GROUP BY user_id)".format(
        ANNA, BRUNO
    ),
    "everybody's row given to one": "UPDATE interpretations SET user_id = %s WHERE user_id IS NULL" % BRUNO,
    "user's own row changed": "UPDATE users SET password_hash = 'another' WHERE id = " + ANNA,
    "preferences removed": "DELETE FROM user_preferences WHERE user_id = " + ANNA,
    # nothing is written to a row
    "another table under the name": "DROP TABLE location_cache; ALTER TABLE twin RENAME TO location_cache",
    "another column under the name": "ALTER TABLE clients DROP notes; ALTER TABLE clients ADD notes text DEFAULT 'new'",
    "column renamed": "ALTER TABLE clients RENAME first_name TO a; ALTER TABLE clients RENAME last_name TO first_name;"
    "ALTER TABLE clients RENAME a TO last_name",
}
BEFORE = (
    "CREATE TABLE twin (LIKE location_cache INCLUDING ALL); INSERT INTO twin SELECT * FROM location_cache;"
    "UPDATE twin SET city_name = 'another'; DELETE FROM transit_events; INSERT INTO transit_events"
    " SELECT md5(id::text)::uuid, id, '2020-01-01', 'sun', 'moon', 'trine', 1, true FROM charts"
)


@pytest.mark.parametrize("change", CHANGES)
def test_change_after_the_export_is_found_as_by_a_later_validation(
    change: str, settings: Settings, database: Database
) -> None:
    database.execute(BEFORE)
    report = run(settings, lambda: database.execute(CHANGES[change]))
    assert not report.passed
    assert told(report) == told(validate(settings))


CHANGED = "UPDATE transit_events SET orb = 9.5 WHERE id = (SELECT max(id::text)::uuid FROM transit_events t WHERE %s)"


@pytest.mark.parametrize("within", [(), ("SAVEPOINT a", "UPDATE users SET full_name = 'x'", "SAVEPOINT b")])
@pytest.mark.parametrize("ahead", [False, True])
def test_what_a_transaction_of_the_time_of_the_export_changes_is_found(
    settings: Settings, database: Database, within: Tuple[str, ...], ahead: bool
) -> None:
    """It has its number before the export; others have ended by then whose number is higher."""
    number = "SELECT txid_current()"
    with holding(database, number, *within, CHANGED % MINE["transit_events"][0]) as running:
        if ahead:
            database.execute("UPDATE location_cache SET timezone = timezone")
        report = run(settings, running.commit)
    assert list(report.source_changes) == ["transit_events"]
    assert told(report) == told(validate(settings))


@pytest.mark.parametrize("compared", ["by the import", "by the validation"])
def test_only_tables_that_may_have_changed_are_rendered_again(
    compared: str,
    settings: Settings,
    database: Database,
    digested: List[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if compared == "by the import":
        monkeypatch.setattr(at_import, "LEAST_BYTES", 0)
    assert run(settings, lambda: database.execute("UPDATE charts SET house_system = house_system")).passed
    assert digested == ["charts", "chart_interpretations", "aspect_patterns", "transit_events"]
    del digested[:]
    report = run(settings, lambda: database.execute(CHANGES["location_cache changed"]))
    assert digested == ["location_cache"] == list(report.source_changes)


def test_bundle_that_somebody_edits_during_the_run_is_compared_with_postgresql(settings: Settings) -> None:
    def edit() -> None:
        path = settings.data_dir / "session_notes.json"
        records = json.loads(path.read_text(encoding="utf-8"))
        records[0]["note_content"] = "forged"
        rewrite(settings.data_dir, path.name, array(records))

    report = run(settings, edit)
    assert {"contents", "source"} <= {found.check for found in report.findings}
    assert told(report) == told(validate(settings))


@pytest.mark.parametrize(
    ("before", "column", "change"),
    [
        ("CREATE TYPE mood AS ENUM ('low', 'high')", "mood", "ALTER TYPE mood RENAME VALUE 'low' TO 'down'"),
        (
            "CREATE TYPE pair AS (a int, b text)",
            "pair DEFAULT (1, 'b')",
            "ALTER TYPE pair RENAME ATTRIBUTE b TO c",
        ),
        ("", "int GENERATED ALWAYS AS (id) VIRTUAL", "ALTER TABLE odd ALTER v SET EXPRESSION AS (id + 1)"),
        ("", "regclass DEFAULT 'clients'", "ALTER TABLE clients RENAME TO c; ALTER TABLE c RENAME TO d"),
    ],
)
def test_value_whose_text_depends_on_more_than_the_row_is_rendered_again(
    database: Database, place: Place, digested: List[str], before: str, column: str, change: str
) -> None:
    if "VIRTUAL" in column and database.rows("SHOW server_version_num") < [("180000",)]:
        pytest.skip("PostgreSQL stores all generated columns")
    database.execute(
        "%s; CREATE TABLE odd (id int PRIMARY KEY, user_id uuid, v %s); INSERT INTO odd (id, user_id) SELECT 1, %s"
        % (before, column, ANNA)
    )
    if "mood" in column:
        database.execute("UPDATE odd SET v = 'low'")
    settings = with_odd(database, place, "id INTEGER PRIMARY KEY, v TEXT", owned_by("user_id"))
    report = run(settings, nothing)
    assert report.passed, report.errors
    assert digested == ["odd"]
    if "clients" in change:
        return  # which table is there no more stops the validation
    assert list(run(settings, lambda: database.execute(change)).source_changes) == ["odd"]


def test_one_snapshot_needs_no_digest_but_of_records_that_were_merged(
    settings: Settings, database: Database, place: Place, digested: List[str]
) -> None:
    schema, common = read_schema(settings.schema_path), place.folder / "common"
    common.mkdir()
    with connecting.snapshot(settings) as first:
        shared = shared_rows.export_shared(first, settings, schema, common)
        with connecting.snapshot(settings, first.share(), shared) as db:
            report = run(settings, lambda: database.execute("DELETE FROM charts"), db=db)
    assert report.passed and digested == ["interpretations"]
    assert report.validation_results["charts"].pg_count == report.validation_results["charts"].sqlite_count


def test_row_that_is_lost_when_records_are_merged_is_found(
    settings: Settings, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, common = read_schema(settings.schema_path), place.folder / "common"
    common.mkdir()
    monkeypatch.setattr(shared_rows._Merged, "end", lambda merged: None)
    with connecting.snapshot(settings) as first:
        shared = shared_rows.export_shared(first, settings, schema, common)
        with connecting.snapshot(settings, first.share(), shared) as db:
            report = run(settings, lambda: None, db=db)
    assert list(report.source_changes) == ["interpretations"]


@pytest.fixture()
def fragile() -> Iterator[Database]:
    """The sample on a server that writes nothing down unless it has to."""
    with temp_postgres("wal_writer_delay=10s", "autovacuum=off") as url:
        with contextlib.closing(psycopg2.connect(url)) as connection:
            sample.create_schema(connection)
            sample.fill(connection)
            connection.commit()
            connection.autocommit = True
            connection.cursor().execute("CHECKPOINT")
        yield Database(url)


def test_commits_that_a_crash_of_the_server_undoes_are_found(
    fragile: Database, place: Place, digested: List[str]
) -> None:
    """The numbers of the transactions are given out again."""

    def crash() -> None:
        with contextlib.closing(psycopg2.connect(fragile.url)) as connection:
            os.kill(connection.info.backend_pid, signal.SIGKILL)
            while not connection.closed:
                with contextlib.suppress(psycopg2.OperationalError):
                    connection.cursor().execute("SELECT")
        while not connected(fragile):
            pass
        fragile.execute(CHANGES["location_cache changed"])

    for _ in range(5):
        fragile.execute("UPDATE clients SET notes = notes || 'x'")
    settings = settings_of(fragile.url, place, show_values=True)
    report = run(settings, crash)
    assert digested == EVERY
    assert list(report.source_changes) == ["clients", "location_cache"]
    assert told(report) == told(validate(settings))


def connected(database: Database) -> bool:
    with contextlib.suppress(psycopg2.OperationalError):
        database.execute("SELECT")
        return True
    return False


@pytest.mark.parametrize("name", ["users", "user_preferences"])
def test_manifest_that_counts_no_single_rows_is_no_bug(
    name: str, sample_database: Database, place: Place
) -> None:
    settings = settings_of(sample_database.url, place)
    for done in phases_in_a_row(settings):
        if done.imported is not None:
            path = settings.data_dir / "manifest.json"
            manifest = json.loads(path.read_text(encoding="utf-8"))
            del manifest["row_counts"][name]
            path.write_text(json.dumps(manifest), encoding="utf-8")
    assert done.report is not None and done.report.passed
