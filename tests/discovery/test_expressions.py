"""A CHECK that the SQLite schema has says of every value what PostgreSQL's says; one that it has not is noted.

PostgreSQL itself is the oracle: it judges the values, and the suite's own conversion brings them to SQLite.
"""

from __future__ import annotations

import sqlite3
from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import psycopg2
import pytest

from migration import conversion
from migration.decoding import record_decoder
from migration.discovery.sqlite_schema import SqliteSchema, schema_of
from migration.model import Column
from support.discovery import reading
from support.servers import Database, Server

TYPES = """
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE DOMAIN percent AS int CHECK (VALUE BETWEEN 0 AND 100);
CREATE DOMAIN price AS numeric(8,2) CHECK (VALUE >= 0);
CREATE DOMAIN mail AS text CHECK (VALUE LIKE '%_@_%');
CREATE DOMAIN mild AS mood CHECK (VALUE <> 'happy');
CREATE TYPE pair AS (a int, b int);
"""
WORDS = ("''", "' '", "'a'", "'A'", "'ab'", "'ä'", "'Ä'", "'a%b'", "'a*b'", "'a[b'", "'007'", "'é1'", "NULL")
FLOATS = ("-1", "0", "0.1", "0.5", "1e300", "'NaN'", "'Infinity'", "'-Infinity'", "NULL")
SINGLES = ("-1", "0", "0.1", "0.25", "1e30", "16777217", "'NaN'", "'-Infinity'", "NULL")
DIGITS = ("-1", "0", "0.00", "-0.00", "0.001", "1.0", "123456789012345678901234567890.5", "'NaN'", "NULL")
DATES = (
    *("'0001-01-01'", "'2000-02-29'", "'9999-12-31'", "'12345-01-01'", "'0044-03-15 BC'", "'0100-03-15 BC'"),
    *("'infinity'", "'-infinity'", "NULL"),
)
MOMENTS = (
    *(
        "'2020-01-01 10:00:00'",
        "'2020-01-01 10:00:00.5'",
        "'2020-01-01 10:00:00.123456'",
        "'12345-01-01 00:00'",
    ),
    *("'0044-03-15 10:00 BC'", "'infinity'", "'-infinity'", "NULL"),
)
TRUTHS = ("true", "false", "NULL")
NUMBERS = ("-7", "-1", "0", "1", "2", "100", "101", "NULL")
UUIDS = ("'00000000-0000-4000-8000-000000000000'", "'ABCDEF00-0000-4000-8000-000000000000'", "NULL")

# type of v and w, CHECK, values of each
KEPT: Sequence[Tuple[str, str, Sequence[str]]] = (
    ("int", "v > 0", NUMBERS),
    ("bigint", "v + w >= -5 AND v * 2 < 200 OR v IS NULL", NUMBERS),
    ("int", "v / 2 = w OR v % 3 = 1", NUMBERS[:2] + NUMBERS[3:]),
    ("smallint", "v BETWEEN 0 AND 100 AND w <> -1", NUMBERS),
    ("int", "v IN (1, 2, -7) OR w NOT IN (0, 1)", NUMBERS),
    ("int", "num_nonnulls(v, w) = 1", NUMBERS),
    ("int", "v IS DISTINCT FROM w AND coalesce(v, 5) > 0 AND nullif(w, 1) IS NOT NULL", NUMBERS),
    ("int", "CASE WHEN v > 1 THEN w > 0 WHEN v = 0 THEN NULL ELSE true END", NUMBERS),
    ("int", "CASE v WHEN 1 THEN w = 2 ELSE w < 100 END", NUMBERS),
    ("int", "abs(v) > 1 AND -v < 50 AND v::bigint <> w::smallint", NUMBERS),
    ("int", "v::text <> '1' AND v::numeric >= 0.5", NUMBERS),
    ("percent", "v > 10 OR w IS NULL", ("0", "11", "100", "NULL")),
    ("boolean", "v", TRUTHS),
    ("boolean", "NOT v OR w IS NOT TRUE AND v = false", TRUTHS),
    ("boolean", "v IS NOT FALSE AND (w IS NULL) = false", TRUTHS),
    ("numeric(8,2)", "v >= 0.5 AND w <> 1.25", ("0.49", "0.5", "0.51", "1.25", "'NaN'", "NULL")),
    (
        "numeric(18)",
        "v > 123456789012345000 OR v < w",
        ("123456789012345001", "-999999999999999999", "1", "'NaN'", "NULL"),
    ),
    ("price", "v <= w", ("0", "0.01", "100.10", "NULL")),
    ("numeric", "v > 0", DIGITS),
    ("numeric", "0 >= v OR w <> 0", DIGITS),
    ("numeric", "v >= 0 AND 0 = w", DIGITS),
    ("float8", "v < 100", FLOATS),
    ("float8", "v > 0.1 OR NOT v <= w", FLOATS),
    ("real", "v <= 0.25 AND w <> 0", SINGLES),
    ("real", "v > w", SINGLES),
    ("text", "v <> '' AND w = 'a'", WORDS),
    ("text", "v IN ('a', 'A', '007') OR w <> ALL (ARRAY['a', 'b'])", WORDS),
    ("varchar(5)", "v = ANY ('{a,007}'::text[])", WORDS),
    ("text", "v LIKE 'a%' OR w NOT LIKE '%b' AND w LIKE '_%'", WORDS),
    ("text", "v LIKE '%*%' OR v LIKE 'a[_'", WORDS),
    ("varchar(5)", "length(v) <= 2 AND char_length(w) > 0", WORDS),
    ("text", "octet_length(v) < 2 AND btrim(w) <> '' AND trim(both 'a' from v) <> 'b'", WORDS),
    (
        "text",
        "v || w <> 'aa' AND left(v, 1) <> 'A' AND right(w, 2) <> 'ab' AND substring(v, 2, 1) <> 'b'",
        WORDS,
    ),
    ('text COLLATE "C"', "v < w OR v >= 'b'", WORDS),
    ("char(3)", "v <> 'a' AND w <> 'ab ' AND length(v) < 2", WORDS),
    ("char(3)", "v::text <> 'a'", WORDS),
    ("citext", "v::text <> 'a'", WORDS),
    ("mail", "v <> 'a@b'", ("'a@b'", "'x@y'", "NULL")),
    ("mood", "v <> 'sad' AND w IN ('it''s ok', 'happy')", ("'sad'", "'it''s ok'", "'happy'", "NULL")),
    ("mood", "v::text LIKE '%s%'", ("'sad'", "'it''s ok'", "'happy'", "NULL")),
    ("mild", "v IS NOT NULL", ("'sad'", "'it''s ok'", "NULL")),
    ("uuid", "v <> 'ABCDEF00-0000-4000-8000-000000000000' AND v < w", UUIDS),
    ("date", "v <= w", DATES),
    ("date", "v > '2000-01-01' OR v < '-infinity'", DATES),
    ("timestamp", "v < w OR v = '2020-01-01 10:00:00.5'", MOMENTS),
    ("timestamptz", "v >= '2020-01-01 11:00:00.123+01' AND w <> 'infinity'", MOMENTS),
    (
        "time",
        "v < w OR v >= '10:00:00.5'",
        ("'00:00'", "'10:00:00.5'", "'10:00:00.500001'", "'24:00'", "NULL"),
    ),
    (
        "bytea",
        r"v <> '\x00' AND v < w AND octet_length(v) < 3",
        (r"'\x'", r"'\x00'", r"'\xff'", r"'\x0001'", "NULL"),
    ),
    (
        "jsonb",
        "jsonb_typeof(v) = 'object' OR jsonb_typeof(v) IN ('number', 'boolean')",
        ("'{}'", "'[1]'", "'-1'", "'true'", "'\"a\"'", "NULL"),
    ),
    ("pair", "num_nulls(v, w) = 1", ("ROW(1, NULL)::pair", "ROW(NULL, NULL)::pair", "NULL")),
)
LEFT_OUT: Sequence[Tuple[str, str, Sequence[str]]] = (
    ("text", "v ~ '^[a-z]+$'", WORDS),
    ("text", "v = lower(v)", WORDS),
    ("text", "v < 'b'", WORDS),
    ("text", "v ILIKE 'a%'", WORDS),
    ("text", r"v LIKE 'a\%%'", WORDS),
    ("char(3)", "v LIKE 'a'", WORDS),
    ("citext", "v <> 'a'", WORDS),
    ("mood", "v > 'sad'", ("'sad'", "'happy'", "NULL")),
    ("numeric", "v = w", DIGITS),
    ("numeric", "v < 10", DIGITS),
    ("numeric(8,2)", "v * 1.1 < 5", ("1", "NULL")),
    ("real", "v > 0.1", SINGLES),
    ("float8", "v <> 'NaN'", FLOATS),
    ("float8", "v + 1 > w", FLOATS),
    ("pair", "v IS NULL", ("ROW(NULL, NULL)::pair", "NULL")),
    ("int", "greatest(v, w) > 0", NUMBERS),
    ("timestamp", "v < now()", MOMENTS),
    ("date", "extract(year from v) > 2000", DATES),
    ("interval", "v > '1 day'", ("'1 day'", "'24:00'", "NULL")),
    ("int[]", "cardinality(v) > 0", ("'{}'", "'{1}'", "NULL")),
    ("varchar(5)", "v::varchar(1) <> 'a'", WORDS),
    ("timestamptz", "v::date > '2020-01-01'", MOMENTS),
)
CASES = [(*case, True) for case in KEPT] + [(*case, False) for case in LEFT_OUT]


# Names that begin a statement, or are words of another kind, to sqlglot; PostgreSQL quotes none of them
WORDS_OF_SQL = (
    *("show", "call", "execute", "load", "lock", "comment", "begin", "commit", "explain", "cache", "copy"),
    *("revoke", "alter", "date", "text"),
)


def test_names_that_are_words_of_sql(empty: Database) -> None:
    columns = ", ".join("%s bool CHECK (%s)" % (word, word) for word in WORDS_OF_SQL)
    empty.execute("CREATE TABLE t (%s)" % columns)
    with reading(Database(empty.url)) as db:
        schema = schema_of(db, ["t"])
    kept = schema.text.count("CONSTRAINT")
    assert kept > 10 and kept + len(schema.tables["t"].notes) == len(WORDS_OF_SQL)


class Judged(NamedTuple):
    schema: SqliteSchema
    columns: Dict[str, Tuple[Column, ...]]
    rows: Dict[str, List[Tuple[bytes, bool]]]  # each record, and whether PostgreSQL's CHECK takes it


@pytest.fixture(scope="module")
def judged(server: Server) -> Iterator[Judged]:
    """A table of each case with its CHECK; all pairs of its values, and PostgreSQL's word on each."""
    with server.new_database("TEMPLATE template0") as made:
        made.execute(TYPES)
        rows = {}
        connection = psycopg2.connect(made.url)
        cursor = connection.cursor()
        cursor.execute("SET timezone = 'UTC'")
        for number, (kind, check, values, _) in enumerate(CASES):
            table = "t%d" % number
            cursor.execute("CREATE TABLE {0} (v {1}, w {1}, CHECK ({2}))".format(table, kind, check))
            pairs = ", ".join("(%s, %s)" % (v, w) for v in values for w in values)
            cursor.execute("CREATE TEMP TABLE all_{0} (v {1}, w {1})".format(table, kind))
            cursor.execute("INSERT INTO all_%s VALUES %s" % (table, pairs))
            cursor.execute("SELECT row_to_json(t)::text, (%s) IS NOT FALSE FROM all_%s t" % (check, table))
            rows[table] = [(record.encode(), verdict) for record, verdict in cursor.fetchall()]
        connection.commit()
        connection.close()
        with reading(Database(made.url)) as db:
            tables = list(rows)
            yield Judged(schema_of(db, tables), dict(db.catalog.columns), rows)


@pytest.mark.parametrize("number", range(len(CASES)), ids=["%s: %s" % case[:2] for case in CASES])
def test_check_judges_as_postgres_does(judged: Judged, number: int) -> None:
    table, is_kept = "t%d" % number, CASES[number][3]
    described, columns = judged.schema.tables[table], judged.columns[table]
    script = judged.schema.text.partition("CREATE TABLE %s (" % table)[2].partition("\n);")[0]
    assert ("CONSTRAINT" in script) is is_kept
    assert any("is left out" in note for note in described.notes) is not is_kept
    database = sqlite3.connect(":memory:")
    database.executescript(judged.schema.text)
    decode = record_decoder(columns)
    converters = [
        conversion.converter(column, (field.declared or "").split()[0], False, False)
        for column, field in zip(columns, described.fields)
    ]
    for record, accepted in judged.rows[table]:
        decoded = decode(record)
        values = [
            value if value is None or convert is None else convert(value)
            for value, convert in zip((decoded.c0, decoded.c1), converters)
        ]
        try:
            database.execute("INSERT INTO %s VALUES (?, ?)" % table, values)
            taken = True
        except sqlite3.IntegrityError:
            taken = False
        assert taken is (accepted or not is_kept), (record, values)
