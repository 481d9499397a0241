"""The SQLite schema file, read by letting SQLite load it: nothing about its tables is written down twice."""

from __future__ import annotations

import contextlib
import functools
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from migration.errors import ExitCode, MigrationError
from migration.tables import ForeignKey


class TargetColumn(NamedTuple):
    """A column of a SQLite table.

    ``required``: a row without it is rejected. ``default``: as SQL. ``key``: its place in the primary key, from 1; 0: none.
    """

    name: str
    type: str
    not_null: bool
    required: bool
    default: Optional[str]
    key: int


@dataclass(frozen=True, eq=False)  # told apart by identity: it is the key of what is kept of it
class Schema:
    """What the schema file makes. ``columns``: table → column in lower case → column, generated ones left out."""

    path: Path
    script: str
    columns: Mapping[str, Mapping[str, TargetColumn]]
    foreign_keys: Tuple[ForeignKey, ...]
    objects: Mapping[Tuple[str, str], str]  # (type, name) → normalized SQL


def quote(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def read_schema(path: Path) -> Schema:
    """Load the schema file into memory and describe it. Raises MigrationError (exit 2)."""
    try:
        script = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MigrationError(
            "schema file not found: %s" % path,
            hint="set --schema-path, SCHEMA_PATH or config.SCHEMA_PATH to the application's sqlite_schema.sql",
            exit_code=ExitCode.USAGE,
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise MigrationError(
            "cannot read the schema file %s: %s" % (path, error), exit_code=ExitCode.USAGE
        ) from error
    return _described(path, script)


@functools.lru_cache(maxsize=4)
def _described(path: Path, script: str) -> Schema:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        run_script(connection, script, path)
        columns = {table: describe_columns(connection, table) for table in table_names(connection)}
        if not columns:
            raise MigrationError("the schema file %s makes no table" % path, exit_code=ExitCode.USAGE)
        keys = tuple(key for table in columns for key in describe_foreign_keys(connection, table))
        return Schema(path, script, columns, keys, describe_objects(connection))
    finally:
        connection.close()


def run_script(connection: sqlite3.Connection, script: str, path: Path) -> None:
    try:
        connection.executescript(script)
    except (sqlite3.Error, ValueError) as error:
        raise MigrationError(
            "the schema file %s is not valid SQL for SQLite %s: %s" % (path, sqlite3.sqlite_version, error),
            hint="check it with: sqlite3 :memory: < %s" % path,
            exit_code=ExitCode.USAGE,
        ) from error


def table_names(connection: sqlite3.Connection) -> List[str]:
    return [
        name
        for (name,) in connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
        )
    ]


def describe_columns(connection: sqlite3.Connection, table: str) -> Dict[str, TargetColumn]:
    described = {}
    for _, name, kind, not_null, default, key, hidden in connection.execute(
        "PRAGMA table_xinfo(%s)" % quote(table)
    ):
        if hidden == 0:
            rowid = key and kind.upper() == "INTEGER"  # SQLite fills it
            described[name.lower()] = TargetColumn(
                name, kind, bool(not_null), bool(not_null) and default is None and not rowid, default, key
            )
    return described


def describe_foreign_keys(connection: sqlite3.Connection, table: str) -> List[ForeignKey]:
    found: Dict[int, List[Tuple[str, str, str]]] = {}
    for number, _, parent, column, parent_column, *_ in connection.execute(
        "PRAGMA foreign_key_list(%s)" % quote(table)
    ):
        if parent_column is None:  # the parent's primary key
            keys = [held.name for held in describe_columns(connection, parent).values() if held.key]
            parent_column = keys[0] if len(keys) == 1 else column
        found.setdefault(number, []).append((parent, column, parent_column))
    return [
        ForeignKey(
            table,
            tuple(column for _, column, _ in parts),
            parts[0][0],
            tuple(theirs for _, _, theirs in parts),
        )
        for _, parts in sorted(found.items())
    ]


def describe_objects(connection: sqlite3.Connection) -> Dict[Tuple[str, str], str]:
    """Tables, indexes, triggers and views with their SQL, without comments and white space."""
    return {
        (kind, name): _folded(sql)
        for kind, name, sql in connection.execute(
            "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL"
        )
    }


_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|('(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]]*\]|[\w.$]+|[^\s\w])""", re.DOTALL
)


@functools.lru_cache(maxsize=1024)  # a database is held against the schema that made it
def _folded(sql: str) -> str:
    return " ".join(token if token[0] in "'\"`[" else token.lower() for token in _TOKEN.findall(sql) if token)


# The schema file against a database


class SchemaDifference(NamedTuple):
    """``more``: the database has something that the schema file has not, which takes nothing from it."""

    message: str
    table: Optional[str] = None
    more: bool = False


def differences(database: sqlite3.Connection, schema: Schema) -> Iterator[SchemaDifference]:
    """What of tables, columns, foreign keys, indexes, triggers and views is not as in the schema file."""
    present = describe_objects(database)
    for (kind, name), sql in schema.objects.items():
        table = name if kind == "table" else None
        if (kind, name) not in present:
            yield SchemaDifference("%s %s is missing" % (kind, name), table)
        elif present[kind, name] != sql:
            found = _table_differences(schema, database, name) if kind == "table" else []
            for what in found or ["differs from the schema file"]:
                yield SchemaDifference("%s %s %s" % (kind, name, what), table)
    for kind, name in present:
        if (kind, name) not in schema.objects and not name.startswith("sqlite_"):
            yield SchemaDifference("%s %s is not in the schema file" % (kind, name), more=True)


def _table_differences(schema: Schema, database: sqlite3.Connection, table: str) -> List[str]:
    with contextlib.closing(sqlite3.connect(":memory:")) as expected:
        expected.executescript(schema.script)
        return _compared(expected, database, table)


def _compared(expected: sqlite3.Connection, database: sqlite3.Connection, table: str) -> List[str]:
    columns, found = (
        {
            name: (column.type.upper(), column.not_null, column.default, column.key)
            for name, column in describe_columns(connection, table).items()
        }
        for connection in (expected, database)
    )
    differ = ["lacks column %s" % name for name in columns if name not in found]
    differ += ["has a column %s too many" % name for name in found if name not in columns]
    differ += [
        "has column %s with another type, default, NOT NULL or key" % name
        for name in columns
        if name in found and columns[name] != found[name]
    ]
    keys, found_keys = (describe_foreign_keys(connection, table) for connection in (expected, database))
    for key in keys + found_keys:
        if key not in keys or key not in found_keys:
            what = "lacks" if key in keys else "has one too many:"
            differ.append("%s foreign key %s → %s" % (what, ", ".join(key.columns), key.parent))
    return differ
