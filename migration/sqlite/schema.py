"""The SQLite schema file, read by letting SQLite load it: nothing about its tables is written down twice."""

from __future__ import annotations

import contextlib
import functools
import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Collection, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple

from migration.errors import UsageError
from migration.model import ForeignKey
from migration.sql import quote


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


@dataclass(frozen=True, eq=False)  # hash by identity: used as a cache key
class Schema:
    """What the schema file makes.

    ``columns``: table → column in lower case → column, generated ones left out. ``numbers``: those that a
    database's header holds for its application. ``rows``: table → rows that the file itself puts there, SQLite's
    own tables too. ``texts``: table → its SQL as SQLite keeps it.
    """

    path: Path
    script: str
    columns: Mapping[str, Mapping[str, TargetColumn]]
    generated: Mapping[str, Mapping[str, TargetColumn]]
    foreign_keys: Tuple[ForeignKey, ...]
    objects: Mapping[Tuple[str, str], str]  # (type, name) → normalized SQL
    numbers: Mapping[str, int]
    rows: Mapping[str, int]
    texts: Mapping[str, str]


def read_schema(path: Path) -> Schema:
    """Load the schema file into memory and describe it. Raises MigrationError (exit 2)."""
    try:
        script = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(
            "schema file not found: %s" % path,
            "set --schema-path, SCHEMA_PATH or config.SCHEMA_PATH to the application's sqlite_schema.sql",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("cannot read the schema file %s: %s" % (path, error)) from error
    return _described(path, script)


@functools.lru_cache(maxsize=4)
def _described(path: Path, script: str) -> Schema:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        run_script(connection, script, path)
        columns = {table: describe_columns(connection, table) for table in table_names(connection)}
        generated = {table: describe_columns(connection, table, generated=True) for table in columns}
        if not columns:
            raise UsageError("the schema file %s makes no table" % path)
        keys = tuple(key for table in columns for key in describe_foreign_keys(connection, table))
        objects = describe_objects(connection)
        return Schema(
            path,
            script,
            columns,
            generated,
            keys,
            objects,
            describe_numbers(connection),
            count_rows(connection),
            table_texts(connection),
        )
    finally:
        connection.close()


def run_script(connection: sqlite3.Connection, script: str, path: Path) -> None:
    try:
        connection.executescript(script)
    except (sqlite3.Error, ValueError) as error:
        raise UsageError(
            "the schema file %s is not valid SQL for SQLite %s: %s" % (path, sqlite3.sqlite_version, error),
            "check it with: sqlite3 :memory: < %s" % path,
        ) from error


@contextlib.contextmanager
def in_memory(script: str) -> Iterator[sqlite3.Connection]:
    """A database in memory that a schema file's script, or the begin of one, has made."""
    with contextlib.closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(script)  # valid SQL, as read_schema has found
        if database.in_transaction:
            database.execute("COMMIT")
        yield database


def parted(schema: Schema) -> Optional[Tuple[str, List[str]]]:
    """The script's begin, and the INSERTs at its end: the defaults in their rows may hold the time, or chance.

    None where anything but plain CREATE statements comes before them, or where they are more than plain values: they are
    executed on a connection of their own.
    """
    statements, text = [], ""
    for part in re.split("(?<=;)", schema.script):
        text += part
        if sqlite3.complete_statement(text):
            statements.append(text)
            text = ""
    if _folded(text):
        statements.append(text)
    inserts: List[str] = []
    while statements and _VALUES.fullmatch(_folded(statements[-1])):
        inserts.insert(0, statements.pop())
    if not all(map(_MAKES.fullmatch, map(_folded, statements))):
        return None
    begin = "".join(statements)
    with in_memory(begin) as made, contextlib.closing(sqlite3.connect(":memory:")) as copied:
        made.backup(copied)
        try:
            for sql in inserts:
                copied.execute(sql)
        except sqlite3.Error:
            return None
        are_all = not any(count_rows(made).values()) and count_rows(copied) == schema.rows
        return (begin, inserts) if are_all else None


# Folded SQL. No parameter, function or condition; no trigger that such a row would fire, no conflict that removes another.
_VALUES = re.compile(
    r"insert (or ignore )?into [^()]+( \([^()]*\))? values \([^()?:@$#]*\)( , \([^()?:@$#]*\))*( ;)?",
    re.DOTALL,
)
_MAKES = re.compile(
    r"(create (unique )?(index|table|trigger|view)(?!.*\b(insert on|replace)\b).*"
    r"|pragma (application_id|auto_vacuum|encoding|foreign_keys|journal_mode|page_size|synchronous|user_version)\b.*)?",
    re.DOTALL,
)


def table_names(connection: sqlite3.Connection) -> List[str]:
    return list(table_texts(connection))


def table_texts(connection: sqlite3.Connection) -> Dict[str, str]:
    """Table → its SQL as SQLite keeps it, without SQLite's own tables."""
    return dict(
        connection.execute(
            "SELECT name, sql FROM sqlite_master"
            " WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
        )
    )


def columns_of(
    database: sqlite3.Connection, schema: Schema
) -> Iterator[Tuple[str, Mapping[str, TargetColumn]]]:
    """Each table that the schema file makes too, with its columns, as ``describe_columns`` has them.

    Other tables may need an extension that is not loaded. What has the schema's very SQL has its columns.
    """
    made = {name.lower() for name in schema.columns}
    for name, sql in table_texts(database).items():
        if name.lower() in made:
            is_made = schema.texts.get(name) == sql
            yield name, schema.columns[name] if is_made else describe_columns(database, name)


def describe_columns(
    connection: sqlite3.Connection, table: str, generated: bool = False
) -> Dict[str, TargetColumn]:
    """Columns by name in lower case: those that hold what they are given, or those that SQLite generates."""
    described = {}
    for _, name, kind, not_null, default, key, hidden in connection.execute(
        "PRAGMA table_xinfo(%s)" % quote(table)
    ):
        if hidden in ((2, 3) if generated else (0,)):
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
_QUOTED = re.compile(r"""["`\[]([A-Za-z_]\w*)["`\]]""", re.ASCII)


@functools.lru_cache(maxsize=1024)  # a database is held against the schema that made it
def _folded(sql: str) -> str:
    """Without comments, white space and needless quotes, such as ALTER TABLE puts around names."""
    return " ".join(map(_folded_token, filter(None, _TOKEN.findall(sql))))


def _folded_token(token: str) -> str:
    quoted = _QUOTED.fullmatch(token)
    if quoted is not None:
        return quoted[1]
    return token if token[0] in "'\"`[" else token.lower()


def describe_numbers(connection: sqlite3.Connection) -> Dict[str, int]:
    names = ("user_version", "application_id")
    return {name: connection.execute("PRAGMA " + name).fetchone()[0] for name in names}


def count_rows(connection: sqlite3.Connection, leave_out: Collection[str] = ()) -> Dict[str, int]:
    """Rows of each ordinary table but some (in lower case); what a virtual table keeps in tables of its own is not counted."""
    found = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall()
    virtual = [name for name, sql in found if sql.upper().startswith("CREATE VIRTUAL")]
    names = [name for name, _ in found if name not in virtual]
    own = [
        name
        for name in names
        if name.lower() not in leave_out and not any(name.startswith(other + "_") for other in virtual)
    ]
    return {name: connection.execute("SELECT count(*) FROM " + quote(name)).fetchone()[0] for name in own}


# The schema file against a database


class SchemaDifference(NamedTuple):
    """``more``: the database has something that the schema file does not make, and nothing is missing for it."""

    message: str
    table: Optional[str] = None
    more: bool = False


def differences(database: sqlite3.Connection, schema: Schema) -> Iterator[SchemaDifference]:
    """What of tables, columns, foreign keys, indexes, triggers and views is not as in the schema file."""
    objects, texts = describe_objects(database), table_texts(database)
    present = {(kind, name.lower()): sql for (kind, name), sql in objects.items()}
    for (kind, name), sql in schema.objects.items():
        found, table = present.get((kind, name.lower())), name if kind == "table" else None
        if found is None:
            yield SchemaDifference("%s %s is missing" % (kind, name), table)
        elif name in schema.columns and texts.get(name) == schema.texts[name]:
            continue
        elif name in schema.columns:
            for message, more in _table_differences(database, schema, name, sql, found):
                yield SchemaDifference("table %s %s" % (name, message), name, more)
        elif found != sql:
            yield SchemaDifference("%s %s differs from the schema file" % (kind, name), table)
    made = {(kind, name.lower()) for kind, name in schema.objects}
    for kind, name in objects:
        if (kind, name.lower()) not in made and not name.startswith("sqlite_"):
            yield SchemaDifference("%s %s is not in the schema file" % (kind, name), more=True)


def _table_differences(
    database: sqlite3.Connection, schema: Schema, table: str, sql: str, found_sql: str
) -> Iterator[Tuple[str, bool]]:
    """What is different, and whether it is only more than the schema file makes."""
    columns, found = (
        {name: _signature(column) for name, column in described.items()}
        for described in (schema.columns[table], describe_columns(database, table))
    )
    keys = [key for key in schema.foreign_keys if key.table == table]
    found_keys = [key._replace(table=table) for key in describe_foreign_keys(database, table)]
    altered = {name for name in columns if name in found and columns[name] != found[name]}
    named = altered | (set(columns) ^ set(found))
    for name in columns:
        if name not in found:
            yield "lacks column %s" % name, False
    for name in found:
        if name not in columns:
            yield "has a column %s too many" % name, True
    for name in columns:
        if name in altered:
            yield "has column %s with another type, default, NOT NULL or key" % name, False
    for key in keys:
        if key not in found_keys:
            yield "lacks foreign key %s → %s" % (", ".join(key.columns), key.parent), False
    for key in found_keys:
        if key not in keys and {column.lower() for column in key.columns} <= set(columns):
            yield "has one too many: foreign key %s → %s" % (", ".join(key.columns), key.parent), False
    if sql != found_sql:
        (begin, parts, end), (found_begin, found_parts, found_end) = _parts(sql), _parts(found_sql)
        lost = [part for part in parts if part not in found_parts and _column_of(part) not in named]
        if lost or (begin, end) != (found_begin, found_end):
            yield "differs from the schema file", False
        for part in found_parts:
            column = _column_of(part)
            if part not in parts and column not in {*named, *map(_column_of, lost)}:
                what = "a rule" if column is None else "a column %s" % column
                yield "has %s too many" % what, True


_WORDS = ("NULL", "TRUE", "FALSE", "CURRENT_TIME", "CURRENT_DATE", "CURRENT_TIMESTAMP")


def _signature(column: TargetColumn) -> Tuple[object, ...]:
    default = column.default
    if default is not None and (not re.fullmatch(r"\w+", default) or default.upper() in _WORDS):
        default = _folded(default)  # else a bare word, which is text
    return column.type.upper(), column.not_null, default, column.key


Part = Tuple[str, ...]


def _parts(sql: str) -> Tuple[Part, List[Part], Part]:
    """The tokens before a table's columns and rules, of each of these, and after them."""
    tokens, depth = [token for token in _TOKEN.findall(sql) if token], 0
    begin, end = tokens.index("(") if "(" in tokens else len(tokens), len(tokens)
    parts: List[List[str]] = [[]]
    for place, token in enumerate(tokens[begin:], begin):
        depth += {"(": 1, ")": -1}.get(token, 0)
        if depth == 0:
            end = place
            break
        if depth == 1 and token == ",":
            parts.append([])
        elif place > begin:
            parts[-1].append(token)
    return tuple(tokens[:begin]), [tuple(part) for part in parts if part], tuple(tokens[end:])


def _column_of(part: Part) -> Optional[str]:
    """The column that a part declares; None where it is a rule of the table."""
    return None if part[0] in ("constraint", "primary", "unique", "check", "foreign") else part[0].lower()
