"""Phase 3: the SQLite database proved equal to the export bundle, and that to the PostgreSQL that it came from.

    python validate_migration.py --user-email you@example.com

Writes validation_report.json and validation_report.html to the data folder; exit 1 on any error in them.
Changes nothing else.
"""

from __future__ import annotations

if __name__ == "__main__":  # before what may fail is imported
    from migration.cli import console

    console.begin()

import collections
import contextlib
import functools
import hashlib
import logging
import operator
import os
import platform
import sqlite3
import sys
import sysconfig
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import (
    Any,
    BinaryIO,
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
    Union,
)

import msgspec

import config
from migration import conversion
from migration.bundle.damage import damaged
from migration.bundle.folder import held
from migration.bundle.manifest import USER_DATA
from migration.bundle.records import in_blocks
from migration.cli import console
from migration.errors import ExitCode
from migration.files import BLOCK
from migration.model import Column, Singleton, Table
from migration.postgres.source import Digest, Digester, Snapshot
from migration.printing import brief
from migration.settings import Settings
from migration.sql import quote
from migration.sqlite import mapping, old_files, target
from migration.sqlite.mapping import TableMapping
from migration.sqlite.schema import read_schema
from migration.validation import equality, file_checks, pairing, report
from migration.validation.inputs import Context, context_of, is_bundle_needed
from migration.validation.rendering import rendered
from migration.validation.report import (
    PREFIXES,
    Changes,
    CheckResult,
    Database,
    Finding,
    Listing,
    Report,
    TableResult,
)

log = logging.getLogger("migration.validate")

LOOKED_UP = 1000  # rows too many of which PostgreSQL is asked whose they are
Result = TypeVar("Result")


def validate(
    settings: Settings, db: Optional[Snapshot] = None, sound: Optional[target.Stamp] = None
) -> Report:
    """Check ``settings.sqlite_path`` and write the report.

    ``db``: an open snapshot to compare with and to leave open; None: one of its own. ``sound``: the stamp of a
    file that ``import_`` has had SQLite look through: where this is the very file, that is not done again.

    Raises MigrationError: exit 2 for the schema, 3 for PostgreSQL (unless ``settings.offline``), 4 for the
    bundle, 5 where there is no database. Differences are no error here: they stand in the report.
    """
    with _data_folder(settings):
        made = _validated(settings, db, sound)
        for message in made.errors:
            log.error("%s", message)
        for message in made.warnings:
            log.warning("%s", message)
        for path in report.write(made, settings.data_dir):
            log.info("report written to %s", path)
    return made


@contextlib.contextmanager
def _data_folder(settings: Settings) -> Iterator[None]:
    """Have the data folder for ourselves, without an earlier report: if this check cannot end, no verdict stands."""
    with contextlib.ExitStack() as stack:
        if settings.data_dir.is_dir() or not is_bundle_needed(
            settings
        ):  # else the bundle is missed, and said so
            report.require_writable(settings.data_dir)
            stack.enter_context(held(settings.data_dir))
            report.withdraw(settings.data_dir)
        yield


def _validated(settings: Settings, db: Optional[Snapshot], sound: Optional[target.Stamp]) -> Report:
    started, timestamp = time.perf_counter(), datetime.now().isoformat(timespec="seconds")
    expected = read_schema(settings.schema_path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(target.errors(settings.sqlite_path))
        _fold_log(settings.sqlite_path)
        file = target.stamp(settings.sqlite_path)
        raw = _raw(settings.sqlite_path, stack)
        database, _ = stack.enter_context(target.opened(settings.sqlite_path))
        known = sound is not None and sound == file == target.stamp(settings.sqlite_path)
        context = stack.enter_context(context_of(database, settings, expected, db, sound is not None))
        pool = stack.enter_context(ThreadPoolExecutor(1))
        digests = _digests(context, pool)
        made = _new_report(context, timestamp, file)
        try:
            held: Dict[str, Digest] = {}
            compared = _listed("contents", _compare(context, made, held))
            changed = _listed("source", _source_changes(context, digests, held, made))
            own = _listed("user", _singletons(context, made))
            of_file = file_checks.results(context, known)
        except BaseException:
            for digest in digests.values():
                digest.cancel()
            if context.live is not None:
                context.live.db.cancel()
            raise
        made.database = made.database._replace(sha256=_sha256(settings.sqlite_path, file, raw))
        made.findings = [*compared.findings, *changed.findings, *own.findings, *_left_out(made)]
        for checked_part in of_file:
            made.findings += checked_part.findings
        _tell_checks(context, made, {each.name: each for each in (compared, changed, own, *of_file)})
    made.seconds = time.perf_counter() - started
    return made


def _listed(name: str, findings: Iterator[Finding]) -> file_checks.Checked:
    started = time.perf_counter()
    found = list(findings)
    return file_checks.Checked(name, 0, time.perf_counter() - started, found)


def _tell_checks(context: Context, made: Report, done: Mapping[str, file_checks.Checked]) -> None:
    """Fill ``made.checks``: each check of ``report.CHECKS``, with what it looked at and what it found."""
    tables, export = context.settings.tables, context.export
    by_check: Dict[str, List[Finding]] = {}
    for finding in made.findings:
        by_check.setdefault(finding.check, []).append(finding)

    def of(check: str, part: str) -> List[Finding]:
        return [finding for finding in done[part].findings if finding.check == check]

    if export is None:
        made.checks.append(CheckResult("bundle", note="there is no bundle"))
    else:
        made.check("bundle", len(export.manifest.checksums), [], context.bundle_seconds)
    cells = sum(result.cells for result in made.validation_results.values())
    made.check("contents", cells, of("contents", "contents"), done["contents"].seconds)
    made.check("counts", len(tables), of("counts", "contents"))
    made.check("isolation", len(tables), by_check.get("isolation", []))
    if context.live is None:
        made.checks.append(CheckResult("source", note="PostgreSQL was not asked"))
    elif export is None:
        made.checks.append(
            CheckResult("source", note="without a bundle, contents are compared with PostgreSQL")
        )
    else:
        made.check("source", len(tables) + 2, by_check.get("source", []), done["source"].seconds)
    made.check("user", 2, of("user", "user"), done["user"].seconds)
    for name in ("schema", "additions", "integrity", "references", "forms", "defaults"):
        if name in done:
            found = [finding for finding in done[name].findings if finding.check != "additions"]
            found += by_check.get("additions", []) if name == "additions" else []
            made.check(name, done[name].number, found, done[name].seconds)
        else:
            made.checks.append(CheckResult(name, note="the import looked at this very file"))
    for result in made.checks:
        log.debug("check %s", result)


def _fold_log(path: Path) -> None:
    """Have SQLite take a write-ahead log into its file, where no program has it open: then the file is the database."""
    found = target.stamp(path)
    if found is not None and found.logged and old_files.trouble(path) is None:
        with target.reading(path) as connect, contextlib.closing(connect()) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()


def _raw(path: Path, stack: contextlib.ExitStack) -> Optional[BinaryIO]:
    """The file, to be closed behind SQLite's connections: closing it takes their locks away.

    Source: https://www.sqlite.org/howtocorrupt.html (section 2.2)
    """
    with contextlib.suppress(OSError):  # said where SQLite opens it
        if path.is_file():
            return stack.enter_context(open(str(path), "rb"))
    return None


def _sha256(path: Path, file: Optional[target.Stamp], raw: Optional[BinaryIO]) -> Optional[str]:
    """Of the file and the write-ahead log behind it; None where it is not the file that is checked, or is written.

    While we read a database without a log, nobody can change its file; and with 2 GB/s it is cheap.
    """
    if raw is None:
        return None
    digest = hashlib.sha256()
    try:
        with contextlib.ExitStack() as stack:
            parts = [raw]
            if file is not None and file.logged:
                parts.append(stack.enter_context(open(str(target.resolved(path)) + "-wal", "rb")))
            for part in parts:
                for block in iter(functools.partial(part.read, BLOCK), b""):
                    digest.update(block)
    except OSError:
        return None
    now = target.stamp(path)
    logged = file is not None and file.logged
    same = (
        now is not None
        and file is not None
        and (now if logged else now[:4]) == (file if logged else file[:4])
    )
    return digest.hexdigest() if same else None


def _new_report(context: Context, timestamp: str, file: Optional[target.Stamp]) -> Report:
    export, live = context.export, context.live
    environment: Dict[str, Any] = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "platform": sysconfig.get_platform(),  # platform.platform() starts a process, and that holds our locks
        "database_bytes": context.settings.sqlite_path.stat().st_size,
    }
    made = Report(
        timestamp=timestamp,
        database=Database(
            os.fsencode(target.resolved(context.settings.sqlite_path)).decode("utf-8", "backslashreplace"),
            0 if file is None else file.size,
            0 if file is None else file.logged,
            None,
        ),
        user_id=context.user_id,
        against=context.against,
        strict=context.settings.strict,
        values_shown=context.settings.show_values,
        environment=environment,
    )
    if live is not None:
        made.compared_with.append("source")
        made.user_email = live.user.email
        environment["postgresql"] = live.db.server_version
    if export is not None:
        made.compared_with.insert(0, "bundle")
        manifest = export.manifest
        made.user_email = manifest.user_email
        made.export_timestamp = manifest.export_timestamp
        made.orphans_skipped = dict(manifest.orphans_skipped)
        made.bundle = {
            name: {"sha256": checksum.lower(), "bytes": export.sizes[name]}
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


def _compare(context: Context, made: Report, held: Dict[str, Digest]) -> Iterator[Finding]:
    """Compare every table, and fill ``made.validation_results`` and ``held``, the digests of the bundle's tables."""
    export, tables = context.export, context.settings.tables
    total = sum(export.manifest.row_counts[table.name] for table in tables) if export else None
    with console.progress("validate", total) as advance:
        for table in tables:
            started = time.perf_counter()
            walk = functools.partial(_compare_table, context, table, advance)
            mapped = context.mapped(table, context.compared)
            ordered = context.key(table, mapped, context.compared).ordered
            compared = _legibly(context, functools.partial(_in_any_order, table, ordered, walk))
            yield from compared.findings
            target_name = mapping.target_of(table, context.schema)
            expected, found = compared.digest.rows, _count(context, target_name)
            if found not in (None, expected):
                message = "%s in %s: PG=%s, SQLite=%s" % (PREFIXES["counts"], table.name, expected, found)
                yield Finding("counts", message, table.name)
            asked = expected if context.against == "source" else None
            planned = mapping.map_columns(table, context.compared[table.name], context.schema)
            columns = len(planned.copied) + len(planned.generated)
            if found is not None and compared.cells != expected * columns:
                message = "%s: of %s, %d of %d cells were compared"
                given = PREFIXES["contents"], table.name, compared.cells, expected * columns
                yield Finding("contents", message % given, table.name)
            result = TableResult(
                asked,
                None,
                found,
                differences=compared.differences,
                cells=compared.cells,
                columns=columns,
                dropped=[column.name for column in planned.dropped],
            )
            made.validation_results[table.name] = result
            if export is not None:
                digest = compared.digest if context.against == "bundle" else _bundle_digest(context, table)
                counted = export.manifest.row_counts[table.name]
                if digest.rows != counted:
                    message = "%s has %d records; the manifest says %d"
                    raise damaged(message % (table.file, digest.rows, counted))
                held[table.name] = digest
                result.bundle_count = digest.rows
                result.bytes = export.sizes[table.file]
            result.seconds = time.perf_counter() - started
            log.debug("compared %s: %d rows in %.1f s", table.name, expected, result.seconds)


def _count(context: Context, table: str) -> Optional[int]:
    if not context.has_table(table):
        return None
    return int(context.database.execute("SELECT count(*) FROM " + quote(table)).fetchone()[0])


def _in_any_order(table: Table, ordered: bool, walk: Callable[[bool], Result]) -> Result:
    """``walk(True)`` takes rows and records in key order, as far as they have one; ``walk(False)`` sorts them first."""
    if ordered:
        with contextlib.suppress(equality.Unordered):
            return walk(True)
    try:
        return walk(False)
    except equality.Unordered:
        raise damaged("%s has two records of the same primary key" % table.name) from None


def _legibly(context: Context, walk: Callable[[], Result]) -> Result:
    """Text that is not UTF-8 is a difference, not the end; reading all text so that it can be costs time."""
    try:
        return walk()
    except sqlite3.OperationalError as error:
        if "Could not decode" not in str(error):
            raise
    context.database.text_factory = target.any_text
    return walk()


def _compare_table(context: Context, table: Table, advance: Callable[[int], None], ordered: bool) -> Compared:
    settings, columns = context.settings, context.compared[table.name]
    mapped = context.mapped(table, context.compared)
    decode, digester = conversion.deep(conversion.record_decoder(columns)), Digester()
    is_strange = _strange(context, table)
    strange = Listing("isolation", table.name, settings.max_differences)
    listing = Listing("contents", table.name, settings.max_differences)
    extra: List[str] = []

    def take(differences: Iterator[equality.Difference]) -> None:
        for difference in differences:
            listing.add(_difference(table.name, difference))
            if difference.message == equality.EXTRA and len(extra) < LOOKED_UP:
                extra.append(difference.row)

    with _comparison(context, table, mapped, decode, ordered) as comparison:

        def look(texts: Sequence[bytes]) -> None:
            found = comparison.block(texts)
            if found is not None:
                records, differences = found
                for number, record in enumerate(records, digester.rows + 1):
                    if is_strange is not None and is_strange(record):
                        strange.add(_stranger(context, table, record, number))
                take(differences)
            digester.add(texts)
            advance(len(texts))

        comparison.begin()
        with _blocks(context, table, decode, look) as blocks:
            collections.deque(blocks, maxlen=0)
        take(comparison.end())
    return Compared(
        digester.digest,
        comparison.cells,
        listing.total,
        [*listing.findings, *strange.findings, *_strangers_rows(context, table, mapped, extra)],
    )


class _Uncompared:
    """A comparison of rows that have no column in common with their records: these are read and added up all the same."""

    cells = 0

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        self._decode = decode

    def begin(self) -> None:
        pass

    def block(self, texts: Sequence[bytes]) -> Tuple[List[Any], Iterator[equality.Difference]]:
        return [self._decode(text) for text in texts], iter(())

    def end(self) -> Iterator[equality.Difference]:
        return iter(())


@contextlib.contextmanager
def _comparison(
    context: Context,
    table: Table,
    mapped: TableMapping,
    decode: Callable[[bytes], Any],
    ordered: bool,
) -> Iterator[Union[equality.OrderedComparison, pairing.SortedComparison, _Uncompared]]:
    key, columns = context.key(table, mapped, context.compared), context.compared[table.name]
    describe = equality.shortened if context.settings.show_values else context.fingerprint
    if not mapped.copied:
        yield _Uncompared(decode)
    elif ordered:
        # whose a row of these is, SQLite does not say
        quick = not table.ownership.or_shared
        yield equality.OrderedComparison(
            context.database,
            mapped,
            key.columns,
            columns,
            decode,
            rendered(mapped, columns, table.owner, context.user_id) if quick else None,
            describe,
            table.json_types,
        )
    else:
        with pairing.sorting() as sorter:
            yield pairing.SortedComparison(
                context.database,
                mapped,
                key,
                columns,
                decode,
                sorter,
                context.fingerprint,
                describe,
                table.json_types,
            )


@contextlib.contextmanager
def _blocks(
    context: Context, table: Table, decode: Callable[[bytes], Any], look: Callable[[Sequence[bytes]], None]
) -> Iterator[Iterator[None]]:
    """What SQLite's cells are compared with, block by block: the bundle's records, or PostgreSQL's."""
    if context.against == "bundle":
        assert context.export is not None
        yield context.export.blocks(table.file, look, decode)
        return
    assert context.live is not None
    with contextlib.closing(context.live.records(table)) as texts:
        yield map(look, in_blocks(texts))


def _bundle_digest(context: Context, table: Table) -> Digest:
    digester = Digester()
    decode = conversion.record_decoder(context.held[table.name])

    def look(texts: Sequence[bytes]) -> None:
        decode.many(texts)
        digester.add(texts)

    assert context.export is not None
    collections.deque(context.export.blocks(table.file, look, conversion.deep(decode)), maxlen=0)
    return digester.digest


def _difference(table: str, difference: equality.Difference) -> Finding:
    cell = ", column %s" % difference.column if difference.column else ""
    message = "%s: %s %s%s: %s" % (PREFIXES["contents"], table, difference.row, cell, difference.message)
    return Finding("contents", message, table, difference.row, difference.column)


# Whose records and rows


def _strange(context: Context, table: Table) -> Optional[Callable[[Any], bool]]:
    """Whether a record is another user's, by its owner column; None where the table has none."""
    names = [column.name for column in context.compared[table.name]]
    if table.owner is None or table.owner not in names:
        return None
    owner = operator.attrgetter("c%d" % names.index(table.owner))
    mine = context.owners(table.name) | ({None} if table.ownership.or_shared else set())
    return lambda record: _text(owner(record)) not in mine


def _text(value: Any) -> Optional[str]:
    plain = msgspec.json.decode(bytes(value)) if isinstance(value, msgspec.Raw) else value
    return None if plain is None else str(plain).rstrip()  # char(n) is padded


def _stranger(context: Context, table: Table, record: Any, number: int) -> Finding:
    columns = context.compared[table.name]
    names = [column.name for column in columns]
    key = context.source_key(table, context.compared)
    parts = [str(_text(getattr(record, "c%d" % names.index(name)))) for name in key]
    row = brief(", ".join(parts)) if key else "record %d" % number
    message = "%s: %s %s belongs to another user" % (PREFIXES["isolation"], table.name, row)
    return Finding("isolation", message, table.name, row, table.owner)


def _strangers_rows(
    context: Context, table: Table, mapped: TableMapping, rows: Sequence[str]
) -> List[Finding]:
    """Of the rows that SQLite has too many, those that PostgreSQL has for another user."""
    listing = Listing("isolation", table.name, context.settings.max_differences)
    for row in _others_rows(context, table, mapped, rows):
        message = "%s: %s %s is a row of another user" % (PREFIXES["isolation"], table.name, row)
        listing.add(Finding("isolation", message, table.name, row))
    return listing.findings


def _others_rows(context: Context, table: Table, mapped: TableMapping, rows: Sequence[str]) -> List[str]:
    """Of rows, named by the key that they are paired by, those that PostgreSQL knows by it and has for another user."""
    live = context.live
    if live is None or context.key(table, mapped, context.compared).columns != live.catalog.keys[table.name]:
        return []
    return live.strangers(table, rows)


# The source since the export


def _source_changes(
    context: Context, digests: "Mapping[str, Future[Digest]]", held: Mapping[str, Digest], made: Report
) -> Iterator[Finding]:
    """Where the source's digest is another than the bundle's, why; and fill ``made.source_changes``."""
    for table in context.settings.tables:
        if table.name in digests:
            live = digests[table.name].result()
            made.validation_results[table.name].pg_count = live.rows
            if live != held[table.name]:
                yield from _source_findings(context, table, made)


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
    ordered = all(
        context.key(table, context.mapped(table, side), side).ordered for side in (context.held, now)
    )
    changes = _in_any_order(table, ordered, functools.partial(_walk_changes, context, table, mapped))
    if changes:
        made.source_changes[table.name] = changes
        yield Finding("source", "%s %s; migrate again to take them over" % (since, changes), table.name)
        message = PREFIXES["isolation"] + ": %s %s of the bundle is another user's now"
        for row in _others_rows(context, table, mapped, changes.removed.ids):
            yield Finding("isolation", message % (table.name, row), table.name, row)


def _walk_changes(context: Context, table: Table, mapped: TableMapping, ordered: bool) -> Changes:
    """Hold the bundle's records against PostgreSQL's."""
    export, live = context.export, context.live
    assert export is not None and live is not None
    key = context.key(table, mapped, context.held)
    columns, columns_now = context.held[table.name], live.catalog.columns[table.name]
    decode, decode_now = (
        conversion.deep(conversion.record_decoder(listed)) for listed in (columns, columns_now)
    )
    made = Changes()
    with contextlib.ExitStack() as stack:
        texts = stack.enter_context(contextlib.closing(live.records(table)))
        if ordered:
            then = columns, export.records(table.file, decode)
            found = equality.changes(key.columns, mapped, then, (columns_now, map(decode_now, texts)))
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
            made.add(kind, row, context.settings.max_differences)
    return made


def _checked_by(decode: Callable[[bytes], Any]) -> Callable[[bytes], bytes]:
    """A decoder that leaves the text as it is, where it can be decoded."""

    def checked(text: bytes) -> bytes:
        decode(text)
        return text

    return checked


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
            walk = functools.partial(_singleton_differences, context, singleton, prefix)
            yield from _legibly(context, lambda walk=walk: list(walk()))  # type: ignore[misc]
        if context.export is not None and context.live is not None:
            yield from _singleton_changes(context, singleton, made)


def _singleton_differences(context: Context, singleton: Singleton, prefix: str) -> Iterator[Finding]:
    columns, text = context.compared[singleton.name], context.records[singleton.name]
    mapped = context.mapped(singleton, context.compared)
    assert text is not None
    record = _decoded(columns, text)
    owner = next((i for i, column in enumerate(columns) if column.name == singleton.owner), None)
    if owner is not None and _text(getattr(record, "c%d" % owner)) not in context.owners(singleton.name):
        message = "%s: the record of %s belongs to another user" % (PREFIXES["isolation"], singleton.name)
        yield Finding("isolation", message, singleton.name, column=singleton.owner)
    if not mapped.copied:
        return
    compared = equality.Cells(mapped, columns, singleton.json_types)
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
        if equality.is_null(value) and pair.target.not_null and pair.source.name not in record.json_nulls
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
        changed = equality.changed_columns(context.mapped(singleton, context.held), held, today)
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
        return conversion.record_decoder(columns)(text)
    except msgspec.DecodeError as error:
        raise damaged("%s is damaged: %s" % (USER_DATA, error)) from error


def _left_out(made: Report) -> Iterator[Finding]:
    for name, rows in made.orphans_skipped.items():
        message = "%s %s by --orphans skip: %d rows that refer to rows of others"
        yield Finding("orphans", message % (PREFIXES["orphans"], name, rows), name, error=False, count=rows)


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
    return console.run(
        lambda args: _main(console.settings(args, config, asks_postgres=not args.offline)), arguments, config
    )


def _main(settings: Settings) -> int:
    return conclude(validate(settings), settings)


def conclude(made: Report, settings: Settings) -> int:
    """Print the verdict, or the report with ``--json``, and return the exit code."""
    code = ExitCode.DONE if made.passed else ExitCode.DIFFERENCES
    if settings.json:
        console.output(made.text(), code)
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
    return code


if __name__ == "__main__":
    sys.exit(main())
