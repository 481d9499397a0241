"""Settings for calls in this process, and migrations to make copies of."""

from __future__ import annotations

import dataclasses
import shutil
import sqlite3
from pathlib import Path
from typing import Any, Dict, Sequence

import pytest

import config
from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.model import Ownership, Table, owned_by, shared
from migration.postgres import parameters
from migration.settings import Settings
from support.places import ANNA, SCHEMA, Place, contents, extended_schema
from support.servers import Database
from support.sqlite_files import make_old_database

OWN_ROWS = tuple(table for table in config.TABLES if table.becomes is not None)
WHOLE = tuple(table for table in config.TABLES if table.becomes is None)


def settings_of(
    url: str,
    place: Place,
    user_email: str = ANNA,
    *,
    more: Sequence[Table] = (),
    lite: str = "",
    **changes: Any,
) -> Settings:
    """Settings for calls in this process: config.py's tables and ``more``, the suite's schema and ``lite``.

    ``changes`` are settings by their names.
    """
    given: Dict[str, Any] = {
        "postgres": parameters.parameters(url),
        "postgres_schema": "public",
        "user_email": user_email,
        "sqlite_path": place.app,
        "schema_path": extended_schema(place.folder, lite) if lite else Path(SCHEMA),
        "data_dir": place.data,
        "backup_dir": place.backups,
        "application": config.APPLICATION,
        "root": config.ROOT,
        "tables": (*config.TABLES, *more),
        "excluded_tables": (),
    }
    given.update(changes)
    if not any(table.ownership.is_root for table in given["tables"]):
        given["tables"] = (*OWN_ROWS, *given["tables"])
    return Settings(**given)


SHARED = shared()


def with_odd(
    database: Database, place: Place, target: str, ownership: Ownership = SHARED, **how: Any
) -> Settings:
    """Settings with one more table, ``odd``, of these columns in SQLite."""
    odd = Table("odd", ownership, **how)
    return settings_of(database.url, place, lite="CREATE TABLE odd (%s);" % target, more=[odd])


def export_and_import(settings: Settings) -> None:
    export(settings)
    import_(settings)


def migrate_to(folder: Path, url: str, user_email: str = ANNA) -> Place:
    """A migration to make copies of: the database is one file, without a write-ahead log."""
    place = Place(folder)
    settings = settings_of(url, place, user_email=user_email)
    export_and_import(settings)
    connection = sqlite3.connect(str(place.app))
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    return place


def copy_of(made: Place, place: Place) -> None:
    """Copy bundle and database of a migration that is shared to a test's own folder."""
    shutil.copytree(str(made.data), str(place.data))
    shutil.copyfile(str(made.app), str(place.app))


def own_copy(made: Settings, place: Place) -> Settings:
    """The same by the settings of a migration; returns those of the copy."""
    copy_of(Place(made.data_dir.parent), place)
    return dataclasses.replace(made, data_dir=place.data, sqlite_path=place.app)


@pytest.fixture(scope="session")
def finished(sample_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Anna's migration, to look at or to copy, never to change."""
    return migrate_to(tmp_path_factory.mktemp("finished"), sample_database.url)


@pytest.fixture()
def settings(finished: Place, sample_database: Database, place: Place) -> Settings:
    """A migrated database and its bundle, this test's own copy; no PostgreSQL is asked."""
    copy_of(finished, place)
    return settings_of(sample_database.url, place, offline=True)


@pytest.fixture()
def own_migration(database: Database, place: Place) -> Settings:
    """Anna, migrated from a database of this test's own."""
    made = settings_of(database.url, place)
    export_and_import(made)
    return made


def refused(settings: Settings, code: ExitCode) -> MigrationError:
    """Import over an older database, which must stay as it is, with nothing beside it."""
    make_old_database(settings.sqlite_path)
    before = contents(settings.sqlite_path.parent)
    with pytest.raises(MigrationError) as caught:
        import_(settings)
    assert caught.value.exit_code == code
    assert contents(settings.sqlite_path.parent) == before
    return caught.value


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
