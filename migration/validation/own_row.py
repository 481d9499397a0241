"""The user's own row and the preferences, each row 1 of its table: password hash, account timestamps, settings."""

from __future__ import annotations

import time
from typing import Any, Dict, Iterator, List, Sequence, Tuple

import msgspec

from migration.bundle.damage import damaged
from migration.decoding import record_decoder
from migration.model import USER_DATA, Column, Table
from migration.printing import counted
from migration.sql import quote
from migration.validation import equality, json_and_moments, record_changes
from migration.validation.checks import Evidence, Looked, since
from migration.validation.inputs import Context
from migration.validation.isolation import owner_of
from migration.validation.report import PREFIXES, Changes, Finding
from migration.validation.since_export import message_of


def own_rows(evidence: Evidence) -> Looked:
    """Each row equals its record in the bundle and in PostgreSQL. Rows that --orphans skip left out are reported here too."""
    started, context = time.perf_counter(), evidence.context
    findings: List[Finding] = []
    changes: Dict[str, Changes] = {}
    for table in context.settings.single_rows:
        if context.has_table(table.target):  # else check ``schema`` reports it
            findings += _differences(context, table)
            changed, what = _changes(context, table)
            if changed:
                changes[table.name] = changed
                message = message_of(context, "%s %s; migrate again to take it over" % (table.name, what))
                findings.append(Finding("source", message, table.name))
    return Looked(
        len(context.settings.single_rows), [*findings, *_left_out(context)], since(started), changes
    )


def _differences(context: Context, table: Table) -> Iterator[Finding]:
    prefix = "%s: %s" % (PREFIXES["user"], table.target)
    (rows,) = context.database.execute("SELECT count(*) FROM " + quote(table.target)).fetchone()
    text = context.records[table.name]
    if rows != 1:
        yield Finding("user", "%s holds %s rows, not 1" % (prefix, rows), table.target)
    elif text is not None:
        record = _decoded(context.compared[table.name], text)
        yield from _foreign(context, table, record)
        yield from _unequal(context, table, record, prefix)


def _foreign(context: Context, table: Table, record: Any) -> Iterator[Finding]:
    owner = owner_of(context, table)
    if owner is not None and owner.is_another(record):
        message = "%s: the record of %s belongs to another %s" % (
            PREFIXES["isolation"],
            table.name,
            context.settings.root.called,
        )
        yield Finding("isolation", message, table.name, column=table.owner)


def _unequal(context: Context, table: Table, record: Any, prefix: str) -> Iterator[Finding]:
    mapped = context.mapped(table, context.compared)
    if not mapped.copied:
        return
    compared = equality.Cells(mapped, context.compared[table.name], table.json_types)
    names = ", ".join(quote(pair.target.name) for pair in compared.pairs)
    row = context.database.execute(
        "SELECT %s FROM %s WHERE id = 1" % (names, quote(mapped.target))
    ).fetchone()
    if row is None:
        yield Finding("user", "%s has no row 1" % prefix, mapped.target)
        return
    values = compared.take(record)
    left_to_schema = {
        pair.target.name
        for pair, value in zip(compared.pairs, values)
        if json_and_moments.is_null(value)
        and pair.target.not_null
        and pair.source.name not in record.json_nulls
    }
    # Values as fingerprints, whatever --show-values says: never show the password hash.
    for column, what in compared.unequal(record, values, row, context.fingerprint):
        if column not in left_to_schema:
            message = "%s.%s is not the %s's: %s" % (prefix, column, context.settings.root.called, what)
            yield Finding("user", message, mapped.target, "1", column)


def _changes(context: Context, table: Table) -> Tuple[Changes, str]:
    """How PostgreSQL's row differs from the bundle's, as a count and in words."""
    export, live, changes = context.export, context.live, Changes()
    if export is None or live is None or table.name not in context.doubted:
        return changes, ""
    then, now = export.user_data().get(table.member), live.record(table)
    if then == now:
        return changes, ""
    if then is None or now is None:
        changes.add("added" if then is None else "removed", live.user.id, 1)
        return changes, str(changes)
    held, today = context.held[table.name], live.catalog.columns[table.name]
    compare = record_changes.changed_columns(context.mapped(table, context.held), held, today)
    columns = compare(_decoded(held, then), _decoded(today, now))
    if columns:
        changes.add("changed", live.user.id, 1)
    return changes, "%s changed" % ", ".join(columns)


def _decoded(columns: Sequence[Column], text: bytes) -> Any:
    try:
        return record_decoder(columns)(text)
    except msgspec.DecodeError as error:
        raise damaged("%s is damaged: %s" % (USER_DATA, error)) from error


def _left_out(context: Context) -> Iterator[Finding]:
    if context.export is None:
        return
    manifest = context.export.manifest
    for name, rows in manifest.orphans_skipped.items():
        message = "%s %s by %s: %s with references to rows of others"
        message %= (PREFIXES["orphans"], name, manifest.skipped_by, counted(rows, "row"))
        yield Finding("orphans", message, name, error=False, count=rows)
