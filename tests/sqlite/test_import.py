"""Phase 2: what the new database is like, and that a failing import leaves the old one byte for byte."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import shutil
import sqlite3
import stat
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.settings import Settings
from migration.sqlite import publishing
from migration.sqlite.schema import describe_objects
from support.bundles import rewrite
from support.migrations import export_and_import, refused, settings_of
from support.places import BRUNO, CARLA, SCHEMA, Place
from support.servers import Database
from support.sqlite_files import OLD_ROWS, make_old_database, rows_of

Change = Callable[[List[Dict[str, Any]]], None]


@pytest.fixture(scope="module")
def exported(sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("exported"))
    export(settings_of(sample_database.url, place))
    return place


@pytest.fixture
def settings(exported: Place, sample_database: Database, place: Place) -> Settings:
    """Anna's bundle, this test's own copy, ready to be imported."""
    shutil.copytree(str(exported.data), str(place.data))
    return settings_of(sample_database.url, place)


def change(data: Path, name: str, act: Change) -> None:
    rows = json.loads((data / name).read_text(encoding="utf-8"))
    act(rows)
    rewrite(data, name, json.dumps(rows, ensure_ascii=False))


# What is there afterwards


def test_tables_indexes_triggers_and_views_are_those_of_the_schema_file(settings: Settings) -> None:
    import_(settings)
    expected = sqlite3.connect(":memory:")
    expected.executescript(Path(SCHEMA).read_text(encoding="utf-8"))
    found = sqlite3.connect(str(settings.sqlite_path))
    assert describe_objects(found) == describe_objects(expected)
    assert len([name for kind, name in describe_objects(found) if kind == "trigger"]) == 11
    assert found.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    found.close()


@pytest.mark.skipif(sqlite3.sqlite_version_info < (3, 31), reason="no generated columns")
def test_numbered_and_generated_columns_expression_indexes_and_full_text_tables_are_made(
    settings: Settings, tmp_path: Path
) -> None:
    text = Path(SCHEMA).read_text(encoding="utf-8")
    usual = "CREATE TABLE IF NOT EXISTS charts (\n    id TEXT PRIMARY KEY NOT NULL,"
    assert usual in text
    unusual = """CREATE TABLE IF NOT EXISTS charts (
        number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL,
        short TEXT AS (substr(id, 1, 8)) VIRTUAL, long TEXT AS (id || '!') STORED UNIQUE,"""
    more = """
        CREATE INDEX by_expression ON charts (lower(short), created_at) WHERE created_at > '2000';
        CREATE VIRTUAL TABLE words USING fts5(id);
        CREATE TRIGGER counted AFTER DELETE ON charts BEGIN SELECT 1; END;
        """
    schema = tmp_path.parent / "unusual.sql"
    schema.write_text(text.replace(usual, unusual) + more, encoding="utf-8")
    import_(dataclasses.replace(settings, schema_path=schema))
    records = json.loads((settings.data_dir / "charts.json").read_text(encoding="utf-8"))
    ids = [record["id"] for record in records]
    assert rows_of(settings.sqlite_path, "SELECT number, id, short, long FROM charts ORDER BY number") == [
        (number, key, key[:8], key + "!") for number, key in enumerate(ids, 1)
    ]
    assert rows_of(settings.sqlite_path, "SELECT * FROM sqlite_sequence") == [("charts", len(ids))]
    assert rows_of(settings.sqlite_path, "SELECT count(*) FROM words") == [(0,)]
    with contextlib.closing(sqlite3.connect(str(settings.sqlite_path))) as found, contextlib.closing(
        sqlite3.connect(":memory:")
    ) as expected:
        expected.executescript(schema.read_text(encoding="utf-8"))
        assert describe_objects(found) == describe_objects(expected)
        assert found.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_triggers_work_and_have_touched_no_timestamp(settings: Settings, exported: Place) -> None:
    import_(settings)
    for table in ("clients", "charts", "location_cache", "transit_events"):
        source = json.loads((exported.data / (table + ".json")).read_text(encoding="utf-8"))
        found = rows_of(settings.sqlite_path, "SELECT created_at, updated_at FROM %s ORDER BY id" % table)
        for (created, updated), record in zip(found, source):
            assert created[:19] == record["created_at"][:19]
            assert updated[:19] == record["updated_at"][:19]
    connection = sqlite3.connect(str(settings.sqlite_path))
    connection.execute("UPDATE clients SET notes = 'new'")
    assert connection.execute("SELECT count(*) FROM clients WHERE updated_at < '2026'").fetchone() == (0,)
    connection.close()


def test_singletons_hold_the_accounts_hash_preferences_and_timestamps(
    settings: Settings, exported: Place
) -> None:
    import_(settings)
    data = json.loads((exported.data / "user_data.json").read_text(encoding="utf-8"))
    user, preferences = data["user"], data["preferences"]
    (config_row,) = rows_of(
        settings.sqlite_path, "SELECT id, password_hash, app_version, created_at, updated_at FROM app_config"
    )
    assert config_row[:3] == (1, user["password_hash"], "1.0.0")
    assert [text[:19] for text in config_row[3:]] == [user["created_at"][:19], user["updated_at"][:19]]
    (row,) = rows_of(
        settings.sqlite_path,
        "SELECT id, default_house_system, default_zodiac, color_scheme, aspect_orbs, displayed_points, updated_at FROM user_preferences",
    )
    assert row[:4] == (1, "whole_sign", "sidereal", "dark")
    assert json.loads(row[4]) == preferences["aspect_orbs"]
    assert json.loads(row[5]) == preferences["displayed_points"]
    assert row[6][:19] == preferences["updated_at"][:19]


def test_user_without_preferences_gets_the_schemas_defaults(sample_database: Database, place: Place) -> None:
    settings = settings_of(sample_database.url, place, CARLA)
    export_and_import(settings)
    assert rows_of(
        place.app,
        "SELECT id, default_house_system, default_ayanamsa, default_zodiac, color_scheme, aspect_orbs FROM user_preferences",
    ) == [(1, "placidus", "lahiri", "tropical", "light", None)]


def test_nothing_names_the_owner_any_more(settings: Settings) -> None:
    import_(settings)
    names = [
        row[0] for row in rows_of(settings.sqlite_path, "SELECT name FROM sqlite_master WHERE type = 'table'")
    ]
    assert "users" not in names
    for name in names:
        assert "user_id" not in [
            row[1] for row in rows_of(settings.sqlite_path, "PRAGMA table_info(%s)" % name)
        ]


def test_result_is_one_private_file(settings: Settings, place: Place) -> None:
    old = os.umask(0)
    try:
        import_(settings)
    finally:
        os.umask(old)
    assert stat.S_IMODE(place.app.stat().st_mode) == 0o600
    assert sorted(path.name for path in place.folder.iterdir()) == ["app.db", "data"]


def test_replaced_database_with_open_permissions_becomes_private(settings: Settings, place: Place) -> None:
    make_old_database(place.app)
    place.app.chmod(0o644)
    backup = import_(settings).backup
    assert stat.S_IMODE(place.app.stat().st_mode) == 0o600
    assert backup is not None
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600


def test_importing_twice_gives_the_same_rows(settings: Settings) -> None:
    import_(settings)
    before = rows_of(settings.sqlite_path, "SELECT * FROM charts ORDER BY id")
    import_(settings)
    assert rows_of(settings.sqlite_path, "SELECT * FROM charts ORDER BY id") == before


# The database that was there


def test_rows_in_an_unfinished_write_ahead_log_are_in_the_backup(settings: Settings, place: Place) -> None:
    live = place.folder / "live.db"
    connection = sqlite3.connect(str(live))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute("CREATE TABLE mine (a)")
    connection.execute("INSERT INTO mine VALUES ('in the log')")
    connection.commit()
    for end in ("", "-wal", "-shm"):  # as a crash leaves them
        shutil.copyfile(str(live) + end, str(place.app) + end)
    connection.close()
    assert Path(str(place.app) + "-wal").stat().st_size > 0
    backup = import_(settings).backup
    assert backup is not None
    assert rows_of(backup, "SELECT a FROM mine") == [("in the log",)]
    assert not Path(str(place.app) + "-wal").exists()
    assert not Path(str(place.app) + "-shm").exists()
    assert len(rows_of(place.app, "SELECT id FROM clients")) == 12
    assert rows_of(place.app, "PRAGMA integrity_check") == [("ok",)]
    assert [path.name for path in place.in_backups()] == [backup.name]


def test_without_backup_none_is_made(sample_database: Database, settings: Settings, place: Place) -> None:
    make_old_database(place.app)
    assert import_(dataclasses.replace(settings, backup=False)).backup is None
    assert not place.backups.exists()


def test_old_database_that_cannot_be_replaced_keeps_its_write_ahead_logging(
    settings: Settings, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_old_database(place.app)

    def refuse(path: Path, staged: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(staged))

    monkeypatch.setattr(publishing, "keep_owner", refuse)
    with pytest.raises(MigrationError, match="cannot be written: Operation not permitted"):
        import_(settings)
    assert rows_of(place.app, "SELECT note FROM old") == OLD_ROWS
    assert rows_of(place.app, "PRAGMA journal_mode") == [("wal",)]


# What SQLite or the contract refuses


NOWHERE_ID = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("table", "column", "values", "said"),
    [
        ("location_cache", "country", {3: None}, "is rejected by SQLite: NOT NULL"),
        ("location_cache", "geonames_id", {2: 1, 5: 1}, "is rejected by SQLite: UNIQUE"),
        ("location_cache", "geonames_id", {5: 2**70}, "is rejected by SQLite"),
        ("clients", "id", {3: NOWHERE_ID, 4: NOWHERE_ID}, "is rejected by SQLite: UNIQUE"),
        ("transit_events", "chart_id", {0: NOWHERE_ID}, ": chart_id leads to no row of charts"),
    ],
)
def test_row_that_sqlite_does_not_take_is_named(
    table: str, column: str, values: Dict[int, Any], said: str, settings: Settings
) -> None:
    def act(records: List[Dict[str, Any]]) -> None:
        for row, value in values.items():
            records[row][column] = value

    change(settings.data_dir, table + ".json", act)
    records = json.loads((settings.data_dir / (table + ".json")).read_text(encoding="utf-8"))
    error = refused(settings, ExitCode.TARGET)
    named = "%s %s%s" % (table, records[max(values)]["id"], said if said[0] == ":" else " " + said)
    assert named in error.message


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("clients", "first_name", 5),
        ("clients", "notes", {"a": 1}),
        ("birth_data", "time_unknown", "yes"),
        ("birth_data", "utc_offset", "60"),
        ("birth_data", "utc_offset", 1.5),
        ("birth_data", "birth_date", 20250101),
        ("charts", "created_at", True),
    ],
)
def test_wrong_json_type_is_refused_by_file_and_record(
    settings: Settings, table: str, column: str, value: Any
) -> None:
    def act(records: List[Dict[str, Any]]) -> None:
        records[2][column] = value

    change(settings.data_dir, table + ".json", act)
    error = refused(settings, ExitCode.BUNDLE)
    assert "%s.json" % table in error.message
    assert "record 3" in error.message


def test_wrong_json_type_is_refused_in_our_own_layout_too(settings: Settings) -> None:
    name = "birth_data.json"
    lines = (settings.data_dir / name).read_text(encoding="utf-8").split("\n")
    record = json.loads(lines[4].rstrip(","))
    record["time_unknown"] = "no"
    lines[4] = json.dumps(record) + ","
    rewrite(settings.data_dir, name, "\n".join(lines))
    error = refused(settings, ExitCode.BUNDLE)
    assert "birth_data.json" in error.message
    assert "record 4" in error.message


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("birth_date", "yesterday"),
        ("birth_time", "25 o'clock"),
        ("created_at", "2025-01-01"),
        ("birth_date", ""),
    ],
)
def test_text_that_is_no_date_is_refused(settings: Settings, column: str, value: str) -> None:
    def act(records: List[Dict[str, Any]]) -> None:
        records[1][column] = value

    change(settings.data_dir, "birth_data.json", act)
    make_old_database(settings.sqlite_path)
    before = settings.sqlite_path.read_bytes()
    with pytest.raises(MigrationError) as caught:
        import_(settings)
    assert settings.sqlite_path.read_bytes() == before
    assert "birth_data" in caught.value.message
    assert column in caught.value.message


def test_bundle_of_another_user_is_refused(settings: Settings) -> None:
    error = refused(dataclasses.replace(settings, user_email=BRUNO), ExitCode.BUNDLE)
    assert "anna@example.com" in error.message
    assert BRUNO in error.message
