"""migration_mapping.md of any application: field by field, and everything that SQLite cannot express."""

from __future__ import annotations

from typing import Iterator, Mapping

from migration.discovery.sqlite_columns import Field
from migration.discovery.sqlite_schema import SqliteSchema, TableDescription

_HEAD = """# Mapping: PostgreSQL → bundle → SQLite

Made by discover.py from PostgreSQL's catalog: what becomes of every table and column, and what SQLite cannot express.
The suite's own `schema_design/migration_mapping.md` says how a value of each type is written. A value reaches SQLite
exactly, or the run stops and says so.
"""

_EVERYWHERE = """
## Everywhere

- A CHECK, an index, a generated column, a default or a view is in `sqlite_schema.sql` only if it is known to mean the same
  there. What is left out is listed with its table.
- A single integer key is `INTEGER PRIMARY KEY`, and SQLite counts it. `AUTOINCREMENT` stands where PostgreSQL has a sequence
  or an identity column: no number is given a second time, not even that of a deleted row.
- A CHECK on each boolean and each enum keeps other values out. SQLite does not check lengths, digits or the ranges of integers.
- Times, intervals, arrays and numbers of many digits are text, which SQLite compares by its bytes. PostgreSQL orders text
  by its collation, SQLite by its bytes.
- An enum is its label, and sorts as text does, not in the order of the type.
- NULLs come first in an index of SQLite's, wherever PostgreSQL has them.
- Functions, triggers, rules, policies and privileges stay in PostgreSQL. SQLite checks foreign keys only under
  `PRAGMA foreign_keys = ON`, which the application sets on each connection.
"""


def mapping_page(schema: SqliteSchema, whose: Mapping[str, str], left: Mapping[str, str]) -> str:
    """The page as Markdown. ``whose``: table → which of its rows come along; ``left``: tables left behind → why."""
    parts = [_HEAD, "\n## Tables\n"]
    for table, described in schema.tables.items():
        parts.extend(_table(described, whose.get(table, "")))
    if left:
        parts.append("\n## Tables that stay in PostgreSQL\n\n")
        parts.extend("- `%s`%s\n" % (table, ": " + why if why else "") for table, why in left.items())
    if schema.others:
        parts.append("\n## Views\n\n")
        parts.extend("- %s\n" % _sentence(note) for note in schema.others)
    parts.append(_EVERYWHERE)
    return "".join(parts)


def _table(described: TableDescription, whose: str) -> Iterator[str]:
    yield "\n### `%s` → `%s`\n\n" % (described.table, described.target)
    if whose:
        yield whose + "\n\n"
    yield "| PostgreSQL | type | SQLite | type | transformation |\n|---|---|---|---|---|\n"
    for field in described.fields:
        yield _row(field)
    if described.notes:
        yield "\nWhat SQLite cannot express:\n\n"
        for note in described.notes:
            yield "- %s\n" % _sentence(note)


def _row(field: Field) -> str:
    kind = "`%s`%s" % (field.type, " NOT NULL" if field.not_null else "")
    if field.declared is None:
        cells = ["`%s`" % field.name, kind, "–", "–", field.says]
    else:
        cells = ["`%s`" % field.name, kind, "`%s`" % field.name, "`%s`" % field.declared, field.says]
    return "| %s |\n" % " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells)


def _sentence(note: str) -> str:
    note = " ".join(note.split())
    return (note[0].upper() + note[1:] if note[0] != "`" else note) + "."
