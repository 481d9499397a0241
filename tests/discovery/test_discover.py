"""discover.py as a user runs it: its files, what it prints, --check, and what it refuses."""

from __future__ import annotations

import ast
import re
import stat
from pathlib import Path

import pytest

from migration.discovery.written import loaded
from migration.model import Reference, Table, child_of, owned_by, referenced, root, the_root
from support.applications import GARDENS, LENDING
from support.places import Place
from support.runs import Run
from support.servers import NOWHERE, Database, Guarded

FILES = ["config.py", "migration_mapping.md", "sqlite_schema.sql"]


@pytest.fixture()
def lending(empty: Database) -> Database:
    empty.execute(LENDING)
    return empty


@pytest.mark.parametrize("one", [("--user", "noa"), ("--user-id", 2)])
def test_files_are_whole_private_and_load(
    lending: Database, place: Place, run: Run, one: tuple[str, object]
) -> None:
    output = place.folder / "made"
    done = run("discover.py", "--postgres-url", lending.url, "--root", "members", "--output", output, *one)
    assert done.code == 0, done.err
    assert sorted(path.name for path in output.iterdir()) == FILES
    assert {stat.S_IMODE(path.stat().st_mode) for path in output.iterdir()} == {0o600}
    config = loaded((output / "config.py").read_text(encoding="utf-8"))
    assert config["ROOT"] == root("members", key="id", named_by="username")
    assert {table.name: table.ownership for table in config["TABLES"]} == {
        "members": the_root(),
        "covers": referenced(),
        "book_covers": child_of("books", "book_id"),
        **{name: owned_by("member_id") for name in ("lists", "books", "notes", "preferences", "visits")},
    }
    assert (config["EXCLUDED_TABLES"], config["UNRELATED_TABLES"]) == ((), ("settings_of_all",))
    assert (config["REFERENCES"], config["LEAVING"]) == ((), "stop")
    shown = {words[1]: words[-2] for words in map(str.split, done.out.splitlines()) if len(words) > 6}
    by_hand = lending.rows(
        "SELECT 'books', count(*)::text FROM books WHERE member_id = 2"
        " UNION SELECT 'notes', count(*)::text FROM notes WHERE member_id = 2"
    )
    assert dict(by_hand).items() <= shown.items(), done.out


def test_reasons_stand_beside_the_entries(lending: Database, place: Place, run: Run) -> None:
    lending.execute(
        "CREATE VIEW titles AS SELECT title FROM books; CREATE TABLE loans (book_id bigint, fee int);"
    )
    lending.execute("INSERT INTO loans VALUES (1, 2), (NULL, 3)")
    run("discover.py", "--postgres-url", lending.url, "--root", "members", "--output", place.folder / "made")
    text = (place.folder / "made" / "config.py").read_text(encoding="utf-8")
    for reason in (
        '    # child_of("lists", "list_id"): the same on all 12 rows\n    Table("books", owned_by("member_id")),',
        "    # 3 rows of 9 with no root: nobody's, and left behind\n",
        '    # owned_by("member_id", or_shared=True) would take them along, for every root\n',
        '    # member_id leads to members by a foreign key, at most one row each\n    Table("preferences"',
        "    # book_id leads to books by its name; every value leads to a row\n    # 1 row of 2 with no root",
        '    # rows of book_covers refer to it, and it leads to no root\n    Table("covers", referenced()),',
        '    Reference("loans", "book_id", "books"),\n',
        "# view titles\n",
    ):
        assert reason in text, reason
    assert loaded(text)["REFERENCES"] == (Reference("loans", "book_id", "books"),)


CHANGES = (
    "CREATE TABLE new_ones (id int); DROP TABLE visits; ALTER TABLE books DROP COLUMN kept, ADD COLUMN year int NOT NULL"
    " DEFAULT 1, ALTER COLUMN title TYPE varchar(9); ALTER TABLE notes DROP CONSTRAINT notes_book_id_fkey;"
    "ALTER TABLE lists ADD COLUMN book_id bigint REFERENCES books"
)


def test_check_says_what_has_changed(lending: Database, place: Place, run: Run) -> None:
    where = ("--postgres-url", lending.url, "--output", place.folder)
    assert run("discover.py", *where, "--root", "members").code == 0
    before = (place.folder / "config.py").read_bytes()
    done = run("discover.py", *where, "--check")
    assert (done.code, done.out) == (0, "")
    assert "nothing has changed" in done.err
    assert run("discover.py", "--output", place.folder, "--check").code == 0  # config.py says which server
    lending.execute(CHANGES)
    done = run("discover.py", *where, "--check", "--quiet", code=1)
    found = [" ".join(line.strip("│┃ ").split()) for line in done.out.splitlines() if line.startswith("│")]
    assert found == [
        "books │ column title is character varying(9) not null, it was text not null",
        "books │ column kept is gone",
        "books │ a new column year, integer not null",
        "lists │ a new column book_id, bigint",
        "lists │ a new reference (book_id) → books (id)",
        "notes │ the reference (book_id) → books (id) is gone",
        "visits │ the table is gone",
        "new_ones │ a new table, of 1 column",
    ]
    assert (place.folder / "config.py").read_bytes() == before


def test_check_refuses_what_the_export_would_refuse(lending: Database, place: Place, run: Run) -> None:
    where = ("--postgres-url", lending.url, "--output", place.folder)
    assert run("discover.py", *where, "--root", "members").code == 0
    path = place.folder / "config.py"
    text = path.read_text(encoding="utf-8")
    changed, count = re.subn(r'    Table\(\s*"covers".*?\),\n', "", text, flags=re.S)
    assert count == 1
    path.write_text(
        changed.replace("UNRELATED_TABLES = (", 'UNRELATED_TABLES = ("covers",'), encoding="utf-8"
    )
    done = run("discover.py", *where, "--check", code=2)
    assert "config.UNRELATED_TABLES names covers, and rows of book_covers refer to it by cover_id" in done.err
    path.write_text(text + "TABLES = 5\n", encoding="utf-8")
    done = run("discover.py", *where, "--check")
    assert (done.code, "config.TABLES is not a tuple of Table(…)" in done.err) == (2, True)


def test_what_hangs_on_an_excluded_table_is_left_behind(lending: Database, place: Place, run: Run) -> None:
    where = ("--postgres-url", lending.url, "--output", place.folder)
    assert run("discover.py", *where, "--root", "members", "--exclude", "books").code == 0
    config = loaded((place.folder / "config.py").read_text(encoding="utf-8"))
    assert set(config["EXCLUDED_TABLES"]) >= {"books", "book_covers"}
    assert run("discover.py", *where, "--check").code == 0


def test_check_sees_rules_defaults_indexes_and_views(empty: Database, place: Place, run: Run) -> None:
    empty.execute(
        """
        CREATE TYPE mood AS ENUM ('ok', ''); CREATE DOMAIN small AS int CHECK (VALUE < 9);
        CREATE TABLE people (id int PRIMARY KEY, email text UNIQUE);
        CREATE TABLE notes (id int PRIMARY KEY, person int REFERENCES people ON DELETE CASCADE, a int CHECK (a > 0), b int DEFAULT 1,
            c mood, d small, e text UNIQUE);
        CREATE INDEX notes_a ON notes (a); CREATE INDEX notes_b ON notes (b); CREATE VIEW seen AS SELECT a FROM notes;
        """
    )
    where = ("--postgres-url", empty.url, "--output", place.folder)
    assert run("discover.py", *where, "--root", "people").code == 0
    assert run("discover.py", *where, "--check").code == 0
    empty.execute(
        """
        ALTER TABLE notes DROP CONSTRAINT notes_a_check, DROP CONSTRAINT notes_e_key, ALTER b SET DEFAULT 2, DROP CONSTRAINT notes_pkey,
            DROP CONSTRAINT notes_person_fkey, ADD FOREIGN KEY (person) REFERENCES people;
        ALTER TYPE mood ADD VALUE 'more'; ALTER DOMAIN small DROP CONSTRAINT small_check; DROP INDEX notes_a;
        DROP INDEX notes_b; CREATE INDEX notes_b ON notes (b DESC); CREATE VIEW more AS SELECT 1 AS a; DROP VIEW seen;
        """
    )
    done = run("discover.py", *where, "--check", "--quiet")
    found = {line.split("│")[2].strip() for line in done.out.splitlines() if line.startswith("│")}
    assert found == {
        *(
            "constraint notes_a_check is gone",
            "constraint notes_e_key is gone",
            "constraint notes_pkey is gone",
        ),
        *("the values of column %s are others" % name for name in "bcd"),
        *("foreign key notes_person_fkey is another",),
        *("index notes_a is gone", "index notes_b is another", "the view is gone", "a new view"),
    }


def test_second_discovery_is_the_first_one(lending: Database, place: Place, run: Run) -> None:
    where = ("--postgres-url", lending.url, "--root", "members", "--output")
    for name in ("one", "two"):  # what stands in the environment for other scripts is not looked at
        run("discover.py", *where, place.folder / name, env={"MIGRATION_CONFIG": "no/such.py"}, code=0)
    for file in FILES:
        assert (place.folder / "one" / file).read_bytes() == (place.folder / "two" / file).read_bytes()


@pytest.mark.parametrize("file", FILES)
def test_file_that_is_there_is_never_overwritten(
    file: str, lending: Database, place: Place, run: Run
) -> None:
    (place.folder / file).write_text("mine")
    done = run("discover.py", "--postgres-url", lending.url, "--root", "members", "--output", place.folder)
    assert done.code == 2
    assert "%s is there, and never overwritten\ntry: --check" % (place.folder / file) in done.err
    assert [path.name for path in place.folder.iterdir()] == [file]
    assert (place.folder / file).read_text() == "mine"


def test_bring_for_all_is_said_to_take_rows_of_others(empty: Database, place: Place, run: Run) -> None:
    empty.execute(GARDENS)
    done = run(
        *("discover.py", "--postgres-url", empty.url, "--root", "Gardener", "--references", "bring"),
        *("--output", place.folder / "made"),
    )
    said = "whole rows of others in Gardener, where exported rows name them: with id, email and planId"
    assert said in done.err
    assert said.partition(",")[0] in (place.folder / "made" / "config.py").read_text(encoding="utf-8")


def test_questions_and_departures_are_said(empty: Database, place: Place, run: Run) -> None:
    empty.execute(
        GARDENS + """CREATE TABLE "Seen" (mark text); INSERT INTO "Seen" SELECT min(id) FROM "Gardener";"""
    )
    empty.execute("""INSERT INTO "Seen" VALUES ('x'), ('y')""")
    done = run(
        *("discover.py", "--postgres-url", empty.url, "--root", "Gardener", "--references", "cut"),
        *("--output", place.folder),
    )
    assert done.code == 0
    assert "2 questions are open: answer them in %s" % (place.folder / "config.py") in done.err
    assert "are counted by the first answer to each question" in done.err
    assert (
        "taken for nobody's, though values of mark are keys of Gardener, perhaps by chance: Seen\n"
        in done.err
    )
    assert "Plot (madeById) → Gardener: names 1 row of other roots\n" in done.err
    assert "PlotHelper (plotId) → Plot: names 2 rows of other roots; the column is NOT NULL" in done.err
    config = loaded((place.folder / "config.py").read_text(encoding="utf-8"))
    assert config["LEAVING"] == "cut"
    left_behind = {table.name: table.left_behind for table in config["TABLES"] if table.left_behind}
    assert left_behind == {"Plot": ("ownerId", "madeById"), "PlotHelper": ("gardenerId", "plotId")}
    assert "view PlantCount" in done.err


# Options, exit code, what is said and what to try
REFUSED = {
    "no such table": (("--root", "member"), 2, "no table member in the database", "similar: members"),
    "no root": ((), 2, "--root is missing", "python discover.py"),
    "an empty name": (("--root", "members", "--named-by", ""), 2, "--named-by is empty", "python discover.py"),
    "no such column": (("--root", "members", "--named-by", "nick"), 2, "no column nick", "it has id, joined, pin"),
    "no name of one": (("--root", "notes", "--named-by", "member_id"), 2, "several rows of notes", "--named-by"),
    "nothing owned": (("--root", "settings_of_all", "--named-by", "version"), 2, "no key of one column", "--root"),
    "nothing to exclude": (("--root", "members", "--exclude", "Books"), 2, "--exclude Books: there is no", "case counts"),
    "the root excluded": (("--root", "members", "--exclude", "members.id"), 2, "says whose data it is", "--named-by"),
    "no such user": (("--root", "members", "--user", "Mia"), 3, "member not found: Mia", "check the spelling"),
    "no such key": (("--root", "members", "--user-id", "9"), 3, "member not found: 9", ""),
    "nobody there": (("--root", "members", "--postgres-url", NOWHERE), 3, "cannot connect", "start PostgreSQL"),
    "a file for a folder": (("--root", "members", "--output", "{file}"), 5, "cannot write to the folder", "--output"),
    "nothing to check": (("--check",), 2, "cannot read", "the folder that discover.py has written"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_done_is_said(case: str, lending: Database, place: Place, run: Run) -> None:
    options, code, message, advice = REFUSED[case]
    file = place.folder / "file"
    file.write_text("")
    given = [option.format(file=file) for option in options]
    for name, value in (("--postgres-url", lending.url), ("--output", str(place.folder / "made"))):
        given += [] if name in given else [name, value]
    done = run("discover.py", *given, code=code)
    assert message in done.err.partition("\ntry:")[0] and advice in done.err.partition("\ntry:")[2]
    assert [path.name for path in place.folder.iterdir()] == ["file"]


@pytest.mark.parametrize(
    "config, message",
    [
        ("TABLES = (", "line 1"),
        ("TABLES = ()", "has no DISCOVERED"),
        ("DISCOVERED = dict()", "line 1: DISCOVERED is not as"),
        ("DISCOVERED = {'a': 1}", "has no DISCOVERED"),
    ],
)
def test_config_of_other_hands_is_not_checked(
    config: str, message: str, lending: Database, place: Place, run: Run
) -> None:
    (place.folder / "config.py").write_text("LOG_LEVEL, LOG_FILE = 'INFO', None; " + config)
    done = run("discover.py", "--check", "--postgres-url", lending.url, "--output", place.folder, code=2)
    assert message in done.err


def test_role_that_may_only_read_is_enough_and_its_password_stays_out(
    guarded: Guarded, place: Place, run: Run
) -> None:
    url = guarded.url("theprogram", user="theprogram")
    run("discover.py", "--postgres-url", url, "--root", "users", "--output", place.folder, code=0)
    tree = ast.parse((place.folder / "config.py").read_text(encoding="utf-8"))
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id.startswith("POSTGRES_")
    }
    assert values == {
        "POSTGRES_HOST": "127.0.0.1",
        "POSTGRES_PORT": guarded.port,
        "POSTGRES_DB": guarded.database,
        "POSTGRES_USER": "theprogram",
        "POSTGRES_PASSWORD": "",
        "POSTGRES_SCHEMA": "public",
    }


def test_table_that_may_not_be_read_is_named(lending: Database, place: Place, run: Run) -> None:
    lending.execute(
        "CREATE ROLE half; GRANT SELECT ON ALL TABLES IN SCHEMA public TO half; REVOKE SELECT ON notes FROM half"
    )
    url = lending.url + "&options=-c%20role%3Dhalf"
    done = run("discover.py", "--postgres-url", url, "--root", "members", "--output", place.folder / "made")
    lending.execute("DROP OWNED BY half; DROP ROLE half")
    assert done.code == 3
    assert (
        'no permission to read notes\ntry: as the tables\' owner: GRANT SELECT ON "public"."notes"'
        in done.err
    )


def test_odd_names_and_columns_stay_what_they_are(empty: Database, place: Place, run: Run) -> None:
    """Quotes, backslashes, line breaks: in strings and in comments of config.py."""
    odd, column = "a\"b\\c'd\nimport os", "c'd; import os"
    quoted = '"%s"' % odd.replace('"', '""')
    empty.execute(
        'CREATE TABLE "select" (id int PRIMARY KEY, "E-mail" text UNIQUE);'
        'CREATE TABLE %s ("%s" int REFERENCES "select", note text);'
        "INSERT INTO \"select\" VALUES (1, 'x'); INSERT INTO %s VALUES (1, 'n'), (NULL, 'n')"
        % (quoted, column, quoted)
    )
    run("discover.py", "--postgres-url", empty.url, "--root", "select", "--output", place.folder, code=0)
    config = loaded((place.folder / "config.py").read_text(encoding="utf-8"))
    assert config["TABLES"][1] is not None and isinstance(config["TABLES"][1], Table)
    assert (config["TABLES"][1].name, config["TABLES"][1].ownership) == (odd, owned_by(column))
    assert run("discover.py", "--check", "--postgres-url", empty.url, "--output", place.folder).code == 0


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "$json_null"])
def test_column_that_a_bundle_cannot_name_is_said_at_once(
    name: str, lending: Database, place: Place, run: Run
) -> None:
    """Not only by the export, when the questions have been answered."""
    lending.execute('ALTER TABLE visits ADD COLUMN "%s" int' % name.replace('"', '""'))
    app = place.folder / "app"
    where = ("--postgres-url", lending.url, "--root", "members", "--output", app)
    for options in ((), ("--exclude", "visits." + name)):
        done = run("discover.py", *where, *options, code=2)
        assert "a column of visits " in done.err and ascii(name).strip("'") in done.err
        assert "leave the whole table behind: --exclude 'visits'" in done.err
        assert not app.exists()
    assert run("discover.py", *where, "--exclude", "visits").code == 0


def test_folder_of_a_run_that_was_killed_is_whole_or_empty(lending: Database, place: Place, run: Run) -> None:
    """Between the rename that completes the files and their move, the next run finds them and moves them."""
    where = ("--postgres-url", lending.url, "--root", "members", "--output", place.folder)
    assert run("discover.py", *where).code == 0
    (place.folder / ".complete").mkdir(mode=0o700)
    for file in FILES:
        Path(place.folder / file).rename(place.folder / ".complete" / file)
    assert run("discover.py", *where).code == 2
    assert sorted(path.name for path in place.folder.iterdir()) == FILES
