"""config.py for an application: every table with its class and the reason for it."""

from __future__ import annotations

import re
import textwrap
from typing import Dict, Iterator, List, Mapping, Optional, Sequence, Tuple

from migration.discovery.classed import Classed, Classes, Departure, Group
from migration.discovery.definitions import Definitions
from migration.discovery.details import VIEW, Details, details
from migration.discovery.row_types import without_reference
from migration.discovery.source import Source
from migration.discovery.words import listed, written
from migration.model import Way
from migration.postgres.snapshot import Snapshot
from migration.printing import counted
from migration.python_text import columns_text, names, reference_text, text

_TOP = '''"""What an operator may change: where things are, who is migrated, and which tables.

Written by discover.py from the catalog of the database {database}. Options and environment variables (also from a ``.env``
file beside this one) win over what stands here. ``discover.py --check`` says what has changed in PostgreSQL since.
"""

from __future__ import annotations

from pathlib import Path

from migration.model import (  # noqa: F401  what TABLES and REFERENCES are written with
    Reference,
    Table,
    all_of,
    any_of,
    child_of,
    owned_by,
    referenced,
    root,
    row_one,
    shared,
    the_root,
    undecided,
    where,
)

BASE_DIR = Path(__file__).resolve().parent

# PostgreSQL. The password stays out of this file: set POSTGRES_PASSWORD or POSTGRES_URL, or use ~/.pgpass.
POSTGRES_HOST = {host}
POSTGRES_PORT = {port}
POSTGRES_DB = {database_text}
POSTGRES_USER = {user}
POSTGRES_PASSWORD = ""
POSTGRES_SCHEMA = {schema}  # its tables go by their bare names, those of others by schema.table

# SQLite
SQLITE_PATH = BASE_DIR / "app.db"
SCHEMA_PATH = BASE_DIR / "sqlite_schema.sql"

# The application's name, with which the names of its backups begin
APPLICATION = {application}

# Folders
DATA_DIR = BASE_DIR / "migration_data"
BACKUP_DIR = BASE_DIR / "backups"
LOG_FILE = None  # for example BASE_DIR / "logs" / "migration.log"
LOG_LEVEL = "INFO"

# Who is migrated where neither the command line nor the environment says so.
DEFAULT_USER_EMAIL = ""

# Whose data it is: a row of this table, told apart by the key, named on the command line by the name; ``called``: in messages.
ROOT = root({root}, key={key}, named_by={named_by}, called={called})
'''

_WIDTH = 110


def config_text(
    source: Source,
    classes: Classes,
    postgres: Mapping[str, str],
    leaving: Optional[str],
    dropped: Mapping[str, Sequence[str]],
    definitions: Definitions,
) -> str:
    """The whole file.

    ``postgres``: libpq's parameters, of which the password is left out. ``leaving``: config.LEAVING. ``dropped``: table →
    columns that have no place in SQLite. ``definitions``: of all tables.
    """
    entries = [line for table in classes.migrated for line in _entry(table, dropped.get(table.name, ()))]
    references = list(_references(source, classes))
    unmeant = without_reference(source.db, classes.inferred)
    body = "\n".join(
        [
            "",
            "# Every table with rows of the root, parents before children, and why it is there. Only a question,",
            "# undecided(…), needs an answer: write one of its choices in its place.",
            "TABLES = (",
            *entries,
            ")",
            "",
            *_reference_lines(references, unmeant),
            "",
            *_leaving_lines(source, classes, leaving),
            "",
            *_lists(source, classes),
            "",
            *_discovered_lines(discovered(source.db, definitions, unmeant)),
        ]
    )
    info = {name: str(value) for name, value in postgres.items()}
    top = _TOP.format(
        database=text(info.get("dbname", ""))[1:-1],
        application=text(re.sub("[^A-Za-z0-9_-]", "_", info.get("dbname", ""))[:63] or "app"),
        database_text=text(info.get("dbname", "")),
        host=text(info.get("host", "")),
        port=text(info.get("port", "")),
        user=text(info.get("user", "")),
        schema=text(source.db.schema),
        root=text(classes.root.name),
        key=text(classes.root.key),
        named_by=text(classes.root.named_by),
        called=text(classes.root.called),
    )
    return top + body + "\n"


def _comment(line: str, indent: str = "    ") -> List[str]:
    """Of whatever names are in it, it stays a comment."""
    plain = "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line.replace("\n", " "))
    return textwrap.wrap(
        plain,
        _WIDTH,
        initial_indent=indent + "# ",
        subsequent_indent=indent + "#   ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _entry(table: Classed, dropped: Sequence[str]) -> Iterator[str]:
    reasons = list(table.reasons)
    if dropped:
        reasons.append("migration_mapping.md says why SQLite has no %s" % listed(dropped))
    for reason in reasons:
        yield from _comment(reason)
    assert table.rule is not None
    more = [("dropped", dropped), ("left_behind", table.left_behind)]
    options = ["%s=%s" % (option, names(columns)) for option, columns in more if columns]
    if table.rule.way is not Way.UNDECIDED:
        yield "    Table(%s)," % ", ".join([text(table.name), written(table.rule), *options])
        return
    yield "    Table("
    yield "        %s," % text(table.name)
    yield "        undecided("
    for part in table.rule.texts:
        yield "            %s," % text(part)
    yield "        ),"
    for option in options:
        yield "        %s," % option
    yield "    ),"


def _references(source: Source, classes: Classes) -> Iterator[List[str]]:
    for key, _, why, when, _ in classes.links:
        if why:
            parts = [reference_text(*key[:3])]
            if key.parent_columns != source.catalog.primary_keys.get(key.parent):
                parts.append(columns_text(key.parent_columns))
            if when:
                parts.append("when=%s" % text(when))
            yield [
                *_comment("inferred %s" % why),
                "    Reference(%s)," % ", ".join(parts),
            ]


def _reference_lines(references: Sequence[List[str]], unmeant: Mapping[str, Details]) -> List[str]:
    head = [
        "# References that PostgreSQL does not declare, and what becomes of single ones that lead to rows of others:",
        '# Reference("table", "column", "parent", leaving="cut").',
    ]
    for table, types in unmeant.items():
        for what, given in types.items():
            head += _comment(
                "%s: %s, as they name no table: %s" % (table, what, listed(given.split("\n"))), ""
            )
    if not references:
        return [*head, "REFERENCES = ()"]
    return [*head, "REFERENCES = (", *(line for lines in references for line in lines), ")"]


def _leaving_lines(source: Source, classes: Classes, leaving: Optional[str]) -> List[str]:
    lines = [
        '# What becomes of references that lead to rows of others: "stop" the export, "skip" the row, "cut" the reference',
        '# to NULL where its column allows it, or "bring" the row that it names.',
    ]
    for departure in classes.departures:
        lines += _comment(described(departure), "")
        if not departure.can_be_null:
            advice = (
                'to leave such rows out: Reference(%s, leaving="skip"); or "bring" takes the others along'
            )
            lines += _comment("  " + advice % reference_text(*departure.link.key[:3]), "")
    if classes.departures:
        lines += _comment(whole_rows(source, classes.root.name), "")
    else:
        lines.append("# There was none when this was written.")
    if classes.of(Group.OPEN):
        lines += _comment(
            "Counted by the first answer to each question: another one may let others leave.", ""
        )
    return [*lines, "LEAVING = %s" % text(leaving or "stop")]


def whole_rows(source: Source, root: str) -> str:
    """What "bring" for all takes along of other roots."""
    return (
        '"bring" for all takes along whole rows of others in %s, where exported rows name them: with %s'
        % (
            root,
            listed(column.name for column in source.catalog.columns[root]),
        )
    )


def described(departure: Departure) -> str:
    """One line on a reference that leaves the data of a root."""
    key, counts = departure.link.key, departure.counts
    to = [
        "%s of other roots" % counted(counts.to_others, "row") if counts.to_others else "",
        "%s of nobody" % counted(counts.to_nobody, "row") if counts.to_nobody else "",
    ]
    return "%s: names %s%s%s" % (
        key.name,
        listed([part for part in to if part]),
        "" if departure.can_be_null else "; the column is NOT NULL and cannot be cut",
        "" if departure.has_key else "; %s has no key, and its rows cannot be brought" % key.parent,
    )


def _lists(source: Source, classes: Classes) -> Iterator[str]:
    yield "# The root's, left behind on purpose: move a table's name from TABLES to here."
    yield from _list("EXCLUDED_TABLES", classes.of(Group.FOREIGN))
    yield ""
    yield "# Nobody's: tables of the database without rows of the root."
    yield from _list("UNRELATED_TABLES", classes.of(Group.UNRELATED))
    if source.no_tables:
        yield ""
        yield "# Not exported, as their rows are those of tables; migration_mapping.md says which views SQLite has:"
        for name, what in sorted(source.no_tables.items()):
            yield from _comment("%s %s" % (what, name), "")


def _list(name: str, tables: Sequence[Classed]) -> List[str]:
    if not tables:
        return [name + " = ()"]
    lines = [name + " = ("]
    for table in tables:
        lines += [line for reason in table.reasons for line in _comment(reason)]
        lines.append("    %s," % text(table.name))
    return [*lines, ")"]


# What --check compares with

Discovered = Dict[str, Tuple[Dict[str, str], Tuple[str, ...], Details]]


def discovered(db: Snapshot, definitions: Definitions, unmeant: Mapping[str, Details]) -> Discovered:
    """Each table's columns with their types, its foreign keys, and digests of what else PostgreSQL has of it.

    ``definitions``: of all tables. ``unmeant``: types of rows that no reference of config.py means, by table.
    """
    found: Discovered = {}
    keys: Dict[str, List[str]] = {}
    for key in db.catalog.foreign_keys:
        keys.setdefault(key.table, []).append(
            "(%s) → %s (%s)" % (", ".join(key.columns), key.parent, ", ".join(key.parent_columns))
        )
    more = details(db, definitions)
    for name, types in unmeant.items():
        more.setdefault(name, {}).update(types)
    for name, relation in db.catalog.relations.items():
        if not relation.extension:
            columns = {
                column.name: column.type + (" not null" if column.not_null else "")
                for column in db.catalog.columns.get(name, ())
            }
            found[name] = columns, tuple(sorted(set(keys.get(name, ())))), more.pop(name, {})
    found.update({name: ({}, (), view) for name, view in sorted(more.items()) if VIEW in view})
    return found


def _discovered_lines(found: Discovered) -> Iterator[str]:
    yield "# What PostgreSQL had when this was written, for discover.py --check."
    yield "DISCOVERED = {"
    for name, (columns, keys, more) in found.items():
        yield "    %s: (" % text(name)
        yield "        %s," % _dict(columns)
        yield "        %s," % (names(keys) if keys else "()")
        yield "        %s," % _dict(more)
        yield "    ),"
    yield "}"


def _dict(values: Mapping[str, str]) -> str:
    return "{%s}" % ", ".join("%s: %s" % (text(name), text(value)) for name, value in values.items())
