"""Whose rows they are where tables inherit, collations differ, rows form chains, and config and schema are odd."""

from __future__ import annotations

import dataclasses
import time

import pytest

from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.fleet import selection
from migration.model import Table, child_of, owned_by
from migration.postgres import connecting
from migration.postgres.rows import rows_of_user
from migration.sqlite.schema import read_schema
from support.ownership import C1, C2, ONE, U, V, migrate, other_root, refused, settings_of_root, settings_with
from support.places import Place
from support.servers import Database
from support.sqlite_files import rows_of

OWNED = owned_by("user_id")


# Inheritance


def test_foreign_key_names_no_row_of_a_table_that_inherits(two_users: Database, place: Place) -> None:
    """Row 1 of docs is another user's; row 1 of docs_old, which is read with docs, is this user's."""
    two_users.execute(
        f"""
        CREATE TABLE docs (id int PRIMARY KEY, user_id uuid REFERENCES users); CREATE TABLE docs_old () INHERITS (docs);
        CREATE TABLE notes (id int PRIMARY KEY, doc int REFERENCES docs);
        INSERT INTO docs VALUES (1, '{V}'), (2, '{U}'); INSERT INTO docs_old VALUES (1, '{U}');
        INSERT INTO notes VALUES (5, 1), (6, 2);
        """
    )
    lite = (
        "CREATE TABLE docs (id INTEGER PRIMARY KEY); CREATE TABLE notes (id INTEGER PRIMARY KEY, doc INTEGER)"
    )
    tables = (Table("docs", OWNED), Table("notes", child_of("docs", "doc")))
    for skip in (False, True):
        migrate(settings_with(two_users, place, tables, lite, skip_orphans=skip))
        assert rows_of(place.app, "SELECT id FROM docs ORDER BY 1") == [(1,), (2,)]
        assert rows_of(place.app, "SELECT id FROM notes") == [(6,)]
    two_users.execute("ALTER TABLE notes DROP CONSTRAINT notes_doc_fkey; DELETE FROM ONLY docs WHERE id = 1")
    migrate(settings_with(two_users, place, tables, lite))
    assert rows_of(place.app, "SELECT id FROM notes ORDER BY 1") == [(5,), (6,)]


def test_tables_that_are_read_together_refer_each_to_its_own_rows(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"""
        CREATE TABLE docs (id int PRIMARY KEY, user_id uuid REFERENCES users, up int REFERENCES docs);
        CREATE TABLE docs_old (PRIMARY KEY (id), FOREIGN KEY (up) REFERENCES docs_old) INHERITS (docs);
        INSERT INTO docs VALUES (1, '{U}', NULL), (2, '{U}', 1);
        INSERT INTO docs_old VALUES (3, '{U}', NULL), (4, '{U}', 3), (1, '{V}', NULL), (5, '{V}', 1);
        """
    )
    lite = "CREATE TABLE docs (id INTEGER PRIMARY KEY, up INTEGER)"
    settings = settings_with(two_users, place, (Table("docs", OWNED),), lite)
    migrate(settings)
    assert rows_of(place.app, "SELECT id FROM docs ORDER BY 1") == [(1,), (2,), (3,), (4,)]
    two_users.execute(f"UPDATE docs_old SET user_id = '{U}' WHERE id = 5")
    place.data.joinpath("manifest.json").unlink()
    assert "docs 5: up leads to no exported row of docs (1)" in refused(settings).message


@pytest.mark.parametrize("listed", ["unrelated_tables", "excluded_tables"])
def test_table_with_more_columns_than_what_it_inherits_from_stands_for_itself(
    two_users: Database, place: Place, listed: str
) -> None:
    two_users.execute(
        "CREATE TABLE entity (id int); CREATE TABLE papers (owner uuid REFERENCES users) INHERITS (entity);"
        "CREATE TABLE entity_1 () INHERITS (entity)"
    )
    settings = settings_with(two_users, place, (), "", **{listed: ("entity",)})
    assert refused(settings).message == "users' data that config does not account for: table papers"
    migrate(dataclasses.replace(settings, excluded_tables=("entity", "papers"), unrelated_tables=()))


def test_users_data_that_inherits_from_what_is_nobodys_is_named(two_users: Database, place: Place) -> None:
    two_users.execute(
        "CREATE TABLE entity (id int, owner uuid);"
        "CREATE TABLE papers (FOREIGN KEY (owner) REFERENCES users) INHERITS (entity)"
    )
    settings = settings_with(two_users, place, (), "", unrelated_tables=("entity",))
    error = refused(settings)
    assert error.message == (
        "table papers is users' data; it inherits from entity, which config.UNRELATED_TABLES names"
    )
    assert 'Table("papers", owned_by("owner"))' in str(error.hint)
    migrate(dataclasses.replace(settings, excluded_tables=("papers",)))


def test_table_that_inherits_from_two_is_not_migrated_twice(two_users: Database, place: Place) -> None:
    two_users.execute(
        "CREATE TABLE a (id int, user_id uuid); CREATE TABLE b (id int, user_id uuid); CREATE TABLE ab () INHERITS (a, b)"
    )
    lite = "CREATE TABLE a (id INTEGER); CREATE TABLE b (id INTEGER)"
    error = refused(settings_with(two_users, place, (Table("a", OWNED), Table("b", OWNED)), lite))
    assert error.message == "table ab inherits from a and from b: its rows would be migrated twice"


def test_child_of_a_users_table_without_a_key_is_not_nobodys(two_users: Database, place: Place) -> None:
    two_users.execute(
        "CREATE TABLE visits (id int PRIMARY KEY, user_id uuid);"
        "CREATE TABLE pages (id int, visit int REFERENCES visits)"
    )
    lite = "CREATE TABLE visits (id INTEGER PRIMARY KEY)"
    settings = settings_with(two_users, place, (Table("visits", OWNED),), lite, unrelated_tables=("pages",))
    assert refused(settings).message == "config.UNRELATED_TABLES names pages, which is users' data"


# Users


def test_users_of_a_table_of_its_own_are_no_users(two_users: Database, place: Place) -> None:
    two_users.execute(
        "CREATE TABLE admins () INHERITS (users); INSERT INTO admins SELECT (jsonb_populate_record(NULL::admins,"
        " to_jsonb(u) || jsonb_build_object('id', '%s', 'email', 'admin@example.com'))).* FROM ONLY users u LIMIT 1"
        % C1
    )
    settings = settings_with(two_users, place, (), "", excluded_tables=("admins",))
    assert refused(dataclasses.replace(settings, user_email="admin@example.com")).message == (
        "user not found: admin@example.com"
    )
    assert refused(dataclasses.replace(settings, user_id=C1)).message == "user not found: " + C1
    chosen = place.folder / "chosen"
    chosen.write_text("admin@example.com")
    with connecting.snapshot(settings) as db:
        assert sorted(selection.users(db, settings, None, False)) == [U, V]
        assert sorted(selection.users(db, settings, None, True)) == [U, V]
        with pytest.raises(MigrationError, match="users not found"):
            selection.users(db, settings, str(chosen), False)
    everybody = dataclasses.replace(settings, excluded_tables=(), user_email="admin@example.com")
    migrate(everybody)


def test_user_without_a_key_is_refused_in_words(two_users: Database, place: Place) -> None:
    two_users.execute(
        "ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE; ALTER TABLE users ALTER id DROP NOT NULL;"
        f"UPDATE users SET id = NULL WHERE id = '{U}'"
    )
    settings = settings_with(two_users, place, (), "")
    error = refused(settings)
    assert (error.message, error.exit_code) == ("a user in table users has no id", ExitCode.SOURCE)
    chosen = place.folder / "chosen"
    chosen.write_text(ONE)
    with connecting.snapshot(settings) as db, pytest.raises(MigrationError, match="has no id"):
        selection.users(db, settings, str(chosen), False)


def test_two_users_of_one_key_are_refused(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"ALTER TABLE users DROP CONSTRAINT users_pkey CASCADE; UPDATE users SET id = '{U}' WHERE id = '{V}'"
    )
    assert refused(settings_with(two_users, place, (), "")).message == (
        "the user has 2 rows in users; there can be one"
    )


def test_the_users_own_row_is_not_left_out(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"ALTER TABLE users ADD main uuid REFERENCES clients; UPDATE users SET main = '{C2}' WHERE id = '{U}'"
    )
    settings = settings_with(two_users, place, (), "ALTER TABLE app_config ADD main TEXT", skip_orphans=True)
    error = refused(settings)
    assert error.message == (
        "the user's own row cannot be left out: main leads to no exported row of clients"
    )
    two_users.execute(f"UPDATE users SET main = '{C1}' WHERE id = '{U}'")
    migrate(settings)
    assert rows_of(place.app, "SELECT main FROM app_config") == [(C1,)]


# Comparing


@pytest.mark.parametrize("order", [("x", "y"), ("y", "x")])
def test_columns_of_a_composite_key_may_be_named_in_any_order(
    two_users: Database, place: Place, order: "tuple[str, str]"
) -> None:
    two_users.execute(
        f"""
        CREATE TABLE boards (a int, b int, user_id uuid, PRIMARY KEY (a, b));
        CREATE TABLE cards (id int PRIMARY KEY, x int, y int, FOREIGN KEY (x, y) REFERENCES boards);
        INSERT INTO boards VALUES (1, 2, '{U}'), (2, 1, '{V}'); INSERT INTO cards VALUES (1, 1, 2), (2, 2, 1), (3, 1, NULL);
        """
    )
    lite = "CREATE TABLE boards (a INTEGER, b INTEGER, PRIMARY KEY (a, b)); CREATE TABLE cards (id INTEGER PRIMARY KEY)"
    cards = Table("cards", child_of("boards", order), dropped=("x", "y"))
    migrate(settings_with(two_users, place, (Table("boards", OWNED), cards), lite))
    assert rows_of(place.app, "SELECT id FROM cards") == [(1,)]


def test_columns_of_two_collations_are_compared_by_the_keys(two_users: Database, place: Place) -> None:
    two_users.execute(
        f"""
        CREATE TABLE boards (slug text COLLATE "C" PRIMARY KEY, user_id uuid);
        CREATE TABLE cards (id int PRIMARY KEY, board text COLLATE "POSIX");
        INSERT INTO boards VALUES ('a', '{U}'), ('A', '{V}'); INSERT INTO cards VALUES (1, 'a'), (2, 'A');
        """
    )
    lite = (
        "CREATE TABLE boards (slug TEXT PRIMARY KEY); CREATE TABLE cards (id INTEGER PRIMARY KEY, board TEXT)"
    )
    tables = (Table("boards", OWNED), Table("cards", child_of("boards", "board")))
    migrate(settings_with(two_users, place, tables, lite))
    assert rows_of(place.app, "SELECT id FROM cards") == [(1,)]


@pytest.mark.parametrize("owner", ["text COLLATE ci", "text", "text REFERENCES members"])
def test_users_key_that_is_equal_whatever_its_case(two_users: Database, place: Place, owner: str) -> None:
    if not two_users.rows("SELECT 1 FROM pg_collation WHERE collname = 'de-x-icu'"):
        pytest.skip("this PostgreSQL is built without ICU")
    two_users.execute(
        "CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
    )
    other_root(two_users, "text COLLATE ci", ("'Ab'", "'Cd'"))
    two_users.execute(
        f"CREATE TABLE notes (id int PRIMARY KEY, owner {owner}, note text);"
        "INSERT INTO notes VALUES (1, 'aB'), (2, 'cD'), (3, 'Ab')"
    )
    migrate(settings_of_root(two_users, place, Table("notes", owned_by("owner"))))
    assert rows_of(place.app, "SELECT id FROM notes") == [(1,), (3,)]


# Names in SQLite


def test_tables_that_would_become_one_of_sqlite_are_refused(two_users: Database, place: Place) -> None:
    two_users.execute(
        "CREATE SCHEMA app; CREATE TABLE app.notes (id int PRIMARY KEY, user_id uuid);"
        "CREATE TABLE notes (id int PRIMARY KEY, user_id uuid)"
    )
    tables = (Table("notes", OWNED), Table("app.notes", OWNED))
    settings = settings_with(two_users, place, tables, "CREATE TABLE notes (id INTEGER PRIMARY KEY)")
    error = refused(settings)
    assert error.exit_code == ExitCode.USAGE
    assert error.message.startswith("tables notes and app.notes of config.py would both become table notes")
    with pytest.raises(MigrationError, match="would both become table notes"):
        import_(settings)
    lite = "CREATE TABLE notes (id INTEGER PRIMARY KEY); CREATE TABLE app_notes (id INTEGER PRIMARY KEY)"
    migrate(settings_with(two_users, place, tables, lite))


def test_table_called_as_the_users_row_is_in_sqlite_is_refused(two_users: Database, place: Place) -> None:
    two_users.execute("CREATE TABLE app_config (id int PRIMARY KEY, user_id uuid, password_hash text)")
    error = refused(settings_with(two_users, place, (Table("app_config", OWNED),), ""))
    assert error.message == (
        "tables users and app_config of config.py would both become table app_config of SQLite"
    )


# Time


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize("skip", [False, True])
def test_long_chains_take_time_in_proportion(
    two_users: Database, place: Place, skip: bool, analyzed: bool
) -> None:
    """Whatever the planner's statistics say, and here, without a word of this user's rows, they are of no use."""
    length = 20_000
    two_users.execute(
        f"""
        CREATE TABLE posts (id int PRIMARY KEY, user_id uuid, prev int) WITH (autovacuum_enabled = off);
        INSERT INTO posts VALUES (0, '{V}', NULL);
        INSERT INTO posts SELECT -n, md5(n::text)::uuid, NULL FROM generate_series(1, 2000) n;
        {"ANALYZE posts" if not analyzed else ""};
        INSERT INTO posts SELECT n, '{U}', CASE WHEN n > 1 THEN n - 1 {"ELSE 0" if skip else ""} END FROM generate_series(1, {length}) n;
        {"ANALYZE posts" if analyzed else ""};
        ALTER TABLE posts ADD FOREIGN KEY (prev) REFERENCES posts;
        """
    )
    lite = "CREATE TABLE posts (id INTEGER PRIMARY KEY, prev INTEGER)"
    settings = settings_with(two_users, place, (Table("posts", OWNED),), lite, skip_orphans=skip)
    started = time.perf_counter()
    with connecting.snapshot(settings) as db:
        db.rows("SELECT set_config('statement_timeout', '10s', true)")
        found = rows_of_user(db, settings, read_schema(settings.schema_path), ONE, skip)
        assert [orphans.rows for orphans in found.orphans()] == ([length] if skip else [])
        assert found.count(settings.tables[-1]) == (0 if skip else length)
        assert found.skipped == ({"posts": length} if skip else {})
        assert db.value("SELECT current_setting('enable_nestloop')") == "on"
    assert time.perf_counter() - started < 10
