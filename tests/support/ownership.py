"""Databases of two users in other shapes than the sample, and settings for them."""

from __future__ import annotations

import dataclasses
from typing import Any, Iterator, Sequence, Tuple

import pytest

from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import MigrationError
from migration.model import Table, owned_by, root, row_one, the_root
from migration.settings import Settings
from support.migrations import settings_of
from support.places import SUITE, Place
from support.servers import Database, Server
from validate_migration import validate

U, V = "11111111-1111-4111-8111-111111111111", "99999999-9999-4999-8999-999999999999"
C1, C2 = "12222222-2222-4222-8222-222222222222", "22222222-2222-4222-8222-222222222222"
B1, H1 = "13333333-3333-4333-8333-333333333333", "14444444-4444-4444-8444-444444444444"
ONE = "user1@example.com"
DATA = f"""
INSERT INTO users VALUES
    ('{U}', '{ONE}', 'x', NULL, NULL, true, false, false, 'free', NULL, '2025-01-01', '2025-01-01'),
    ('{V}', 'user2@example.com', 'y', NULL, NULL, true, false, false, 'free', NULL, '2025-01-01', '2025-01-01');
INSERT INTO clients (id, user_id, first_name) VALUES ('{C1}', '{U}', 'C1'), ('{C2}', '{V}', 'C2');
INSERT INTO birth_data (id, client_id, birth_date, time_unknown, latitude, longitude, timezone)
    VALUES ('{B1}', '{C1}', '2000-01-01', true, 1, 2, 'UTC');
INSERT INTO charts (id, user_id, client_id, birth_data_id, chart_type, astro_system, zodiac_type, chart_data)
    VALUES ('{H1}', '{U}', '{C1}', '{B1}', 'natal', 'western', 'tropical', '{{}}');
"""


@pytest.fixture(scope="module")
def template(server: Server) -> Iterator[str]:
    """A database of two users, the first with a client and a chart; the name of a template of it."""
    with server.new_database("TEMPLATE template0") as made:
        made.execute((SUITE / "schema_design" / "postgres_schema.sql").read_text(encoding="utf-8") + DATA)
        yield made.url.partition("/test_")[2].partition("?")[0]


@pytest.fixture()
def two_users(server: Server, template: str) -> Iterator[Database]:
    with server.new_database("TEMPLATE test_" + template) as made:
        yield made


def settings_with(
    database: Database, place: Place, tables: Sequence[Table], lite: str, **changes: Any
) -> Settings:
    """Settings with more tables, and more of the SQLite schema."""
    return settings_of(database.url, place, **{"user_email": ONE, "more": tables, "lite": lite, **changes})


def migrate(settings: Settings) -> None:
    """The three phases, with every check and every cell against the source."""
    exported = export(settings)
    import_(settings)
    strict = dataclasses.replace(settings, strict=not settings.skip_orphans)
    for against in ("bundle", "source"):
        report = validate(dataclasses.replace(strict, against=against), taken=exported.taken)
        assert report.errors == []


def refused(settings: Settings) -> MigrationError:
    with pytest.raises(MigrationError) as caught:
        export(settings)
    assert not (settings.data_dir / "manifest.json").exists()
    return caught.value


def other_root(database: Database, key: str, ids: Tuple[str, str]) -> None:
    """Users with a key of another type and name, who are called by a name."""
    database.execute(
        """
        DROP TABLE users CASCADE; DROP TABLE IF EXISTS user_preferences, clients, birth_data, charts, chart_interpretations,
            interpretations, aspect_patterns, transit_events, session_notes, location_cache;
        CREATE TABLE members ("Id" {key} PRIMARY KEY, username text, password_hash text);
        CREATE TABLE prefs ("Id" int PRIMARY KEY, member {key}, color text);
        INSERT INTO members VALUES ({0}, 'one', 'x'), ({1}, 'two', 'y');
        INSERT INTO prefs VALUES (7, {0}, 'red'), (8, {1}, 'blue');
        """.format(*ids, key=key)
    )


ROOT = {"user_email": "one", "root": root("members", key="Id", named_by="username")}
OWN = (
    Table("members", the_root(), becomes=row_one("app_config", "user"), dropped=("username",)),
    Table("prefs", owned_by("member"), becomes=row_one("prefs", "preferences")),
)


ROOT_LITE = (
    "CREATE TABLE app_config (id INTEGER PRIMARY KEY CHECK (id = 1), password_hash TEXT);"
    "CREATE TABLE prefs (id INTEGER PRIMARY KEY CHECK (id = 1), color TEXT);"
    "CREATE TABLE notes (id INTEGER PRIMARY KEY, note TEXT)"
)


def settings_of_root(database: Database, place: Place, *tables: Table, lite: str = "") -> Settings:
    schema = place.folder / "root.sql"
    schema.write_text(ROOT_LITE + lite)
    return settings_of(database.url, place, **{**ROOT, "tables": (*OWN, *tables), "schema_path": schema})
