"""Phase 3: the SQLite database checked against the export bundle and the PostgreSQL that it came from.

    python validate_migration.py --user-email you@example.com

Writes validation_report.json to the data folder; exit 1 on any error in it. Changes nothing else.
"""

from __future__ import annotations

import contextlib
import json
import logging
import re
import sqlite3
import sys
import time
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import config
from migration import bundle, console, content, encoding, mapping, report, source, target
from migration.catalog import account_for_tables
from migration.errors import ExitCode, MigrationError
from migration.mapping import Copied, TableMapping
from migration.report import Report, TableResult
from migration.schema import Schema, describe_columns, describe_objects, quote, read_schema
from migration.settings import Settings
from migration.tables import Column, Singleton

log = logging.getLogger("migration.validate")

LISTED = 20  # problems named for each check and column; the count is always whole


class Problem(NamedTuple):
    """Something wrong (``error``) or worth knowing."""

    message: str
    error: bool = True


@dataclass(frozen=True)
class Reference:
    """What the database is held against, gathered from bundle and source.

    ``records``: the JSON text of the user's and the preferences' record, None where there is none.
    """

    user_id: str
    user_email: str
    columns: Mapping[str, Tuple[Column, ...]]
    records: Mapping[str, Optional[bytes]]
    bundle_counts: Optional[Mapping[str, int]]
    source_counts: Optional[Mapping[str, int]]
    export_timestamp: Optional[str]
    orphans_skipped: Mapping[str, int]


@dataclass(frozen=True)
class Context:
    """What every check is handed. ``export``: the verified bundle, where there is one."""

    database: sqlite3.Connection
    settings: Settings
    schema: Schema
    reference: Reference
    export: Optional[bundle.Reader]

    @property
    def mapped(self) -> "Iterator[Tuple[mapping.Mapped, TableMapping]]":
        """Each table that is in the database with the columns that it has there."""
        for table in mapping.everything(self.settings):
            mapped = mapping.map_columns(table, self.reference.columns[table.name], self.schema)
            present = describe_columns(self.database, mapped.target)
            yield (
                table,
                mapped._replace(
                    copied=tuple(pair for pair in mapped.copied if pair.target.name.lower() in present)
                ),
            )


def validate(settings: Settings) -> Report:
    """Check ``settings.sqlite_path`` and write the report.

    Raises MigrationError: exit 2 for the schema, 3 for PostgreSQL (unless ``settings.offline``), 4 for the
    bundle, 5 where there is no database. Differences are no error here: they stand in the report.
    """
    schema = read_schema(settings.schema_path)
    with _database(settings.sqlite_path) as database, _bundle(settings) as export, target.errors(
        settings.sqlite_path
    ):
        context = Context(database, settings, schema, _reference(settings, schema, export), export)
        reference = context.reference
        made = Report(
            datetime.now().isoformat(timespec="seconds"),
            reference.user_email,
            reference.user_id,
            orphans_skipped=dict(reference.orphans_skipped),
            export_timestamp=reference.export_timestamp,
            compared_with=[
                name
                for name, counts in (("bundle", reference.bundle_counts), ("source", reference.source_counts))
                if counts is not None
            ],
        )
        with console.progress("validate", len(settings.tables) + len(CHECKS), "checks") as advance:
            for table in settings.tables:
                started = time.perf_counter()
                made.validation_results[table.name] = _counts(context, table.name)
                made.validation_results[table.name].seconds = time.perf_counter() - started
                advance(1)
            for check in CHECKS:
                started = time.perf_counter()
                for problem in check(context, made):
                    (made.errors if problem.error else made.warnings).append(problem.message)
                log.debug("%s: %.2f s", check.__name__, time.perf_counter() - started)
                advance(1)
    for message in made.errors:
        log.error("%s", message)
    for message in made.warnings:
        log.warning("%s", message)
    path = report.write(made, settings.data_dir)
    log.info("report written to %s", path)
    return made


@contextlib.contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    with target.errors(path):
        if not path.is_file():
            raise target.failed(
                "no database at %s" % path, "run import_to_sqlite.py first, or set --sqlite-path"
            )
        connection = target.open_to_read(path)
        try:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute("BEGIN")  # one state of the database for all checks
            yield connection
        finally:
            connection.close()


# What to hold the database against


@contextlib.contextmanager
def _bundle(settings: Settings) -> Iterator[Optional[bundle.Reader]]:
    """The verified bundle; None where there is none and PostgreSQL can be asked instead."""
    there = (settings.data_dir / name for name in (bundle.MANIFEST, bundle.USER_DATA))
    if not settings.offline and not any(path.exists() for path in there):
        yield None
        return
    with bundle.reading(settings.data_dir, bundle.files(settings.tables), settings.user_email) as export:
        yield export


def _reference(settings: Settings, schema: Schema, export: Optional[bundle.Reader]) -> Reference:
    if export is None:
        return _from_source(settings, None, schema)
    held = _from_bundle(export, settings, schema)
    if settings.offline:
        return held
    live = _from_source(settings, export, schema)
    return replace(
        held,
        columns={**held.columns, **live.columns, **export.manifest.columns},
        source_counts=live.source_counts,
    )


def _from_bundle(export: bundle.Reader, settings: Settings, schema: Schema) -> Reference:
    manifest = export.manifest
    user_data = export.user_data()
    return Reference(
        manifest.user_id,
        manifest.user_email,
        mapping.columns_of(export, settings, schema),
        {
            singleton.name: user_data.get(singleton.member)
            for singleton in (settings.user, settings.preferences)
        },
        manifest.row_counts,
        None,
        manifest.export_timestamp,
        manifest.orphans_skipped,
    )


def _from_source(settings: Settings, export: Optional[bundle.Reader], schema: Schema) -> Reference:
    email = settings.user_email or (export.manifest.user_email if export else None)
    email = email or settings.default_email
    if email is None:
        raise MigrationError(
            "nobody to validate: there is no bundle and no e-mail address",
            hint="--user-email you@example.com, or --data-dir with the bundle",
            exit_code=ExitCode.USAGE,
        )
    skipped = dict(export.manifest.orphans_skipped) if export else {}
    with source.snapshot(settings) as db:
        catalog = source.read_catalog(db)
        account_for_tables(settings, catalog)
        user = source.find_user(db, settings.user.name, email)
        references = dict.fromkeys((*catalog.foreign_keys, *schema.foreign_keys))
        rows = source.Rows(
            db, catalog, user, settings.tables, references, bool(skipped) or settings.skip_orphans
        )
        records: Dict[str, Optional[bytes]] = {}
        for singleton in (settings.user, settings.preferences):
            found = db.rows(
                source.singleton_json(db, catalog, singleton, user).replace(
                    "row_to_json(r)", "row_to_json(r)::text"
                )
            )
            records[singleton.name] = found[0][0].encode("utf-8") if found else None
        return Reference(
            user.id,
            user.email,
            {table.name: catalog.columns[table.name] for table in mapping.everything(settings)},
            records,
            None,
            {table.name: rows.count(table) for table in settings.tables},
            None,
            skipped,
        )


def _counts(context: Context, table: str) -> TableResult:
    reference = context.reference
    present = bool(describe_columns(context.database, table))
    return TableResult(
        reference.source_counts[table]
        if reference.source_counts is not None
        else (reference.bundle_counts or {}).get(table),
        reference.bundle_counts[table] if reference.bundle_counts is not None else None,
        context.database.execute("SELECT count(*) FROM " + quote(table)).fetchone()[0] if present else None,
    )


# Checks: each yields what it finds


def schema_problems(context: Context, made: Report) -> Iterator[Problem]:
    """Tables, indexes, triggers and views are those of the schema file."""
    present = describe_objects(context.database)
    for (kind, name), sql in context.schema.objects.items():
        if (kind, name) not in present:
            yield Problem("Schema: %s %s is missing" % (kind, name))
        elif present[kind, name] != sql:
            yield Problem("Schema: %s %s differs from the schema file" % (kind, name), error=kind == "table")
    for kind, name in present:
        if (kind, name) not in context.schema.objects and not name.startswith("sqlite_"):
            yield Problem("Schema: %s %s is not in the schema file" % (kind, name), error=False)
    for problem in target.integrity_problems(context.database):
        yield Problem("Integrity: %s" % problem)


def count_mismatches(context: Context, made: Report) -> Iterator[Problem]:
    """As many rows in SQLite as were exported, and in the source as when it was exported."""
    for name, result in made.validation_results.items():
        expected = result.bundle_count if result.bundle_count is not None else result.pg_count
        if result.sqlite_count is not None and result.sqlite_count != expected:
            yield Problem(
                "Row count mismatch in %s: PG=%s, SQLite=%s" % (name, expected, result.sqlite_count)
            )
        if result.bundle_count is not None and result.pg_count != result.bundle_count:
            yield Problem(
                "Source has changed since the export of %s: %s has %s rows now, %s then; migrate again to take them over"
                % (context.reference.export_timestamp, name, result.pg_count, result.bundle_count)
            )
    for name, rows in context.reference.orphans_skipped.items():
        yield Problem(
            "Left out of %s by --orphans skip: %d rows that refer to rows of others" % (name, rows),
            error=False,
        )


def dangling_references(context: Context, made: Report) -> Iterator[Problem]:
    """Every foreign key leads to a row."""
    found = list(target.foreign_key_violations(context.database))
    for violation in found[:LISTED]:
        yield Problem("Foreign key violation: (%s, %s, %s, %s)" % violation)
    if len(found) > LISTED:
        yield Problem("Foreign key violation: %d more" % (len(found) - LISTED))


def content_differences(context: Context, made: Report) -> Iterator[Problem]:
    """Every cell is what the bundle's record says, and there is a row for each record and no other."""
    if context.export is None:
        yield Problem(
            "Contents were not compared: there is no bundle, only the source's row counts", error=False
        )
        return
    for table, mapped in context.mapped:
        if isinstance(table, Singleton) or not mapped.copied:
            continue
        key = content.key_columns(context.database, mapped)
        if not key:
            yield Problem(
                "Contents of %s were not compared: no primary key to pair rows by" % mapped.target,
                error=False,
            )
            continue
        columns = context.reference.columns[table.name]
        if table.name not in context.export.manifest.columns:
            columns = mapping.columns_of(context.export, context.settings, context.schema)[table.name]
            mapped = mapping.map_columns(table, columns, context.schema)
        decode = encoding.record_decoder(columns)
        try:
            records: Iterator[Any] = context.export.records(table.file, decode)
            yield from _listed(table.name, content.differences(context.database, mapped, columns, records))
        except content.Unordered:
            texts = context.export.records(table.file, bytes)
            records = (decode(text) for text in content.ordered(texts, context.database, mapped))
            yield from _listed(table.name, content.differences(context.database, mapped, columns, records))


def _listed(table: str, found: Iterator[content.Difference]) -> Iterator[Problem]:
    """The first of a table's differences, and how many more. Nothing before all are known to be in order."""
    first: List[Problem] = []
    total = 0
    for difference in found:
        total += 1
        if total <= LISTED:
            cell = ", column %s" % difference.column if difference.column else ""
            first.append(
                Problem(
                    "Difference: %s %s%s: %s" % (difference.table, difference.row, cell, difference.message)
                )
            )
    yield from first
    if total > LISTED:
        yield Problem("Difference: %s: %d more" % (table, total - LISTED))


def json_problems(context: Context, made: Report) -> Iterator[Problem]:
    """JSON columns hold JSON, of the structure that config declares, and NULL only where the source may."""
    for table, mapped in context.mapped:
        for pair in mapped.copied:
            declared = table.json_types.get(pair.source.name)
            if pair.source.kind not in encoding.STRUCTURED and declared is None:
                continue
            wanted = declared or object

            def fault(value: Any, wanted: type = wanted) -> Optional[str]:
                if not isinstance(value, str):
                    return "is not JSON text"
                try:
                    parsed = json.loads(value)
                except ValueError:
                    return "is not valid JSON"
                except RecursionError:  # deeper than Python reads; SQLite and PostgreSQL took it
                    return None
                return (
                    None
                    if isinstance(parsed, wanted)
                    else "is JSON but not %s" % _JSON_NAMES.get(wanted, wanted.__name__)
                )

            suspicious = "typeof({0}) <> 'text' OR NOT json_valid({0})"
            if wanted is list:
                suspicious += " OR json_type({0}) <> 'array'"
            elif wanted is dict:
                suspicious += " OR json_type({0}) <> 'object'"
            yield from _cells(context, mapped, pair, _present(suspicious), fault, "JSON")


_JSON_NAMES: Mapping[type, str] = {list: "a list", dict: "an object"}


def type_problems(context: Context, made: Report) -> Iterator[Problem]:
    """Values are of their column's type and in its form and range."""
    for table, mapped in context.mapped:
        for pair in mapped.copied:
            if isinstance(table, Singleton) and not _given(context, table, pair.source.name):
                continue  # the schema's default, in the form that the application gave it
            if pair.source.not_null or pair.target.not_null:
                yield from _cells(
                    context, mapped, pair, "{0} IS NULL", lambda value: "is NULL", "Required value missing"
                )
            form = _FORMS.get(pair.source.kind)
            if form is not None:
                suspicious, fault = form
                yield from _cells(context, mapped, pair, _present(suspicious), fault, "Type")
            limits = table.ranges.get(pair.source.name)
            if limits is not None:
                outside = "NOT (typeof({0}) IN ('real', 'integer') AND {0} BETWEEN %r AND %r)" % limits
                yield from _cells(context, mapped, pair, _present(outside), _outside(*limits), "Range")


def user_data_problems(context: Context, made: Report) -> Iterator[Problem]:
    """Password hash, account timestamps and preferences are the user's, in one row each."""
    for singleton in (context.settings.user, context.settings.preferences):
        if singleton.target not in context.schema.columns or not describe_columns(
            context.database, singleton.target
        ):
            continue  # reported with the schema
        rows = context.database.execute("SELECT count(*) FROM %s" % quote(singleton.target)).fetchone()[0]
        if rows != 1:
            yield Problem("User data: %s holds %d rows, not 1" % (singleton.target, rows))
            continue
        record = context.reference.records.get(singleton.name)
        if record is not None:
            yield from _singleton_differences(context, singleton, record)


CHECKS: Tuple[Callable[[Context, Report], Iterator[Problem]], ...] = (
    schema_problems,
    count_mismatches,
    dangling_references,
    content_differences,
    json_problems,
    type_problems,
    user_data_problems,
)


# Cells


def _cells(
    context: Context,
    mapped: TableMapping,
    pair: Copied,
    suspicious: str,
    fault: Callable[[Any], Optional[str]],
    what: str,
) -> Iterator[Problem]:
    """SQL picks the cells of a column ``{0}`` that look wrong, ``fault`` judges them. Values are never shown."""
    column = quote(pair.target.name)
    rows = context.database.execute(
        "SELECT {id}, {column} FROM {table} WHERE {suspicious} ORDER BY 1".format(
            id=_row_name(context.database, mapped.target),
            column=column,
            table=quote(mapped.target),
            suspicious=suspicious.format(column),
        )
    )
    found = 0
    for name, value in rows:
        problem = fault(value)
        if problem:
            found += 1
            if found <= LISTED:
                yield Problem(
                    "%s: %s %s, column %s %s" % (what, mapped.target, name, pair.target.name, problem)
                )
    if found > LISTED:
        yield Problem("%s: %s, column %s: %d more" % (what, mapped.target, pair.target.name, found - LISTED))


def _row_name(database: sqlite3.Connection, table: str) -> str:
    """SQL expression that names a row: its id, else the first column of its primary key, else its rowid."""
    described = database.execute("PRAGMA table_info(%s)" % quote(table)).fetchall()
    names = [row[1] for row in described if row[1] == "id"] + [row[1] for row in described if row[5] == 1]
    return quote(names[0]) if names else "rowid"


def _present(suspicious: str) -> str:
    return "{0} IS NOT NULL AND (%s)" % suspicious


def _digits(pattern: str) -> str:
    return pattern.replace("#", "[0-9]").replace("%", "%%")


_DATE, _CLOCK = "####-##-##", "##:##:##"
_FRACTION = ".######"


def _globs(*patterns: str) -> str:
    """Suspicious: none of the plain forms, in which only a wrong calendar date could hide."""
    plain = " OR ".join("{0} GLOB '%s'" % _digits(pattern) for pattern in patterns)
    return "typeof({0}) <> 'text' OR NOT (%s)" % plain


_SIGNED_DATE = r"(?:\d{4}|-\d{4,}|\+\d{5,})-(\d\d)-(\d\d)"
_TIME = r"(?:([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d{6})?|24:00:00)"
_ZONE = r"[+-]\d\d:\d\d(:\d\d)?"


def _form(pattern: str, name: str, extra: Tuple[str, ...] = ()) -> Callable[[Any], Optional[str]]:
    matches = re.compile(pattern).fullmatch

    def fault(value: Any) -> Optional[str]:
        if isinstance(value, str) and (value in extra or matches(value)):
            date = re.match(r"(\d{4})-(\d\d)-(\d\d)", value)
            if date is None:
                return None
            try:
                datetime(max(int(date[1]), 1) if date[1] != "0000" else 4, int(date[2]), int(date[3]))
            except ValueError:
                return "is not %s" % name
            return None
        return "is not %s" % name

    return fault


_INFINITE = ("infinity", "-infinity")
_NOT_A_CALENDAR_DATE = " OR date(substr({0}, 1, 10)) IS NOT substr({0}, 1, 10)"

# kind → (SQL that picks the suspicious cells, judge)
_FORMS: Mapping[str, Tuple[str, Callable[[Any], Optional[str]]]] = {
    "uuid": (
        "typeof({0}) <> 'text' OR length({0}) <> 36 OR {0} NOT GLOB '%s'"
        % "-".join("[0-9a-f]" * length for length in (8, 4, 4, 4, 12)),
        _form(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", "a UUID"),
    ),
    "boolean": ("typeof({0}) <> 'integer' OR {0} NOT IN (0, 1)", lambda value: "is not 0 or 1"),
    "integer": (
        "typeof({0}) <> 'integer'",
        lambda value: (
            None
            if (isinstance(value, float) and value.is_integer())
            or (isinstance(value, str) and re.fullmatch(r"-?\d+", value))  # in a TEXT column
            else "is not an integer"
        ),
    ),
    "numeric": (
        "typeof({0}) NOT IN ('real', 'integer')",
        lambda value: (
            None
            if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?|NaN|-?Infinity", value)
            else "is not a number"
        ),
    ),
    "date": (_globs(_DATE) + _NOT_A_CALENDAR_DATE, _form(_SIGNED_DATE, "an ISO 8601 date", _INFINITE)),
    "time": (_globs(_CLOCK, _CLOCK + _FRACTION), _form(_TIME, "an ISO 8601 time")),
    "timetz": (_globs(_CLOCK + "+##:##"), _form(_TIME + _ZONE, "an ISO 8601 time")),
    "timestamp": (
        _globs(_DATE + "T" + _CLOCK, _DATE + "T" + _CLOCK + _FRACTION) + _NOT_A_CALENDAR_DATE,
        _form(_SIGNED_DATE + "T" + _TIME, "an ISO 8601 timestamp", _INFINITE),
    ),
    "timestamptz": (
        _globs(_DATE + "T" + _CLOCK + "+00:00", _DATE + "T" + _CLOCK + _FRACTION + "+00:00")
        + _NOT_A_CALENDAR_DATE,
        _form(_SIGNED_DATE + "T" + _TIME + _ZONE, "an ISO 8601 timestamp", _INFINITE),
    ),
}


def _outside(lowest: float, highest: float) -> Callable[[Any], Optional[str]]:
    return lambda value: "is not between %g and %g" % (lowest, highest)


# Singletons


def _given(context: Context, singleton: Singleton, column: str) -> bool:
    """Whether the source has a value there."""
    record = context.reference.records.get(singleton.name)
    return record is not None and json.loads(record.decode("utf-8")).get(column) is not None


def _singleton_differences(context: Context, singleton: Singleton, record: bytes) -> Iterator[Problem]:
    expected = json.loads(record.decode("utf-8"), parse_float=Decimal)
    present = describe_columns(context.database, singleton.target)
    for pair in mapping.map_columns(singleton, _columns(context, singleton, expected), context.schema).copied:
        if pair.target.name.lower() not in present:
            continue
        found = context.database.execute(
            "SELECT %s FROM %s WHERE id = 1" % (quote(pair.target.name), quote(singleton.target))
        ).fetchone()
        value = expected[pair.source.name]
        json_null = pair.source.name in expected.get(encoding.JSON_NULLS, ())
        if found is None:
            yield Problem("User data: %s has no row 1" % singleton.target)
            return
        if value is None and not json_null and pair.target.not_null:
            continue  # left to the schema's default
        if not _same(pair.source.kind, value, found[0], json_null):
            yield Problem("User data: %s.%s is not the user's" % (singleton.target, pair.target.name))


def _columns(context: Context, singleton: Singleton, record: Mapping[str, Any]) -> Sequence[Column]:
    known = context.reference.columns[singleton.name]
    return known or encoding.undeclared([name for name in record if name != encoding.JSON_NULLS])


def _same(kind: str, expected: Any, found: Any, json_null: bool) -> bool:
    """Whether a SQLite value says what the record's JSON value says; written apart from the import's conversions."""
    if expected is None and not json_null:
        return found is None
    if found is None:
        return False
    if isinstance(expected, (dict, list)) or json_null or kind in encoding.STRUCTURED:
        try:
            return bool(json.loads(found, parse_float=Decimal) == expected)
        except (TypeError, ValueError):
            return False
    if isinstance(expected, bool):
        return type(found) is int and found == int(expected)
    if isinstance(expected, (int, Decimal)):
        return isinstance(found, (int, float, str)) and Decimal(str(found)) == expected
    if kind in ("timestamp", "timestamptz", "time", "timetz"):
        return _without_fraction_zeros(str(found)) == _without_fraction_zeros(expected)
    return bool(found == expected)


def _without_fraction_zeros(text: str) -> str:
    return re.sub(r"\.(\d*?)0*(?=$|[+-])", lambda found: "." + found[1] if found[1] else "", text)


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = console.parser(__doc__ or "")
    console.add_user(parser)
    console.add_source(parser)
    console.add_target(parser)
    console.add_schema(parser)
    console.add_offline(parser)
    return console.run(
        lambda args: conclude(validate(console.settings(args, config))), parser.parse_args(argv), config
    )


def conclude(made: Report) -> int:
    """Print the verdict and return the exit code."""
    console.summary(
        "Validation: %s" % ("PASS" if made.passed else "FAIL, %d errors" % len(made.errors)),
        ("table", "PostgreSQL", "bundle", "SQLite", "match"),
        [
            (name, result.pg_count, result.bundle_count, result.sqlite_count, result.match)
            for name, result in made.validation_results.items()
        ],
    )
    return ExitCode.DONE if made.passed else ExitCode.DIFFERENCES


if __name__ == "__main__":
    sys.exit(main())
