"""Whether a cell says what its record says, kind by kind; and rows rendered as records."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import Any, Optional, Tuple

import msgspec
import pytest

from migration.decoding import record_decoder
from migration.model import Column, Kind
from migration.sqlite.mapping import Copied, TableMapping
from migration.sqlite.schema import TargetColumn
from migration.validation.equality import Cells
from migration.validation.rendering import rendered


def mapped(kind: str, target: str, not_null: bool = False) -> Tuple[Column, TableMapping]:
    column = Column("a", kind, Kind(kind), not_null)
    pair = Copied(column, TargetColumn("a", target, False, False, None, 0))
    return column, TableMapping("t", "t", (pair,), ())


def is_equal(kind: str, target: str, json: str, found: Any) -> bool:
    column, mapping = mapped(kind, target)
    cells = Cells(mapping, [column])
    record = record_decoder([column])(b'{"a":%s}' % json.encode())
    return not list(cells.unequal(record, cells.take(record), (found,), repr))


# Kind, SQLite's type, the record's JSON, the cell that it becomes, and cells that say something else
CELLS = [
    ("text", "TEXT", '"é"', "é", ["e", b"\xc3\xa9", None]),
    ("uuid", "TEXT", '"0a"', "0a", ["0A", None]),
    ("boolean", "INTEGER", "true", 1, [0, 1.0, "1", None]),
    ("boolean", "TEXT", "false", "0", [0, "false"]),
    ("integer", "INTEGER", "9007199254740993", 9007199254740993, [9007199254740992, "9007199254740993"]),
    ("integer", "REAL", "5", 5.0, [5, "5"]),
    ("numeric", "REAL", "1.50", 1.5, [1.5000000000000002, "1.50", 1]),
    ("numeric", "TEXT", "1.50", "1.50", ["1.5", None]),
    ("float", "REAL", "0.1", 0.1, [0.10000000000000002, None]),
    ("date", "TEXT", '"2024-02-29"', "2024-02-29", ["2024-03-01", "29.02.2024"]),
    ("date", "TEXT", '"0044-03-15 BC"', "-0043-03-15", ["0044-03-15 BC", "0044-03-15"]),
    ("timestamp", "TEXT", '"2024-02-29T12:30:00.5"', "2024-02-29T12:30:00.500000", ["2024-02-29T12:30:00.5"]),
    ("timestamp", "TEXT", '"infinity"', "infinity", ["-infinity"]),
    (
        "timestamptz",
        "TEXT",
        '"2024-02-29T12:30:00+00:00"',
        "2024-02-29T12:30:00+00:00",
        ["2024-02-29T12:30:00"],
    ),
    ("json", "TEXT", '{"a": 1.0, "b": []}', '{"b":[],"a":1.0}', ['{"a":1,"b":[]}', '{"a":1.0}', None]),
    ("bytea", "BLOB", r'"\\x00ff"', b"\x00\xff", ["\\x00ff", b"\x00"]),
    ("undeclared", "TEXT", '"x"', "x", ["y", None]),
]


@pytest.mark.parametrize(("kind", "target", "json", "cell", "others"), CELLS)
def test_cell_equals_its_record_and_nothing_else(
    kind: str, target: str, json: str, cell: Any, others: Any
) -> None:
    assert is_equal(kind, target, json, cell)
    for other in others:
        assert not is_equal(kind, target, json, other), other


@pytest.mark.parametrize("kind", ["text", "boolean", "integer", "numeric", "date", "json", "undeclared"])
def test_null_is_null_alone(kind: str) -> None:
    assert is_equal(kind, "TEXT", "null", None)
    assert not is_equal(kind, "TEXT", "null", "")


def line(kind: str, target: str, cell: Any, type_: Optional[str] = None) -> Optional[bytes]:
    _, mapping = mapped(kind, target)
    sql = rendered(mapping, [Column("a", type_ or kind, Kind(kind), False)], None, "")
    assert sql is not None
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.execute("CREATE TABLE t (a %s)" % target)
        database.execute("INSERT INTO t VALUES (?)", (cell,))
        (found,) = database.execute("SELECT CAST(%s AS BLOB) FROM t" % sql).fetchone()
    return bytes(found)


# Kind, PostgreSQL's type, SQLite's type, a cell, and the record that PostgreSQL writes
LINES = [
    ("text", "text", "TEXT", 'a"é\\', '{"a":"a\\"é\\\\"}'),
    ("boolean", "boolean", "INTEGER", 1, '{"a":true}'),
    ("integer", "bigint", "INTEGER", 7, '{"a":7}'),
    ("numeric", "numeric(6,2)", "REAL", 1234.5, '{"a":1234.50}'),
    ("date", "date", "TEXT", "2024-02-29", '{"a":"2024-02-29"}'),
    ("timestamp", "timestamp", "TEXT", "2024-02-29T12:30:00.500000", '{"a":"2024-02-29T12:30:00.5"}'),
    ("timestamptz", "timestamptz", "TEXT", "2024-02-29T12:30:00+00:00", '{"a":"2024-02-29T12:30:00+00:00"}'),
    ("jsonb", "jsonb", "TEXT", '{"b": 1.0}', '{"a":{"b": 1.0}}'),
    ("bytea", "bytea", "BLOB", b"\x00\xff", '{"a":"\\\\x00ff"}'),
    ("text", "text", "TEXT", None, '{"a":null}'),
]


@pytest.mark.parametrize(("kind", "type_", "target", "cell", "record"), LINES)
def test_row_is_rendered_as_its_record(kind: str, type_: str, target: str, cell: Any, record: str) -> None:
    assert line(kind, target, cell, type_) == record.encode()
    assert msgspec.json.decode(record)


@pytest.mark.parametrize(
    ("kind", "target", "cell"),
    [
        ("boolean", "INTEGER", 2),
        ("date", "TEXT", "29.2.2024"),
        ("timestamp", "TEXT", "2024-02-29T12:30:00.5"),
        ("numeric", "TEXT", "1.5"),
        ("json", "TEXT", b"{}"),
    ],
)
def test_row_of_another_form_is_rendered_as_no_record(kind: str, target: str, cell: Any) -> None:
    assert b"!" in (line(kind, target, cell) or b"")
