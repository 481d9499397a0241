"""What has changed in PostgreSQL since the bundle was exported."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, Tuple

from migration.decoding import record_decoder
from migration.model import Table
from migration.postgres import unchanged
from migration.postgres.digests import Digest
from migration.sqlite import mapping
from migration.sqlite.mapping import TableMapping
from migration.validation import pairing, record_changes, walking
from migration.validation.checks import Evidence, Looked, since
from migration.validation.inputs import Context
from migration.validation.isolation import rows_of_others
from migration.validation.report import PREFIXES, Changes, Finding

log = logging.getLogger(__name__)


def unchanged_tables(context: Context, taken: unchanged.Taken) -> FrozenSet[str]:
    """The tables that cannot have changed since this process exported them.

    Checksums and row counts prove that the bundle is still the exported one.
    """
    live, export = context.live, context.export
    if live is None or export is None or context.against != "bundle":
        return frozenset()
    rows, checksums = export.manifest.row_counts, export.manifest.checksums
    found = frozenset(
        table.name
        for table in context.settings.tables
        if checksums[table.file] == taken.checksums[table.file]
        and rows.get(table.name) == taken.sent[table.name]
    ) & unchanged.unchanged(taken, live)
    log.debug("rows that cannot have changed since the export: %s", ", ".join(sorted(found)) or "none")
    return found


@contextlib.contextmanager
def digests(context: Context) -> "Iterator[Mapping[str, Future[Digest]]]":
    """Table → the digest of its rows, computed by PostgreSQL while the block compares cells. Empty without a bundle."""
    live = context.live
    tables = [table for table in context.settings.whole_tables if table.name in context.doubted]
    if live is None or not tables:
        yield {}
        return
    with ThreadPoolExecutor(1) as pool:
        asked = {table.name: pool.submit(live.digest, table) for table in tables}
        try:
            yield asked
        except BaseException:
            for digest in asked.values():
                digest.cancel()
            live.db.cancel()
            raise


def changed_tables(evidence: Evidence) -> Looked:
    """PostgreSQL's digest of each table that may have changed equals the bundle's; if not, report the changes."""
    started, context = time.perf_counter(), evidence.context
    if context.live is None:
        return Looked(note="PostgreSQL was not asked")
    if context.export is None:
        return Looked(note="without a bundle, contents are compared with PostgreSQL")
    findings: List[Finding] = []
    changes: Dict[str, Changes] = {}
    for table in context.settings.whole_tables:
        if table.name not in context.doubted:
            continue
        if evidence.digests[table.name].result() != evidence.tables[table.name].digest:
            ordered, mapped = _mapped(context, table)
            changed = walking.in_any_order(
                functools.partial(_changes, context, table, mapped), table.name, ordered
            )
            if changed:
                changes[table.name] = changed
            findings += _findings(context, table, mapped, changed)
    return Looked(len(context.settings.tables), findings, since(started), changes)


def message_of(context: Context, what: str) -> str:
    assert context.export is not None
    return "%s %s: %s" % (PREFIXES["source"], context.export.manifest.export_timestamp, what)


def _names(context: Context, table: Table) -> Tuple[Any, Any]:
    """The migrated columns of a table: those of the bundle, and those of PostgreSQL now."""
    assert context.live is not None
    names = [
        {pair.source.name for pair in mapping.map_columns(table, side[table.name], context.schema).copied}
        for side in (context.held, context.live.catalog.columns)
    ]
    return names[0], names[1]


def _mapped(context: Context, table: Table) -> Tuple[bool, TableMapping]:
    """Whether both sides are ordered by the same key, and the columns that both have."""
    assert context.live is not None
    _, names_now = _names(context, table)
    sides = context.held, context.live.catalog.columns
    mapped = context.mapped(table, context.held)
    ordered = all(context.key(table, context.mapped(table, side), side).ordered for side in sides)
    return ordered, mapped._replace(copied=tuple(p for p in mapped.copied if p.source.name in names_now))


def _findings(context: Context, table: Table, mapped: TableMapping, changes: Changes) -> Iterator[Finding]:
    names, names_now = _names(context, table)
    for name in sorted(names ^ names_now):
        what = "has a new column %s" if name in names_now else "has no column %s any more"
        message = message_of(context, "%s %s" % (table.name, what % name))
        yield Finding("source", message, table.name, column=name)
    if changes:
        what = "%s %s; migrate again to take them over" % (table.name, changes)
        yield Finding("source", message_of(context, what), table.name)
        message = PREFIXES["isolation"] + ": %s %s of the bundle is another %s's now"
        for row in rows_of_others(context, table, mapped, changes.removed.ids):
            named = table.name, row, context.settings.root.called
            yield Finding("isolation", message % named, table.name, row)


def _changes(context: Context, table: Table, mapped: TableMapping, ordered: bool) -> Changes:
    export, live = context.export, context.live
    assert export is not None and live is not None
    key = context.key(table, mapped, context.held)
    columns, columns_now = context.held[table.name], live.catalog.columns[table.name]
    decode, decode_now = record_decoder(columns), record_decoder(columns_now)
    changes = Changes()
    with contextlib.ExitStack() as stack:
        texts = stack.enter_context(contextlib.closing(live.records(table)))
        if ordered:
            then = columns, export.records(table.file, decode)
            found = record_changes.changes(key.columns, mapped, then, (columns_now, map(decode_now, texts)))
        else:
            sorter = stack.enter_context(pairing.sorting())
            held = export.records(table.file, _checked_by(decode))
            found = pairing.changes(
                key,
                mapped,
                pairing.Texts(columns, decode, held),
                pairing.Texts(columns_now, decode_now, texts),
                sorter,
                context.fingerprint,
            )
        for kind, row in found:
            changes.add(kind, row, context.settings.max_differences)
    return changes


def _checked_by(decode: Callable[[bytes], Any]) -> Callable[[bytes], bytes]:
    """A decoder that returns the text as it is, if it can be decoded."""

    def checked(text: bytes) -> bytes:
        decode(text)
        return text

    return checked
