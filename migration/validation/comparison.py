"""Compare each table of SQLite with its records in the bundle or in PostgreSQL."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Tuple, Union

from migration.bundle.damage import damaged
from migration.bundle.reading import Reader
from migration.bundle.records import Block, in_blocks
from migration.decoding import record_decoder
from migration.model import Table
from migration.postgres.digests import Digest, Digester
from migration.sql import quote
from migration.sqlite import mapping
from migration.sqlite.mapping import TableMapping
from migration.validation import isolation, keys, pairing, showing, walking
from migration.validation.checks import Compared, Evidence, Looked, since
from migration.validation.inputs import Context
from migration.validation.ordered import OrderedComparison
from migration.validation.rendering import rendered
from migration.validation.report import PREFIXES, Finding, Listing, TableResult
from migration.validation.walking import ComparedBlock

log = logging.getLogger(__name__)


def contents(evidence: Evidence) -> Looked:
    """Every cell of SQLite equals its record's value, and no row is missing or extra."""
    tables = evidence.tables.values()
    return Looked(
        sum(compared.result.cells for compared in tables),
        [finding for compared in tables for finding in compared.findings],
        sum(compared.result.seconds for compared in tables),
    )


def counts(evidence: Evidence) -> Looked:
    """Every table has as many rows as records. Comparing the contents has counted them."""
    return Looked(len(evidence.tables))


def compare_tables(context: Context, advance: Callable[[int], None]) -> Dict[str, Compared]:
    """Compare every table of config.TABLES; ``advance`` is told how many records are done.

    Raises MigrationError: exit 3 for PostgreSQL, 4 for the bundle.
    """
    compared: Dict[str, Compared] = {}
    for table in context.settings.whole_tables:
        compared[table.name] = _compare(context, table, advance)
        result = compared[table.name].result
        log.debug("compared %s: %s rows in %.1f s", table.name, result.sqlite_count, result.seconds)
    return compared


def with_digests(context: Context, tables: Mapping[str, Compared]) -> Dict[str, Compared]:
    """What comparing gave, with the digests that it was not known to need."""
    made = dict(tables)
    for table in context.settings.whole_tables:
        if table.name in context.doubted and tables[table.name].digest is None:
            made[table.name] = tables[table.name]._replace(digest=_bundle_digest(context, table))
    return made


def _compare(context: Context, table: Table, advance: Callable[[int], None]) -> Compared:
    started, export = time.perf_counter(), context.export
    mapped = context.mapped(table, context.compared)
    # Compare in key order if both sides have one, else sort both first
    walked = walking.in_any_order(
        lambda in_order: _walk(context, table, mapped, advance, in_order),
        table.name,
        context.key(table, mapped, context.compared).ordered,
    )
    held, digest = walked.rows, walked.digest
    if export is not None:
        if context.against == "source":
            digest = _bundle_digest(context, table)
            held = digest.rows
        _require_count(export, table, held)
    planned = mapping.map_columns(table, context.compared[table.name], context.schema)
    result = TableResult(
        walked.rows if context.against == "source" else None,
        None if export is None else held,
        _count(context, mapped.target),
        None if export is None else export.stamps[table.file].size,
        walked.differences,
        walked.cells,
        len(planned.copied) + len(planned.generated),
        [column.name for column in planned.dropped],
        since(started),
    )
    findings = [*walked.findings, *_uncompared(table, walked, result)]
    return Compared(result, digest, findings)


def _uncompared(table: Table, walked: _Walked, result: TableResult) -> Iterator[Finding]:
    """Findings for a wrong number of rows, and for cells that were not compared."""
    expected = walked.rows
    if result.sqlite_count not in (None, expected):
        message = "%s in %s: PG=%s, SQLite=%s"
        given = PREFIXES["counts"], table.name, expected, result.sqlite_count
        yield Finding("counts", message % given, table.name)
    cells = expected * result.columns
    if result.sqlite_count is not None and result.cells != cells:
        message = "%s: of %s, %d of %d cells were compared"
        yield Finding(
            "contents", message % (PREFIXES["contents"], table.name, result.cells, cells), table.name
        )


def _count(context: Context, table: str) -> Optional[int]:
    if not context.has_table(table):
        return None
    return int(context.database.execute("SELECT count(*) FROM " + quote(table)).fetchone()[0])


def _require_count(export: Reader, table: Table, rows: int) -> None:
    counted = export.manifest.row_counts[table.name]
    if rows != counted:
        message = "%s has %d records; the manifest says %d"
        raise damaged(message % (table.file, rows, counted))


# One walk through a table's records and rows


class _Walked(NamedTuple):
    """``digest``: None if not wanted; ``differences``: the number of all, including those not listed."""

    rows: int
    digest: Optional[Digest]
    cells: int
    differences: int
    findings: List[Finding]


def _walk(
    context: Context, table: Table, mapped: TableMapping, advance: Callable[[int], None], ordered: bool
) -> _Walked:
    listed = context.settings.max_differences
    differences = Listing("contents", table.name, listed)
    foreign = Listing("isolation", table.name, listed)
    owner, extra = isolation.owner_of(context, table), []  # type: Optional[isolation.Owner], List[str]
    with contextlib.ExitStack() as stack:
        comparison, decode = stack.enter_context(_comparison(context, table, mapped, ordered))
        digested = context.against == "bundle" and table.name in context.doubted
        walker = _Walker(comparison, decode, Digester() if digested else None)
        blocks = stack.enter_context(_blocks(context, table, walker))
        walker.comparison.begin()
        for block in blocks:
            if owner is not None:
                for number, record in enumerate(block.records, walker.rows - block.rows + 1):
                    if owner.is_another(record):
                        foreign.add(isolation.foreign_record(context, table, record, number))
            for difference in block.differences:
                _list(table.name, difference, differences, extra)
            advance(block.rows)
            del block  # free large records before the next block is read
        for difference in walker.comparison.end():
            _list(table.name, difference, differences, extra)
    return _Walked(
        walker.rows,
        walker.digest,
        walker.comparison.cells,
        differences.total,
        [
            *differences.findings,
            *foreign.findings,
            *isolation.foreign_rows(context, table, mapped, extra),
        ],
    )


def _list(table: str, difference: walking.Difference, listing: Listing, extra: List[str]) -> None:
    """Add a difference to a listing, and its row to ``extra`` if only SQLite has it."""
    cell = ", column %s" % difference.column if difference.column else ""
    message = "%s: %s %s%s: %s" % (PREFIXES["contents"], table, difference.row, cell, difference.message)
    listing.add(Finding("contents", message, table, difference.row, difference.column))
    if difference.is_extra and len(extra) < isolation.LOOKED_UP:
        extra.append(difference.row)


Comparison = Union[OrderedComparison, pairing.SortedComparison, "_Uncompared"]


class _Walker:
    """Compares block after block and counts rows."""

    def __init__(
        self, comparison: Comparison, decode: Callable[[bytes], Any], digester: Optional[Digester]
    ) -> None:
        self.comparison = comparison
        self.decode = decode
        self.rows = 0
        self._digester = digester

    @property
    def digest(self) -> Optional[Digest]:
        return None if self._digester is None else self._digester.digest

    def block(self, block: Block) -> ComparedBlock:
        """Raises msgspec.DecodeError where a text is no record."""
        found = self.comparison.block(block)
        self.rows += found.rows
        if self._digester is not None:
            self._digester.add(block.texts)
        return found


class _Uncompared:
    """Stands in for a comparison if rows and records have no column in common. The records are still read and counted."""

    cells = 0

    def __init__(self, decode: Callable[[bytes], Any]) -> None:
        self._decode = decode

    def begin(self) -> None:
        pass

    def block(self, block: Block) -> ComparedBlock:
        records = [self._decode(text) for text in block.texts]
        return ComparedBlock(len(records), records, iter(()))

    def end(self) -> Iterator[walking.Difference]:
        return iter(())


@contextlib.contextmanager
def _comparison(
    context: Context, table: Table, mapped: TableMapping, ordered: bool
) -> Iterator[Tuple[Comparison, Callable[[bytes], Any]]]:
    """The comparison of a table, and the decoder of its records."""
    key, columns = context.key(table, mapped, context.compared), context.compared[table.name]
    decode = record_decoder(columns)
    describe = showing.shortened if context.settings.show_values else context.fingerprint
    subject = keys.Subject(context.database, table, mapped, key, columns, decode, describe)
    if not mapped.copied:
        yield _Uncompared(decode), decode
    elif ordered:
        # SQLite no longer knows whether a row was the user's or shared, so it cannot render the owner
        expression = None
        if not table.ownership.or_shared:
            expression = rendered(mapped, columns, table.owner, context.user_id)
        yield OrderedComparison(subject, expression), decode
    else:
        with pairing.sorting() as sorter:
            yield pairing.SortedComparison(subject, sorter, context.fingerprint), decode


@contextlib.contextmanager
def _blocks(context: Context, table: Table, walker: _Walker) -> Iterator[Iterator[ComparedBlock]]:
    """Compare the records of the bundle or of PostgreSQL, block by block."""
    if context.against == "bundle":
        assert context.export is not None
        yield context.export.blocks(table.file, walker.block, walker.decode)
        return
    assert context.live is not None
    with contextlib.closing(context.live.records(table)) as texts:
        yield map(walker.block, in_blocks(texts))


def _bundle_digest(context: Context, table: Table) -> Digest:
    """The digest of a bundle's file that is not compared with SQLite."""
    assert context.export is not None
    decode = record_decoder(context.held[table.name])
    digester = Digester()
    walker = _Walker(_Uncompared(decode), decode, digester)
    for _ in context.export.blocks(table.file, walker.block, decode):
        pass
    return digester.digest
