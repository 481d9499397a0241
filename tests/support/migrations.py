"""Settings for calls in this process, and migrations to make copies of."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any, Dict, Sequence

import pytest

import config
from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.model import Table, owned_by
from migration.postgres import source
from migration.settings import Settings
from support.places import ANNA, SCHEMA, Place, contents
from support.servers import Database


def settings_of(url: str, place: Place, user_email: str = ANNA, **changes: Any) -> Settings:
    """Settings for calls in this process, with config.py's tables unless ``changes`` says others."""
    given: Dict[str, Any] = {
        "postgres": source.parameters(url),
        "postgres_schema": "public",
        "user_email": user_email,
        "sqlite_path": place.app,
        "schema_path": Path(SCHEMA),
        "data_dir": place.data,
        "backup_dir": place.backups,
        "user": config.USER,
        "preferences": config.PREFERENCES,
        "tables": config.TABLES,
        "excluded_tables": (),
    }
    return Settings(**{**given, **changes})


def migrate_to(folder: Path, url: str, user_email: str = ANNA) -> Place:
    """A migration to make copies of: the database is one file, without a write-ahead log."""
    place = Place(folder)
    settings = settings_of(url, place, user_email=user_email)
    export(settings)
    import_(settings)
    connection = sqlite3.connect(str(place.app))
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return place


@pytest.fixture()
def own_migration(database: Database, place: Place) -> Settings:
    """Anna, migrated from a database of this test's own."""
    made = settings_of(database.url, place)
    export(made)
    import_(made)
    return made


def refused(settings: Settings, code: ExitCode) -> MigrationError:
    """Import over an older database, which must stay as it is, with nothing beside it."""
    make_old(settings.sqlite_path)
    before = contents(settings.sqlite_path.parent)
    with pytest.raises(MigrationError) as caught:
        import_(settings)
    assert caught.value.exit_code == code
    assert contents(settings.sqlite_path.parent) == before
    return caught.value


def make_old(path: Path) -> None:
    connection = sqlite3.connect(str(path))
    connection.execute("CREATE TABLE mine (a)")
    connection.execute("INSERT INTO mine VALUES ('old')")
    connection.commit()
    connection.close()


def typed_settings(database: Database, place: Place, schema: Path, names: Sequence[str]) -> Settings:
    declared = {table.name for table in config.TABLES}
    every = {
        name for (name,) in database.rows("SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'")
    }
    return settings_of(
        database.url,
        place,
        tables=tuple(Table(name, owned_by("user_id")) for name in names),
        excluded_tables=tuple(every | declared),
        schema_path=schema,
    )
