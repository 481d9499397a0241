"""What SQLite's file alone can show: its structure, its soundness, its references and the form of its values."""

from __future__ import annotations

import contextlib
import functools
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import msgspec

from migration import conversion
from migration.model import Singleton, Table
from migration.settings import Settings
from migration.sql import quote
from migration.sqlite import mapping, schema, target
from migration.sqlite.errors import INTERRUPT, code_of
from migration.sqlite.mapping import Mapped, TableMapping
from migration.sqlite.schema import TargetColumn
from migration.validation import additions as beyond
from migration.validation import defaults, forms
from migration.validation.inputs import Columns, Context
from migration.validation.report import PREFIXES, Finding, Listing
from migration.workers import THREADS, Job, at_work


class Check(NamedTuple):
    """``name``: one of ``report.CHECKS``; ``number``: of how many things it looks at."""

    name: str
    number: Callable[[Context], int]
    find: Callable[[Context], Iterator[Finding]]


class Checked(NamedTuple):
    """What a check found, of how many things, and how long it took."""

    name: str
    number: int
    seconds: float
    findings: List[Finding]


def schema_differences(context: Context) -> Iterator[Finding]:
    """Tables, columns, foreign keys, indexes, triggers and views are those of the schema file."""
    for found in schema.differences(context.database, context.schema):
        yield _of_schema(found, context)


def additions(context: Context) -> Iterator[Finding]:
    """No rows and numbers are there but those of the migration and of the schema file."""
    filled = [mapping.target_of(table, context.schema) for table in mapping.everything(context.settings)]
    for found in beyond.additions(context.database, context.schema, filled):
        yield _of_schema(found, context)


def _of_schema(found: schema.SchemaDifference, context: Context) -> Finding:
    """What there is more than the schema file makes is the application's own, unless an import has just ended."""
    check = "additions" if found.more else "schema"
    message = "%s: %s" % (PREFIXES[check], found.message)
    return Finding(check, message, found.table, error=context.fresh or not found.more)


def integrity(look: Job[List[str]], context: Context) -> Iterator[Finding]:
    """SQLite finds its file, or the part of it that it is to look at, sound."""
    try:
        problems = look(context.database)
    except sqlite3.OperationalError as error:
        if code_of(error) == INTERRUPT:
            raise
        # an index of the application's may need its own collation or function
        message = "%s: SQLite cannot look through the whole file here: %s"
        yield Finding("integrity", message % (PREFIXES["integrity"], error), error=context.fresh)
        return
    for problem in problems:
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

        def by_itself(column: str, value: object) -> bool:
            """Whether the schema's default writes dates in this form."""
            try:
                made = defaults.of_rows(context.schema, mapped.target, (column,))[column]
            except sqlite3.Error:
                return False
            return made.moment and not made.constant and made.is_met(value)

        yield from forms.problems(context.database, table, mapped, columns, _given(context, table), by_itself)


def changed_defaults(context: Context) -> Iterator[Finding]:
    """What the source has nothing for holds the default that the schema gives it, or a value of its form."""
    for table in mapping.everything(context.settings):
        columns = _left_to_defaults(context, table)
        if columns:
            yield from _other_than_default(context, table, context.mapped(table, context.columns), columns)


def _left_to_defaults(context: Context, table: Mapped) -> List[TargetColumn]:
    mapped, given = context.mapped(table, context.columns), _given(context, table)
    filled = {pair.target.name for pair in mapped.copied if given(pair.source.name)}
    present = context.columns_in_sqlite(mapped.target) if mapped.copied else {}
    return [
        column
        for column in context.schema.columns[mapped.target].values()
        if column.name not in filled and not column.key and column.name.lower() in present
    ]


def _other_than_default(
    context: Context, table: Mapped, mapped: TableMapping, columns: Sequence[TargetColumn]
) -> Iterator[Finding]:
    """``columns``: those that hold defaults. What the source has NULL for is the user's, and an error."""
    is_singleton = isinstance(table, Singleton)
    check = "user" if is_singleton else "contents"
    copied = {pair.target.name for pair in mapped.copied}
    names = tuple(column.name for column in columns)
    try:
        of_schema = (defaults.of_singleton if is_singleton else defaults.of_rows)(
            context.schema, mapped.target, names
        )
    except sqlite3.Error as refused:
        message = "%s: the schema's defaults of %s cannot be evaluated: %s"
        yield Finding(check, message % (PREFIXES[check], mapped.target, refused), mapped.target, error=False)
        return
    for column in columns:
        default, place = of_schema[column.name], (mapped.target, column.name)
        malformed = other = 0
        for (value,) in _values(context.database, mapped.target, column.name, default):
            if default.is_malformed(value):
                malformed += 1
            elif not default.is_met(value):
                other += 1
        if malformed:
            what = "a date or time" if default.moment else "in the form of the schema's default"
            message = "%s: %s.%s is not %s in %d rows, and the source has nothing for it"
            message %= (PREFIXES["types"], *place, what, malformed)
            yield Finding("types", message, mapped.target, column=column.name, count=malformed)
        if other:
            message = "%s: %s.%s is not the schema's default in %d rows, and the source has nothing for it"
            message %= (PREFIXES[check], *place, other)
            error = context.fresh or column.name in copied
            yield Finding(check, message, mapped.target, column=column.name, error=error, count=other)


def _values(
    database: sqlite3.Connection, table: str, column: str, default: defaults.Default
) -> Iterator[Tuple[object]]:
    """The values of a column, where the default is constant only those that differ from it."""
    select, parameters = "SELECT {0} FROM {1}".format(quote(column), quote(table)), ()  # type: str, Sequence[object]
    if default.constant:
        select += " WHERE {0} COLLATE BINARY IS NOT ? OR typeof({0}) <> typeof(?)".format(quote(column))
        parameters = default.value, default.value
    return database.execute(select, parameters)


def _given(context: Context, table: Mapped) -> Callable[[str], bool]:
    """Whether the source has something for a column: NULL too, unless the target cannot hold it."""
    if isinstance(table, Table):
        return lambda column: True
    text = context.records[table.name]
    record = {} if text is None else msgspec.json.decode(text, type=Dict[str, msgspec.Raw])
    nulls = msgspec.json.decode(record.get(conversion.JSON_NULLS, b"[]"), type=Tuple[str, ...])
    columns = context.schema.columns[mapping.target_of(table, context.schema)]

    def given(column: str) -> bool:
        if column not in record:
            return False
        place = columns.get(column.lower())
        nullable = place is None or not place.not_null
        return nullable or bytes(record[column]) != b"null" or column in nulls

    return given


def _readable(findings: Iterator[Finding]) -> Iterator[Finding]:
    """What SQLite refuses to look at is a finding, too: a view in a table's place, a key that leads to no key."""
    try:
        yield from findings
    except sqlite3.Error as error:
        if code_of(error) == INTERRUPT:
            raise
        yield Finding("integrity", "%s: SQLite refuses: %s" % (PREFIXES["integrity"], error))


def side_by_side(
    path: Path,
    settings: Settings,
    expected: schema.Schema,
    columns: Columns,
    records: Mapping[str, Optional[bytes]],
    sound: bool,
    fresh: bool,
) -> Iterator[Optional[List[Checked]]]:
    """Every check of the file, for ``workers.in_a_process``: yields None once it reads one state of it, then what they found.

    A process of its own, as what SQLite allocates in two threads of one it allocates one after the other.
    """
    with target.errors(path), target.opened(path, 0 if sound else THREADS) as (database, others):
        yield None
        context = Context(database, settings, expected, None, None, {}, columns, records, fresh)
        with at_work(database, others, all_checks(context, sound, bool(others))) as found:
            yield found()


def all_checks(context: Context, sound: bool, in_parts: bool) -> List[Job[Checked]]:
    """Every check of the file, for ``workers.at_work``, and ``in_parts`` where there is more than one connection.

    ``sound``: SQLite has looked through this very file before.
    """
    tables = mapping.everything(context.settings)
    checks = [
        Check("schema", lambda context: len(context.schema.objects), schema_differences),
        Check("additions", lambda context: len(schema.describe_objects(context.database)), additions),
    ]
    if not sound:
        for part, look in enumerate(target.integrity_checks(context.database, in_parts)):
            pages = _pages if part == 0 else _none
            checks.append(Check("integrity", pages, functools.partial(integrity, look)))
        checks.append(
            Check("references", lambda context: len(context.schema.foreign_keys), dangling_references)
        )
    for table in tables:
        columns = functools.partial(_columns, table)
        checks.append(Check("forms", columns, functools.partial(malformed_cells, table)))
    checks.append(
        Check(
            "defaults",
            lambda context: sum(len(_left_to_defaults(context, table)) for table in tables),
            changed_defaults,
        )
    )
    return [functools.partial(_checked, check, context) for check in checks]


def _pages(context: Context) -> int:
    return int(context.database.execute("PRAGMA page_count").fetchone()[0])


def _none(context: Context) -> int:
    return 0


def _columns(table: Mapped, context: Context) -> int:
    return len(context.mapped(table, context.columns).copied)


def _checked(check: Check, context: Context, database: sqlite3.Connection) -> Checked:
    started = time.perf_counter()
    database.text_factory = target.any_text
    context = replace(context, database=database)
    listings: Dict[Tuple[str, Optional[str], bool], Listing] = {}
    for finding in _readable(check.find(context)):
        key = finding.check, finding.table, finding.error
        if key not in listings:
            listings[key] = Listing(*key[:2], context.settings.max_differences, finding.error)
        listings[key].add(finding)
    findings = [finding for listing in listings.values() for finding in listing.findings]
    number = 0
    with contextlib.suppress(sqlite3.Error):  # which has been found
        number = check.number(context)
    return Checked(check.name, number, time.perf_counter() - started, findings)


def together(results: Sequence[Checked]) -> List[Checked]:
    """One for each name: the parts of a check are one, and what two of them found is found once."""
    found: Dict[str, Checked] = {}
    known: Set[Tuple[str, str]] = set()
    for checked in results:
        so_far = found.get(checked.name, Checked(checked.name, 0, 0.0, []))
        new = []
        for finding in checked.findings:
            if (finding.check, finding.message) not in known:
                known.add((finding.check, finding.message))
                new.append(finding)
        found[checked.name] = Checked(
            checked.name,
            so_far.number + checked.number,
            so_far.seconds + checked.seconds,
            so_far.findings + new,
        )
    return list(found.values())
