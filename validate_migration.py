"""Phase 3: the SQLite database proved equal to the export bundle, and that to the PostgreSQL that it came from.

    python validate_migration.py --user-email you@example.com

Writes validation_report.json and validation_report.html to the data folder; exit 1 on any error in them.
Changes nothing else.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import operator
import platform
import sqlite3
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import (
    Any,
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
)

import msgspec

import config
from migration import bundle, cells, console, content, encoding, mapping, report, schema, source, target
from migration.errors import ExitCode
from migration.mapping import Mapped, TableMapping
from migration.ownership import Rows, rows_of_user
from migration.report import PREFIXES, Changes, Finding, Report, TableResult
from migration.schema import Schema, quote, read_schema
from migration.settings import Settings
from migration.source import Digest, Digester
from migration.tables import Column, Singleton, Table

log = logging.getLogger("migration.validate")

STEP = 1000  # records between two steps of the progress bar
LOOKED_UP = 1000  # rows too many of which PostgreSQL is asked whose they are
Columns = Mapping[str, Tuple[Column, ...]]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Context:
    """What every check is handed.

    ``export``: the verified bundle; ``live``: the user's rows in PostgreSQL; at least one of them is there.
    ``held``: the columns of the bundle's records; ``columns``: the best that is known of the source's columns.
    ``records``: the JSON text of the user's and the preferences' record, None where there is none.
    """

    database: sqlite3.Connection
    settings: Settings
    schema: Schema
    export: Optional[bundle.Reader]
    live: Optional[Rows]
    held: Columns
    columns: Columns
    records: Mapping[str, Optional[bytes]]
    fingerprint: content.Describe = field(default_factory=content.fingerprinter)

    @property
    def against(self) -> str:
        """What SQLite's cells are compared with."""
        return _against(self.settings, self.export)

    @property
    def compared(self) -> Columns:
        """The columns of the records that SQLite's cells are compared with."""
        if self.against == "bundle":
            return self.held
        assert self.live is not None
        return self.live.catalog.columns

    @property
    def user_id(self) -> str:
        if self.export is not None:
            return self.export.manifest.user_id
        assert self.live is not None
        return self.live.user.id

    def has_table(self, table: str) -> bool:
        """Whether there is a table of that name; a view in its place is none."""
        found = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND lower(name) = lower(?)"
        return self.database.execute(found, (table,)).fetchone() is not None

    def mapped(self, table: Mapped, columns: Columns) -> TableMapping:
        """The columns of ``table`` that the database has."""
        made = mapping.map_columns(table, columns[table.name], self.schema)
        present = schema.describe_columns(self.database, made.target) if self.has_table(made.target) else {}
        return made._replace(
            copied=tuple(pair for pair in made.copied if pair.target.name.lower() in present)
        )


def validate(settings: Settings) -> Report:
    """Check ``settings.sqlite_path`` and write the report.

    Raises MigrationError: exit 2 for the schema, 3 for PostgreSQL (unless ``settings.offline``), 4 for the
    bundle, 5 where there is no database. Differences are no error here: they stand in the report.
    """
    started = time.perf_counter()
    expected = read_schema(settings.schema_path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(target.errors(settings.sqlite_path))
        database, other = stack.enter_context(target.opened_twice(settings.sqlite_path))
        export = stack.enter_context(_bundle(settings))
        live = stack.enter_context(_live(settings, expected, export))
        context = _context(database, settings, expected, export, live)
        made = _new_report(context)
        pool = stack.enter_context(ThreadPoolExecutor(2))
        # While the cells are compared here, SQLite looks through its file and PostgreSQL adds up its digests.
        other.text_factory = target.any_text
        scan = pool.submit(_scan, replace(context, database=other))
        digests = _digests(context, pool)
        try:
            made.findings += _compare(context, digests, made)
            made.findings += _singletons(context, made)
            made.findings += _left_out(made)
            made.findings += scan.result()
        except BaseException:
            other.interrupt()
            for digest in digests.values():
                digest.cancel()
            if live is not None:
                live.db.cancel()
            raise
    made.seconds = time.perf_counter() - started
    for message in made.errors:
        log.error("%s", message)
    for message in made.warnings:
        log.warning("%s", message)
    for path in report.write(made, settings.data_dir):
        log.info("report written to %s", path)
    return made


# What to hold the database against


@contextlib.contextmanager
def _bundle(settings: Settings) -> Iterator[Optional[bundle.Reader]]:
    """The verified bundle; None where there is none and PostgreSQL can be asked instead."""
    needed = settings.offline or settings.against == "bundle"
    there = (settings.data_dir / name for name in (bundle.MANIFEST, bundle.USER_DATA))
    if not needed and not any(path.exists() for path in there):
        yield None
        return
    with bundle.reading(settings.data_dir, bundle.files(settings.tables), settings.user_email) as export:
        yield export


@contextlib.contextmanager
def _live(settings: Settings, expected: Schema, export: Optional[bundle.Reader]) -> Iterator[Optional[Rows]]:
    """The user's rows in PostgreSQL, by the rules that the bundle was made by."""
    if settings.offline:
        yield None
        return
    email = settings.user_email or (export.manifest.user_email if export else settings.default_email)
    skipped = bool(export.manifest.orphans_skipped) if export else settings.skip_orphans
    with source.snapshot(settings) as db:
        yield rows_of_user(db, settings, expected, email, skipped)


def _against(settings: Settings, export: Optional[bundle.Reader]) -> str:
    return settings.against or ("source" if export is None else "bundle")


def _context(
    database: sqlite3.Connection,
    settings: Settings,
    expected: Schema,
    export: Optional[bundle.Reader],
    live: Optional[Rows],
) -> Context:
    held: Columns = {} if export is None else mapping.columns_of(export, settings, expected)
    typed: Columns = {} if export is None else export.manifest.columns
    now: Columns = {} if live is None else live.catalog.columns
    singletons = (settings.user, settings.preferences)
    if export is not None and _against(settings, export) == "bundle":
        members = export.user_data()
        records = {singleton.name: members.get(singleton.member) for singleton in singletons}
    else:
        assert live is not None
        records = {singleton.name: live.record(singleton) for singleton in singletons}
    return Context(database, settings, expected, export, live, held, {**held, **now, **typed}, records)


def _new_report(context: Context) -> Report:
    export, live = context.export, context.live
    environment: Dict[str, Any] = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "platform": platform.platform(),
        "database_bytes": context.settings.sqlite_path.stat().st_size,
    }
    made = Report(
        timestamp=datetime.now().isoformat(timespec="seconds"),
        user_id=context.user_id,
        against=context.against,
        strict=context.settings.strict,
        values_shown=context.settings.show_values,
        environment=environment,
    )
    if live is not None:
        made.compared_with.append("source")
        made.user_email = live.user.email
        environment["postgresql"] = live.db.value("SHOW server_version")
    if export is not None:
        made.compared_with.insert(0, "bundle")
        manifest = export.manifest
        made.user_email = manifest.user_email
        made.export_timestamp = manifest.export_timestamp
        made.orphans_skipped = dict(manifest.orphans_skipped)
        made.bundle = {
            name: {"sha256": checksum.lower(), "bytes": (export.folder / name).stat().st_size}
            for name, checksum in manifest.checksums.items()
        }
        environment["exported_from_postgresql"] = manifest.server_version or None
    return made


# Contents, table by table


class Compared(NamedTuple):
    """What one walk through a table's records and rows gave. ``differences``: all of them, listed or not."""

    digest: Digest
    cells: int
    differences: int
    findings: List[Finding]


def _digests(context: Context, pool: ThreadPoolExecutor) -> "Dict[str, Future[Digest]]":
    """What PostgreSQL adds up meanwhile, of every table that the bundle has too."""
    live = context.live
    if live is None or context.export is None:
        return {}
    return {table.name: pool.submit(live.digest, table) for table in context.settings.tables}


def _compare(context: Context, digests: "Mapping[str, Future[Digest]]", made: Report) -> Iterator[Finding]:
    """Compare every table, and fill ``made.validation_results`` and ``made.source_changes``."""
    export, tables = context.export, context.settings.tables
    total = sum(export.manifest.row_counts[table.name] for table in tables) if export else None
    with console.progress("validate", total) as advance:
        for table in tables:
            started = time.perf_counter()
            result = TableResult(None, None, _count(context, table.name))
            made.validation_results[table.name] = result
            walk = functools.partial(_compare_table, context, table, advance)
            compared = _legibly(context, functools.partial(_either_order, table, walk))
            yield from compared.findings
            result.cells, result.differences = compared.cells, compared.differences
            result.pg_count = expected = compared.digest.rows
            if export is not None:
                result.bytes = (export.folder / table.file).stat().st_size
                held = compared.digest if context.against == "bundle" else _bundle_digest(export, table)
                result.bundle_count = held.rows
                counted = export.manifest.row_counts[table.name]
                if held.rows != counted:
                    message = "%s has %d records; the manifest says %d" % (table.file, held.rows, counted)
                    raise bundle.damaged(message)
                if table.name in digests:
                    live = digests[table.name].result()
                    result.pg_count = live.rows
                    if live != held:
                        yield from _source_findings(context, table, made)
            if result.sqlite_count not in (None, expected):
                message = "%s in %s: PG=%s, SQLite=%s"
                counts = (PREFIXES["counts"], table.name, expected, result.sqlite_count)
                yield Finding("counts", message % counts, table.name)
            result.seconds = time.perf_counter() - started
            log.debug("compared %s: %d rows in %.1f s", table.name, expected, result.seconds)


def _count(context: Context, table: str) -> Optional[int]:
    if not context.has_table(table):
        return None
    return int(context.database.execute("SELECT count(*) FROM " + quote(table)).fetchone()[0])


def _either_order(table: Table, walk: Callable[[bool], Result]) -> Result:
    """Records in another order than SQLite's are sorted first: a bundle's made elsewhere, or the source's by its own keys."""
    try:
        return walk(False)
    except content.Unordered:
        pass
    try:
        return walk(True)
    except content.Unordered:
        raise bundle.damaged("%s has two records of the same primary key" % table.name) from None


def _legibly(context: Context, walk: Callable[[], Result]) -> Result:
    """Text that is not UTF-8 is a difference, not the end; reading all text so that it can be costs time."""
    try:
        return walk()
    except sqlite3.OperationalError as error:
        if "Could not decode" not in str(error):
            raise
    context.database.text_factory = target.any_text
    return walk()


def _compare_table(context: Context, table: Table, advance: Callable[[int], None], sort: bool) -> Compared:
    settings, columns = context.settings, context.compared[table.name]
    mapped = context.mapped(table, context.compared)
    decode, digester = encoding.record_decoder(columns), Digester()
    is_strange = _strange(context, table)
    strange = Listing("isolation", table.name, settings.max_differences)

    def read(text: bytes) -> Any:
        record = decode(text)
        digester.add(text)
        if is_strange is not None and is_strange(record):
            strange.add(_stranger(table, columns, record))
        if digester.rows % STEP == 0:
            advance(STEP)
        return record

    records = _bundle_records if context.against == "bundle" else _live_records
    with records(context, table, mapped, read, sort) as read_records:
        found, differences, extra = _walk(context, table, mapped, read_records)
    found += strange.findings
    found += _strangers_rows(context, table, extra)
    return Compared(
        digester.digest,
        0 if differences is None else digester.rows * len(mapped.copied),
        differences or 0,
        found,
    )


def _walk(
    context: Context, table: Table, mapped: TableMapping, records: Iterator[Any]
) -> Tuple[List[Finding], Optional[int], List[str]]:
    """The first differences, how many there are (None: rows cannot be paired with records), the first rows too many."""
    if not content.key_columns(context.database, mapped):
        collections.deque(records, maxlen=0)  # read and added up all the same
        message = "%s: contents of %s were not compared: no primary key to pair rows by"
        found = Finding("contents", message % (PREFIXES["contents"], table.name), table.name, error=False)
        return [found] if mapped.copied else [], None, []
    show = content.shortened if context.settings.show_values else context.fingerprint
    listing = Listing("contents", table.name, context.settings.max_differences)
    extra: List[str] = []
    for difference in content.differences(
        context.database, mapped, context.compared[table.name], records, show, table.json_types
    ):
        listing.add(_difference(table.name, difference))
        if difference.message == content.EXTRA and len(extra) < LOOKED_UP:
            extra.append(difference.row)
    return listing.findings, listing.total, extra


@contextlib.contextmanager
def _bundle_records(
    context: Context, table: Table, mapped: TableMapping, read: Callable[[bytes], Any], sort: bool
) -> Iterator[Iterator[Any]]:
    """The bundle's records, ``read``; in SQLite's order with ``sort``."""
    export = context.export
    assert export is not None
    if not sort:
        yield export.records(table.file, read)
        return
    decode = encoding.record_decoder(context.held[table.name])

    def checked(text: bytes) -> bytes:
        decode(text)
        return text

    yield map(read, content.ordered(export.records(table.file, checked), context.database, mapped))


@contextlib.contextmanager
def _live_records(
    context: Context, table: Table, mapped: TableMapping, read: Callable[[bytes], Any], sort: bool
) -> Iterator[Iterator[Any]]:
    """PostgreSQL's records, ``read``; in SQLite's order with ``sort``."""
    assert context.live is not None
    with contextlib.closing(context.live.records(table)) as texts:
        in_order = content.ordered(texts, context.database, mapped) if sort else texts
        yield map(bundle.deep(read), in_order)


def _bundle_digest(export: bundle.Reader, table: Table) -> Digest:
    digester = Digester()
    decode = msgspec.json.Decoder(msgspec.Raw).decode

    def read(text: bytes) -> None:
        decode(text)
        digester.add(text)

    collections.deque(export.records(table.file, read), maxlen=0)
    return digester.digest


def _difference(table: str, difference: content.Difference) -> Finding:
    cell = ", column %s" % difference.column if difference.column else ""
    message = "%s: %s %s%s: %s" % (PREFIXES["contents"], table, difference.row, cell, difference.message)
    return Finding("contents", message, table, difference.row, difference.column)


class Listing:
    """The first findings of one check in one table, and how many there are. All are errors, or none is."""

    def __init__(self, check: str, table: Optional[str], listed: int, error: bool = True) -> None:
        self.total = 0
        self._check, self._table, self._listed, self._error = check, table, listed, error
        self._first: List[Finding] = []

    def add(self, finding: Finding) -> None:
        self.total += 1
        if self.total <= self._listed:
            self._first.append(finding)

    @property
    def findings(self) -> List[Finding]:
        more = self.total - len(self._first)
        if not more:
            return self._first
        where = self._table + ": " if self._table else ""
        message = "%s: %s%d more" % (PREFIXES[self._check], where, more)
        return [*self._first, Finding(self._check, message, self._table, error=self._error, count=more)]


# Whose records and rows


def _strange(context: Context, table: Table) -> Optional[Callable[[Any], bool]]:
    """Whether a record is another user's, by its owner column; None where the table has none."""
    names = [column.name for column in context.compared[table.name]]
    if table.owner is None or table.owner not in names:
        return None
    owner = operator.attrgetter("c%d" % names.index(table.owner))
    mine = (context.user_id, None) if table.ownership.or_shared else (context.user_id,)
    return lambda record: owner(record) not in mine and _text(owner(record)) not in mine


def _text(value: Any) -> Optional[str]:
    plain = msgspec.json.decode(bytes(value)) if isinstance(value, msgspec.Raw) else value
    return None if plain is None else str(plain).rstrip()  # char(n) is padded


def _stranger(table: Table, columns: Sequence[Column], record: Any) -> Finding:
    names = [column.name for column in columns]
    row = _text(getattr(record, "c%d" % (names.index("id") if "id" in names else 0)))
    message = "%s: %s %s belongs to another user" % (PREFIXES["isolation"], table.name, row)
    return Finding("isolation", message, table.name, row, table.owner)


def _strangers_rows(context: Context, table: Table, rows: Sequence[str]) -> List[Finding]:
    """Of the rows that SQLite has too many, those that PostgreSQL has for another user."""
    listing = Listing("isolation", table.name, context.settings.max_differences)
    for row in context.live.strangers(table, rows) if context.live is not None else []:
        message = "%s: %s %s is a row of another user" % (PREFIXES["isolation"], table.name, row)
        listing.add(Finding("isolation", message, table.name, row))
    return listing.findings


# The source since the export


def _source_findings(context: Context, table: Table, made: Report) -> Iterator[Finding]:
    """What PostgreSQL holds now that the bundle does not, or the other way round."""
    live = context.live
    assert live is not None
    since = "%s %s: %s" % (PREFIXES["source"], made.export_timestamp, table.name)
    now = live.catalog.columns
    names, names_now = (
        {pair.source.name for pair in mapping.map_columns(table, side[table.name], context.schema).copied}
        for side in (context.held, now)
    )
    for name in sorted(names ^ names_now):
        what = "has a new column %s" if name in names_now else "has no column %s any more"
        yield Finding("source", "%s %s" % (since, what % name), table.name, column=name)
    mapped = context.mapped(table, context.held)
    mapped = mapped._replace(copied=tuple(p for p in mapped.copied if p.source.name in names_now))
    sides = (mapped, context.mapped(table, now))
    if not all(content.key_columns(context.database, side) for side in sides):
        yield Finding("source", since + " holds other rows; migrate again to take them over", table.name)
        return

    def walk(sort: bool) -> Changes:
        found = Changes()
        columns, columns_now = context.held[table.name], now[table.name]
        decode, decode_now = (encoding.record_decoder(listed) for listed in (columns, columns_now))
        with _bundle_records(context, table, mapped, decode, sort) as then, _live_records(
            context, table, mapped, decode_now, sort
        ) as live_records:
            for kind, row in content.changes(
                context.database, mapped, (columns, then), (columns_now, live_records)
            ):
                found.add(kind, row, context.settings.max_differences)
        return found

    changes = _either_order(table, walk)
    if changes:
        made.source_changes[table.name] = changes
        yield Finding("source", "%s %s; migrate again to take them over" % (since, changes), table.name)
        message = PREFIXES["isolation"] + ": %s %s of the bundle is another user's now"
        for row in live.strangers(table, changes.removed.ids):
            yield Finding("isolation", message % (table.name, row), table.name, row)


# The user's own row and the preferences


def _singletons(context: Context, made: Report) -> Iterator[Finding]:
    """Password hash, account timestamps and preferences are the user's, in one row each."""
    for singleton in (context.settings.user, context.settings.preferences):
        prefix = "%s: %s" % (PREFIXES["user"], singleton.target)
        if not context.has_table(singleton.target):
            continue  # reported with the schema
        rows = _count(context, singleton.target)
        if rows != 1:
            yield Finding("user", "%s holds %s rows, not 1" % (prefix, rows), singleton.target)
        elif context.records[singleton.name] is not None:
            yield from _singleton_differences(context, singleton, prefix)
        if context.export is not None and context.live is not None:
            yield from _singleton_changes(context, singleton, made)


def _singleton_differences(context: Context, singleton: Singleton, prefix: str) -> Iterator[Finding]:
    columns, text = context.compared[singleton.name], context.records[singleton.name]
    mapped = context.mapped(singleton, context.compared)
    assert text is not None
    record = _decoded(columns, text)
    owner = next((i for i, column in enumerate(columns) if column.name == singleton.owner), None)
    if owner is not None and _text(getattr(record, "c%d" % owner)) != context.user_id:
        message = "%s: the record of %s belongs to another user" % (PREFIXES["isolation"], singleton.name)
        yield Finding("isolation", message, singleton.name, column=singleton.owner)
    if not mapped.copied:
        return
    compared = content.Cells(mapped, columns, singleton.json_types)
    names = ", ".join(quote(pair.target.name) for pair in compared.pairs)
    row = context.database.execute(
        "SELECT %s FROM %s WHERE id = 1" % (names, quote(mapped.target))
    ).fetchone()
    if row is None:
        yield Finding("user", "%s has no row 1" % prefix, mapped.target)
        return
    values = compared.take(record)
    default = {
        pair.target.name
        for pair, value in zip(compared.pairs, values)
        if content.is_null(value) and pair.target.not_null and pair.source.name not in record.json_nulls
    }  # left to the schema
    for column, message in compared.unequal(
        record, values, row, context.fingerprint
    ):  # never the hash itself
        if column not in default:
            yield Finding(
                "user", "%s.%s is not the user's: %s" % (prefix, column, message), mapped.target, "1", column
            )


def _singleton_changes(context: Context, singleton: Singleton, made: Report) -> Iterator[Finding]:
    export, live = context.export, context.live
    assert export is not None and live is not None
    then, now = export.user_data().get(singleton.member), live.record(singleton)
    if then == now:
        return
    changes = Changes()
    if then is None or now is None:
        changes.add("added" if then is None else "removed", live.user.id, 1)
        what = str(changes)
    else:
        held, today = context.held[singleton.name], live.catalog.columns[singleton.name]
        changed = content.changed_columns(context.mapped(singleton, context.held), held, today)
        columns = changed(_decoded(held, then), _decoded(today, now))
        if not columns:
            return
        changes.add("changed", live.user.id, 1)
        what = "%s changed" % ", ".join(columns)
    made.source_changes[singleton.name] = changes
    message = "%s %s: %s %s; migrate again to take it over"
    yield Finding(
        "source", message % (PREFIXES["source"], made.export_timestamp, singleton.name, what), singleton.name
    )


def _decoded(columns: Sequence[Column], text: bytes) -> Any:
    try:
        return encoding.record_decoder(columns)(text)
    except msgspec.DecodeError as error:
        raise bundle.damaged("%s is damaged: %s" % (bundle.USER_DATA, error)) from error


def _left_out(made: Report) -> Iterator[Finding]:
    for name, rows in made.orphans_skipped.items():
        message = "%s %s by --orphans skip: %d rows that refer to rows of others"
        yield Finding("orphans", message % (PREFIXES["orphans"], name, rows), name, error=False, count=rows)


# The database itself


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
        yield Finding("integrity", "%s: SQLite refuses: %s" % (PREFIXES["integrity"], error))


def _scan(context: Context) -> List[Finding]:
    found: List[Finding] = []
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


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = console.parser(__doc__ or "")
    console.add_user(parser)
    console.add_source(parser)
    console.add_target(parser)
    console.add_schema(parser)
    console.add_orphans(parser)
    console.add_validation(parser)
    arguments = parser.parse_args(argv)
    console.check_validation(parser, arguments)
    return console.run(lambda args: _main(console.settings(args, config)), arguments, config)


def _main(settings: Settings) -> int:
    return conclude(validate(settings), settings)


def conclude(made: Report, settings: Settings) -> int:
    """Print the verdict, or the report with ``--json``, and return the exit code."""
    if settings.json:
        console.output(made.text())
    else:
        console.summary(
            "Validation: %s" % ("PASS" if made.passed else "FAIL, %d errors" % made.error_count),
            ("table", "PostgreSQL", "bundle", "SQLite", "cells", "differences", "match"),
            [
                (
                    name,
                    found.pg_count,
                    found.bundle_count,
                    found.sqlite_count,
                    found.cells,
                    found.differences,
                    found.match,
                )
                for name, found in made.validation_results.items()
            ],
        )
    return ExitCode.DONE if made.passed else ExitCode.DIFFERENCES


if __name__ == "__main__":
    sys.exit(main())
