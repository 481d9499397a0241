"""Whose rows they are where tables inherit, collations differ, rows form chains, and config and schema are odd."""

from __future__ import annotations

import pytest
from conftest import Database, Place
from test_ownership import (
    migrate,
    refused,
    settings_with,
)
from test_ownership import template as template  # a fixture
from test_ownership import two_users as two_users  # a fixture

from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.tables import Table, owned_by

OWNED = owned_by("user_id")


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
