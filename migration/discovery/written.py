"""The files that discover.py leaves, all of them or none."""

from __future__ import annotations

import contextlib
import types
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional

from migration import files
from migration.discovery import words
from migration.discovery.classed import Classes
from migration.discovery.config_file import config_text
from migration.discovery.definitions import read_definitions
from migration.discovery.mapping_page import mapping_page
from migration.discovery.source import Source
from migration.discovery.sqlite_schema import SqliteSchema, schema_of
from migration.errors import TargetError, UsageError
from migration.lock import held
from migration.settings import Settings

CONFIG, SCHEMA, MAPPING = "config.py", "sqlite_schema.sql", "migration_mapping.md"
_LOCK = ".lock"


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[None]:
    """Hold a folder that has none of the files yet. Raises UsageError if it has one, TargetError if it is not usable."""
    made = not folder.exists()
    try:
        files.make_folder(folder)
        with held(folder / _LOCK, "the folder %s" % folder, TargetError):
            files.move_in(folder, (CONFIG,))  # of a run that was killed while its files moved
            there = [name for name in (CONFIG, SCHEMA, MAPPING) if (folder / name).exists()]
            if there:
                raise UsageError(
                    "%s is there, and never overwritten" % (folder / there[0]),
                    "--check says what has changed in PostgreSQL since; to write anew, give --output another folder",
                )
            yield
    except OSError as error:
        raise TargetError(
            "cannot write to the folder %s: %s" % (folder, error.strerror or error),
            "give --output a folder that can be made and written",
        ) from error
    finally:
        if made:
            with contextlib.suppress(OSError):  # it holds the files, where all went well
                folder.rmdir()


def texts(source: Source, classes: Classes, settings: Settings, leaving: Optional[str]) -> Dict[str, str]:
    """The text of each file. The config.py is run once, so that it is known to load."""
    info = source.db.connection.info
    known = {"host": info.host, "port": info.port, "dbname": info.dbname, "user": info.user}
    definitions = read_definitions(source.db, list(source.catalog.relations))
    migrated = [table.name for table in classes.migrated]
    schema = schema_of(source.db, migrated, source.without, definitions)
    config = config_text(
        source, classes, {**known, **settings.postgres}, leaving, schema.refused, definitions
    )
    loaded(config)
    return {CONFIG: config, SCHEMA: schema.text, MAPPING: _mapping(schema, classes)}


def loaded(config: str) -> Mapping[str, Any]:
    """The names of a config.py of this text."""
    module = types.ModuleType("config")
    module.__dict__["__file__"] = CONFIG
    exec(compile(config, CONFIG, "exec"), module.__dict__)
    return module.__dict__


def _mapping(schema: SqliteSchema, classes: Classes) -> str:
    """Field by field what becomes of it; of tables that are left behind why."""
    whose = {
        table.name: "%s: %s" % ("`%s`" % words.written(table.rule), "; ".join(table.reasons))
        if table.reasons
        else "`%s`" % words.written(table.rule)
        for table in classes.migrated
        if table.rule is not None
    }
    left = {
        table.name: "; ".join(table.reasons) for table in classes.tables if table.name not in schema.tables
    }
    return mapping_page(schema, whose, left)


def write(folder: Path, texts_: Mapping[str, str]) -> None:
    """Write the files, private ones. The caller holds the folder."""
    with files.staged(folder) as staging:
        for name, text in texts_.items():
            files.write_private(staging / name, text.encode("utf-8"))
    files.move_in(folder, (CONFIG,))
