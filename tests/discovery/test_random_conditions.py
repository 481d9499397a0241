"""Random conditions over columns of many types: those that are translated are true, false or NULL where PostgreSQL's are."""

from __future__ import annotations

import contextlib
import random
import re
import sqlite3
from typing import Dict, List

import psycopg2

from migration import conversion
from migration.decoding import record_decoder
from migration.discovery.sqlite_schema import schema_of
from support.discovery import reading
from support.servers import Database

COLUMNS = {  # type, and values
    "i": ("int", ["-7", "-1", "0", "1", "2", "21474836"]),
    "k": ("bigint", ["-3", "0", "2", "9000000000000000001"]),
    "m": ("numeric(8,2)", ["-0.01", "0", "1.10", "2", "999999.99", "'NaN'"]),
    "g": ("numeric", ["-0.1", "0.00", "1.0", "12345678901234567890.5", "'NaN'"]),
    "f": ("float8", ["-1.5", "0", "0.1", "2", "1e300", "'NaN'", "'Infinity'", "'-Infinity'"]),
    "r": ("real", ["-1.5", "0", "0.1", "2", "'NaN'", "'-Infinity'"]),
    "s": ("text", ["''", "' a'", "'a'", "'A'", "'ab*'", "'ä%'", "'2'", "'it''s'"]),
    "v": ("varchar(9)", ["''", "'a'", "'ab'", "'Ä'", "'007'", "'a[b'"]),
    "c": ("char(3)", ["''", "'a'", "'ab'", "'abc'"]),
    "b": ("boolean", ["true", "false"]),
    "e": ("mood", ["'sad'", "'ok'", "'a'"]),
    "d": (
        "date",
        ["'0044-03-15 BC'", "'2000-01-01'", "'2000-12-31'", "'12345-01-01'", "'infinity'", "'-infinity'"],
    ),
    "z": (
        "timestamptz",
        ["'2000-01-01 00:00+00'", "'2000-01-01 00:00:00.5+00'", "'0044-03-15 00:00+00 BC'", "'infinity'"],
    ),
    "h": ("time", ["'00:00'", "'10:00:00.5'", "'24:00'"]),
    "u": ("uuid", ["'00000000-0000-4000-8000-000000000000'", "'f0000000-0000-4000-8000-00000000000f'"]),
    "y": ("bytea", [r"'\x'", r"'\x00'", r"'\xff00'"]),
}
SETUP = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'a');"
ROWS, CONDITIONS = 200, 300


def value(choose: random.Random, column: str, depth: int) -> str:
    """A term of the column's type, or near to it."""
    name = choose.choice("ikmf") if column in "ikmgfr" and choose.random() < 0.3 else column
    one = choose.choice([name, name, choose.choice(COLUMNS[name][1])])
    if depth > 0 and column in "ik":
        one = choose.choice(["(%s + %s)", "(%s - %s)", "coalesce(%s, %s)", "nullif(%s, %s)"]) % (
            "i",
            choose.choice(["1", "k", "2"]),
        )
    if depth > 0 and column in "sv":
        form = choose.choice(
            [
                "left(%s, 2)",
                "btrim(%s)",
                "(%s || 'x')",
                "replace(%s, 'a', 'b')",
                "coalesce(%s, 'q')",
                "(%s)::text",
                "lower(%s)",
            ]
        )
        one = form % column
    return one


def truth(choose: random.Random, depth: int) -> str:
    """A condition."""
    if depth > 0 and choose.random() < 0.6:
        left, right = truth(choose, depth - 1), truth(choose, depth - 1)
        forms = (
            "(%s AND %s)",
            "(%s OR %s)",
            "(NOT %s OR %s)",
            "CASE WHEN %s THEN %s ELSE b END",
            "((%s) IS TRUE AND %s)",
        )
        return choose.choice(forms) % (left, right)
    column = choose.choice(list(COLUMNS))
    left, right = value(choose, column, choose.randrange(2)), value(choose, column, 0)
    constants = ", ".join(choose.sample(COLUMNS[column][1], 2))
    return choose.choice(
        [
            "(%s %s %s)" % (left, choose.choice(["=", "<>", "<", "<=", ">", ">="]), right),
            "(%s IS %sDISTINCT FROM %s)" % (left, choose.choice(["", "NOT "]), right),
            "(%s %sIN (%s))" % (column, choose.choice(["", "NOT "]), constants),
            "(%s IS %sNULL)" % (column, choose.choice(["", "NOT "])),
            "(%s BETWEEN %s AND %s)" % (column, *constants.split(", ", 1)),
            "(%s LIKE %s)" % (choose.choice("svc"), choose.choice(["'a%'", "'%*'", "'_'", "'%[%'", "'A_'"])),
            "(length(%s) %s %d)" % (choose.choice("svcy"), choose.choice("<>="), choose.randrange(4)),
            "(num_nonnulls(i, s, %s) = %d)" % (column, choose.randrange(1, 4)),
            "b",
        ]
    )


def test_random_conditions_are_true_where_they_are_for_postgres(empty: Database) -> None:
    choose = random.Random(17)
    conditions = valid_conditions(empty, choose)
    with reading(Database(empty.url)) as db:
        schema = schema_of(db, ["t"])
        columns = db.catalog.columns["t"]
    listed = ", ".join("(%s)" % condition for condition in conditions.values())
    found = empty.rows("SET timezone = 'UTC'; SELECT row_to_json(t)::text, %s FROM filled t" % listed)
    kept: Dict[str, str] = dict(re.findall(r"CONSTRAINT (c\d+) CHECK \((.*)\),?\n", schema.text))
    assert len(kept) > CONDITIONS / 3
    database = sqlite3.connect(":memory:")
    names = ", ".join(column.name for column in columns)
    fields = schema.tables["t"].fields
    database.execute(
        "CREATE TABLE t (%s)"
        % ", ".join("%s %s" % (one.name, (one.declared or "").split()[0]) for one in fields)
    )
    decode = record_decoder(columns)
    for record, *verdicts in found:
        decoded = decode(record.encode())
        values = []
        for place, (column, field) in enumerate(zip(columns, fields)):
            convert = conversion.converter(column, (field.declared or "").split()[0], False, False)
            given = getattr(decoded, "c%d" % place)
            values.append(given if given is None or convert is None else convert(given))
        database.execute("DELETE FROM t")
        database.execute("INSERT INTO t (%s) VALUES (%s)" % (names, ", ".join("?" * len(values))), values)
        answers = database.execute(
            "SELECT %s FROM t" % ", ".join("(%s)" % kept[name] for name in kept)
        ).fetchone()
        expected = dict(zip(conditions, verdicts))
        for name, answer in zip(kept, answers):
            assert (None if answer is None else bool(answer)) is expected[name], (
                conditions[name],
                kept[name],
                values,
            )


def valid_conditions(made: Database, choose: random.Random) -> Dict[str, str]:
    """A table with CHECKs that PostgreSQL takes for conditions, without a row, and one filled with values."""
    columns = ", ".join("%s %s" % (name, kind) for name, (kind, _) in COLUMNS.items())
    made.execute("%s CREATE TABLE t (%s); CREATE TABLE filled (%s);" % (SETUP, columns, columns))
    rows = [
        ", ".join(choose.choice([*values, "NULL"]) for _, values in COLUMNS.values()) for _ in range(ROWS)
    ]
    made.execute("INSERT INTO filled VALUES " + ", ".join("(%s)" % row for row in rows))
    connection = psycopg2.connect(made.url)
    connection.autocommit = True
    cursor = connection.cursor()
    taken: List[str] = []
    while len(taken) < CONDITIONS:
        condition = truth(choose, 2)
        with contextlib.suppress(psycopg2.Error):  # operators that its types do not have
            cursor.execute("SELECT %s FROM t" % condition)
            taken.append("ADD CONSTRAINT c%d CHECK (%s)" % (len(taken), condition))
    cursor.execute("ALTER TABLE t " + ", ".join(taken))
    connection.close()
    sql = "SELECT conname::text, pg_get_expr(conbin, conrelid) FROM pg_constraint WHERE conrelid = 't'::regclass AND contype = 'c'"
    return dict(made.rows(sql))
