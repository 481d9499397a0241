"""Rows are paired by keys of every type, or as whole rows: each damage is found and named, nothing else is."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import shutil
import sqlite3
from typing import Any, Iterator, List, NamedTuple, Optional, Tuple

import pytest

import config
from export_from_postgres import export
from import_to_sqlite import import_
from migration.decoding import record_decoder
from migration.errors import ExitCode, MigrationError
from migration.model import Column, Kind, Table, owned_by, shared
from migration.postgres import connecting
from migration.postgres.shared_rows import export_shared
from migration.settings import Settings
from migration.sqlite import mapping
from migration.sqlite.schema import TargetColumn, read_schema
from migration.validation import equality, pairing_texts
from migration.validation.report import Report, TableResult
from support.bundles import array, forget_types, rewrite
from support.migrations import export_and_import, settings_of, with_odd
from support.places import ANNA, BRUNO, Place, extended_schema
from support.servers import Database, Server
from support.sqlite_files import change, lawless
from validate_migration import validate

TYPES = """
CREATE EXTENSION citext;
CREATE TYPE mood AS ENUM ('sad', 'glad', 'calm', 'odd', 'new');
CREATE TYPE spot AS (x int, y text);
CREATE DOMAIN grade AS numeric(4, 1);
"""


class KeyCase(NamedTuple):
    """A type of PostgreSQL, that of the SQLite column, four keys, a cell that none becomes, and one more key."""

    kind: str
    target: str
    values: Tuple[str, str, str, str]
    other: Any
    new: str


def _case(kind: str, target: str, values: str, other: Any, new: str) -> KeyCase:
    first, second, third, fourth = values.split("|")
    return KeyCase(kind, target, (first, second, third, fourth), other, new)


KEYS = [
    _case("numeric", "REAL", "1.5|0|-2.25|1e20", 7.125, "77"),
    _case("numeric", "TEXT", "1.50|0.00|-2.25|123456789012345678901234567890.123", "1.5", "77.70"),
    _case("numeric", "NUMERIC", "1.5|0|-2|9007199254740993", 8, "77"),
    _case("numeric", "REAL", "'NaN'|0|1|2", "Infinity", "77"),
    _case("grade", "REAL", "1.5|0|-2.5|100", 7.5, "77"),
    _case(
        "date", "TEXT", "'2021-02-28'|'0044-03-15 BC'|'infinity'|'12025-01-01'", "2021-02-27", "'1999-01-01'"
    ),
    _case("time", "TEXT", "'08:00:00'|'08:00:00.5'|'24:00:00'|'00:00'", "09:00:00", "'07:00'"),
    _case(
        "timetz",
        "TEXT",
        "'08:00+00'|'08:00+01'|'08:00:00.25-03:30'|'24:00+00'",
        "09:00:00+00:00",
        "'07:00+00'",
    ),
    _case(
        "timestamp",
        "TEXT",
        "'2021-02-28 08:00:00.5'|'2021-02-28 08:00:00'|'0001-01-01 00:00 BC'|'-infinity'",
        "2021-02-28T08:00:00.400000",
        "'1999-01-01'",
    ),
    _case(
        "timestamptz",
        "TEXT",
        "'2021-02-28 08:00:00.123456+02'|'2021-02-28 08:00:00+00'|'infinity'|'20000-01-01 00:00+00'",
        "2021-02-28T09:00:00+00:00",
        "'1999-01-01 00:00+00'",
    ),
    _case("bytea", "BLOB", r"'\x00ff'|'\x'|'\x31'|'a'", b"\x00\xfe", "'new'"),
    _case("bytea", "TEXT", r"'\x00ff'|'\x'|'\x31'|'a'", "\\x00fe", "'new'"),
    _case("float8", "REAL", "1.5|'-0'|'Infinity'|'NaN'", 2.5, "77"),
    _case("float8", "TEXT", "1.5|'-0'|'-Infinity'|1e300", "2.5", "77"),
    _case("float4", "REAL", "0.1|0|'NaN'|3e38", 0.2, "77"),
    _case("interval", "TEXT", "'1 day'|'2 hours'|'1 year -3 days'|'0'", "P2D", "'77 days'"),
    _case("mood", "TEXT", "'sad'|'glad'|'calm'|'odd'", "mad", "'new'"),
    _case("int[]", "TEXT", "'{1,2}'|'{}'|'{NULL}'|'{{1},{2}}'", "[1, 3]", "'{77}'"),
    _case("spot", "TEXT", "'(1,a)'|'(,)'|'(2,\"b c\")'|'(1,b)'", '{"x":9,"y":null}', "'(77,z)'"),
    _case("jsonb", "TEXT", """'{"a": 1}'|'[]'|'"x"'|'0'""", '{"a": 2}', "'77'"),
    _case("inet", "TEXT", "'10.0.0.1'|'10.0.0.0/8'|'::1'|'192.168.1.1'", "10.0.0.2", "'10.7.7.7'"),
    _case("bit(3)", "TEXT", "'101'|'000'|'111'|'001'", "100", "'110'"),
    _case("int4range", "TEXT", "'[1,5)'|'empty'|'(,)'|'[7,)'", "[1,6)", "'[77,78)'"),
    _case("bigint", "TEXT", "10|9|-1|9223372036854775807", "11", "77"),
    _case("bigint", "REAL", "10|9|-1|9007199254740992", 11.0, "77"),
    _case("bigint", "BIGINT", "10|9|-1|9223372036854775807", 11, "77"),
    _case(
        "uuid",
        "TEXT",
        "|".join("'%s0000000-0000-4000-8000-000000000000'" % x for x in "1a2f"),
        "x",
        "'70000000-0000-4000-8000-000000000000'",
    ),
    _case('text COLLATE "C"', "TEXT", "'a'|'B'|''|'é'", "x", "'new'"),
    _case("char(3)", "TEXT", "'a'|'b'|'abc'|''", "x", "'new'"),
    _case("citext", "TEXT", "'b'|'A'|'c'|'é'", "x", "'new'"),
    _case("text", "TEXT COLLATE NOCASE", "'é'|'😀'|'z'|''", "x", "'new'"),
    _case("text", "BLOB", "'a'|'B'|''|'1'", "x", "'new'"),
]


def migrated(
    database: Database, place: Place, source: str, target: str, rows: str, more: str = "", head: str = ""
) -> Settings:
    """A migration with one more table, ``odd``."""
    database.execute(TYPES + "CREATE TABLE odd (%s)" % source)
    if rows:
        database.execute("INSERT INTO odd VALUES " + rows)
    schema = extended_schema(place.folder, "CREATE TABLE odd (%s)%s\n;" % (target, more))
    schema.write_text(head + schema.read_text(encoding="utf-8"), encoding="utf-8")
    made = settings_of(
        database.url,
        place,
        schema_path=schema,
        tables=(*config.TABLES, Table("odd", shared())),
        max_differences=1000,
    )
    export_and_import(made)
    return made


def found(report: Report, table: str = "odd") -> List[Tuple[Optional[str], Optional[str], str]]:
    """Row, column and what is said of each difference in a table."""
    return [
        (f.row, f.column, f.message.rpartition(": ")[2])
        for f in report.findings
        if f.check == "contents" and f.table == table
    ]


def edit(settings: Settings, *statements: Any) -> None:
    with lawless(settings) as connection:
        for statement in statements:
            sql, *parameters = statement if isinstance(statement, tuple) else (statement,)
            connection.execute(sql, parameters)
        connection.commit()


def require_all_compared(report: Report, columns: int, table: str = "odd") -> None:
    assert [f.message for f in report.findings if f.table == table] == []
    result = report.validation_results[table]
    assert result.match and result.cells == (result.sqlite_count or 0) * columns > 0
    assert result.columns == columns


# Keys of every type


class Keyed(NamedTuple):
    """A migration with a table for each of KEYS, named ``k0``, ``k1`` …"""

    place: Place
    database: Database
    settings: Settings


@pytest.fixture(scope="module")
def keyed(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keyed]:
    place = Place(tmp_path_factory.mktemp("keyed"))
    with server.new_database() as database:
        sql, schema = TYPES, ""
        for number, case in enumerate(KEYS):
            sql += "CREATE TABLE k%d (k %s PRIMARY KEY, v text, w int);" % (number, case.kind)
            schema += "CREATE TABLE k%d (k %s PRIMARY KEY NOT NULL, v TEXT, w INTEGER);" % (
                number,
                case.target,
            )
        database.execute(sql + FILL)
        tables = tuple(Table("k%d" % number, shared()) for number in range(len(KEYS)))
        path = extended_schema(place.folder, schema)
        settings = settings_of(
            database.url, place, schema_path=path, tables=(*config.TABLES, *tables), max_differences=1000
        )
        export_and_import(settings)
        yield Keyed(place, database, settings)


FILL = "".join(
    "DELETE FROM k%d; INSERT INTO k%d VALUES %s;"
    % (number, number, ", ".join("(%s, 'v%d', %d)" % (value, i, i) for i, value in enumerate(case.values)))
    for number, case in enumerate(KEYS)
)


@pytest.fixture()
def own_keyed(keyed: Keyed, place: Place) -> Settings:
    """Copies of bundle and database that a test may change."""
    shutil.copytree(str(keyed.place.data), str(place.data))
    shutil.copyfile(str(keyed.place.app), str(place.app))
    return dataclasses.replace(keyed.settings, data_dir=place.data, sqlite_path=place.app)


DAMAGES = {
    "a cell": ("UPDATE {t} SET v = 'x' WHERE w = 1", [("v", "should")]),
    "every cell": ("UPDATE {t} SET v = v || 'x', w = w + 10", [("v", "should"), ("w", "should")] * 4),
    "a row less": ("DELETE FROM {t} WHERE w = 2", [(None, "is missing in SQLite")]),
    "a row more": ("INSERT INTO {t} VALUES (?, 'v9', 9)", [(None, "is in SQLite alone")]),
    "another key": (
        "UPDATE {t} SET k = ? WHERE w = 0",
        [(None, "is in SQLite alone"), (None, "is missing in SQLite")],
    ),
    "a null": ("UPDATE {t} SET v = NULL WHERE w = 3", [("v", "should")]),
    "two swapped": (
        "UPDATE {t} SET v = CASE w WHEN 0 THEN 'v1' ELSE 'v0' END WHERE w < 2",
        [("v", "should")] * 2,
    ),
    "a key that is NULL": (
        "UPDATE {t} SET k = NULL WHERE w = 1",
        [(None, "is in SQLite alone"), (None, "is missing in SQLite")],
    ),
}


@pytest.mark.parametrize("against", ["bundle", "source"])
def test_all_cells_are_compared_by_keys_of_any_type(own_keyed: Settings, against: str) -> None:
    report = validate(dataclasses.replace(own_keyed, against=against))
    for number in range(len(KEYS)):
        require_all_compared(report, 3, "k%d" % number)


def test_all_cells_are_compared_by_keys_of_a_bundle_without_types(own_keyed: Settings) -> None:
    forget_types(own_keyed.data_dir)
    import_(own_keyed)
    report = validate(own_keyed)
    assert [f.message for f in report.findings if f.check == "contents"] == []
    assert report.source_changes == {}
    assert all(result.match for result in report.validation_results.values())
    with lawless(own_keyed) as connection:
        for number in range(len(KEYS)):
            connection.execute("UPDATE k%d SET v = 'x' WHERE w = 1" % number)
        connection.commit()
    report = validate(own_keyed)
    for number, case in enumerate(KEYS):
        assert [column for _, column, _ in found(report, "k%d" % number)] == ["v"], case


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named_by_keys_of_any_type(own_keyed: Settings, damage: str) -> None:
    statement, expected = DAMAGES[damage]
    with lawless(own_keyed) as connection:
        for number, case in enumerate(KEYS):
            connection.execute(statement.format(t="k%d" % number), (case.other,) * statement.count("?"))
        connection.commit()
    report = validate(dataclasses.replace(own_keyed, offline=True))
    assert not report.passed
    for number, case in enumerate(KEYS):
        differences = found(report, "k%d" % number)
        told = [(column, message if column is None else "should") for _, column, message in differences]
        assert sorted(told, key=str) == sorted(expected, key=str), (case, differences)
        assert not any(row is None or row.startswith("row ") for row, _, _ in differences)
        result = report.validation_results["k%d" % number]
        assert not result.match and result.differences == len(expected), case


def test_change_of_the_source_is_named_by_keys_of_any_type(own_keyed: Settings, keyed: Keyed) -> None:
    keyed.database.execute(
        "".join(
            "UPDATE {t} SET v = 'x' WHERE w = 0; DELETE FROM {t} WHERE w = 1;"
            "UPDATE {t} SET k = {k} WHERE w = 3;".format(t="k%d" % number, k=case.new)
            for number, case in enumerate(KEYS)
        )
    )
    try:
        changed = validate(own_keyed)
        against = validate(dataclasses.replace(own_keyed, against="source"))
    finally:
        keyed.database.execute(FILL)
    for number, case in enumerate(KEYS):
        changes = changed.source_changes["k%d" % number]
        assert (changes.added.rows, changes.removed.rows, changes.changed.rows) == (1, 2, 1), case
        assert len(found(against, "k%d" % number)) == 4
        assert not against.validation_results["k%d" % number].match


def test_cells_of_rows_of_a_key_of_many_types_are_named(database: Database, place: Place) -> None:
    source = (
        "a numeric, b date, c bytea, d bool, e text, f float8, g int, h uuid, i timestamptz, j interval, x text,"
        " PRIMARY KEY (f, a, b, c, d, e, g, h, i, j)"
    )
    target = (
        "a REAL, b TEXT, c BLOB, d INTEGER, e TEXT, f REAL, g INTEGER, h TEXT, i TEXT, j TEXT, x TEXT,"
        " PRIMARY KEY (j, i, h, g, f, e, d, c, b, a)"
    )
    row = (
        "({0} % 3, '2025-01-01'::date + {0}, decode(md5('{0}'), 'hex'), {0} % 2 = 0, 'e{0}', {0} / 3.0, {0},"
        " md5('{0}')::uuid, '2025-01-01 00:00+00'::timestamptz + {0} * interval '1 h', {0} * interval '1 d', 'x{0}')"
    )
    settings = migrated(database, place, source, target, ", ".join(map(row.format, range(1, 41))))
    require_all_compared(validate(settings), 11)
    edit(
        settings,
        *("UPDATE odd SET %s = 'other' WHERE g = %d" % pair for pair in zip("abcdefhijx", range(1, 11))),
    )
    differences = found(validate(settings))
    assert sorted(column or message for _, column, message in differences) == (
        ["is in SQLite alone"] * 9 + ["is missing in SQLite"] * 9 + ["x"]
    )


@pytest.mark.parametrize(
    "target", ["k TEXT, v TEXT PRIMARY KEY", "k TEXT PRIMARY KEY, v TEXT) WITHOUT ROWID; --"]
)
def test_sqlites_key_need_not_be_the_sources(database: Database, place: Place, target: str) -> None:
    rows = ", ".join("('%s0000000-0000-4000-8000-000000000000', 'v%s')" % (sign, sign) for sign in "f1a2")
    settings = migrated(database, place, "k uuid PRIMARY KEY, v text", target, rows)
    require_all_compared(validate(settings), 2)
    edit(settings, "UPDATE odd SET k = k || 'x' WHERE v = 'v1'", "UPDATE odd SET v = 'x' WHERE v = 'v2'")
    assert len(found(validate(settings))) == 3


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_database_of_another_encoding_is_compared_alike(
    database: Database, place: Place, encoding: str
) -> None:
    signs = [chr(code) for code in (*range(97, 127), *range(161, 1500))] + ["\U0001f600", "\uffee"]
    rows = ", ".join("('%s', %d)" % (sign, number) for number, sign in enumerate(signs))
    head = "PRAGMA encoding = '%s';\n" % encoding
    settings = migrated(
        database, place, "k text PRIMARY KEY, v int", "k TEXT PRIMARY KEY, v INTEGER", rows, head=head
    )
    with contextlib.closing(sqlite3.connect(str(place.app))) as connection:
        assert connection.execute("PRAGMA encoding").fetchone() == (encoding,)
    for against in ("bundle", "source"):
        require_all_compared(validate(dataclasses.replace(settings, against=against)), 2)
    edit(settings, "UPDATE odd SET v = 0 WHERE k = 'é'")
    assert [(row, column) for row, column, _ in found(validate(settings))] == [("é", "v")]


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("k date UNIQUE NOT NULL, v text", "k TEXT, v TEXT"),
        ("k date PRIMARY KEY, v text", "k TEXT, v TEXT"),
        ("k date PRIMARY KEY, v text", "own INTEGER PRIMARY KEY, k TEXT, v TEXT"),
        ("k date PRIMARY KEY, v text", "k TEXT UNIQUE, v TEXT"),
    ],
    ids=["a unique key", "no key in SQLite", "a key of SQLite's own", "a unique key in SQLite"],
)
def test_rows_are_paired_by_the_sources_key(
    database: Database, place: Place, source: str, target: str
) -> None:
    rows = "('2021-02-01', 'a'), ('2021-02-02', 'a'), ('2021-02-03', 'b')"
    settings = migrated(database, place, source, target, rows)
    for against in ("bundle", "source"):
        require_all_compared(validate(dataclasses.replace(settings, against=against)), 2)
    edit(settings, "UPDATE odd SET v = 'x'")
    assert [(row, column) for row, column, _ in sorted(found(validate(settings)))] == [
        ("2021-02-0%d" % day, "v") for day in (1, 2, 3)
    ]


@pytest.mark.parametrize(
    "constraint",
    [
        "CREATE UNIQUE INDEX ON odd (k)",
        "CREATE UNIQUE INDEX ON odd (k, v) WHERE v IS NOT NULL",
        "CREATE UNIQUE INDEX ON odd (lower(v))",
        "ALTER TABLE odd ADD UNIQUE (w) DEFERRABLE",
        "CREATE INDEX ON odd (w)",
    ],
    ids=["nullable", "partial", "of an expression", "deferrable", "not unique"],
)
def test_index_that_does_not_tell_rows_apart_is_no_key(
    database: Database, place: Place, constraint: str
) -> None:
    database.execute("CREATE TABLE odd (k int, v text, w int NOT NULL); " + constraint)
    database.execute("INSERT INTO odd VALUES (NULL, NULL, 1), (NULL, NULL, 2)")
    exported = export(with_odd(database, place, "k INTEGER, v TEXT, w INTEGER"))
    assert exported.manifest.keys["odd"] == ()
    assert exported.manifest.keys["clients"] == ("id",)


def test_constraint_that_earlier_rows_need_not_fulfil_lets_them_be_null(
    database: Database, place: Place
) -> None:
    """PostgreSQL 18: NOT NULL NOT VALID. A null there is SQL's, and the column is no key."""
    if database.rows("SHOW server_version_num")[0][0] < "180000":
        pytest.skip("older servers have no such constraints")
    database.execute(
        "CREATE TABLE odd (k int UNIQUE, j jsonb); INSERT INTO odd VALUES (NULL, NULL), (NULL, 'null'), (1, '1');"
        "ALTER TABLE odd ADD CONSTRAINT k NOT NULL k NOT VALID, ADD CONSTRAINT j NOT NULL j NOT VALID"
    )
    settings = with_odd(database, place, "k INTEGER, j TEXT")
    assert export(settings).manifest.keys["odd"] == ()
    import_(settings)
    require_all_compared(validate(settings), 2)
    with contextlib.closing(sqlite3.connect(str(place.app))) as connection:
        rows = connection.execute("SELECT k, j FROM odd ORDER BY k, j").fetchall()
    assert rows == [(None, None), (None, "null"), (1, "1")]


def test_best_unique_key_is_the_key(database: Database, place: Place) -> None:
    database.execute(
        "CREATE TABLE odd (a int NOT NULL, b int NOT NULL, v text);"
        "CREATE UNIQUE INDEX a_two ON odd (a, b); CREATE UNIQUE INDEX b_one ON odd (b) INCLUDE (v)"
    )
    settings = with_odd(database, place, "a INTEGER, b INTEGER, v TEXT")
    assert export(settings).manifest.keys["odd"] == ("b",)
    database.execute("ALTER TABLE odd REPLICA IDENTITY USING INDEX a_two")
    assert export(settings).manifest.keys["odd"] == ("a", "b")


@pytest.mark.parametrize(
    "key", ["k INTEGER PRIMARY KEY", "k TEXT PRIMARY KEY COLLATE NOCASE", "k PRIMARY KEY"]
)
def test_rows_are_paired_whatever_sqlite_makes_of_the_key(database: Database, place: Place, key: str) -> None:
    rows = ", ".join("(%d, 'v%d')" % (number, number) for number in (3, 20, 100))
    settings = migrated(database, place, "k int PRIMARY KEY, v text", key + ", v TEXT", rows)
    require_all_compared(validate(settings), 2)
    edit(settings, "UPDATE odd SET v = 'x' WHERE v = 'v20'")
    assert [(row, column) for row, column, _ in found(validate(settings))] == [("20", "v")]


def test_rows_that_lack_a_part_of_their_key_are_compared(database: Database, place: Place) -> None:
    rows = "(1, 'a', 'v1'), (NULL, 'a', 'v2'), (NULL, 'a', 'v3'), (NULL, 'a', 'v3'), (NULL, NULL, 'v4')"
    settings = migrated(
        database, place, "a int, b text, v text", "a INTEGER, b TEXT, v TEXT, PRIMARY KEY (a, b)", rows
    )
    require_all_compared(validate(settings), 3)
    edit(settings, "UPDATE odd SET v = 'x' WHERE v IN ('v2', 'v4')")
    assert {(row, column) for row, column, _ in found(validate(settings))} == {
        ("None, a", "v"),
        ("None, None", "v"),
    }
    edit(settings, "DELETE FROM odd WHERE rowid = (SELECT min(rowid) FROM odd WHERE v = 'v3')")
    assert ("None, a", None, "is 1 times in SQLite, 2 times expected") in found(validate(settings))


@pytest.mark.parametrize("types", ["with types", "without types"])
def test_shuffled_bundle_is_compared_whole(database: Database, place: Place, types: str) -> None:
    rows = ", ".join("(%d.25, 'v%d', '{\"a\": [%d]}')" % (number, number, number) for number in range(20))
    settings = migrated(
        database,
        place,
        "k numeric PRIMARY KEY, v text, j jsonb",
        "k REAL PRIMARY KEY NOT NULL, v TEXT, j TEXT",
        rows,
    )
    for name in ("odd", "clients", "charts"):
        path = settings.data_dir / (name + ".json")
        records = json.loads(path.read_text(encoding="utf-8"))
        random.Random(1).shuffle(records)
        rewrite(settings.data_dir, path.name, array(records))
    if types == "without types":
        forget_types(settings.data_dir)
    import_(settings)
    report = validate(settings)
    assert report.source_changes == {}
    require_all_compared(report, 3)
    edit(settings, "UPDATE odd SET j = '{\"a\": [7, 8]}' WHERE k = 7.25")
    assert [(row, column) for row, column, _ in found(validate(settings))] == [("7.25", "j")]


def test_two_records_of_one_key_of_any_type_are_refused(database: Database, place: Place) -> None:
    settings = migrated(
        database,
        place,
        "k date PRIMARY KEY, v text",
        "k TEXT PRIMARY KEY NOT NULL, v TEXT",
        "('2021-01-01', 'a')",
    )
    rewrite(settings.data_dir, "odd.json", array([{"k": "2021-01-01", "v": v} for v in "ab"]), 2)
    with pytest.raises(MigrationError, match="odd has two records of the same primary key") as caught:
        validate(dataclasses.replace(settings, offline=True))
    assert caught.value.exit_code == ExitCode.BUNDLE


# Tables without a key

KEYLESS = (
    "a text, n numeric, j json, b bytea, t timestamptz",
    "a TEXT, n REAL, j TEXT, b BLOB, t TEXT",
    """('x', 1.50, '{"a": 1}', '\\x00', '2021-03-01 08:00:00.5+00'),
       ('x', 1.50, '{"a": 1}', '\\x00', '2021-03-01 08:00:00.5+00'),
       ('y', NULL, 'null', '\\x', 'infinity'),
       ('z', 'NaN', NULL, NULL, NULL),
       (NULL, NULL, NULL, NULL, NULL)""",
)


@pytest.fixture()
def keyless(database: Database, place: Place) -> Settings:
    return migrated(database, place, *KEYLESS)


@pytest.mark.parametrize("against", ["bundle", "source"])
def test_table_without_a_key_arrives_and_is_compared_whole(keyless: Settings, against: str) -> None:
    report = validate(dataclasses.replace(keyless, against=against))
    require_all_compared(report, 5)
    assert report.validation_results["odd"].sqlite_count == 5


def test_two_exports_of_a_table_without_a_key_are_the_same_bytes(
    database: Database, keyless: Settings
) -> None:
    first = (keyless.data_dir / "odd.json").read_bytes()
    assert len(json.loads(first.decode("utf-8"))) == 5
    database.execute(
        "CREATE TABLE again AS SELECT * FROM odd ORDER BY a DESC; DELETE FROM odd;"
        "INSERT INTO odd SELECT * FROM again; DROP TABLE again"
    )
    export(keyless)
    assert (keyless.data_dir / "odd.json").read_bytes() == first
    assert validate(keyless).passed


@pytest.mark.parametrize("column", ["a", "n", "j", "b", "t"])
def test_damaged_cell_of_a_table_without_a_key_is_named(keyless: Settings, column: str) -> None:
    """In the row of nothing but NULL, and in one of two equal rows."""
    values = {"a": "w", "n": 2.5, "j": "[]", "b": b"\x01", "t": "2021-03-01T08:00:00+00:00"}
    for condition in ("a = 'y'", "coalesce(a, n, j, b, t) IS NULL"):
        import_(keyless)
        edit(keyless, ("UPDATE odd SET %s = ? WHERE %s" % (column, condition), values[column]))
        report = validate(keyless)
        ((row, named, message),) = found(report)
        assert named == column and message.startswith("should be "), message
        assert row is not None and row.startswith("row ")
        assert not report.passed and not report.validation_results["odd"].match


@pytest.mark.parametrize(
    ("statements", "messages"),
    [
        (
            ["DELETE FROM odd WHERE rowid = (SELECT min(rowid) FROM odd WHERE a = 'x')"],
            ["is 1 times in SQLite, 2 times expected"],
        ),
        (["DELETE FROM odd WHERE a = 'x'"], ["is 0 times in SQLite, 2 times expected"]),
        (["DELETE FROM odd WHERE a = 'y'"], ["is missing in SQLite"]),
        (["INSERT INTO odd SELECT * FROM odd WHERE a = 'z'"], ["is 2 times in SQLite, 1 times expected"]),
        (["INSERT INTO odd (a) VALUES ('new')"], ["is in SQLite alone"]),
        (
            ["INSERT INTO odd (a) VALUES ('new'), ('new')"],
            ["is 2 times in SQLite, 0 times expected"],
        ),
        (
            ["UPDATE odd SET n = CASE a WHEN 'x' THEN 'NaN' ELSE 1.5 END WHERE a IN ('x', 'z')"],
            ["is 0 times in SQLite, 2 times expected", "is 2 times in SQLite, 0 times expected"]
            + ["is in SQLite alone", "is missing in SQLite"],
        ),
        (
            ["UPDATE odd SET a = 'q' || a"],
            ["is 0 times in SQLite, 2 times expected", "is 2 times in SQLite, 0 times expected"]
            + ["is in SQLite alone"] * 2
            + ["is missing in SQLite"] * 2,
        ),
    ],
    ids=["one of two", "both", "one", "doubled", "new", "two new", "swapped", "every row"],
)  # fmt: skip
def test_rows_of_a_table_without_a_key_are_counted(
    keyless: Settings, statements: List[str], messages: List[str]
) -> None:
    edit(keyless, *statements)
    report = validate(keyless)
    assert sorted(message for _, _, message in found(report)) == messages
    assert not report.passed and not report.validation_results["odd"].match
    assert report.validation_results["odd"].differences == len(messages)


def test_rows_without_a_key_are_shown_by_fingerprints_alone(keyless: Settings) -> None:
    edit(keyless, "UPDATE odd SET a = 'secret', n = 1, j = 1, b = x'07', t = 'then' WHERE a = 'y'")
    report = validate(keyless)
    assert "secret" not in report.text() and len(found(report)) == 2
    shown = validate(dataclasses.replace(keyless, show_values=True))
    assert "secret" in shown.text()


def test_text_that_is_not_utf8_is_a_difference_in_a_table_without_a_key(keyless: Settings) -> None:
    edit(keyless, "UPDATE odd SET a = CAST(x'53ff' AS TEXT) WHERE a = 'y'")
    assert [column for _, column, _ in found(validate(keyless))] == ["a"]


def test_change_of_a_source_without_a_key_is_told(keyless: Settings, database: Database) -> None:
    database.execute("INSERT INTO odd SELECT * FROM odd WHERE a = 'z'; DELETE FROM odd WHERE a = 'x'")
    changes = validate(keyless).source_changes["odd"]
    assert (changes.added.rows, changes.removed.rows, changes.changed.rows) == (1, 2, 0)
    export(keyless)
    database.execute("UPDATE odd SET n = 3 WHERE a = 'y'")
    changes = validate(keyless).source_changes["odd"]
    assert (changes.added.rows, changes.removed.rows, changes.changed.rows) == (0, 0, 1)


def test_bundle_without_types_of_a_table_without_a_key_is_compared(database: Database, place: Place) -> None:
    rows = "('x', 1.5, true, '2021-03-01 08:00:00'), ('1.0', 10, false, NULL), ('{\"a\": 1}', 0.1, NULL, '2021-03-01 08:00:00.25')"
    settings = migrated(
        database,
        place,
        "a text, n numeric, f boolean, t timestamp",
        "a TEXT, n REAL, f INTEGER, t TEXT",
        rows,
    )
    path = settings.data_dir / "odd.json"
    rewrite(settings.data_dir, path.name, path.read_text(encoding="utf-8").replace(".25", ".250000"))
    forget_types(settings.data_dir)
    import_(settings)
    report = validate(settings)
    assert report.source_changes == {}
    require_all_compared(report, 4)
    edit(settings, "UPDATE odd SET f = 0 WHERE a = 'x'")
    assert [column for _, column, _ in found(validate(settings))] == ["f"]
    database.execute("UPDATE odd SET n = 2.5 WHERE a = 'x'")
    assert validate(settings).source_changes["odd"].changed.rows == 1


def test_empty_table_without_a_key_matches(database: Database, place: Place) -> None:
    settings = migrated(database, place, "a text, b text", "a TEXT, b TEXT", "")
    report = validate(settings)
    assert report.passed and report.validation_results["odd"].match


def test_record_of_a_table_without_a_key_is_named_by_its_place(database: Database, place: Place) -> None:
    with pytest.raises(MigrationError, match="odd record 2 is rejected by SQLite: NOT NULL") as caught:
        migrated(database, place, "a text, b int", "a TEXT, b INTEGER NOT NULL", "('a', 1), ('b', NULL)")
    assert caught.value.exit_code == ExitCode.TARGET


def test_rows_of_heirs_are_told_apart_as_a_whole(database: Database, place: Place) -> None:
    """A primary key does not hold for the rows of the tables that inherit from its table."""
    database.execute("CREATE TABLE odd (k int PRIMARY KEY, v text); CREATE TABLE more () INHERITS (odd)")
    database.execute("INSERT INTO odd VALUES (1, 'a'); INSERT INTO more VALUES (1, 'a'), (1, 'b')")
    settings = with_odd(database, place, "k INTEGER, v TEXT")
    assert export(settings).manifest.keys["odd"] == ()
    import_(settings)
    require_all_compared(validate(settings), 2)


TAGS = """
CREATE TABLE places (name text, n int);
INSERT INTO places SELECT 'place ' || n % 3, n % 2 FROM generate_series(1, 12) n;
CREATE TABLE tags (user_id uuid REFERENCES users, client_id uuid REFERENCES clients, tag text);
INSERT INTO tags SELECT c.user_id, c.id, 'tag ' || n % 2 FROM clients c, generate_series(1, 3) n;
INSERT INTO tags SELECT NULL, NULL, 'shared ' || n % 2 FROM generate_series(1, 4) n;
"""
TAGS_IN_SQLITE = """
CREATE TABLE places (name TEXT, n INTEGER);
CREATE TABLE tags (client_id TEXT REFERENCES clients (id), tag TEXT);
"""


@pytest.fixture()
def tagged(database: Database, place: Place) -> Settings:
    """Tables without a key that are the users' and everybody's."""
    database.execute(TAGS)
    return settings_of(
        database.url,
        place,
        lite=TAGS_IN_SQLITE,
        more=[Table("places", shared()), Table("tags", owned_by("user_id", or_shared=True))],
    )


def test_tables_without_a_key_are_the_same_where_shared_rows_are_read_once(
    tagged: Settings, place: Place
) -> None:
    export(tagged)
    alone = {name: (tagged.data_dir / name).read_bytes() for name in ("tags.json", "places.json")}
    common = place.folder / "common"
    common.mkdir()
    with connecting.snapshot(tagged) as db:
        exported = export_shared(db, tagged, read_schema(tagged.schema_path), common)
        assert "places" in exported and "tags" not in exported
        with connecting.snapshot(tagged, db.share(), exported) as other:
            export(tagged, other)
            import_(tagged)
            report = validate(tagged, other)
    assert {name: (tagged.data_dir / name).read_bytes() for name in alone} == alone
    require_all_compared(report, 2, "tags")
    require_all_compared(report, 2, "places")
    assert report.passed


def test_row_without_a_key_that_refers_to_anothers_row_is_named_by_its_place(
    tagged: Settings, database: Database
) -> None:
    database.execute(
        "UPDATE tags SET client_id = (SELECT c.id FROM clients c JOIN users u ON u.id = c.user_id WHERE u.email = %s LIMIT 1)"
        " WHERE ctid = (SELECT min(t.ctid) FROM tags t JOIN users u ON u.id = t.user_id WHERE u.email = %s)",
        BRUNO,
        ANNA,
    )
    with pytest.raises(MigrationError, match=r"tags ctid \(\d+,\d+\): client_id leads to no exported row"):
        export(tagged)
    skipping = dataclasses.replace(tagged, skip_orphans=True)
    assert export(skipping).manifest.orphans_skipped == {"tags": 1}
    import_(skipping)
    report = validate(skipping)
    assert report.passed and report.validation_results["tags"].match


def test_rows_are_paired_by_what_the_sources_key_has_beside_the_user(
    database: Database, place: Place
) -> None:
    database.execute(
        "CREATE TABLE odd (user_id uuid REFERENCES users, k date, v text, PRIMARY KEY (user_id, k));"
        "INSERT INTO odd SELECT id, '2021-01-01'::date + n, 'v' FROM users, generate_series(0, 4) n"
    )
    settings = with_odd(database, place, "k TEXT, v TEXT", owned_by("user_id"))
    export_and_import(settings)
    require_all_compared(validate(settings), 2)
    edit(settings, "UPDATE odd SET v = 'x'")
    assert sorted(row for row, _, _ in found(validate(settings)) if row) == [
        "2021-01-0%d" % day for day in range(1, 6)
    ]


def test_record_of_another_user_without_a_key_is_named_by_its_place(tagged: Settings) -> None:
    export_and_import(tagged)
    records = json.loads((tagged.data_dir / "tags.json").read_text(encoding="utf-8"))
    records[1]["user_id"] = "99999999-9999-4999-8999-999999999999"
    rewrite(tagged.data_dir, "tags.json", array(records))
    strange = [f.row for f in validate(tagged).findings if f.check == "isolation"]
    assert strange == ["record 2"]


# The texts that pair

RECORDED = {
    "boolean": [True, False],
    "integer": [0, 1, -1, 100, 2**53 + 1],
    "numeric": [b"1.50", b"1.5", b"100", b"100.00", b"0", b"-1", b'"NaN"', b'"Infinity"', b"1" + b"0" * 30, b"null"],
    "float": [1.5, 0.0, -0.0, 100.0, 1e300, "NaN", "-Infinity"],
    "jsonb": [b'{"a": 1, "b": 2.0}', b'{"b": 2.0, "a": 1}', b'{"a": "1"}', b"[1]", b'"x"', b"null", b"1", b"1.0", b"true"],
    "structure": [b"[1,2]", b"null", b'{"x": null}', b"[null]"],
    "date": ["2021-02-28", "0044-03-15 BC", "infinity", "12025-01-01"],
    "time": ["08:00:00", "08:00:00.5", "24:00:00"],
    "timestamp": ["2021-02-28T08:00:00", "2021-02-28T08:00:00.5", "infinity", "0044-03-15T00:00:00 BC"],
    "timestamptz": ["2021-02-28T08:00:00+00:00", "2021-02-28T08:00:00.123456+00:00", "-infinity"],
    "bytea": ["\\x", "\\x31", "\\x00ff"],
    "text": ["", "1", "1.0", "a", "null", "true", '{"a": 1}', "infinity", "\\x31"],
    "undeclared": [b"1", b"1.50", b"100", b'"1"', b'"1.0"', b'" 1"', b'"a"', b"true", b"false", b"null", b'{"a":1,"b":2.0}']
    + [b"[1]", b'"2021-02-28"', b'""'],
}  # fmt: skip
CELLS = [
    None, 0, 1, -1, 100, 2**53 + 1, 1.5, 100.0, -0.0, 1e300, 2.5, "NaN", "Infinity", "-Infinity", "1.50", "1.5", "100", "1", "0",
    " 1", "1.0", "-0.0", "a", "", "null", "true", "True", "infinity", "-infinity", "2021-02-28", "-0043-03-15", "0044-03-15",
    "+12025-01-01", "08:00:00", "08:00:00.500000", "08:00:00.5", "24:00:00", "2021-02-28T08:00:00", "2021-02-28 08:00:00",
    "2021-02-28T08:00:00.500000", "-0043-03-15T00:00:00", "2021-02-28T08:00:00+00:00", "2021-02-28T08:00:00.123456+00:00",
    "2021-02-28T09:00:00+01:00", b"", b"1", b"\x00\xff", "\\x", "\\x31", "\\x00ff", '{"a": 1, "b": 2.0}', '{"b":2.0,"a":1}',
    '{"a": 1}', '{"a": "1"}', "[1]", "[1,2]", '"x"', "[null]", '{"x": null}', "1" + "0" * 30, 1e30,
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (kind, target)
        for kind in RECORDED
        for target in ("TEXT", "INTEGER", "REAL", "NUMERIC", "BLOB")
        if (kind, target) != ("undeclared", "BLOB")  # 1 may be "1" there, and "1" may be 1
    ],
)
def test_texts_that_pair_are_equal_where_the_values_are(kind: str, target: str) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE cells (v %s)" % target)
        connection.executemany("INSERT INTO cells VALUES (?)", [(cell,) for cell in CELLS])
        cells = [cell for (cell,) in connection.execute("SELECT v FROM cells")]
    pair = mapping.Copied(
        Column("v", "", Kind(kind), False), TargetColumn("v", target, False, False, None, 0)
    )
    ((of_value,), (of_cell,)) = pairing_texts.forms([pair], ())
    compared = equality.Cells(mapping.TableMapping("t", "t", (pair,), ()), [pair.source])
    decode = record_decoder([pair.source])
    for value in RECORDED[kind]:
        text = value if isinstance(value, bytes) else json.dumps(value).encode("utf-8")
        record = decode(b'{"v":%s}' % text)
        (held,) = compared.take(record)
        for cell in cells:
            same = not list(compared.unequal(record, (held,), (cell,), repr))
            alike = (of_value(held)) == (pairing_texts.NULL if cell is None else of_cell(cell))
            assert alike is same, (value, cell)


# The verdict of a table


def test_table_does_not_match_unless_every_cell_was_compared() -> None:
    counts = {"pg_count": 3, "bundle_count": 3, "sqlite_count": 3, "columns": 4}
    assert TableResult(**counts, cells=12).match
    for cells in (0, 3, 8, 11, 13):
        assert not TableResult(**counts, cells=cells).match
    assert not TableResult(**counts, cells=12, differences=1).match
    assert TableResult(0, 0, 0, columns=4).match


def test_column_that_the_database_lacks_is_counted_as_not_compared(keyless: Settings) -> None:
    change(keyless.sqlite_path, "ALTER TABLE odd RENAME COLUMN a TO elsewhere")
    report = validate(keyless)
    result = report.validation_results["odd"]
    assert (result.cells, result.columns, result.match) == (20, 5, False)
    assert "Difference: of odd, 20 of 25 cells were compared" in report.errors


def test_column_dropped_by_declaration_is_said_not_to_be_compared(database: Database, place: Place) -> None:
    database.execute("CREATE TABLE odd (k int PRIMARY KEY, v text, secret text)")
    database.execute("INSERT INTO odd VALUES (1, 'a', 'b')")
    settings = with_odd(database, place, "k INTEGER PRIMARY KEY, v TEXT", dropped=("secret",))
    export_and_import(settings)
    report = validate(settings)
    require_all_compared(report, 2)
    results = report.as_json()["validation_results"]
    assert results["odd"]["dropped"] == ["secret"]
    assert results["clients"]["dropped"] == ["user_id"]
    assert "odd: secret" in (settings.data_dir / "validation_report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("dropped", ["k", "v"])
def test_key_that_is_dropped_pairs_nothing_and_all_is_compared(
    database: Database, place: Place, dropped: str
) -> None:
    database.execute("CREATE TABLE odd (k date PRIMARY KEY, v text, w int)")
    database.execute("INSERT INTO odd VALUES ('2021-01-01', 'a', 1), ('2021-01-02', 'a', 1)")
    kept = {"k": "v TEXT, w INTEGER", "v": "k TEXT PRIMARY KEY NOT NULL, w INTEGER"}[dropped]
    settings = with_odd(database, place, kept, dropped=(dropped,))
    export_and_import(settings)
    require_all_compared(validate(settings), 2)
    edit(settings, "UPDATE odd SET w = 2 WHERE rowid = (SELECT min(rowid) FROM odd)")
    assert not validate(settings).passed
    database.execute("UPDATE odd SET w = 5")
    changes = validate(settings).source_changes["odd"]
    assert changes.changed.rows + changes.added.rows == 2
