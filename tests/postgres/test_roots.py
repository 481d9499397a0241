"""Whose data it is: named by anything, by key, by no one, by a name that two have; and one who owns nothing."""

from __future__ import annotations

import dataclasses
import logging
from typing import Iterator, Optional

import psycopg2
import pytest

from export_from_postgres import export
from migration.errors import ExitCode, MigrationError
from migration.model import Table, owned_by, root, shared, the_root
from migration.settings import Settings
from support.migrations import settings_of
from support.places import Place
from support.servers import Server


@pytest.fixture()
def teams(server: Server, place: Place) -> Iterator[Settings]:
    with server.new_database("TEMPLATE template0") as made:
        made.execute(
            """
            CREATE TABLE teams (no int PRIMARY KEY, title text);
            INSERT INTO teams VALUES (1, 'red'), (2, 'blue'), (3, 'blue'), (4, 'none');
            CREATE TABLE words (word text PRIMARY KEY); INSERT INTO words VALUES ('a');
            CREATE TABLE games (id int PRIMARY KEY, team int); INSERT INTO games VALUES (1, 1), (2, 2), (3, 3), (4, 3);
            """
        )
        (place.folder / "lite.sql").write_text(
            "CREATE TABLE teams (no INTEGER, title TEXT); CREATE TABLE words (word TEXT); CREATE TABLE games (id INTEGER, team INTEGER)"
        )
        yield settings_of(
            made.url,
            place,
            root=root("teams", key="no", named_by="title"),
            tables=(Table("teams", the_root()), Table("words", shared()), Table("games", owned_by("team"))),
            schema_path=place.folder / "lite.sql",
        )


@pytest.mark.parametrize(
    ("name", "key", "code", "message", "hint"),
    [
        (
            "blue",
            None,
            ExitCode.SOURCE,
            "2 users are called blue: those whose no is 2, 3",
            "say which: --user-id KEY",
        ),
        ("Red", None, ExitCode.SOURCE, "user not found: Red", "check the spelling"),
        (None, "9", ExitCode.SOURCE, "user not found: 9", None),
        (None, "x'", ExitCode.USAGE, "x' is no key of table teams: its no is of type integer", "--user"),
        (None, "99999999999", ExitCode.USAGE, "99999999999 is no key of table teams", "--user"),
        (None, None, ExitCode.USAGE, "no title is given: whose data?", "--user NAME or --user-id KEY"),
    ],
)
def test_root_that_is_not_found_is_said(
    teams: Settings,
    name: Optional[str],
    key: Optional[str],
    code: ExitCode,
    message: str,
    hint: Optional[str],
) -> None:
    with pytest.raises(MigrationError) as caught:
        export(dataclasses.replace(teams, user_email=name, user_id=key))
    assert caught.value.exit_code is code
    assert caught.value.message.startswith(message)
    assert (hint or "") in (caught.value.hint or "")


@pytest.mark.parametrize(("key", "games"), [("2", 1), ("3", 2)])
def test_root_is_found_by_its_key(teams: Settings, key: str, games: int) -> None:
    manifest = export(dataclasses.replace(teams, user_email=None, user_id=key)).manifest
    assert (manifest.user_id, manifest.user_email, manifest.row_counts["games"]) == (key, "blue", games)


def test_root_that_owns_nothing_is_exported_with_a_warning(
    teams: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    for name, warned in (("none", True), ("red", False)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            manifest = export(dataclasses.replace(teams, user_email=name)).manifest
        assert manifest.row_counts["teams"] == 1
        assert ("owns no rows" in caplog.text) == warned


def test_key_that_two_roots_have_is_refused(teams: Settings) -> None:
    with psycopg2.connect(**teams.postgres) as connection:
        connection.cursor().execute(
            "ALTER TABLE teams DROP CONSTRAINT teams_pkey; UPDATE teams SET no = 1 WHERE no = 4"
        )
    connection.close()
    by_key = dataclasses.replace(teams, user_email=None, user_id="1")
    for settings in (by_key, dataclasses.replace(teams, user_email="red")):
        with pytest.raises(MigrationError, match="the user has 2 rows in teams; there can be one"):
            export(settings)
