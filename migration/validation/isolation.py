"""Find records and rows that belong to another user."""

from __future__ import annotations

from typing import Any, Collection, List, NamedTuple, Optional, Sequence

from migration.bundle.changes import Key, key_text
from migration.model import Table
from migration.printing import brief
from migration.sqlite.mapping import TableMapping
from migration.validation import declared_changes
from migration.validation.checks import Evidence, Looked
from migration.validation.inputs import Context
from migration.validation.report import PREFIXES, Finding, Listing

LOOKED_UP = 1000  # extra rows of SQLite whose owner is looked up in PostgreSQL


def owners(evidence: Evidence) -> Looked:
    """Every record and row is the user's. Comparing contents and source has found those that are not.

    Rows of others that came along, and references that were cut, are those that the bundle lists.
    """
    return Looked(len(evidence.tables), list(declared_changes.differences(evidence.context)))


class Owner(NamedTuple):
    """The field of decoded records that names the owner, and the texts that name the user.

    ``key``: the fields of the key, and ``brought`` the rows of others that came along.
    """

    field: str
    mine: Collection[Optional[str]]
    key: Sequence[str] = ()
    brought: Collection[Key] = ()

    def is_another(self, record: Any) -> bool:
        if text_of(getattr(record, self.field)) in self.mine:
            return False
        return (
            not self.brought
            or tuple(key_text(getattr(record, field)) for field in self.key) not in self.brought
        )


def owner_of(context: Context, table: Table) -> Optional[Owner]:
    """None if the records do not name their owner."""
    names = [column.name for column in context.compared[table.name]]
    if table.owner is None or table.owner not in names:
        return None
    mine = context.owners(table.name) | ({None} if table.ownership.or_shared else set())
    brought = context.changes.brought.get(table.name, frozenset())
    key = context.source_key(table, context.compared) if brought else ()
    return Owner("c%d" % names.index(table.owner), mine, ["c%d" % names.index(name) for name in key], brought)


def text_of(value: Any) -> Optional[str]:
    """A key's value as text, without the padding of ``char(n)``; a number with all its digits."""
    text = key_text(value)
    return None if text is None else text.rstrip()


def foreign_record(context: Context, table: Table, record: Any, number: int) -> Finding:
    """The finding for the record of another user, the ``number``-th of its table."""
    columns = context.compared[table.name]
    names = [column.name for column in columns]
    key = context.source_key(table, context.compared)
    parts = [str(text_of(getattr(record, "c%d" % names.index(name)))) for name in key]
    row = brief(", ".join(parts)) if key else "record %d" % number
    called = context.settings.root.called
    message = "%s: %s %s belongs to another %s" % (PREFIXES["isolation"], table.name, row, called)
    return Finding("isolation", message, table.name, row, table.owner)


def foreign_rows(context: Context, table: Table, mapped: TableMapping, rows: Sequence[str]) -> List[Finding]:
    """Findings for those ``rows``, extra in SQLite, that belong to another user in PostgreSQL."""
    listing = Listing("isolation", table.name, context.settings.max_differences)
    for row in rows_of_others(context, table, mapped, rows):
        called = context.settings.root.called
        message = "%s: %s %s is a row of another %s" % (PREFIXES["isolation"], table.name, row, called)
        listing.add(Finding("isolation", message, table.name, row))
    return listing.findings


def rows_of_others(context: Context, table: Table, mapped: TableMapping, rows: Sequence[str]) -> List[str]:
    """Those of ``rows``, named by their pairing key, that belong to another user in PostgreSQL."""
    live = context.live
    if live is None or context.key(table, mapped, context.compared).columns != live.catalog.keys[table.name]:
        return []
    return live.foreign_rows(table, rows)
