"""The type contract through the whole path: a literal in PostgreSQL, the bundle, and what SQLite then holds."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import string
from datetime import date, datetime, time, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence, Tuple

import msgspec
import psycopg2
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from export_from_postgres import export
from import_to_sqlite import import_
from migration import conversion
from migration.errors import ExitCode, MigrationError
from migration.model import Column, Kind
from migration.settings import Settings
from support.migrations import export_and_import, settings_of, typed_settings
from support.places import ANNA, Place, extended_schema
from support.servers import Database, Server
from validate_migration import validate

TYPES = """
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('calm', 'very tense', 'it''s "odd"');
CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN degrees AS numeric(6,3) CHECK (VALUE < 360);
CREATE DOMAIN label AS text;
CREATE DOMAIN stamp AS timestamptz;
CREATE DOMAIN flag AS boolean;
CREATE DOMAIN settings AS jsonb;
"""

CONTROL = "".join(map(chr, range(1, 32))) + "\x7f\x80\x9f"
DIGITS_40 = "1234567890123456789012345678901234567890"
DIGITS_30 = "123456789012345678901234567890"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


class Case(NamedTuple):
    """A value in PostgreSQL (type and SQL expression), the SQLite column's type, and what is found there."""

    type: str
    literal: str
    declared: str
    value: Any
    typeof: str


def as_text(kind: str, given: str, found: str = "") -> Case:
    """What becomes text: as it is given, or ``found``."""
    return Case(kind, quoted(given), "TEXT", found or given, "text")


CASES = [
    # booleans and integers
    Case("boolean", "true", "INTEGER", 1, "integer"),
    Case("boolean", "false", "INTEGER", 0, "integer"),
    Case("boolean", "NULL", "INTEGER", None, "null"),
    Case("flag", "true", "INTEGER", 1, "integer"),
    Case("smallint", "-32768", "INTEGER", -32768, "integer"),
    Case("integer", "0", "INTEGER", 0, "integer"),
    Case("integer", "-2147483648", "INTEGER", -2147483648, "integer"),
    Case("integer", "NULL", "INTEGER", None, "null"),
    Case("integer", "42", "REAL", 42.0, "real"),
    Case("bigint", "9007199254740993", "INTEGER", 9007199254740993, "integer"),
    Case("bigint", "9223372036854775807", "INTEGER", 9223372036854775807, "integer"),
    Case("bigint", "-9223372036854775808", "INTEGER", -9223372036854775808, "integer"),
    Case("bigint", "9007199254740993", "TEXT", "9007199254740993", "text"),
    Case("bigint", "9007199254740993", "NUMERIC", 9007199254740993, "integer"),
    Case("bigint", "9007199254740993", "", 9007199254740993, "integer"),
    # binary fractions
    Case("real", "0.1", "REAL", 0.1, "real"),
    Case("real", "16777216", "REAL", 16777216.0, "real"),
    Case("real", "'3.4028235e38'", "REAL", 3.4028235e38, "real"),
    Case("double precision", "0.1::float8 + 0.2", "REAL", 0.30000000000000004, "real"),
    Case("double precision", "1e308", "REAL", 1e308, "real"),
    Case("double precision", "5e-324", "REAL", 5e-324, "real"),
    Case("double precision", "1e15", "REAL", 1e15, "real"),
    Case("double precision", "9007199254740993", "REAL", 9007199254740992.0, "real"),
    Case("double precision", "0", "REAL", 0.0, "real"),
    Case("double precision", "'-0'", "REAL", 0.0, "real"),
    Case("double precision", "0.1", "TEXT", "0.1", "text"),
    Case("double precision", "'NaN'", "REAL", "NaN", "text"),
    Case("double precision", "'Infinity'", "REAL", "Infinity", "text"),
    Case("real", "'-Infinity'", "REAL", "-Infinity", "text"),
    Case("double precision", "NULL", "REAL", None, "null"),
    # decimals
    Case("numeric(10,7)", "38.7222524", "REAL", 38.7222524, "real"),
    Case("numeric(10,7)", "-9.1393366", "REAL", -9.1393366, "real"),
    Case("numeric(10,7)", "0", "REAL", 0.0, "real"),
    Case("numeric(10,7)", "180", "REAL", 180.0, "real"),
    Case("numeric(5,2)", "1.50", "REAL", 1.5, "real"),
    Case("numeric(5,2)", "NULL", "REAL", None, "null"),
    Case("numeric", "0.1000", "REAL", 0.1, "real"),
    Case("numeric", "123456789.012345", "REAL", 123456789.012345, "real"),
    Case("numeric", DIGITS_40, "TEXT", DIGITS_40, "text"),
    Case("numeric", "0." + DIGITS_40, "TEXT", "0." + DIGITS_40, "text"),
    Case("numeric", "1.10", "TEXT", "1.10", "text"),
    Case("numeric", "'NaN'", "REAL", "NaN", "text"),
    as_text("numeric", "NaN"),
    Case("numeric", "42", "INTEGER", 42, "integer"),
    Case("numeric", "42.50", "NUMERIC", 42.5, "real"),
    Case("numeric", "9223372036854775807", "NUMERIC", 9223372036854775807, "integer"),
    Case("degrees", "359.999", "REAL", 359.999, "real"),
    # identifiers
    as_text("uuid", "6F9619FF-8B86-D011-B42D-00CF4FC964FF", "6f9619ff-8b86-d011-b42d-00cf4fc964ff"),
    # dates and times
    as_text("date", "2025-11-15"),
    as_text("date", "0001-01-01"),
    as_text("date", "9999-12-31"),
    as_text("date", "0044-03-15 BC", "-0043-03-15"),
    as_text("date", "0001-12-31 BC", "0000-12-31"),
    as_text("date", "4713-01-01 BC", "-4712-01-01"),
    as_text("date", "12025-01-01", "+12025-01-01"),
    as_text("date", "infinity"),
    as_text("date", "-infinity"),
    Case("date", "NULL", "TEXT", None, "null"),
    as_text("time", "00:00:00"),
    as_text("time", "12:34:56.7", "12:34:56.700000"),
    as_text("time", "12:34:56.000001"),
    as_text("time", "23:59:59.999999"),
    as_text("time", "24:00:00"),
    as_text("timetz", "10:00:00+05:45"),
    as_text("timetz", "10:00:00.5-03", "10:00:00.500000-03:00"),
    as_text("timestamp", "2025-11-15 09:30:00", "2025-11-15T09:30:00"),
    as_text("timestamp", "2025-11-15 09:30:00.120000", "2025-11-15T09:30:00.120000"),
    as_text("timestamp", "2025-11-15 09:30:00.1", "2025-11-15T09:30:00.100000"),
    as_text("timestamp", "2025-11-15 09:30:00.123456", "2025-11-15T09:30:00.123456"),
    as_text("timestamp", "0044-03-15 12:00:00.50 BC", "-0043-03-15T12:00:00.500000"),
    as_text("timestamp", "294276-12-31 23:59:59", "+294276-12-31T23:59:59"),
    as_text("timestamp", "infinity"),
    as_text("timestamp", "-infinity"),
    as_text("timestamp(0)", "2025-11-15 09:30:00.4", "2025-11-15T09:30:00"),
    as_text("timestamptz", "2025-06-01 12:00:00+02", "2025-06-01T10:00:00+00:00"),
    as_text("timestamptz", "2025-06-01 12:00:00.50+05:45", "2025-06-01T06:15:00.500000+00:00"),
    as_text("timestamptz", "0044-03-15 12:00:00+00 BC", "-0043-03-15T12:00:00+00:00"),
    as_text("timestamptz", "infinity"),
    as_text("stamp", "2025-06-01 00:00:00+02", "2025-05-31T22:00:00+00:00"),
    as_text("interval", "1 year 2 mons -3 days 04:05:06.7", "P1Y2M-3DT4H5M6.7S"),
    as_text("interval", "0", "PT0S"),
    # bytes
    Case("bytea", "'\\x00ff41'", "BLOB", b"\x00\xffA", "blob"),
    Case("bytea", "''", "BLOB", b"", "blob"),
    as_text("bytea", "\\x00ff41"),
    Case("bytea", "NULL", "BLOB", None, "null"),
    # what has its own text
    as_text("mood", "calm"),
    as_text("mood", 'it\'s "odd"'),
    as_text("citext", "MiXed"),
    as_text("label", "x"),
    as_text("inet", "192.168.0.1/24"),
    as_text("inet", "::1"),
    as_text("cidr", "10.0.0.0/8"),
    as_text("macaddr", "08:00:2b:01:02:03"),
    as_text("money", "1234.5", "1234.50"),
    Case("bit(3)", "B'101'", "TEXT", "101", "text"),
    as_text("point", "(1,2.5)"),
    as_text("daterange", "[2025-01-02,2025-02-03)"),
    as_text("char(5)", "ab", "ab   "),
    as_text("varchar(3)", "äöü"),
    Case("oid", "4294967295", "TEXT", "4294967295", "text"),
    # structures are JSON
    as_text("text[]", '{a,NULL,"b, c",""}', '["a",null,"b, c",""]'),
    as_text("text[]", "{}", "[]"),
    Case("text[]", "NULL", "TEXT", None, "null"),
    as_text("bigint[]", "{{1,2},{3,9007199254740993}}", "[[1,2],[3,9007199254740993]]"),
    as_text("numeric[]", "{1.10}", "[1.10]"),
    as_text("mood[]", "{calm}", '["calm"]'),
    Case("pair", "ROW(1, 'q\"')", "TEXT", '{"a":1,"b":"q\\""}', "text"),
    # text
    as_text("text", ""),
    as_text("text", " "),
    as_text("text", "0"),
    as_text("text", "007"),
    as_text("text", "null"),
    as_text("text", "NULL"),
    as_text("text", "\\N"),
    as_text("text", "\\."),
    as_text("text", "[]"),
    as_text("text", CONTROL),
    as_text("text", "\n"),
    as_text("text", "a\r\nb\tc\x0bd"),
    as_text("text", "\x01\x02\x01"),
    as_text("text", '"\'`\\ \\" \\u0041 %s $1 {} ,'),
    as_text("text", "🌙✨𐍈𒀭👩‍👧 e\u0301 \u202eright\u202c"),
    as_text("text", "\u2028\u2029\ufeff\ufffe\uffff\U0010ffff\u00a0"),
    Case("text", "NULL", "TEXT", None, "null"),
    Case("text", "'not a number'", "NUMERIC", "not a number", "text"),
    Case("text", "'123'", "", "123", "text"),
    # JSON documents
    as_text("jsonb", "{}"),
    as_text("jsonb", "[]"),
    as_text("jsonb", '""'),
    as_text("jsonb", "0"),
    as_text("jsonb", "false"),
    as_text("jsonb", "true"),
    as_text("jsonb", '"text"'),
    as_text("jsonb", "null"),
    Case("jsonb", "NULL", "TEXT", None, "null"),
    Case("json", "NULL", "TEXT", None, "null"),
    Case("jsonb NOT NULL", "'null'", "TEXT NOT NULL", "null", "text"),
    Case("json NOT NULL", "'null'", "TEXT NOT NULL", "null", "text"),
    as_text("settings", '{"a": null}'),
    as_text("settings", "null"),
    as_text("jsonb", '{"a": 1.10}'),
    as_text("jsonb", '{"a": %s}' % DIGITS_30),
    as_text("jsonb", '{"a": 0.%s}' % DIGITS_40),
    as_text("jsonb", '{"a": 1e400}', '{"a": 1' + "0" * 400 + "}"),
    as_text("jsonb", "9007199254740993"),
    as_text("jsonb", '[null, [], {}, false, 0, ""]'),
    as_text("jsonb", '{"a\\"b\\\\c\\nd": "\\u0001 \\t / 🌙"}'),
    as_text("jsonb", '{"$json_null": ["v"]}'),
    as_text("json", "null"),
    as_text("json", "1.10"),
    as_text("json", "1e400"),
    as_text("json", '{"a" :1,  "a":2.50 , "b":1E-7}'),
    as_text("json", '{\n\t"a":\r\n1\n}', '{ \t"a":  1 }'),
    as_text("json", DIGITS_40),
]

Pair = Tuple[str, str]


def tables_of(pairs: Sequence[Pair], prefix: str) -> Dict[Pair, str]:
    return {pair: "%s_%d" % (prefix, number) for number, pair in enumerate(dict.fromkeys(pairs))}


def typed_tables(database: Database, folder: Path, names: Dict[Pair, str]) -> Path:
    """Make a table for each pair of types in PostgreSQL, and return a SQLite schema with the same."""
    source, ours = [], []
    for (kind, declared), name in names.items():
        source.append(
            "CREATE TABLE %s (id text PRIMARY KEY, user_id uuid NOT NULL REFERENCES users, v %s);"
            % (name, kind)
        )
        ours.append("CREATE TABLE %s (id TEXT PRIMARY KEY, v %s);" % (name, declared))
    database.execute("".join(source))
    return extended_schema(folder, "\n".join(ours))


@pytest.fixture(scope="module")
def typed_database(server: Server) -> Iterator[Database]:
    with server.new_database() as database:
        database.execute(TYPES)
        yield database


@pytest.fixture(scope="module")
def migrated(typed_database: Database, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """All of CASES, migrated in one run; the row of a case is named by its number."""
    place = Place(tmp_path_factory.mktemp("types"))
    names = tables_of([(case.type, case.declared) for case in CASES], "typed")
    schema = typed_tables(typed_database, place.folder, names)
    anna = typed_database.rows("SELECT id::text FROM users WHERE email = %s", ANNA)[0][0]
    typed_database.execute(
        "SET TimeZone = 'UTC';"
        + "".join(
            "INSERT INTO %s VALUES ('%d', '%s', %s);"
            % (names[case.type, case.declared], number, anna, case.literal)
            for number, case in enumerate(CASES)
        )
    )
    settings = typed_settings(typed_database, place, schema, list(names.values()))
    export_and_import(settings)
    return settings


# What readers of JSON balk at, PostgreSQL takes.
AWKWARD = [
    as_text("json", '"\\ud800 \\u0000 \\/ \\u00e9"'),
    as_text("jsonb", "[" * 3000 + "]" * 3000),
    as_text("json", "[" * 3000 + "]" * 3000),
    as_text("json", '{"a":' * 900 + "1" + "}" * 900),
]


@pytest.mark.parametrize("number", range(len(AWKWARD)))
def test_json_that_readers_balk_at_arrives(typed_database: Database, place: Place, number: int) -> None:
    case = AWKWARD[number]
    names = tables_of([(case.type, case.declared)], "awkward_%d" % number)
    (name,) = names.values()
    schema = typed_tables(typed_database, place.folder, names)
    typed_database.execute(
        "INSERT INTO %s SELECT 1, id, %s FROM users WHERE email = '%s'" % (name, case.literal, ANNA)
    )
    settings = typed_settings(typed_database, place, schema, [name])
    export_and_import(settings)
    assert validate(settings).errors == []
    connection = sqlite3.connect(str(place.app))
    assert connection.execute("SELECT v FROM " + name).fetchall() == [(case.value,)]
    connection.close()


@pytest.fixture(scope="module")
def sqlite(migrated: Settings) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(str(migrated.sqlite_path))
    yield connection
    connection.close()


def _label(case: Case) -> str:
    literal = case.literal if len(case.literal) < 40 else case.literal[:36] + "..."
    return "%s %s to %s" % (case.type, ascii(literal), case.declared or "untyped")


@pytest.mark.parametrize("number", range(len(CASES)), ids=[_label(case) for case in CASES])
def test_value_reaches_sqlite_as_the_contract_says(sqlite: sqlite3.Connection, number: int) -> None:
    case = CASES[number]
    name = tables_of([(each.type, each.declared) for each in CASES], "typed")[case.type, case.declared]
    found = sqlite.execute("SELECT v, typeof(v) FROM %s WHERE id = ?" % name, (str(number),)).fetchall()
    assert found == [(case.value, case.typeof)]
    assert type(found[0][0]) is type(case.value)


def test_validation_accepts_every_one_of_these_values(migrated: Settings) -> None:
    report = validate(migrated)
    assert report.errors == []


READERS = {
    "date": date.fromisoformat,
    "time": time.fromisoformat,
    "timetz": time.fromisoformat,
    "timestamp": datetime.fromisoformat,
    "timestamptz": datetime.fromisoformat,
    "stamp": datetime.fromisoformat,
}


@pytest.mark.parametrize(
    "case",
    [
        case
        for case in CASES
        if case.type in READERS
        and case.value is not None
        and case.value[0] not in "+-i"
        and case.value not in ("24:00:00", "0000-12-31")
    ],
    ids=_label,
)
def test_moments_read_back_with_fromisoformat_on_every_python(sqlite: sqlite3.Connection, case: Case) -> None:
    # Python 3.8 takes no fraction but of three or six digits, and no Z
    assert READERS[case.type](case.value).isoformat() == case.value


def test_document_of_25_megabytes_arrives_whole(typed_database: Database, place: Place) -> None:
    names = tables_of([("jsonb", "TEXT"), ("text", "TEXT")], "big")
    schema = typed_tables(typed_database, place.folder, names)
    anna = typed_database.rows("SELECT id::text FROM users WHERE email = %s", ANNA)[0][0]
    line, times = 'Sonne ☉ "quoted" \\ back\n', 950_000
    words = line * times
    document = {"k": words, "list": list(range(200_000)), "z": None}
    big, text = names["jsonb", "TEXT"], names["text", "TEXT"]
    typed_database.execute("INSERT INTO %s VALUES ('1', %%s, repeat(%%s, %%s))" % text, anna, line, times)
    typed_database.execute(
        "INSERT INTO %s SELECT id, user_id, jsonb_build_object('k', v, 'list', %%s::jsonb, 'z', NULL) FROM %s"
        % (big, text),
        json.dumps(document["list"]),
    )
    settings = typed_settings(typed_database, place, schema, list(names.values()))
    export(settings)
    assert (place.data / (text + ".json")).stat().st_size > 25_000_000
    import_(settings)
    connection = sqlite3.connect(str(place.app))
    found = connection.execute("SELECT v FROM %s" % big).fetchone()[0]
    assert json.loads(found) == document
    found = connection.execute("SELECT v FROM %s" % text).fetchone()[0]
    assert hashlib.sha256(found.encode()).digest() == hashlib.sha256(words.encode()).digest()
    connection.close()
    typed_database.execute("DROP TABLE %s, %s" % (big, text))


def test_odd_names_of_tables_and_columns_are_quoted(typed_database: Database, place: Place) -> None:
    name, column = 'Odd "table" %s', "select ä' %s {0}"
    quoted_names = '"Odd ""table"" %s"', '"select ä\' %s {0}"'
    typed_database.execute(
        'CREATE TABLE %s ("Key" int PRIMARY KEY, user_id uuid REFERENCES users, %s jsonb)' % quoted_names
    )
    typed_database.execute(
        "INSERT INTO %s SELECT n, id, 'null' FROM users, generate_series(9, 11) n WHERE email = '%s'"
        % (quoted_names[0], ANNA)
    )
    schema = extended_schema(
        place.folder, 'CREATE TABLE %s ("Key" INTEGER PRIMARY KEY, %s TEXT);' % quoted_names
    )
    settings = typed_settings(typed_database, place, schema, [name])
    export_and_import(settings)
    report = validate(settings)
    assert report.errors == []
    connection = sqlite3.connect(str(place.app))
    found = connection.execute("SELECT * FROM " + quoted_names[0])
    assert [each[0] for each in found.description] == ["Key", column]
    assert found.fetchall() == [(9, "null"), (10, "null"), (11, "null")]
    connection.close()
    typed_database.execute("DROP TABLE " + quoted_names[0])


@pytest.mark.parametrize("column", ['a"b', "a\\b", "a\nb"])
def test_column_name_that_cannot_be_handled_is_refused(
    typed_database: Database, place: Place, column: str
) -> None:
    name = '"%s"' % column.replace('"', '""')
    typed_database.execute(
        "CREATE TABLE named (id int PRIMARY KEY, user_id uuid REFERENCES users, %s text)" % name
    )
    schema = extended_schema(place.folder, "CREATE TABLE named (id INTEGER PRIMARY KEY, %s TEXT);" % name)
    with pytest.raises(MigrationError, match="the name of a column of named") as caught:
        export(typed_settings(typed_database, place, schema, ["named"]))
    typed_database.execute("DROP TABLE named")
    assert caught.value.exit_code == ExitCode.USAGE


# What SQLite would change is refused

REFUSED = [
    Case("numeric", DIGITS_40, "REAL", "double", ""),
    Case("numeric", "0.1234567890123456789", "REAL", "double", ""),
    Case("numeric", "1e400", "REAL", "double", ""),
    Case("numeric", "9223372036854775808", "INTEGER", "double", ""),
    Case("bigint", "9007199254740993", "REAL", "double", ""),
    Case("text", "'007'", "NUMERIC", "reads as a number", ""),
    Case("text", "'1e5'", "REAL", "reads as a number", ""),
    Case("text", "' 12 '", "INTEGER", "reads as a number", ""),
    Case("varchar(9)", "'+.5'", "NUMERIC", "reads as a number", ""),
    Case("mood2", "'1'", "NUMERIC", "reads as a number", ""),
    Case("jsonb", "'5'", "NUMERIC", "reads as a number", ""),
]


@pytest.mark.parametrize("number", range(len(REFUSED)), ids=[_label(case) for case in REFUSED])
def test_value_that_sqlite_would_change_is_refused_by_name(
    typed_database: Database, place: Place, number: int
) -> None:
    case = REFUSED[number]
    if case.type == "mood2":
        typed_database.execute("CREATE TYPE mood2 AS ENUM ('1', '2')")
    names = tables_of([(case.type, case.declared)], "refused_%d" % number)
    (name,) = names.values()
    schema = typed_tables(typed_database, place.folder, names)
    typed_database.execute(
        "INSERT INTO %s SELECT 'row-7', id, %s FROM users WHERE email = '%s'" % (name, case.literal, ANNA)
    )
    place.app.write_bytes(b"")
    settings = typed_settings(typed_database, place, schema, [name])
    export(settings)
    with pytest.raises(MigrationError) as caught:
        import_(settings)
    assert caught.value.exit_code == ExitCode.SOURCE
    assert "%s row-7, column v" % name in caught.value.message
    assert case.value in caught.value.message
    assert case.literal.strip("'") not in caught.value.message.replace("row-7", "").replace(name, "")
    assert place.app.read_bytes() == b""


# Random rows

TEXTS = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\0"), max_size=40)
NUMBERS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20, places=9)
JSON = st.recursive(
    st.none() | st.booleans() | TEXTS | NUMBERS | st.integers(-(10**30), 10**30),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
ROWS = st.lists(
    st.tuples(
        TEXTS,
        st.none() | TEXTS,
        JSON,
        st.none() | JSON,
        st.floats(allow_nan=False, allow_infinity=False),
        st.none() | NUMBERS,
        st.integers(-(2**63), 2**63 - 1),
        st.datetimes(),
        st.datetimes(
            min_value=datetime(2, 1, 1), max_value=datetime(9998, 1, 1), timezones=st.just(timezone.utc)
        ),
        st.none() | st.dates(),
        st.times(),
        st.none() | st.binary(max_size=30),
        st.none() | st.booleans(),
    ),
    min_size=1,
    max_size=25,
)


def _json(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(json.dumps(key) + ":" + _json(each) for key, each in value.items()) + "}"
    return json.dumps(value)


def _read(text: Any) -> Any:
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def _plain(value: Any) -> Any:
    """Booleans apart from numbers, which compare equal in Python."""
    if isinstance(value, bool):
        return ("bool", value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


@pytest.fixture(scope="module")
def random_tables(
    typed_database: Database, tmp_path_factory: pytest.TempPathFactory
) -> Tuple[Place, Settings, str]:
    place = Place(tmp_path_factory.mktemp("random"))
    typed_database.execute(
        "CREATE TABLE random_rows (id int PRIMARY KEY, user_id uuid REFERENCES users, t text NOT NULL, t2 text,"
        " j jsonb NOT NULL, j2 json, f float8, n numeric, b bigint, ts timestamp, tz timestamptz, d date, c time,"
        " raw bytea, yes boolean)"
    )
    schema = extended_schema(
        place.folder,
        "CREATE TABLE random_rows (id INTEGER PRIMARY KEY, t TEXT NOT NULL, t2 TEXT, j TEXT NOT NULL, j2 TEXT,"
        " f REAL, n TEXT, b INTEGER, ts TEXT, tz TEXT, d TEXT, c TEXT, raw BLOB, yes INTEGER);",
    )
    anna = str(typed_database.rows("SELECT id::text FROM users WHERE email = %s", ANNA)[0][0])
    return place, typed_settings(typed_database, place, schema, ["random_rows"]), anna


@given(rows=ROWS)
@hypothesis_settings(
    max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
def test_random_rows_come_out_as_they_went_in(
    typed_database: Database, random_tables: Tuple[Place, Settings, str], rows: List[Tuple[Any, ...]]
) -> None:
    place, settings, anna = random_tables
    connection = psycopg2.connect(typed_database.url)
    with connection, connection.cursor() as cursor:
        cursor.execute("SET TimeZone = 'UTC'; TRUNCATE random_rows")
        for number, (t, t2, j, j2, *others) in enumerate(rows):
            cursor.execute(
                "INSERT INTO random_rows VALUES (%s)" % ", ".join(["%s"] * 15),
                [number, anna, t, t2, _json(j), None if j2 is None and number % 2 else _json(j2), *others],
            )
    connection.close()
    export_and_import(settings)
    database = sqlite3.connect(str(place.app))
    found = database.execute("SELECT * FROM random_rows ORDER BY id").fetchall()
    database.close()
    assert len(found) == len(rows)
    for number, (row, wanted) in enumerate(zip(found, rows)):
        _, t, t2, j, j2, f, n, b, ts, tz, d, c, raw, yes = row
        assert (t, t2) == wanted[:2]
        assert _plain(_read(j)) == _plain(wanted[2])
        if wanted[3] is None and number % 2:
            assert j2 is None
        else:
            assert _plain(_read(j2)) == _plain(wanted[3])
        assert (f, b) == (wanted[4], wanted[6])
        assert (None if n is None else Decimal(n)) == wanted[5]
        assert datetime.fromisoformat(ts) == wanted[7]
        assert datetime.fromisoformat(tz) == wanted[8]
        assert (None if d is None else date.fromisoformat(d)) == wanted[9]
        assert time.fromisoformat(c) == wanted[10]
        assert raw == wanted[11]
        assert (None if yes is None else bool(yes)) == wanted[12]


def test_printable_characters_are_not_escaped_in_the_bundle(database: Database, place: Place) -> None:
    database.execute(
        "UPDATE clients SET notes = %s WHERE user_id = (SELECT id FROM users WHERE email = %s)",
        string.printable.replace("\x0b", "") + "é☉🌙",
        ANNA,
    )
    export(settings_of(database.url, place))
    assert "é☉🌙" in (place.data / "clients.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("date", "2025-11-15 "),
        ("timestamp", "2025-11-1509:30:00"),
        ("time", "infinity"),
        ("timetz", "-infinity"),
        ("date", "2024-\u0660\u0661-\u0660\u0662"),
        ("timestamptz", "2024-01-02T10:00:00.\u0665+00"),
    ],
)
def test_what_is_no_moment_is_refused(kind: str, value: str) -> None:
    with pytest.raises(conversion.Unrepresentable):
        conversion.moment(kind)(value)


@pytest.mark.parametrize(
    ("kind", "target", "value"),
    [
        ("float", "REAL", "abc"),
        ("bytea", "BLOB", "3132"),
        ("numeric", "REAL", msgspec.Raw('"\u0663"'.encode())),
    ],
)
def test_value_that_is_none_of_its_kind_is_refused(kind: str, target: str, value: Any) -> None:
    convert = conversion.converter(Column("c", kind, Kind(kind), False), target, False, False)
    assert convert is not None
    with pytest.raises(conversion.Unrepresentable):
        convert(value)


def test_undeclared_null_of_json_stays_one_where_the_target_takes_no_null() -> None:
    convert = conversion.converter(Column("c", "", Kind.UNDECLARED, False), "TEXT", True, True)
    assert convert is not None
    assert convert(msgspec.Raw(b"null")) == "null"
