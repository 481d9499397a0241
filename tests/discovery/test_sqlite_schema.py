"""The SQLite schema made from a catalog: what it has, what it leaves out with a note, and that a migration fits into it."""

from __future__ import annotations

import dataclasses
import json
import sqlite3
from pathlib import Path
from typing import Iterator, List

import pytest

import config
from export_from_postgres import export
from import_to_sqlite import import_
from migration.discovery.mapping_page import mapping_page
from migration.discovery.sqlite_names import table_names
from migration.discovery.sqlite_schema import SqliteSchema, schema_of
from migration.errors import UsageError
from migration.model import Table, child_of, owned_by, root, shared, the_root
from migration.sqlite.mapping import target_of
from migration.sqlite.schema import read_schema
from support.discovery import reading
from support.migrations import settings_of
from support.places import ANNA, Place
from support.servers import Database, Server
from validate_migration import validate

LIBRARY = """
CREATE EXTENSION citext; CREATE EXTENSION hstore; CREATE SCHEMA archive;
CREATE TYPE shelf AS ENUM ('floor', 'attic', 'it''s lent', '');
CREATE DOMAIN isbn AS varchar(13) CHECK (length(VALUE) IN (10, 13)) CHECK (VALUE ~ '^[0-9X]+$');
CREATE DOMAIN stars AS smallint DEFAULT 3 NOT NULL CHECK (VALUE BETWEEN 1 AND 5);
CREATE TYPE size AS (width int, height int);
CREATE TABLE readers (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, nick citext NOT NULL UNIQUE, joined timestamp NOT NULL DEFAULT now(),
    seen timestamptz DEFAULT now(), birthday date DEFAULT CURRENT_DATE, token uuid DEFAULT NULL, favourite int
);
COMMENT ON TABLE readers IS E'Who reads.\\nAnd lends.';
COMMENT ON COLUMN readers.nick IS 'as they sign';
CREATE TABLE books (
    id bigserial PRIMARY KEY, reader int NOT NULL REFERENCES readers ON DELETE CASCADE, code isbn, title text NOT NULL,
    place shelf NOT NULL DEFAULT 'attic', price numeric(8,2) DEFAULT 0 CHECK (price >= 0), weight numeric, pages smallint,
    tags text[] NOT NULL DEFAULT '{new,"a b"}', extra jsonb DEFAULT '{"a": 1.10}', raw bytea DEFAULT '\\x00ff', format size,
    more hstore, lent bool NOT NULL DEFAULT false, since tstzrange, initials char(3) DEFAULT 'ab', score real DEFAULT 0.1,
    short text GENERATED ALWAYS AS (left(title, 5) || '…') STORED, gross numeric GENERATED ALWAYS AS (price * 1.07) STORED,
    parts int DEFAULT (1 + 1), half double precision DEFAULT 'NaN', mark varchar(5) DEFAULT 'x', old int DEFAULT -1,
    words tsvector GENERATED ALWAYS AS (to_tsvector('simple', title)) STORED,
    UNIQUE (reader, title), CHECK (lent OR place <> 'it''s lent'), CHECK (title ~ '\\S'),
    EXCLUDE USING gist (since WITH &&)
);
ALTER TABLE readers ADD CONSTRAINT liked FOREIGN KEY (favourite) REFERENCES books ON DELETE SET NULL ON UPDATE CASCADE
    DEFERRABLE INITIALLY DEFERRED NOT VALID;
ALTER TABLE books ADD CONSTRAINT books_pages_check CHECK (pages > 0) NOT VALID;
ALTER TABLE readers VALIDATE CONSTRAINT liked;
CREATE INDEX books_place ON books (place, price DESC) WHERE place = ANY (ARRAY['attic', 'floor']::shelf[]);
CREATE UNIQUE INDEX books_code ON books (reader, lower(title)) INCLUDE (pages) WHERE NOT lent;
CREATE UNIQUE INDEX books_odd ON books (md5(title));
CREATE INDEX books_words ON books USING gin (words);
CREATE INDEX title ON books (upper(title));
CREATE TABLE reviews (reader int REFERENCES readers, book bigint REFERENCES books, given stars, said text COLLATE "C" CHECK (said > 'A'),
    PRIMARY KEY (reader, book));
CREATE TABLE notes (reader int NOT NULL, book bigint NOT NULL, no numeric(10) NOT NULL, body text, self numeric(10), PRIMARY KEY (no),
    FOREIGN KEY (reader, book) REFERENCES reviews ON UPDATE RESTRICT, FOREIGN KEY (self) REFERENCES notes, UNIQUE (body));
CREATE TABLE archive.books (LIKE books INCLUDING DEFAULTS INCLUDING GENERATED); ALTER TABLE archive.books ADD PRIMARY KEY (id);
CREATE INDEX title ON archive.books (upper(title));
CREATE TABLE "Order" ("select" int PRIMARY KEY, "a""b" int, "Übung" text DEFAULT 'O''Neil' || '', reader int REFERENCES readers);
ALTER TABLE "Order" DROP COLUMN "a""b";
CREATE TABLE outside (id int PRIMARY KEY, book bigint REFERENCES books);
ALTER TABLE books ADD lent_to int REFERENCES outside;
CREATE TABLE log (reader int REFERENCES readers, at timestamptz NOT NULL, what text) PARTITION BY RANGE (at);
CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM ('2020-01-01') TO ('2030-01-01');
CREATE INDEX log_at ON log (at); CREATE INDEX log_1_what ON log_1 (what); ALTER TABLE log_1 ADD CHECK (what <> 'out'); ALTER TABLE log ADD CHECK (what <> '');
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER stamped BEFORE UPDATE ON books FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE VIEW owned AS SELECT r.nick, b.title AS book, b.place, b.price, b.format FROM readers r JOIN books b ON b.reader = r.id WHERE NOT b.lent;
CREATE VIEW counted AS SELECT r.id, count(b.id) AS books, max(b.pages) AS thickest, sum(b.pages) AS pages, min(r.joined) AS since, bool_or(b.lent) AS lent,
    count(DISTINCT b.place) AS places FROM readers r LEFT JOIN books b ON b.reader = r.id AND b.price > 1 GROUP BY r.id HAVING count(*) > 0 ORDER BY r.id DESC;
CREATE VIEW attic AS SELECT DISTINCT place, (SELECT count(*) FROM reviews v WHERE v.book = b.id) AS reviews FROM books b
    WHERE EXISTS (SELECT FROM reviews v WHERE v.book = b.id AND v.given > 2) ORDER BY place;
CREATE VIEW both_ways AS SELECT book, given, title FROM reviews JOIN (SELECT id AS book, title FROM books) x USING (book);
CREATE VIEW using_key AS SELECT reader, n.body, v.given FROM reviews v JOIN notes n USING (reader, book);
CREATE VIEW again AS SELECT c.id, c.books, CASE WHEN c.lent THEN 'some' ELSE 'none' END AS any_lent, coalesce(c.pages, 0) AS pages FROM counted c WHERE c.books > 1;
CREATE VIEW reviewed AS SELECT id, title FROM books WHERE id IN (SELECT v.book FROM reviews v) AND NOT (id IN (SELECT n.book FROM notes n WHERE n.body = 'x'));
CREATE VIEW early AS SELECT 1 AS id; CREATE VIEW late AS SELECT id, nick FROM readers;
CREATE OR REPLACE VIEW early AS SELECT id FROM late;
CREATE VIEW foreign_view AS SELECT o.id FROM outside o;
CREATE VIEW average AS SELECT avg(pages) AS pages FROM books;
CREATE MATERIALIZED VIEW kept AS SELECT 1 AS one;
"""
ROWS = """
INSERT INTO readers (nick, joined, seen, birthday) VALUES ('Ada', '2024-01-01 10:00', '2024-01-01 10:00:00.5+02', '0044-01-01 BC');
INSERT INTO books (reader, code, title, place, price, weight, pages, lent, since, score) VALUES
    (1, '123456789X', 'Äpfel und Birnen', 'floor', 10.10, 1.50, 120, false, '[2024-01-01,2024-02-01)', 0.3),
    (1, NULL, 'äpfel und birnen', 'it''s lent', 0, 12345678901234567890.123, 1, true, NULL, 'Infinity'),
    (1, '1234567890123', 'ab', 'attic', 99.99, NULL, NULL, false, NULL, '-Infinity');
UPDATE books SET format = ROW(1, NULL)::size, more = 'a=>1, b=>NULL' WHERE id = 1;
UPDATE readers SET favourite = 2;
INSERT INTO reviews VALUES (1, 1, 5, 'Good'), (1, 3, 2, NULL);
INSERT INTO notes VALUES (1, 1, 1, 'x', NULL), (1, 3, 2, NULL, 1);
INSERT INTO "Order" VALUES (7, 'ß', 1);
INSERT INTO archive.books (reader, title) SELECT reader, title FROM books;
INSERT INTO log VALUES (1, '2024-01-01', 'in'), (1, '2024-01-01', 'in');
"""
TABLES = (
    Table("readers", the_root()),
    Table("books", owned_by("reader")),
    Table("reviews", owned_by("reader")),
    Table("notes", child_of("reviews", ("reader", "book"))),
    Table("archive.books", owned_by("reader")),
    Table("Order", owned_by("reader")),
    Table("log", owned_by("reader")),
)
NOTES = {
    "readers": (
        "`UNIQUE (nick)` (readers_nick_key) is weaker here: SQLite's NOCASE knows",
        "default `now()` of `joined`: it is the time in UTC",
        "default `CURRENT_DATE` of `birthday`: it is the day in UTC",
    ),
    "books": (
        "domain public.isbn is left out for column `code`: SQLite has no regular expressions",
        "column `gross` is generated in PostgreSQL, as `(price * 1.07)`, and a plain column here",
        "column `words` is generated in PostgreSQL",
        "default `(1 + 1)` of `parts` is left out",
        "(books_since_excl) is left out: SQLite has no such rule",
        "(books_lent_to_fkey) is left out: table outside is not migrated",
        "(books_title_check) is left out: SQLite has no regular expressions",
        "(books_pages_check) is left out: PostgreSQL does not hold all rows to it",
        "index `books_odd` is left out, and with it that its columns are unique: md5()",
        "index `books_words` is left out: SQLite has no gin index",
        "index `books_code` is without the columns that it only INCLUDEs",
        "index `books_code` is weaker here",
        "trigger `stamped` is left out",
    ),
    "reviews": ("column `given` may be NULL here: its domain public.stars may not",),
    "notes": (),
    "archive.books": (
        "column `gross` is generated in PostgreSQL",
        "column `words` is generated in PostgreSQL",
        "default `(1 + 1)` of `parts` is left out",
        "index `title` is called `archive_books_title`: its own name is taken",
        "domain public.isbn is left out for column `code`",
    ),
    "Order": ("default `('O''Neil'::text || ''::text)` of `Übung` is left out",),
    "log": (
        "index `log_1_what` of partition `log_1` is left out",
        "(log_1_what_check) of partition `log_1` is left out",
    ),
}
VIEWS = ("owned", "counted", "attic", "using_key", "again", "early", "reviewed")


@pytest.fixture(scope="module")
def library(server: Server) -> Iterator[Database]:
    with server.new_database("TEMPLATE template0") as made:
        made.execute(LIBRARY + ROWS)
        yield made


@pytest.fixture(scope="module")
def made(library: Database) -> SqliteSchema:
    with reading(library) as db:
        return schema_of(db, [table.name for table in TABLES])


def test_notes_say_what_is_left_out(made: SqliteSchema) -> None:
    for table, expected in NOTES.items():
        notes = list(made.tables[table].notes)
        assert len(notes) == len(expected), (table, notes)
        for part in expected:
            assert sum(part in note for note in notes) == 1, (part, notes)
    assert sorted(note.partition(":")[0] for note in made.others) == [
        "materialized view `public.kept` is left out",
        "view `public.attic`",
        "view `public.average` is left out",
        "view `public.both_ways` is left out",
        "view `public.counted`",
        "view `public.foreign_view` is left out",
    ]
    page = mapping_page(made, {"log": "Mine."}, {"outside": "nobody's"})
    assert all(" ".join(note.split())[1:] in page for table in made.tables.values() for note in table.notes)
    assert "the label: one of floor, attic, it's lent, '' |" in page


def test_migration_fits_into_the_schema(made: SqliteSchema, library: Database, tmp_path: Path) -> None:
    place = Place(tmp_path)
    schema = tmp_path / "schema.sql"
    schema.write_text(made.text, encoding="utf-8")
    assert set(read_schema(schema).columns) == {
        "readers",
        "books",
        "reviews",
        "notes",
        "archive_books",
        "Order",
        "log",
    }
    settings = settings_of(
        library.url,
        place,
        "Ada",
        root=root("readers", "id", "nick"),
        tables=TABLES,
        schema_path=schema,
        excluded_tables=("outside",),
    )
    migrate(settings)
    database = sqlite3.connect(str(place.app))
    for view in VIEWS:
        expected = [
            json.loads(row) for (row,) in library.rows("SELECT row_to_json(v)::text FROM %s v" % view)
        ]
        cursor = database.execute("SELECT * FROM " + view)
        names = [description[0] for description in cursor.description]
        found = [dict(zip(names, map(plain, row))) for row in cursor]
        assert sorted(found, key=str) == sorted(expected, key=str) != [], view
    assert database.execute("SELECT short FROM books ORDER BY id").fetchall() == [
        ("Äpfel…",),
        ("äpfel…",),
        ("ab…",),
    ]


def plain(value: object) -> object:
    """JSON as what it says; a truth is a number there too."""
    return json.loads(value) if isinstance(value, str) and value.startswith("{") else value


def migrate(settings: object) -> None:
    export(settings)
    import_(settings)
    for against in ("bundle", "source"):
        assert validate(dataclasses.replace(settings, against=against, strict=True)).errors == []


def test_defaults_are_what_postgres_would_have_written(made: SqliteSchema) -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(made.text)
    database.execute("INSERT INTO readers (nick) VALUES ('x')")
    database.execute("INSERT INTO books (reader, title) VALUES (1, 'abcdefg')")
    names = "place, price, tags, extra, raw, lent, initials, score, half, mark, old, parts, short"
    assert database.execute("SELECT %s FROM books" % names).fetchone() == (
        *(
            "attic",
            0.0,
            '["new","a b"]',
            '{"a": 1.10}',
            b"\x00\xff",
            0,
            "ab ",
            0.1,
            "NaN",
            "x",
            -1,
            None,
            "abcde…",
        ),
    )
    database.execute("INSERT INTO reviews (reader, book) VALUES (1, 1)")
    assert database.execute("SELECT given FROM reviews").fetchone() == (3,)
    joined, seen = database.execute("SELECT joined, seen FROM readers").fetchone()
    assert seen == joined + "+00:00" and joined[10] == "T"


def test_rules_refuse_what_postgres_refuses(made: SqliteSchema) -> None:
    database = sqlite3.connect(":memory:")
    database.executescript(made.text)
    database.execute("PRAGMA foreign_keys = ON")
    database.execute("INSERT INTO readers (nick) VALUES ('x')")
    database.execute("INSERT INTO books (reader, title) VALUES (1, 'Abc')")
    for values, rule in (
        ("(reader, title, place) VALUES (1, 'b', 'cellar')", "CHECK"),
        ("(reader, title, place) VALUES (1, 'b', 'it''s lent')", "CHECK"),
        ("(reader, title, lent) VALUES (1, 'b', 2)", "CHECK"),
        ("(reader, title, code) VALUES (1, 'b', '123')", "CHECK"),
        ("(reader, title, price) VALUES (1, 'b', -0.01)", "CHECK"),
        ("(reader, title) VALUES (2, 'b')", "FOREIGN KEY"),
        ("(reader, title) VALUES (1, 'aBC')", "UNIQUE"),
        ("(reader) VALUES (1)", "NOT NULL"),
    ):
        with pytest.raises(sqlite3.IntegrityError, match=rule):
            database.execute("INSERT INTO books " + values)
    database.execute(
        "INSERT INTO books (reader, title, lent) VALUES (1, 'aBC', 1)"
    )  # outside of the partial index
    database.execute("UPDATE readers SET favourite = 99")  # deferred until the commit
    with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
        database.commit()


def test_sample_application_migrates_into_its_own_schema(sample_database: Database, tmp_path: Path) -> None:
    tables = tuple(dataclasses.replace(table, becomes=None, dropped=()) for table in config.TABLES)
    schema = tmp_path / "schema.sql"
    with reading(sample_database) as db:
        found = schema_of(db, [table.name for table in tables])
    schema.write_text(found.text, encoding="utf-8")
    migrate(settings_of(sample_database.url, Place(tmp_path), ANNA, tables=tables, schema_path=schema))


@pytest.mark.parametrize(
    ("key", "reference", "kept"),
    [
        ("int", "bigint", True),
        ("text", "varchar(9)", True),
        ("numeric(5)", "int", True),
        ("numeric(38)", "numeric(30)", True),
        ("numeric(38)", "numeric(38,2)", False),
        ("numeric", "numeric", False),
        ("char(3)", "char(3)", True),
        ("char(3)", "char(5)", False),
        ("real", "float8", False),
        ("interval", "interval", False),
        ("timestamptz", "timestamptz", True),
    ],
)
def test_foreign_key_stays_where_equal_values_are_written_alike(
    empty: Database, key: str, reference: str, kept: bool
) -> None:
    empty.execute("CREATE TABLE a (k %s PRIMARY KEY); CREATE TABLE b (k %s REFERENCES a)" % (key, reference))
    with reading(empty) as db:
        schema = schema_of(db, ["a", "b"])
    assert ("REFERENCES a (k)" in schema.text) is kept
    assert any("is left out: SQLite would not take" in note for note in schema.tables["b"].notes) is not kept


def test_lower_is_not_unique_under_a_collation_that_is_not_known(empty: Database) -> None:
    """In Turkish, ``I`` and ``i`` are two letters, of which SQLite would refuse the second."""
    empty.execute(
        """CREATE COLLATION turkish FROM "C"; CREATE TABLE a (x text COLLATE turkish); CREATE TABLE b (x text);
            CREATE UNIQUE INDEX a_x ON a (lower(x)); CREATE UNIQUE INDEX b_x ON b (lower(x))"""
    )
    with reading(empty) as db:
        schema = schema_of(db, ["a", "b"])
    assert "a_x" not in schema.text and "UNIQUE INDEX b_x" in schema.text
    assert "with it that its columns are unique" in schema.tables["a"].notes[0]


@pytest.mark.parametrize(
    "tables",
    [
        ["auth.people"],
        ["people", "auth.people"],
        ["auth.people", "crm.people"],
        ["people", "auth.people", "auth_people"],
        ["auth.people", "auth_people"],
        ["a.b_c", "a_b.c", "a_b_c", "c"],
        ["Order", "auth.order"],
    ],
)
def test_import_finds_each_table_by_its_name(tables: List[str], tmp_path: Path) -> None:
    names = table_names(tables, {table: table.rpartition(".")[2] for table in tables})
    schema = tmp_path / "schema.sql"
    schema.write_text("".join('CREATE TABLE "%s" (x);' % name for name in names.values()), encoding="utf-8")
    found = [target_of(Table(table, shared()), read_schema(schema)) for table in tables]
    assert found == [names[table] for table in tables] and len(set(found)) == len(tables)


def test_strings_and_long_conditions(empty: Database) -> None:
    """Backslashes are themselves, whatever the server's setting; a condition of a thousand parts is left out, or right."""
    parts = " OR ".join("x = %d" % number for number in range(1000))
    empty.execute(
        "CREATE TABLE t (x int CHECK (%s), s text DEFAULT E'a\\\\b''c' CHECK (s <> E'\\\\d'));"
        "ALTER DATABASE %s SET standard_conforming_strings = off"
        % (parts, empty.url.rpartition("/")[2].partition("?")[0])
    )
    with reading(empty) as db:
        schema = schema_of(db, ["t"])
    database = sqlite3.connect(":memory:")
    database.executescript(schema.text)
    database.execute("INSERT INTO t (x) VALUES (7)")
    assert database.execute("SELECT s FROM t").fetchone() == ("a\\b'c",)
    with pytest.raises(sqlite3.IntegrityError):
        database.execute("INSERT INTO t VALUES (1, ?)", ["\\d"])


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ('CREATE TABLE "A" (x int); CREATE TABLE a (x int)', "does not tell table"),
        ('CREATE TABLE a (x int, "X" int)', "columns of a differ only in case"),
        ("CREATE TABLE sqlite_a (x int)", "SQLite's own tables"),
    ],
)
def test_names_that_sqlite_does_not_tell_apart(empty: Database, sql: str, said: str) -> None:
    empty.execute(sql)
    with pytest.raises(UsageError, match=said), reading(empty) as db:
        schema_of(db, list(db.catalog.relations))
