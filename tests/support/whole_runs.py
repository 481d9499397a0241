"""An application that discover.py has described, migrated for one of its roots."""

from __future__ import annotations

import dataclasses
import sqlite3
from pathlib import Path
from typing import Any, Mapping

from export_from_postgres import export
from import_to_sqlite import import_
from migration.settings import Settings
from support.migrations import settings_of
from support.places import Place
from support.servers import Database
from validate_migration import validate


def settings_for(database: Database, folder: Path, config: Mapping[str, Any], name: str) -> Settings:
    """By the names of a config.py in the folder ``made``, in a folder of its own."""
    mine = Place(folder / name)
    mine.folder.mkdir()
    return settings_of(
        database.url,
        mine,
        user_email=name,
        postgres_schema=config["POSTGRES_SCHEMA"],
        root=config["ROOT"],
        tables=config["TABLES"],
        references=config["REFERENCES"],
        leaving=config["LEAVING"],
        excluded_tables=config["EXCLUDED_TABLES"],
        unrelated_tables=config["UNRELATED_TABLES"],
        schema_path=folder / "made" / "sqlite_schema.sql",
    )


def migrate_strictly(settings: Settings) -> None:
    """Export, import, and compare every cell with the bundle and with the source: no difference, no warning."""
    export(settings)
    import_(settings)
    for against in ("bundle", "source"):
        report = validate(dataclasses.replace(settings, against=against, strict=True))
        assert report.errors == []
    with sqlite3.connect(str(settings.sqlite_path)) as database:
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
