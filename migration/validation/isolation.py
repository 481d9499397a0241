"""Find records and rows that belong to another user."""

from __future__ import annotations

from typing import Any, Collection, List, NamedTuple, Optional, Sequence

import msgspec

from migration.model import Table
from migration.printing import brief
from migration.sqlite.mapping import TableMapping
from migration.validation.checks import Evidence, Looked
from migration.validation.inputs import Context
from migration.validation.report import PREFIXES, Finding, Listing

LOOKED_UP = 1000  # extra rows of SQLite whose owner is looked up in PostgreSQL


def owners(evidence: Evidence) -> Looked:
    """Every record and row is the user's. Comparing contents and source has found those that are not."""
    return Looked(len(evidence.tables))


class Owner(NamedTuple):
    """The field of decoded records that names the owner, and the texts that name the user."""

    field: str
    mine: Collection[Optional[str]]

    def is_another(self, record: Any) -> bool:
        return text_of(getattr(record, self.field)) not in self.mine


def owner_of(context: Context, table: Table) -> Optional[Owner]:
    """None if the records do not name their owner."""
    names = [column.name for column in context.compared[table.name]]
    if table.owner is None or table.owner not in names:
        return None
    mine = context.owners(table.name) | ({None} if table.ownership.or_shared else set())
    return Owner("c%d" % names.index(table.owner), mine)


def text_of(value: Any) -> Optional[str]:
    """A key's value as text, without the padding of ``char(n)``."""
    plain = msgspec.json.decode(bytes(value)) if isinstance(value, msgspec.Raw) else value
    return None if plain is None else str(plain).rstrip()


def foreign_record(context: Context, table: Table, record: Any, number: int) -> Finding:
    """The finding for the record of another user, the ``number``-th of its table."""
    columns = context.compared[table.name]
    names = [column.name for column in columns]
    key = context.source_key(table, context.compared)
    parts = [str(text_of(getattr(record, "c%d" % names.index(name)))) for name in key]
    row = brief(", ".join(parts)) if key else "record %d" % number
    message = "%s: %s %s belongs to another user" % (PREFIXES["isolation"], table.name, row)
    return Finding("isolation", message, table.name, row, table.owner)


def foreign_rows(context: Context, table: Table, mapped: TableMapping, rows: Sequence[str]) -> List[Finding]:
    """Findings for those ``rows``, extra in SQLite, that belong to another user in PostgreSQL."""
    listing = Listing("isolation", table.name, context.settings.max_differences)
    for row in rows_of_others(context, table, mapped, rows):
        message = "%s: %s %s is a row of another user" % (PREFIXES["isolation"], table.name, row)
        listing.add(Finding("isolation", message, table.name, row))
    return listing.findings


def rows_of_others(context: Context, table: Table, mapped: TableMapping, rows: Sequence[str]) -> List[str]:
    """Those of ``rows``, named by their pairing key, that belong to another user in PostgreSQL."""
    live = context.live
    if live is None or context.key(table, mapped, context.compared).columns != live.catalog.keys[table.name]:
        return []
    return live.foreign_rows(table, rows)
