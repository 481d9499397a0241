"""Records and rows compared block by block, in the order of a key that both come in."""

from __future__ import annotations

import sqlite3
from typing import Any, Iterable, Iterator, List, Optional, Sequence, Tuple

from migration.bundle.records import MANY_BYTES, Block
from migration.conversion import STRUCTURED
from migration.sql import quote
from migration.validation.equality import Cells
from migration.validation.keys import NOWHERE, KeyReader, Subject, bindable, is_before, key_reader, lacks_part
from migration.validation.walking import EXTRA, MISSING, ComparedBlock, Difference, Row, Unordered, select


class OrderedComparison:
    """Compares the records of a table with its rows, block by block in key order, at flat memory.

    The key is SQLite's primary key. ``row_as_record``: the SQL that ``rendering`` gives, None where it gives none.
    The methods raise Unordered if records or rows do not come in key order: ``pairing.SortedComparison`` takes them in any.
    """

    def __init__(self, subject: Subject, row_as_record: Optional[str]) -> None:
        self.cells = 0  # compared so far
        self._database = subject.database
        self._table = subject.mapped.target
        self._cells = Cells(subject.mapped, subject.columns, subject.table.json_types)
        self._key = key_reader(subject.key.columns, self._cells.pairs)
        self._decode = subject.decode
        self._describe = subject.describe
        self._after: Any = NOWHERE  # the key up to which rows have been looked at
        self._names = [quote(pair.target.name) + " COLLATE BINARY" for pair in self._key.pairs]
        self._order = " ORDER BY " + ", ".join(self._names)
        self._row_as_record = row_as_record
        self._least = sum(len(column.name) + len('"":0,') for column in subject.columns)  # bytes of a record
        self._has_json = any(column.kind in STRUCTURED for column in subject.columns)

    def begin(self) -> None:
        """Raise Unordered if SQLite would have to sort the rows, or if a row has NULL in its key."""
        plan = "EXPLAIN QUERY PLAN SELECT 1 FROM " + quote(self._table) + self._order
        if any("TEMP B-TREE" in step for *_, step in self._database.execute(plan)):
            raise Unordered
        nulls = " OR ".join(map(_IS_NULL, self._names))
        for _ in self._database.execute(
            "SELECT 1 FROM {} WHERE {} LIMIT 1".format(quote(self._table), nulls)
        ):
            raise Unordered

    def block(self, block: Block) -> ComparedBlock:
        """Compare the rows up to that of the last record.

        Raises msgspec.DecodeError where a text is no record.
        """
        after, last = self._after, self._key.of_record(self._cells.take(self._decode(block.last)))
        if lacks_part(last) or (after is not NOWHERE and not is_before(after, last)):
            raise Unordered
        condition, limits = self._between(after, last)
        self._after = last
        rows = self._equal_rows(block, condition, limits)
        if rows:
            compared = ComparedBlock(rows, (), iter(()))
        else:
            records = [self._decode(text) for text in block.texts]
            differences = self._differences(records, self._rows(condition, limits), after)
            compared = ComparedBlock(len(records), records, differences)
        self.cells += compared.rows * len(self._cells.pairs)
        return compared

    def end(self) -> Iterator[Difference]:
        """The rows after the last record."""
        for row in self._rows(*self._between(self._after, NOWHERE)):
            yield Difference(self._table, self._key.shown(self._key.of_row(row)), None, EXTRA, True)

    def _between(self, after: Any, last: Any) -> Tuple[str, Tuple[Any, ...]]:
        """SQL condition and its parameters: keys greater than ``after``, up to ``last``; ``NOWHERE`` is no limit."""
        names, places = ", ".join(self._names), ", ".join("?" * len(self._names))
        conditions: List[str] = []
        limits: List[Any] = []
        for sign, key in ((">", after), ("<=", last)):
            if key is not NOWHERE:
                conditions.append("({}) {} ({})".format(names, sign, places))
                limits += [bindable(part) for part in (key if isinstance(key, tuple) else (key,))]
        return " AND ".join(conditions) or "true", tuple(limits)

    def _rows(self, condition: str, limits: Sequence[Any]) -> Iterator[Row]:
        return self._database.execute(
            "%s WHERE %s" % (select(self._table, self._cells.pairs), condition) + self._order, limits
        )

    def _equal_rows(self, block: Block, condition: str, limits: Sequence[Any]) -> int:
        """How many rows SQLite renders as exactly these records, all of them, in one statement; else 0."""
        lines = block.lines
        if self._row_as_record is None or lines is None or len(lines) >= MANY_BYTES:
            return 0
        select = "SELECT {} AS line FROM {} WHERE {}".format(
            self._row_as_record, quote(self._table), condition
        )
        select += self._order + " LIMIT %d" % (len(lines) // self._least + 1)  # one too many is enough
        sql = "SELECT count(*), CAST(group_concat(line, char(44, 10)) AS BLOB) FROM (%s)" % select
        try:
            rows, text = self._database.execute(sql, limits).fetchone()
        except (sqlite3.OperationalError, sqlite3.DataError):
            return 0  # a cell that it cannot render; any other error comes again when the cells are read
        # JSON alone could bring a line end of its own, and with it one row the bytes of two records
        return rows if text == lines and not (self._has_json and rows != block.count()) else 0

    def _differences(self, records: Iterable[Any], rows: Iterator[Row], last: Any) -> Iterator[Difference]:
        """Merge records and rows, both in key order."""
        cells, key, table = self._cells, self._key, self._table
        row, place = _next(rows, key)
        for record in records:
            values = cells.take(record)
            name = key.of_record(values)
            if lacks_part(name) or (last is not NOWHERE and not is_before(last, name)):
                raise Unordered
            last = name
            while row is not None and place != name and is_before(place, name):
                yield Difference(table, key.shown(place), None, EXTRA, True)
                row, place = _next(rows, key)
            if row is None or place != name:
                yield Difference(table, key.shown(name), None, MISSING)
                continue
            for column, message in cells.unequal(record, values, row, self._describe):
                yield Difference(table, key.shown(name), column, message)
            row, place = _next(rows, key)
        while row is not None:
            yield Difference(table, key.shown(place), None, EXTRA, True)
            row, place = _next(rows, key)


_IS_NULL = "typeof({}) = 'null'".format  # which SQLite looks at even where a column cannot be NULL


def _next(rows: Iterator[Row], key: KeyReader) -> Tuple[Optional[Row], Any]:
    for row in rows:
        return row, key.of_row(row)
    return None, None
