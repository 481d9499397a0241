"""What SQLite's file alone can show: its structure, its soundness, its references and the form of its values."""

from __future__ import annotations

import functools
import logging
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import msgspec

from migration import cells, mapping, schema, target
from migration.context import Columns, Context
from migration.mapping import Mapped
from migration.report import PREFIXES, Finding, Listing
from migration.schema import quote
from migration.settings import Settings
from migration.tables import Singleton, Table
from migration.workers import THREADS, Job, at_work

log = logging.getLogger("migration.checks")

Check = Callable[[Context], Iterator[Finding]]


class Checked(NamedTuple):
    """What a check found; ``seconds``: how long it took."""

    name: str
    seconds: float
    findings: List[Finding]


def schema_differences(context: Context) -> Iterator[Finding]:
    """Tables, columns, foreign keys, indexes, triggers and views are those of the schema file."""
    for found in schema.differences(context.database, context.schema):
        message = "%s: %s" % (PREFIXES["schema"], found.message)
        yield Finding("schema", message, found.table, error=not found.more)


def integrity(look: Job[List[str]], context: Context) -> Iterator[Finding]:
    """SQLite finds its file, or the part of it that it is to look at, sound."""
    for problem in look(context.database):
        yield Finding("integrity", "%s: %s" % (PREFIXES["integrity"], problem))


def dangling_references(context: Context) -> Iterator[Finding]:
    """Every foreign key leads to a row."""
    for violation in target.foreign_key_violations(context.database):
        message = "%s: (%s, %s, %s, %s)" % (PREFIXES["references"], *violation)
        yield Finding("references", message, violation.table, violation.row, violation.column)


def malformed_cells(table: Mapped, context: Context) -> Iterator[Finding]:
    """JSON parses, and every value of a table is in its column's form and range."""
    mapped = context.mapped(table, context.columns)
    if mapped.copied:
        columns = context.columns_in_sqlite(mapped.target).values()
        yield from cells.problems(context.database, table, mapped, columns, _given(context, table))


def changed_defaults(context: Context) -> Iterator[Finding]:
    """What the source has nothing for holds the default that the schema gives it, where that is a constant."""
    for table in mapping.everything(context.settings):
        mapped, given = context.mapped(table, context.columns), _given(context, table)
        filled = {pair.target.name for pair in mapped.copied if given(pair.source.name)}
        copied = {pair.target.name for pair in mapped.copied}
        check = "user" if isinstance(table, Singleton) else "contents"
        columns = context.columns_in_sqlite(mapped.target).values()
        for column in columns if mapped.copied else ():
            name, default = column.name, column.default or "NULL"
            if name in filled or column.key or "(" in default or "CURRENT_" in default.upper():
                continue
            changed = "SELECT count(*) FROM {} WHERE {} IS NOT {}".format(
                quote(mapped.target), quote(name), default
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


def _readable(findings: Iterator[Finding]) -> Iterator[Finding]:
    """What SQLite refuses to look at is a finding, too: a view in a table's place, a key that leads to no key."""
    try:
        yield from findings
    except sqlite3.Error as error:
        if "interrupted" in str(error):
            raise
        yield Finding("integrity", "%s: SQLite refuses: %s" % (PREFIXES["integrity"], error))


def side_by_side(
    path: Path,
    settings: Settings,
    expected: schema.Schema,
    columns: Columns,
    records: Mapping[str, Optional[bytes]],
    sound: bool,
) -> Iterator[Optional[List[Checked]]]:
    """Every check of the file, for ``workers.in_a_process``: yields None once it reads one state of it, then what they found.

    A process of its own, as what SQLite allocates in two threads of one it allocates one after the other.
    """
    with target.errors(path), target.opened(path, 0 if sound else THREADS) as (database, others):
        yield None
        context = Context(database, settings, expected, None, None, {}, columns, records)
        with at_work(database, others, all_checks(context, sound, bool(others))) as found:
            yield found()


def all_checks(context: Context, sound: bool, in_parts: bool) -> List[Job[Checked]]:
    """Every check of the file, for ``workers.at_work``, and ``in_parts`` where there is more than one connection.

    ``sound``: SQLite has looked through this very file before.
    """
    checks: List[Check] = [schema_differences]
    if not sound:
        looks = target.integrity_checks(context.database, in_parts)
        checks += [functools.partial(integrity, look) for look in looks]
        checks.append(dangling_references)
    checks += [functools.partial(malformed_cells, table) for table in mapping.everything(context.settings)]
    checks.append(changed_defaults)
    return [functools.partial(_checked, check, context) for check in checks]


def _checked(check: Check, context: Context, database: sqlite3.Connection) -> Checked:
    started = time.perf_counter()
    database.text_factory = target.any_text
    listings: Dict[Tuple[str, Optional[str], bool], Listing] = {}
    for finding in _readable(check(replace(context, database=database))):
        key = finding.check, finding.table, finding.error
        if key not in listings:
            listings[key] = Listing(*key[:2], context.settings.max_differences, finding.error)
        listings[key].add(finding)
    findings = [finding for listing in listings.values() for finding in listing.findings]
    return Checked(getattr(check, "func", check).__name__, time.perf_counter() - started, findings)


def together(results: Sequence[Checked]) -> List[Finding]:
    """What the checks found, once where two of them found the same; the log says what each took."""
    for checked in results:
        log.debug("%s: %.2f s", checked.name, checked.seconds)
    found = [finding for checked in results for finding in checked.findings]
    return list({(finding.check, finding.message): finding for finding in found}.values())
