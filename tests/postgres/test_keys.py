"""Keys of every type and name, keys that config declares, and tables without one, of a root that is not TheProgram's."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Sequence, Tuple

import pytest

from export_from_postgres import export
from migration.errors import ExitCode, MigrationError
from migration.model import Reference, Table, child_of, owned_by, root, the_root
from migration.settings import Settings
from support.migrations import settings_of
from support.ownership import migrate
from support.places import Place
from support.servers import Database
from support.sqlite_files import lawless, rows_of
from validate_migration import validate


def settings_for(
    database: Database, place: Place, tables: Sequence[Table], lite: str, name: str = "ann", key: str = "id"
) -> Settings:
    schema = place.folder / "lite.sql"
    schema.write_text(lite, encoding="utf-8")
    return settings_of(
        database.url, place, name, root=root("Group", key, "name"), tables=tables, schema_path=schema
    )


# type in PostgreSQL → of SQLite, the key of each root, SQL of a row's key of its number n
KEYS = {
    "int": ("INTEGER", ("7", "-1"), "n"),
    "bigint": ("INTEGER", ("9223372036854775807", "-9223372036854775808"), "n + 4611686018427387904"),
    "smallint": ("INTEGER", ("1", "2"), "n"),
    "text": ("TEXT", ("E'o''Ne %s \\\\ é'", "''"), "'k ' || n"),
    "char(6)": ("TEXT", ("'ab'", "'b'"), "'k' || n"),
    "uuid": (
        "TEXT",
        ("'11111111-1111-4111-8111-111111111111'", "'99999999-9999-4999-8999-999999999999'"),
        "md5(n::text)::uuid",
    ),
    "bytea": ("BLOB", (r"'\x00ff27'", r"'\x'"), "decode(md5(n::text), 'hex')"),
    "numeric": ("TEXT", ("12345678901234567890.5", "0.10"), "n / 10.0"),
    "date": ("TEXT", ("'2024-02-29'", "'0004-01-01'"), "'2024-01-01'::date + n"),
}


@pytest.mark.parametrize("type_", KEYS)
def test_rows_are_found_and_proved_by_a_key_of_any_type(empty: Database, place: Place, type_: str) -> None:
    in_sqlite, roots, of_row = KEYS[type_]
    empty.execute(
        """
        CREATE TABLE "Group" (id {t} PRIMARY KEY, name text UNIQUE);
        INSERT INTO "Group" VALUES ({0}, 'ann'), ({1}, 'bob');
        CREATE TABLE "Order" ("Id" {t} PRIMARY KEY, "user" {t} REFERENCES "Group", "Select" int);
        INSERT INTO "Order" SELECT {k}, CASE WHEN n % 3 = 0 THEN {0}::{t} ELSE {1} END, n FROM generate_series(1, 30) n;
        CREATE TABLE "check" ("Group" {t} REFERENCES "Order", "order" int, PRIMARY KEY ("order", "Group"));
        INSERT INTO "check" SELECT "Id", g FROM "Order", generate_series(1, 3) g;
        """.format(*roots, t=type_, k=of_row)
    )
    lite = """
        CREATE TABLE "Group" (id {t} PRIMARY KEY, name TEXT);
        CREATE TABLE "Order" ("Id" {t} PRIMARY KEY, "user" {t} REFERENCES "Group" (id), "Select" INTEGER);
        CREATE TABLE "check" ("Group" {t} REFERENCES "Order" ("Id"), "order" INTEGER, PRIMARY KEY ("order", "Group"));
        """.format(t=in_sqlite)
    tables = (
        Table("Group", the_root()),
        Table("Order", owned_by("user")),
        Table("check", child_of("Order", "Group")),
    )
    migrate(settings_for(empty, place, tables, lite))
    assert rows_of(place.app, 'SELECT "Select" FROM "Order" ORDER BY 1') == [(n,) for n in range(3, 31, 3)]
    assert rows_of(place.app, 'SELECT count(*), count(DISTINCT "Group") FROM "check"') == [(30, 10)]


ANN = "1a111111-bbbb-4ccc-8ddd-eeeeeeeeeeee"
# as a text column may hold it, and other texts
WRITINGS = (
    ANN, ANN.upper(), ANN.title(), "{%s}" % ANN, "{%s}" % ANN.upper(), ANN.replace("-", ""), ANN.upper().replace("-", ""),
    ANN.replace("1", "2"), ANN[:-1], ANN + "0", "", "system", "{}", "\n" + ANN,
)  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "others"), [("text", True), ("varchar(50)", True), ("char(50)", True), ("text", False)]
)
def test_text_that_names_a_uuid_is_read_as_one(
    empty: Database, place: Place, type_: str, others: bool
) -> None:
    """Where PostgreSQL's own form alone is there, texts are compared, and their indexes are of use."""
    writings = (
        WRITINGS if others else [text for text in WRITINGS if text == text.lower() and "-" in text[8:9]]
    )
    empty.execute(
        """
        CREATE TABLE "Group" (id uuid PRIMARY KEY, name text); INSERT INTO "Group" VALUES ('{ann}', 'ann'), ('{bob}', 'bob');
        CREATE TABLE sites (n int PRIMARY KEY, who {t}, id uuid); CREATE TABLE pages (n int PRIMARY KEY, site {t});
        """.format(ann=ANN, bob=ANN.replace("a", "b"), t=type_)
    )
    for n, text in enumerate(writings):
        empty.execute("INSERT INTO sites VALUES (%s, %s, md5(%s)::uuid)", n, text, str(n))
        of = "SELECT CASE %s WHEN 0 THEN id::text WHEN 1 THEN upper(id::text) ELSE '{' || id || '}' END FROM sites WHERE n = %s"
        for form in range(3 if others else 1):
            empty.execute("INSERT INTO pages SELECT %s, (" + of + ")", 10 * n + form, form, n)
    tables = (
        Table("Group", the_root()),
        Table("sites", owned_by("who")),
        Table("pages", child_of("sites", "site")),
    )
    lite = """
        CREATE TABLE "Group" (id TEXT PRIMARY KEY, name TEXT); CREATE TABLE sites (n INTEGER PRIMARY KEY, who TEXT, id TEXT);
        CREATE TABLE pages (n INTEGER PRIMARY KEY, site TEXT);
        """
    references = (Reference("sites", "who", "Group"), Reference("pages", "site", "sites", "id"))
    settings = dataclasses.replace(settings_for(empty, place, tables, lite), references=references)
    migrate(settings)
    mine = [n for n, text in enumerate(writings) if _names(text, ANN)]
    assert len(mine) == (7 if others else 1)
    assert rows_of(place.app, "SELECT n, rtrim(who, ' ') FROM sites ORDER BY n") == [
        (n, writings[n]) for n in mine
    ]
    pages = [10 * n + form for n in mine for form in range(3 if others else 1)]
    assert [n for (n,) in rows_of(place.app, "SELECT n FROM pages ORDER BY n")] == pages


def test_row_that_is_brought_by_a_uuid_in_capitals_is_needed(empty: Database, place: Place) -> None:
    empty.execute(
        """
        CREATE TABLE "Group" (id uuid PRIMARY KEY, name text);
        INSERT INTO "Group" VALUES ('{ann}', 'ann'), ('{bob}', 'bob');
        CREATE TABLE pages (n int PRIMARY KEY, who uuid REFERENCES "Group", site text); CREATE TABLE sites (id uuid PRIMARY KEY, who uuid);
        INSERT INTO sites VALUES ('{site}', '{bob}'), ('{ann}', '{bob}'); INSERT INTO pages VALUES (1, '{ann}', upper('{site}'));
        """.format(ann=ANN, bob=ANN.replace("a", "b"), site=ANN.replace("1a", "2c"))
    )
    tables = (Table("Group", the_root()), Table("sites", owned_by("who")), Table("pages", owned_by("who")))
    lite = """
        CREATE TABLE "Group" (id TEXT PRIMARY KEY, name TEXT); CREATE TABLE sites (id TEXT PRIMARY KEY);
        CREATE TABLE pages (n INTEGER PRIMARY KEY, site TEXT);
        """
    references = (Reference("pages", "site", "sites", leaving="bring"),)
    settings = dataclasses.replace(settings_for(empty, place, tables, lite), references=references)
    migrate(settings)
    assert rows_of(place.app, "SELECT id FROM sites") == [(ANN.replace("1a", "2c"),)]
    with lawless(settings) as connection:
        connection.execute("UPDATE pages SET site = '{}'")
    assert any("was brought and no row needs it" in error for error in validate(settings).errors)


def _names(text: str, key: str) -> bool:
    """As Python reads a uuid."""
    try:
        return uuid.UUID(text) == uuid.UUID(key)
    except ValueError:
        return False


def test_composite_key_of_the_root_s_table_s_children(empty: Database, place: Place) -> None:
    empty.execute(
        """
        CREATE TABLE "Group" (id int PRIMARY KEY, name text); INSERT INTO "Group" VALUES (1, 'ann'), (2, 'bob');
        CREATE TABLE "Shelf" (team int REFERENCES "Group", "No" text, PRIMARY KEY ("No", team));
        CREATE TABLE book (team int, shelf text, isbn bytea, PRIMARY KEY (team, shelf, isbn),
                           FOREIGN KEY (shelf, team) REFERENCES "Shelf");
        INSERT INTO "Shelf" VALUES (1, 'a'), (2, 'a'), (1, 'b,c');
        INSERT INTO book VALUES (1, 'a', '\\x01'), (2, 'a', '\\x01'), (1, 'b,c', '\\x01'), (1, 'b,c', '\\x');
        """
    )
    tables = (
        Table("Group", the_root()),
        Table("Shelf", owned_by("team")),
        Table("book", child_of("Shelf", ("team", "shelf"))),
    )
    lite = """
        CREATE TABLE "Group" (id INTEGER PRIMARY KEY, name TEXT);
        CREATE TABLE "Shelf" (team INTEGER, "No" TEXT, PRIMARY KEY ("No", team));
        CREATE TABLE book (team INTEGER, shelf TEXT, isbn BLOB, PRIMARY KEY (team, shelf, isbn));
        """
    migrate(settings_for(empty, place, tables, lite))
    assert rows_of(place.app, "SELECT shelf, isbn FROM book ORDER BY 1, 2") == [
        ("a", b"\x01"),
        ("b,c", b""),
        ("b,c", b"\x01"),
    ]


AUDIT = """
CREATE TABLE "Group" (id int PRIMARY KEY, name text); INSERT INTO "Group" VALUES (1, 'ann'), (2, 'bob');
CREATE TABLE audit (who int, at timestamptz, what text);
INSERT INTO audit SELECT 1 + n % 2, '2026-01-01', 'login' FROM generate_series(1, 10) n;
INSERT INTO audit VALUES (1, '2026-01-02', NULL), (1, '2026-01-02', 'login');
"""
AUDIT_LITE = (
    'CREATE TABLE "Group" (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE audit (at TEXT, what TEXT);'
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "DELETE FROM audit WHERE rowid = (SELECT min(rowid) FROM audit WHERE what = 'login')",
            "4 times in SQLite, 5",
        ),
        ("INSERT INTO audit SELECT * FROM audit WHERE at LIKE '2026-01-01%' LIMIT 1", "6 times in SQLite, 5"),
        ("UPDATE audit SET what = 'Login' WHERE rowid = (SELECT min(rowid) FROM audit)", "times in SQLite"),
        ("DELETE FROM audit WHERE what IS NULL", "audit"),
    ],
)
def test_equal_rows_are_counted(empty: Database, place: Place, change: str, message: str) -> None:
    empty.execute(AUDIT)
    settings = settings_for(
        empty, place, (Table("Group", the_root()), Table("audit", owned_by("who"))), AUDIT_LITE
    )
    migrate(settings)
    grouped = "SELECT count(*) FROM audit GROUP BY at, what ORDER BY 1"
    assert rows_of(place.app, grouped) == [(1,), (1,), (5,)]
    with lawless(settings) as connection:
        connection.execute(change)
    errors = [error for error in validate(settings).errors if "audit" in error]
    assert errors and any(message in error for error in errors)


NAMED = 'CREATE TABLE "Group" (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE audit (at TEXT, what TEXT, n INTEGER);'


@pytest.mark.parametrize(
    ("ddl", "declared", "found"),
    [
        ("ALTER TABLE audit ADD UNIQUE (n)", (), ()),  # n could be NULL
        ("ALTER TABLE audit ALTER n SET NOT NULL, ADD UNIQUE (n)", (), ("n",)),
        ("ALTER TABLE audit ALTER n SET NOT NULL, ADD UNIQUE (n)", ("at", "n"), ("n",)),
        ("CREATE UNIQUE INDEX ON audit (n) WHERE n > 5", (), ()),
        ("SELECT", ("n",), ("n",)),
        ("SELECT", ("at", "n"), ("at", "n")),
    ],
)
def test_rows_are_told_apart_by_the_best_key(
    empty: Database, place: Place, ddl: str, declared: Tuple[str, ...], found: Tuple[str, ...]
) -> None:
    empty.execute(AUDIT + "ALTER TABLE audit ADD n int GENERATED ALWAYS AS IDENTITY;" + ddl + ";")
    if found == ():
        empty.execute("ALTER TABLE audit ALTER n DROP IDENTITY, ALTER n DROP NOT NULL")
    tables = (Table("Group", the_root()), Table("audit", owned_by("who"), key=declared))
    settings = settings_for(empty, place, tables, NAMED)
    assert export(settings).manifest.keys["audit"] == found
    migrate(settings)
    with lawless(settings) as connection:
        connection.execute("UPDATE audit SET what = 'x' WHERE n = (SELECT max(n) FROM audit)")
    (error,) = (error for error in validate(settings).errors if "audit" in error)
    assert (
        ": audit %s, column what"
        % ", ".join({"at": "2026-01-02T00:00:00+00:00", "n": "12"}[name] for name in found)
        in error
    ) == bool(found), error


@pytest.mark.parametrize(
    ("key", "code", "message"),
    [
        (("at",), ExitCode.SOURCE, "12 rows share theirs with others, 0 have a NULL in it"),
        (("at", "what", "who"), ExitCode.SOURCE, "10 rows share theirs with others, 1 have a NULL in it"),
        (("at", "when"), ExitCode.USAGE, "config.TABLES, audit: column when of its key is not in PostgreSQL"),
        (("data",), ExitCode.USAGE, "PostgreSQL does not compare values of its key (data)"),
    ],
)
def test_declared_key_that_is_none_is_refused(
    empty: Database, place: Place, key: Tuple[str, ...], code: ExitCode, message: str
) -> None:
    empty.execute(AUDIT + "ALTER TABLE audit ADD data json")
    tables = (Table("Group", the_root()), Table("audit", owned_by("who"), dropped=("data",), key=key))
    with pytest.raises(MigrationError) as caught:
        export(settings_for(empty, place, tables, AUDIT_LITE))
    assert caught.value.exit_code is code
    assert message in caught.value.message
