"""Names in SQLite: quoted where they must be, each of a kind of its own where SQLite does not tell them apart."""

from __future__ import annotations

import re
from typing import Dict, List, Mapping, Sequence, Set

from migration.errors import UsageError
from migration.sql import quote

# Source: https://www.sqlite.org/lang_keywords.html
_KEYWORDS = """
abort action add after all alter always analyze and as asc attach autoincrement before begin between by cascade case cast
check collate column commit conflict constraint create cross current current_date current_time current_timestamp database
default deferrable deferred delete desc detach distinct do drop each else end escape except exclude exclusive exists explain
fail false filter first following for foreign from full generated glob group groups having if ignore immediate in index
indexed initially inner insert instead intersect into is isnull join key last left like limit match materialized natural no
not nothing notnull null nulls of offset on or order others outer over partition plan pragma preceding primary query raise
range recursive references regexp reindex release rename replace restrict returning right rollback row rowid rows savepoint
select set table temp temporary then ties to transaction trigger true unbounded union unique update using vacuum values view
virtual when where window with without
"""
_RESERVED = frozenset(_KEYWORDS.split())


def name(identifier: str) -> str:
    """A name as SQLite's SQL has it: bare where nothing else could be meant."""
    if re.fullmatch("[a-z_][a-z0-9_]*", identifier) and identifier not in _RESERVED:
        return identifier
    return quote(identifier)


def listed(identifiers: Sequence[str]) -> str:
    return ", ".join(map(name, identifiers))


def table_names(tables: Sequence[str], relations: Mapping[str, str]) -> Dict[str, str]:
    """What each table is called in SQLite, which has no schemas: ``auth.people`` becomes ``people``, else ``auth_people``.

    ``relations``: table → its bare name. The import looks for a table by its whole name, with ``_`` for the dot, and by
    the bare name, in this order; a name is taken only where it finds that table and no other. Raises MigrationError
    (exit 2) where two tables cannot be told apart.
    """
    found: Dict[str, str] = {}
    taken: Set[str] = set()
    for table in sorted(tables, key=lambda table: relations[table] != table):  # those of the schema first
        choices = _choices(table, relations[table])
        chosen = next((choice for choice in choices if choice.lower() not in taken), None)
        if chosen is None or chosen.lower().startswith("sqlite_"):
            other = next(
                (known for known, its in found.items() if its.lower() == table.lower()), "SQLite's own tables"
            )
            raise UsageError(
                "SQLite does not tell table %s from %s" % (table, other),
                "leave one of them behind, --exclude '%s', or rename it in PostgreSQL" % table,
            )
        found[table] = chosen
        taken.add(chosen.lower())
    for table in tables:
        for choice in (table, table.replace(".", "_")):  # where the import looks first
            if choice.lower() == found[table].lower():
                break
            if choice.lower() in taken:
                found[table] = table
                break
    return found


def _choices(table: str, bare: str) -> List[str]:
    return [bare, table.replace(".", "_"), table] if bare != table else [table]


class Names:
    """Gives each index and view a name that nothing else of the database has."""

    def __init__(self, taken: Sequence[str]) -> None:
        self._taken = {name.lower() for name in taken}

    def give(self, wanted: str, prefix: str) -> str:
        choices = [
            wanted,
            "%s_%s" % (prefix, wanted),
            *("%s_%s_%d" % (prefix, wanted, n) for n in range(2, 99)),
        ]
        chosen = next(
            one for one in choices if one.lower() not in self._taken and not one.lower().startswith("sqlite_")
        )
        self._taken.add(chosen.lower())
        return chosen
