"""Checks that need only the SQLite file: schema, integrity, references, and the form of its values."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from concurrent.futures import Future
from typing import Callable, Dict, FrozenSet, Iterator, List, Optional, Sequence, Tuple

import msgspec

from migration.decoding import JSON_NULLS
from migration.json_text import members
from migration.model import Table
from migration.sql import quote
from migration.sqlite import mapping
from migration.sqlite.integrity import Found, foreign_key_violations
from migration.sqlite.mapping import TableMapping
from migration.sqlite.schema import SchemaDifference, TargetColumn, describe_objects, differences
from migration.validation import additions as beyond
from migration.validation import defaults, forms
from migration.validation.checks import Evidence, Looked, since
from migration.validation.inputs import Context
from migration.validation.report import PREFIXES, Finding, Listing

BY_IMPORT = "the import looked at this very file"


def schema(evidence: Evidence) -> Looked:
    """Tables, columns, foreign keys, indexes, triggers and views match the schema file."""
    return _looked(
        evidence, lambda context: len(context.schema.objects), _schema_differences(evidence.context)
    )


def additions(evidence: Evidence) -> Looked:
    """The file holds no rows and header numbers except those of the migration and the schema file."""
    return _looked(
        evidence, lambda context: len(describe_objects(context.database)), _additions(evidence.context)
    )


def integrity(evidence: Evidence) -> Looked:
    """SQLite's integrity check finds nothing."""
    if evidence.integrity is None:
        return Looked(note=BY_IMPORT)
    looked = _looked(evidence, _pages, _unsound(evidence.context, evidence.integrity))
    failed = evidence.integrity.exception()
    return looked if failed else looked._replace(seconds=evidence.integrity.result().seconds)


def references(evidence: Evidence) -> Looked:
    """Every foreign key leads to a row."""
    if evidence.integrity is None:
        return Looked(note=BY_IMPORT)
    return _looked(evidence, lambda context: len(context.schema.foreign_keys), _dangling(evidence.context))


def malformed(evidence: Evidence) -> Looked:
    """JSON parses, and every value has its column's form and range; columns of ``proved_forms`` are not looked at."""
    return _looked(evidence, _columns, _malformed(evidence))


def changed_defaults(evidence: Evidence) -> Looked:
    """Columns that the source lacks hold the schema's default, or a value of the default's form."""
    return _looked(evidence, _defaults, _changed_defaults(evidence.context))


def _looked(evidence: Evidence, count: Callable[[Context], int], problems: Iterator[Finding]) -> Looked:
    started, context = time.perf_counter(), evidence.context
    listings: Dict[Tuple[str, Optional[str], bool], Listing] = {}
    for finding in _readable(problems):
        key = finding.check, finding.table, finding.error
        if key not in listings:
            listings[key] = Listing(*key[:2], context.settings.max_differences, finding.error)
        listings[key].add(finding)
    findings = [finding for listing in listings.values() for finding in listing.findings]
    number = 0
    with contextlib.suppress(sqlite3.Error):  # reported by check ``schema``
        number = count(context)
    return Looked(number, findings, since(started))


def _readable(findings: Iterator[Finding]) -> Iterator[Finding]:
    """Report what SQLite cannot read: a view instead of a table, a foreign key to columns that are no key."""
    try:
        yield from findings
    except sqlite3.Error as error:
        yield Finding("integrity", "%s: SQLite refuses: %s" % (PREFIXES["integrity"], error))


def _pages(context: Context) -> int:
    return int(context.database.execute("PRAGMA page_count").fetchone()[0])


def _columns(context: Context) -> int:
    tables = context.settings.tables
    return sum(len(context.mapped(table, context.columns).copied) for table in tables)


def _defaults(context: Context) -> int:
    return sum(len(_left_to_defaults(context, table)) for table in context.settings.tables)


def _schema_differences(context: Context) -> Iterator[Finding]:
    for found in differences(context.database, context.schema):
        yield _of_schema(found, context)


def _additions(context: Context) -> Iterator[Finding]:
    filled = [mapping.target_of(table, context.schema) for table in context.settings.tables]
    for found in beyond.additions(context.database, context.schema, filled):
        yield _of_schema(found, context)


def _of_schema(found: SchemaDifference, context: Context) -> Finding:
    """Extra objects may be the application's: warnings, unless this run has just made the database."""
    check = "additions" if found.more else "schema"
    message = "%s: %s" % (PREFIXES[check], found.message)
    return Finding(check, message, found.table, error=context.fresh or not found.more)


def _unsound(context: Context, looking: "Future[Found]") -> Iterator[Finding]:
    try:
        problems = looking.result().problems
    except sqlite3.OperationalError as error:
        # an index of the application's may need its own collation or function
        message = "%s: SQLite cannot look through the whole file here: %s"
        yield Finding("integrity", message % (PREFIXES["integrity"], error), error=context.fresh)
        return
    for problem in problems:
        yield Finding("integrity", "%s: %s" % (PREFIXES["integrity"], problem))


def _dangling(context: Context) -> Iterator[Finding]:
    for violation in foreign_key_violations(context.database):
        message = "%s: (%s, %s, %s, %s)" % (PREFIXES["references"], *violation)
        yield Finding("references", message, violation.table, violation.row, violation.column)


def proved_forms(evidence: Evidence, table: Table) -> FrozenSet[str]:
    """Source columns whose form PostgreSQL's type guarantees, as every cell equals PostgreSQL's value.

    Empty if PostgreSQL was not asked, if its records are not those compared, or if any cell differs.
    """
    context, compared = evidence.context, evidence.tables.get(table.name)
    if context.live is None or compared is None or not compared.result.match:
        return frozenset()
    if table.name in evidence.digests and evidence.digests[table.name].result() != compared.digest:
        return frozenset()
    kinds = {column.name: column.kind for column in context.compared[table.name]}
    return frozenset(
        column.name
        for column in context.live.catalog.columns[table.name]
        if column.kind in forms.BY_KIND and kinds.get(column.name) == column.kind
    )


def _malformed(evidence: Evidence) -> Iterator[Finding]:
    for table in evidence.context.settings.tables:
        yield from _readable(_malformed_cells(evidence, table))


def _malformed_cells(evidence: Evidence, table: Table) -> Iterator[Finding]:
    context, proved = evidence.context, proved_forms(evidence, table)
    mapped = context.mapped(table, context.columns)
    if mapped.copied:
        columns = context.columns_in_sqlite(mapped.target).values()

        def by_itself(column: str, value: object) -> bool:
            """Whether the schema's default writes values of this form."""
            try:
                made = defaults.of_rows(context.schema, mapped.target, (column,))[column]
            except sqlite3.Error:
                return False
            return made.moment and not made.constant and made.is_met(value)

        yield from forms.problems(
            context.database, table, mapped, columns, _given(context, table), proved, by_itself
        )


def _changed_defaults(context: Context) -> Iterator[Finding]:
    for table in context.settings.tables:
        columns = _left_to_defaults(context, table)
        if columns:
            yield from _other_than_default(context, table, context.mapped(table, context.columns), columns)


def _left_to_defaults(context: Context, table: Table) -> List[TargetColumn]:
    mapped, given = context.mapped(table, context.columns), _given(context, table)
    filled = {pair.target.name for pair in mapped.copied if given(pair.source.name)}
    present = context.columns_in_sqlite(mapped.target) if mapped.copied else {}
    return [
        column
        for column in context.schema.columns[mapped.target].values()
        if column.name not in filled and not column.key and column.name.lower() in present
    ]


def _other_than_default(
    context: Context, table: Table, mapped: TableMapping, columns: Sequence[TargetColumn]
) -> Iterator[Finding]:
    """``columns``: those that should hold defaults. A value where the source has NULL is an error."""
    is_single = table.becomes is not None
    check = "user" if is_single else "contents"
    copied = {pair.target.name for pair in mapped.copied}
    names = tuple(column.name for column in columns)
    try:
        of_schema = (defaults.of_row_1 if is_single else defaults.of_rows)(
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
    """The values of a column; for a constant and valid default, only those that differ from it."""
    select, parameters = "SELECT {0} FROM {1}".format(quote(column), quote(table)), ()  # type: str, Sequence[object]
    if default.constant and not default.is_malformed(default.value):
        select += " WHERE {0} COLLATE BINARY IS NOT ? OR typeof({0}) <> typeof(?)".format(quote(column))
        parameters = default.value, default.value
    return database.execute(select, parameters)


def _given(context: Context, table: Table) -> Callable[[str], bool]:
    """Whether the source has a value for a column. NULL counts, unless the column is NOT NULL."""
    if table.becomes is None:
        return lambda column: True
    text = context.records[table.name]
    record = {} if text is None else members(text)
    nulls = msgspec.json.decode(record.get(JSON_NULLS, b"[]"), type=Tuple[str, ...])
    columns = context.schema.columns[mapping.target_of(table, context.schema)]

    def given(column: str) -> bool:
        if column not in record:
            return False
        place = columns.get(column.lower())
        nullable = place is None or not place.not_null
        return nullable or record[column] != b"null" or column in nulls

    return given
