"""Whose rows they are, in databases of many shapes: what arrives is what a plain query of PostgreSQL says."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Tuple

import pytest

import config
from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.fleet import selection
from migration.model import Table, child_of, owned_by, root, shared
from migration.postgres import connecting
from support.migrations import export_and_import, settings_of
from support.ownership import (
    C1,
    C2,
    DATA,
    H1,
    ONE,
    U,
    V,
    migrate,
    other_root,
    refused,
    settings_of_root,
    settings_with,
)
from support.places import SUITE, Place
from support.runs import Run
from support.servers import Database, Server
from support.sqlite_files import rows_of
from validate_migration import validate

# Equality as the types themselves have it

BOARDS = f"""
CREATE EXTENSION citext;
CREATE TABLE boards (slug citext PRIMARY KEY, user_id uuid REFERENCES users);
CREATE TABLE cards (id int PRIMARY KEY, board citext NOT NULL {{key}}, x text);
INSERT INTO boards VALUES ('Work', '{U}'), ('Home', '{V}');
INSERT INTO cards VALUES (1, 'Work', 'a'), (2, 'work', 'b'), (3, 'WORK', 'c'), (4, 'home', 'd');
"""
BOARDS_LITE = "CREATE TABLE boards (slug TEXT PRIMARY KEY); CREATE TABLE cards (id INTEGER PRIMARY KEY, board TEXT, x TEXT)"


@pytest.mark.parametrize("key", ["REFERENCES boards", ""], ids=["foreign key", "no foreign key"])
def test_parent_is_found_by_the_types_own_equality(two_users: Database, place: Place, key: str) -> None:
    two_users.execute(BOARDS.format(key=key))
    tables = (Table("boards", owned_by("user_id")), Table("cards", child_of("boards", "board")))
    migrate(settings_with(two_users, place, tables, BOARDS_LITE))
    assert rows_of(place.app, "SELECT id, board FROM cards") == [(1, "Work"), (2, "work"), (3, "WORK")]


@pytest.mark.parametrize("skip", [False, True])
def test_reference_that_differs_in_case_alone_is_no_orphan(
    two_users: Database, place: Place, skip: bool
) -> None:
    two_users.execute(
        BOARDS.format(key="REFERENCES boards")
        + f"ALTER TABLE cards ADD user_id uuid; UPDATE cards SET user_id = CASE id WHEN 4 THEN '{V}' ELSE '{U}' END::uuid"
    )
    tables = (Table("boards", owned_by("user_id")), Table("cards", owned_by("user_id")))
    migrate(settings_with(two_users, place, tables, BOARDS_LITE, skip_orphans=skip))
    assert rows_of(place.app, "SELECT count(*) FROM cards") == [(3,)]


@pytest.mark.parametrize(
    ("key", "ids", "owner", "values"),
    [
        ("bigint", ("3000000000", "2"), "int", ("2", "2")),
        ("bigint", ("2", "3000000000"), "int", ("2", "7")),
        ("bigint", ("2", "3000000000"), "numeric", ("2.0", "7")),
        ("smallint", ("2", "3"), "bigint", ("2", "30")),
        ("text", ("'Ab'", "'AB'"), "varchar(9)", ("'Ab'", "'AB'")),
        ("citext", ("'Ab'", "'Cd'"), "citext", ("'AB'", "'cD'")),
        ("label", ("'Ab'", "'Cd'"), "label", ("'AB'", "'cD'")),
        ("char(4)", ("'ab'", "'cd'"), "text", ("'ab'", "'cd'")),
        ("uuid", (f"'{U}'", f"'{V}'"), "text", (f"'{U}'", f"'{V}'")),
        ("date", ("'2025-01-01'", "'2025-01-02'"), "timestamp", ("'2025-01-01'", "'2025-01-01 10:00'")),
        ("numeric", ("1.0", "2"), "numeric", ("1.00", "2")),
        ("bytea", ("'\\x00ff'", "'\\x00'"), "bytea", ("'\\x00ff'", "'\\x00'")),
        ("mood", ("'calm'", "'tense'"), "mood", ("'calm'", "'tense'")),
    ],
)
def test_owner_is_compared_as_the_users_key_is(
    two_users: Database, place: Place, key: str, ids: Tuple[str, str], owner: str, values: Tuple[str, str]
) -> None:
    two_users.execute(
        "CREATE EXTENSION citext; CREATE DOMAIN label AS citext; CREATE TYPE mood AS ENUM ('tense', 'calm')"
    )
    other_root(two_users, key, ids)
    two_users.execute(
        "CREATE TABLE notes (id int PRIMARY KEY, owner {}, note text);"
        "INSERT INTO notes VALUES (1, {}, 'a'), (2, {}, 'b'), (3, NULL, 'c')".format(owner, *values)
    )
    settings = settings_of_root(two_users, place, Table("notes", owned_by("owner")))
    expected = two_users.rows(
        "SELECT id FROM notes WHERE owner::text::%s = %s ORDER BY id"
        % (key if owner != "numeric" else owner, ids[0])
        if (key, owner) != ("date", "timestamp")
        else "SELECT id FROM notes WHERE owner = '2025-01-01' ORDER BY id"
    )
    export_and_import(settings)
    assert rows_of(place.app, "SELECT id FROM notes") == expected
    assert rows_of(place.app, "SELECT id, password_hash FROM app_config") == [(1, "x")]
    assert rows_of(place.app, "SELECT id, color FROM prefs") == [(1, "red")]


def test_user_without_a_row_of_that_name_is_shown_the_names(two_users: Database, place: Place) -> None:
    other_root(two_users, "int", ("1", "2"))
    two_users.execute("INSERT INTO members VALUES (3, NULL, 'z')")
    settings = settings_of_root(two_users, place)
    error = refused(dataclasses.replace(settings, user_email="One"))
    assert error.exit_code == ExitCode.SOURCE
    assert "\n  one\n  two" in str(error.private_hint)
    assert "None" not in str(error.private_hint)


# Rows of the user by another way

ATTACHMENTS = f"""
CREATE TABLE attachments (id int PRIMARY KEY, client_id uuid REFERENCES clients, chart_id uuid REFERENCES charts, name text);
INSERT INTO attachments VALUES (1, '{C1}', NULL, 'of my client'), (2, NULL, '{H1}', 'of my chart'), (3, '{C2}', NULL, 'of another');
"""
ATTACHMENTS_LITE = (
    "CREATE TABLE attachments (id INTEGER PRIMARY KEY, client_id TEXT, chart_id TEXT, name TEXT)"
)


def test_row_that_hangs_on_the_user_by_another_way_stops_the_export(
    two_users: Database, place: Place, run: Run
) -> None:
    two_users.execute(ATTACHMENTS)
    attachments = Table("attachments", child_of("clients", "client_id"))
    settings = settings_with(two_users, place, (attachments,), ATTACHMENTS_LITE)
    error = refused(settings)
    assert error.exit_code == ExitCode.SOURCE
    assert error.message == (
        "rows that are not exported refer to rows of the user: 1\n"
        "  attachments 2: chart_id refers to a row of the user in charts (%s)" % H1
    )
    assert 'left_behind=("chart_id",)' in str(error.hint)

    declared = dataclasses.replace(attachments, left_behind=("chart_id",))
    settings = dataclasses.replace(settings, tables=(*config.TABLES, declared))
    assert export(settings).manifest.left_behind == {"attachments (chart_id)": 1}
    migrate(settings)
    assert rows_of(place.app, "SELECT id FROM attachments") == [(1,)]


def test_dry_run_shows_rows_by_another_way(
    two_users: Database, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    from migration.cli import plan as dry_run

    two_users.execute(ATTACHMENTS)
    attachments = Table("attachments", child_of("clients", "client_id"))
    settings = settings_with(two_users, place, (attachments,), ATTACHMENTS_LITE)
    dry_run.show(dry_run.plan(settings), settings)
    assert "1 row of attachments that is not exported refers by chart_id to rows of the user in charts" in (
        caplog.text
    )


def test_row_of_nobody_that_refers_to_the_user_is_found(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"""
        CREATE TABLE todos (id int PRIMARY KEY, user_id uuid REFERENCES users, assignee uuid REFERENCES users, client_id uuid REFERENCES clients);
        INSERT INTO todos VALUES (1, '{U}', '{U}', NULL), (2, NULL, NULL, '{C1}'), (3, '{V}', '{U}', NULL), (4, '{V}', '{V}', '{C2}');
        """
    )
    lite = "CREATE TABLE todos (id INTEGER PRIMARY KEY, assignee TEXT, client_id TEXT)"
    todos = Table("todos", owned_by("user_id"))
    error = refused(settings_with(two_users, place, (todos,), lite))
    assert "todos 3: assignee refers to a row of the user in users (%s)" % U in error.message
    assert "todos 2: client_id refers to a row of the user in clients (%s)" % C1 in error.message
    assert error.message.startswith("rows that are not exported refer to rows of the user: 2\n")


def test_references_to_what_is_shared_concern_nobody(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"""
        CREATE TABLE cities (id int PRIMARY KEY, name text); INSERT INTO cities VALUES (1, 'x'), (2, 'y');
        CREATE TABLE templates (id int PRIMARY KEY, user_id uuid REFERENCES users);
        INSERT INTO templates VALUES (1, NULL), (2, '{U}'), (3, '{V}');
        CREATE TABLE template_parts (id int PRIMARY KEY, template int REFERENCES templates);
        INSERT INTO template_parts VALUES (1, 1), (2, 2), (3, 3);
        CREATE TABLE trips (id int PRIMARY KEY, user_id uuid REFERENCES users, city int REFERENCES cities, template int REFERENCES templates, part int REFERENCES template_parts);
        INSERT INTO trips VALUES (1, '{U}', 1, 1, 1), (2, '{V}', 1, 1, 1), (3, '{V}', 2, 3, 3), (4, '{U}', NULL, 2, 2);
        """
    )
    tables = (
        Table("cities", shared()),
        Table("templates", owned_by("user_id", or_shared=True)),
        Table("template_parts", child_of("templates", "template")),
        Table("trips", owned_by("user_id")),
    )
    lite = (
        "CREATE TABLE cities (id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE templates (id INTEGER PRIMARY KEY);"
        "CREATE TABLE template_parts (id INTEGER PRIMARY KEY, template INTEGER REFERENCES templates);"
        "CREATE TABLE trips (id INTEGER PRIMARY KEY, city INTEGER, template INTEGER, part INTEGER)"
    )
    settings = settings_with(two_users, place, tables, lite)
    migrate(settings)
    assert rows_of(place.app, "SELECT id FROM template_parts") == [(1,), (2,)]
    two_users.execute("UPDATE trips SET part = 2, template = 2 WHERE id = 3")
    place.data.joinpath("manifest.json").unlink()
    error = refused(settings)
    assert "trips 3: template refers to a row of the user in templates (2)" in error.message
    assert "trips 3: part refers to a row of the user in template_parts (2)" in error.message


def test_reference_to_another_user_stops_the_export(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"ALTER TABLE clients ADD made_by uuid REFERENCES users; UPDATE clients SET made_by = '{V}'"
    )
    lite = "ALTER TABLE clients ADD made_by TEXT"
    error = refused(settings_with(two_users, place, (), lite))
    assert "clients %s: made_by leads to no exported row of users (%s)" % (C1, V) in error.message


# Cycles and large graphs

THREADS = f"""
CREATE TABLE threads (id int PRIMARY KEY, user_id uuid NOT NULL REFERENCES users, last int);
CREATE TABLE messages (id int PRIMARY KEY, user_id uuid NOT NULL REFERENCES users, thread int REFERENCES threads);
ALTER TABLE threads ADD FOREIGN KEY (last) REFERENCES messages;
INSERT INTO threads VALUES (1, '{U}', NULL), (2, '{U}', NULL), (3, '{V}', NULL), (4, '{U}', NULL);
INSERT INTO messages VALUES (1, '{U}', 3), (2, '{U}', 1), (3, '{U}', 2), (4, '{U}', 4), (5, '{U}', 4);
UPDATE threads SET last = CASE id WHEN 1 THEN 1 WHEN 2 THEN 2 WHEN 4 THEN 4 END;
"""
THREADS_LITE = (
    "CREATE TABLE threads (id INTEGER PRIMARY KEY, last INTEGER REFERENCES messages (id));"
    "CREATE TABLE messages (id INTEGER PRIMARY KEY, thread INTEGER REFERENCES threads (id))"
)


def test_what_is_left_out_is_followed_through_cycles(two_users: Database, place: Place) -> None:
    two_users.execute(THREADS)
    tables = (
        Table("threads", owned_by("user_id")),
        Table("messages", owned_by("user_id"), left_behind=("thread",)),
    )
    settings = settings_with(two_users, place, tables, THREADS_LITE, skip_orphans=True)
    migrate(settings)
    assert rows_of(place.app, "SELECT id FROM threads") == [(4,)]
    assert rows_of(place.app, "SELECT id FROM messages") == [(4,), (5,)]
    assert export(settings).manifest.orphans_skipped == {"threads": 2, "messages": 3}


def test_tree_of_a_table_loses_the_branch_that_hangs_on_another_user(
    two_users: Database, place: Place
) -> None:
    two_users.execute(
        f"""
        CREATE TABLE folders (a int, b int, user_id uuid REFERENCES users, up_a int, up_b int, PRIMARY KEY (a, b),
            FOREIGN KEY (up_a, up_b) REFERENCES folders);
        INSERT INTO folders VALUES (1, 1, '{U}', NULL, NULL), (1, 2, '{U}', 1, 1), (9, 9, '{V}', NULL, NULL),
            (2, 1, '{U}', 9, 9), (2, 2, '{U}', 2, 1), (2, 3, '{U}', 2, 2), (3, 3, '{U}', NULL, 7);
        """
    )
    lite = "CREATE TABLE folders (a INTEGER, b INTEGER, up_a INTEGER, up_b INTEGER, PRIMARY KEY (a, b))"
    settings = settings_with(
        two_users, place, (Table("folders", owned_by("user_id")),), lite, skip_orphans=True
    )
    migrate(settings)
    assert rows_of(place.app, "SELECT a, b FROM folders ORDER BY 1, 2") == [(1, 1), (1, 2), (3, 3)]


@pytest.mark.parametrize(("skip", "count"), [(False, 40), (True, 15)])
def test_tables_that_all_refer_to_the_earlier_ones(
    two_users: Database, place: Place, skip: bool, count: int
) -> None:
    """Work that grows with the ways through such a graph would have no end."""
    names = ["g%d" % number for number in range(count)]
    for number, name in enumerate(names):
        columns = "".join(", r%d int REFERENCES g%d" % (i, i) for i in range(number))
        two_users.execute(
            "CREATE TABLE {0} (id int PRIMARY KEY, user_id uuid REFERENCES users{1});"
            "INSERT INTO {0} VALUES (1, '{2}'{3})".format(name, columns, U, ", 1" * number)
        )
    if skip:
        two_users.execute("INSERT INTO g0 VALUES (2, '%s'); UPDATE g1 SET r0 = 2" % V)
    tables = [
        Table(name, owned_by("user_id"), left_behind=("r0",))
        if number < 2
        else Table(name, child_of("g%d" % (number - 1), "r%d" % (number - 1)), dropped=("user_id",))
        for number, name in enumerate(names)
    ]
    tables[0] = Table("g0", owned_by("user_id"))
    lite = ";".join(
        "CREATE TABLE %s (id INTEGER PRIMARY KEY%s)"
        % (name, "".join(", r%d INTEGER REFERENCES g%d" % (i, i) for i in range(number)))
        for number, name in enumerate(names)
    )
    settings = settings_with(two_users, place, tables, lite, skip_orphans=skip)
    manifest = export(settings).manifest
    assert sum(manifest.row_counts[name] for name in names) == (1 if skip else count)


# Inheritance

DOCS = f"""
CREATE TABLE docs (id int PRIMARY KEY, user_id uuid REFERENCES users, x text);
CREATE TABLE docs_archive ({{columns}}PRIMARY KEY (id)) INHERITS (docs);
INSERT INTO docs VALUES (1, '{U}', 'a'), (2, '{V}', 'b');
INSERT INTO docs_archive (id, user_id, x) VALUES (3, '{U}', 'c'), (4, '{V}', 'd');
"""
DOCS_LITE = (
    "CREATE TABLE docs (id INTEGER PRIMARY KEY, x TEXT);"
    "CREATE TABLE docs_archive (id INTEGER PRIMARY KEY, x TEXT, why TEXT)"
)


def test_heir_that_is_left_behind_is_not_read_as_its_parent(two_users: Database, place: Place) -> None:
    two_users.execute(DOCS.format(columns="why text, "))
    settings = settings_with(two_users, place, (Table("docs", owned_by("user_id")),), DOCS_LITE)
    error = refused(settings)
    assert error.exit_code == ExitCode.USAGE
    assert error.message == "table docs_archive inherits from docs and has columns of its own: why"
    migrate(dataclasses.replace(settings, excluded_tables=("docs_archive",)))
    assert rows_of(place.app, "SELECT id FROM docs") == [(1,)]


def test_heir_in_tables_is_a_table_of_its_own(two_users: Database, place: Place) -> None:
    two_users.execute(DOCS.format(columns="why text, "))
    tables = (Table("docs", owned_by("user_id")), Table("docs_archive", owned_by("user_id")))
    migrate(settings_with(two_users, place, tables, DOCS_LITE))
    assert rows_of(place.app, "SELECT id FROM docs") == [(1,)]
    assert rows_of(place.app, "SELECT id FROM docs_archive") == [(3,)]


def test_heir_without_columns_of_its_own_is_one_with_its_parent(two_users: Database, place: Place) -> None:
    two_users.execute(
        DOCS.format(columns="")
        + f"CREATE TABLE docs_old () INHERITS (docs_archive); INSERT INTO docs_old VALUES (5, '{U}', 'e')"
    )
    settings = settings_with(two_users, place, (Table("docs", owned_by("user_id")),), DOCS_LITE)
    migrate(settings)
    assert rows_of(place.app, "SELECT id FROM docs ORDER BY 1") == [(1,), (3,), (5,)]
    migrate(dataclasses.replace(settings, excluded_tables=("docs_old",)))
    assert rows_of(place.app, "SELECT id FROM docs ORDER BY 1") == [(1,), (3,)]


def test_references_of_heirs_count(two_users: Database, place: Place) -> None:
    two_users.execute(
        DOCS.format(columns="")
        + f"ALTER TABLE docs ADD chart uuid; ALTER TABLE docs_archive ADD FOREIGN KEY (chart) REFERENCES charts;"
        f"UPDATE docs_archive SET chart = '{H1}' WHERE id = 4"
    )
    lite = DOCS_LITE.replace("x TEXT", "x TEXT, chart TEXT", 1)
    error = refused(settings_with(two_users, place, (Table("docs", owned_by("user_id")),), lite))
    assert "docs 4: chart refers to a row of the user in charts" in error.message


@pytest.mark.parametrize("key", ["parts", "parts_1"], ids=["of the table", "of one partition"])
def test_references_of_partitions_count(two_users: Database, place: Place, key: str) -> None:
    two_users.execute(
        f"""
        CREATE TABLE parts (id int, user_id uuid REFERENCES users, chart uuid, PRIMARY KEY (id)) PARTITION BY RANGE (id);
        CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (9);
        CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (9) TO (99);
        ALTER TABLE {key} ADD FOREIGN KEY (chart) REFERENCES charts;
        INSERT INTO parts VALUES (1, '{U}', '{H1}'), (2, '{V}', '{H1}'), (10, '{U}', NULL), (11, '{V}', NULL);
        """
    )
    lite = "CREATE TABLE parts (id INTEGER PRIMARY KEY, chart TEXT)"
    parts = Table("parts", owned_by("user_id"))
    error = refused(settings_with(two_users, place, (parts,), lite))
    assert "parts 2: chart refers to a row of the user in charts" in error.message
    two_users.execute("UPDATE parts SET chart = NULL WHERE id = 2")
    migrate(settings_with(two_users, place, (parts,), lite))
    assert rows_of(place.app, "SELECT id FROM parts ORDER BY 1") == [(1,), (10,)]


# Names


def test_column_of_any_name_is_no_alias(two_users: Database, place: Place) -> None:
    names = ("r", "t", "j", "line", "b", "e", "p", "s0", "c0", "n", "m", "tableoid_", "row", "edge", "broken")
    two_users.execute(
        "CREATE TYPE pair AS (id int, a text); CREATE TABLE odd (id int PRIMARY KEY, user_id uuid REFERENCES users, %s);"
        "INSERT INTO odd VALUES (1, '%s', %s)"
        % (
            ", ".join('"%s" pair' % name for name in names),
            U,
            ", ".join("ROW(%d, 'x')" % i for i in range(len(names))),
        )
    )
    lite = "CREATE TABLE odd (id INTEGER PRIMARY KEY, %s)" % ", ".join('"%s" TEXT' % name for name in names)
    for skip in (False, True):
        migrate(
            settings_with(two_users, place, (Table("odd", owned_by("user_id")),), lite, skip_orphans=skip)
        )
        assert rows_of(place.app, "SELECT r, t, broken FROM odd") == [
            ('{"id":0,"a":"x"}', '{"id":1,"a":"x"}', '{"id":14,"a":"x"}')
        ]


def test_table_of_another_schema_is_migrated_by_its_full_name(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"""
        CREATE SCHEMA billing; CREATE TABLE billing.invoices (id int PRIMARY KEY, user_id uuid REFERENCES users);
        CREATE TABLE billing.lines (id int PRIMARY KEY, invoice int REFERENCES billing.invoices);
        INSERT INTO billing.invoices VALUES (1, '{U}'), (2, '{V}'); INSERT INTO billing.lines VALUES (1, 1), (2, 2);
        """
    )
    error = refused(settings_with(two_users, place, (), ""))
    assert 'Table("billing.invoices", owned_by("user_id"))' in str(error.hint)
    assert 'Table("billing.lines", child_of("billing.invoices", "invoice"))' in str(error.hint)
    tables = (
        Table("billing.invoices", owned_by("user_id")),
        Table("billing.lines", child_of("billing.invoices", "invoice")),
    )
    lite = (
        "CREATE TABLE invoices (id INTEGER PRIMARY KEY);"
        "CREATE TABLE billing_lines (id INTEGER PRIMARY KEY, invoice INTEGER REFERENCES invoices)"
    )
    migrate(settings_with(two_users, place, tables, lite))
    assert rows_of(place.app, "SELECT * FROM invoices") == [(1,)]
    assert rows_of(place.app, "SELECT * FROM billing_lines") == [(1, 1)]


def test_schema_of_any_name(empty: Database, place: Place, run: Run) -> None:
    text = (SUITE / "schema_design" / "postgres_schema.sql").read_text(encoding="utf-8")
    empty.execute('CREATE SCHEMA "100%s ""x"; SET search_path = "100%s ""x";' + text + DATA)
    settings = settings_of(empty.url, place, ONE, postgres_schema='100%s "x')
    migrate(settings)
    assert rows_of(place.app, "SELECT id FROM clients") == [(C1,)]
    with pytest.raises(MigrationError, match="user not found"):
        export(dataclasses.replace(settings, user_email="10%"))
    chosen = place.folder / "chosen"
    chosen.write_text(ONE)
    with connecting.snapshot(settings) as db:
        assert list(selection.users(db, settings, str(chosen), False)) == [U]
        assert list(selection.users(db, settings, None, True)) == [U, V]


def test_names_that_differ_in_case_are_the_same_in_sqlite(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"""
        CREATE TABLE "Post" ("Id" int PRIMARY KEY, "userId" uuid REFERENCES users, "Title" text);
        CREATE TABLE "Reply" ("Id" int PRIMARY KEY, "userId" uuid REFERENCES users, "postId" int);
        INSERT INTO "Post" VALUES (1, '{U}', 'a'), (2, '{V}', 'b'); INSERT INTO "Reply" VALUES (1, '{U}', 1), (2, '{U}', 2);
        """
    )
    tables = (Table("Post", owned_by("userId")), Table("Reply", owned_by("userId")))
    lite = (
        "CREATE TABLE post (id INTEGER PRIMARY KEY, title TEXT);"
        "CREATE TABLE reply (id INTEGER PRIMARY KEY, postid INTEGER REFERENCES post (id))"
    )
    settings = settings_with(two_users, place, tables, lite)
    assert "Reply 2: postId leads to no exported row of Post (2)" in refused(settings).message
    migrate(dataclasses.replace(settings, skip_orphans=True))
    assert rows_of(place.app, "SELECT * FROM post") == [(1, "a")]
    assert rows_of(place.app, "SELECT * FROM reply") == [(1, 1)]


def test_generated_columns_of_both_sides_are_compared(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"""
        CREATE TABLE posts (id int PRIMARY KEY, user_id uuid REFERENCES users, title text,
            short text GENERATED ALWAYS AS (left(title, 3)) STORED);
        INSERT INTO posts VALUES (1, '{U}', 'title'), (2, '{V}', 'title'), (3, '{U}', NULL);
        """
    )
    lite = (
        "CREATE TABLE posts (id INTEGER PRIMARY KEY, title TEXT,"
        " short TEXT GENERATED ALWAYS AS (substr(title, 1, %d)) VIRTUAL)"
    )
    posts = Table("posts", owned_by("user_id"))
    migrate(settings_with(two_users, place, (posts,), lite % 3))
    assert rows_of(place.app, "SELECT * FROM posts") == [(1, "title", "tit"), (3, None, None)]
    settings = settings_with(two_users, place, (posts,), lite % 4)
    export_and_import(settings)
    report = validate(settings)
    assert ["posts 1, column short" in error for error in report.errors] == [True]


def test_reference_to_what_is_left_behind_is_counted(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"""
        CREATE TABLE plans (id int PRIMARY KEY, user_id uuid REFERENCES users); INSERT INTO plans VALUES (1, '{U}');
        ALTER TABLE clients ADD plan int REFERENCES plans; UPDATE clients SET plan = 1;
        """
    )
    settings = settings_with(
        two_users, place, (), "ALTER TABLE clients ADD plan INTEGER", excluded_tables=("plans",)
    )
    assert export(settings).manifest.left_behind == {"clients (plan) → plans": 1}
    migrate(settings)


def test_key_that_only_postgresql_finds_equal_needs_a_collation_in_sqlite(
    two_users: Database, place: Place
) -> None:
    two_users.execute(BOARDS.format(key="REFERENCES boards"))
    tables = (Table("boards", owned_by("user_id")), Table("cards", child_of("boards", "board")))
    lite = BOARDS_LITE.replace("board TEXT", "board TEXT REFERENCES boards (slug)")
    settings = settings_with(two_users, place, tables, lite)
    export(settings)
    with pytest.raises(MigrationError) as caught:
        import_(settings)
    assert "COLLATE NOCASE" in str(caught.value.hint)
    migrate(settings_with(two_users, place, tables, lite.replace("slug TEXT", "slug TEXT COLLATE NOCASE")))


# What config says wrongly


def test_composite_parent_is_named_by_all_its_columns(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"""
        CREATE TABLE boards (tenant int, slug text, user_id uuid REFERENCES users, PRIMARY KEY (tenant, slug));
        CREATE TABLE cards (id int PRIMARY KEY, tenant int, slug text, FOREIGN KEY (tenant, slug) REFERENCES boards);
        INSERT INTO boards VALUES (1, 'a', '{U}'), (2, 'a', '{V}'); INSERT INTO cards VALUES (1, 1, 'a'), (2, 2, 'a');
        """
    )
    lite = (
        "CREATE TABLE boards (tenant INTEGER, slug TEXT, PRIMARY KEY (tenant, slug));"
        "CREATE TABLE cards (id INTEGER PRIMARY KEY, tenant INTEGER, slug TEXT)"
    )
    boards = Table("boards", owned_by("user_id"))
    error = refused(
        settings_with(two_users, place, (boards, Table("cards", child_of("boards", "slug"))), lite)
    )
    assert error.exit_code == ExitCode.USAGE
    assert 'child_of("boards", ("tenant", "slug"))' in str(error.hint)
    migrate(
        settings_with(
            two_users, place, (boards, Table("cards", child_of("boards", ("tenant", "slug")))), lite
        )
    )
    assert rows_of(place.app, "SELECT id FROM cards") == [(1,)]


def test_lookup_table_that_rows_refer_to_is_named_with_its_entry(two_users: Database, place: Place) -> None:
    two_users.execute(
        "CREATE TABLE countries (code text PRIMARY KEY); ALTER TABLE clients ADD country text REFERENCES countries"
    )
    lite = "CREATE TABLE countries (code TEXT PRIMARY KEY); ALTER TABLE clients ADD country TEXT"
    settings = settings_with(two_users, place, (), lite)
    assert 'add Table("countries", shared()) to config.TABLES' in str(refused(settings).hint)
    error = refused(dataclasses.replace(settings, unrelated_tables=("countries",)))
    assert 'add Table("countries", shared()) to config.TABLES' in str(error.hint)
    migrate(dataclasses.replace(settings, tables=(Table("countries", shared()), *config.TABLES)))


def test_users_data_cannot_be_nobodys(two_users: Database, place: Place) -> None:
    two_users.execute("CREATE TABLE logins (id int PRIMARY KEY, who uuid REFERENCES users)")
    settings = settings_with(two_users, place, (), "", unrelated_tables=("logins",))
    error = refused(settings)
    assert error.message == "config.UNRELATED_TABLES names logins, which is users' data"
    export(dataclasses.replace(settings, excluded_tables=("logins",), unrelated_tables=()))


def test_owner_that_refers_to_another_column_of_users_is_said(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"CREATE TABLE logs (id int PRIMARY KEY, mail varchar(255) REFERENCES users (email));"
        f"INSERT INTO logs VALUES (1, '{ONE}'), (2, 'user2@example.com')"
    )
    lite = "CREATE TABLE logs (id INTEGER PRIMARY KEY, mail TEXT)"
    error = refused(settings_with(two_users, place, (Table("logs", owned_by("mail")),), lite))
    assert 'child_of("users", "mail")' in str(error.hint)
    migrate(settings_with(two_users, place, (Table("logs", child_of("users", "mail")),), lite))
    assert rows_of(place.app, "SELECT id FROM logs") == [(1,)]


def test_config_is_read_from_the_file(tmp_path: Path) -> None:
    assert config.UNRELATED_TABLES == ("alembic_version",)


def test_right_to_read_columns_is_enough(server: Server, two_users: Database, place: Place) -> None:
    two_users.execute("DROP ROLE IF EXISTS columns_only; CREATE ROLE columns_only LOGIN")
    for table, columns in two_users.rows(
        "SELECT attrelid::regclass::text, string_agg(quote_ident(attname), ', ') FROM pg_attribute"
        " JOIN pg_class c ON c.oid = attrelid WHERE relnamespace = 'public'::regnamespace AND relkind = 'r'"
        " AND attnum > 0 AND NOT attisdropped GROUP BY 1"
    ):
        two_users.execute("GRANT SELECT (%s) ON %s TO columns_only" % (columns, table))
    settings = settings_of(two_users.url.replace("//postgres@", "//columns_only@"), place, ONE)
    try:
        migrate(settings)
    finally:
        two_users.execute("DROP OWNED BY columns_only; DROP ROLE columns_only")


def test_table_without_key_or_reference_goes_with_the_closure(two_users: Database, place: Place) -> None:
    two_users.execute(f"CREATE TABLE words (user_id uuid, word text); INSERT INTO words VALUES ('{U}', 'a')")
    words = Table("words", owned_by("user_id"))
    for skip in (False, True):
        migrate(
            settings_with(two_users, place, (words,), "CREATE TABLE words (word TEXT)", skip_orphans=skip)
        )


@pytest.mark.parametrize("wrong", [{"key": "uid"}, {"named_by": "nick"}])
def test_root_whose_columns_are_not_there_is_refused(
    sample_database: Database, place: Place, wrong: dict
) -> None:
    error = refused(settings_of(sample_database.url, place, root=root("users", **wrong)))
    assert error.message.startswith("config.TABLES, users: column %s is not in" % list(wrong.values())[0])
    assert (error.exit_code, error.hint) == (ExitCode.USAGE, "correct ROOT")
