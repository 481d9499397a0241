"""What SQLite's file alone can show: its structure, its soundness, its references and the form of its values."""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import Callable, ContextManager, Dict, Iterator, List, Optional, Tuple

import msgspec

from migration import cells, mapping, schema, target
from migration.context import Context
from migration.mapping import Mapped
from migration.report import PREFIXES, Finding, Listing
from migration.schema import quote
from migration.tables import Singleton, Table

log = logging.getLogger("migration.checks")


def schema_differences(context: Context) -> Iterator[Finding]:
    """Tables, columns, foreign keys, indexes, triggers and views are those of the schema file."""
    for found in schema.differences(context.database, context.schema):
        message = "%s: %s" % (PREFIXES["schema"], found.message)
        yield Finding("schema", message, found.table, error=not found.more)


def integrity(context: Context) -> Iterator[Finding]:
    """SQLite finds its file sound."""
    for problem in target.integrity_problems(context.database):
        yield Finding("integrity", "%s: %s" % (PREFIXES["integrity"], problem))


def dangling_references(context: Context) -> Iterator[Finding]:
    """Every foreign key leads to a row."""
    for violation in target.foreign_key_violations(context.database):
        message = "%s: (%s, %s, %s, %s)" % (PREFIXES["references"], *violation)
        yield Finding("references", message, violation.table, violation.row, violation.column)


def malformed_cells(context: Context) -> Iterator[Finding]:
    """JSON parses, and every value is in its column's form and range."""
    for table in mapping.everything(context.settings):
        mapped = context.mapped(table, context.columns)
        if mapped.copied:
            yield from cells.problems(context.database, table, mapped, _given(context, table))


def changed_defaults(context: Context) -> Iterator[Finding]:
    """What the source has nothing for holds the default that the schema gives it, where that is a constant."""
    for table in mapping.everything(context.settings):
        mapped, given = context.mapped(table, context.columns), _given(context, table)
        filled = {pair.target.name for pair in mapped.copied if given(pair.source.name)}
        copied = {pair.target.name for pair in mapped.copied}
        check = "user" if isinstance(table, Singleton) else "contents"
        described = context.database.execute("PRAGMA table_info(%s)" % quote(mapped.target)).fetchall()
        for _, name, _, _, default, key in described if mapped.copied else ():
            if name in filled or key or "(" in (default or "") or "CURRENT_" in (default or "").upper():
                continue
            changed = "SELECT count(*) FROM {} WHERE {} IS NOT {}".format(
                quote(mapped.target), quote(name), default or "NULL"
            )
            (rows,) = context.database.execute(changed).fetchone()
            if rows:
                message = (
                    "%s: %s.%s is not the schema's default in %d rows, and the source has nothing for it"
                )
                named = (PREFIXES[check], mapped.target, name, rows)
                yield Finding(
                    check, message % named, mapped.target, column=name, error=name in copied, count=rows
                )


def _given(context: Context, table: Mapped) -> Callable[[str], bool]:
    if isinstance(table, Table):
        return lambda column: True
    text = context.records[table.name]
    record = {} if text is None else msgspec.json.decode(text, type=Dict[str, msgspec.Raw])
    return lambda column: bytes(record.get(column, b"null")) != b"null"


CHECKS: Tuple[Callable[[Context], Iterator[Finding]], ...] = (
    schema_differences,
    integrity,
    dangling_references,
    malformed_cells,
    changed_defaults,
)


def _readable(findings: Iterator[Finding]) -> Iterator[Finding]:
    """What SQLite refuses to look at is a finding, too: a view in a table's place, a key that leads to no key."""
    try:
        yield from findings
    except sqlite3.Error as error:
        if "interrupted" in str(error):
            raise
        yield Finding("integrity", "%s: SQLite refuses: %s" % (PREFIXES["integrity"], error))


def scan(context: Context, in_use: ContextManager[object]) -> List[Finding]:
    """What all CHECKS find. ``in_use`` is held meanwhile."""
    found: List[Finding] = []
    with in_use:
        for check in CHECKS:
            started = time.perf_counter()
            listings: Dict[Tuple[str, Optional[str], bool], Listing] = {}
            for finding in _readable(check(context)):
                key = finding.check, finding.table, finding.error
                if key not in listings:
                    listings[key] = Listing(*key[:2], context.settings.max_differences, finding.error)
                listings[key].add(finding)
            found += (finding for listing in listings.values() for finding in listing.findings)
            log.debug("%s: %.2f s", check.__name__, time.perf_counter() - started)
    return found
