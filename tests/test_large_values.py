"""One very large value: how much memory it takes, and what is said where it is too large."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from typing import Any

import pytest

from export_from_postgres import export
from import_to_sqlite import import_
from migration.errors import ExitCode, MigrationError
from migration.postgres import connecting, explanations
from migration.postgres.rows import rows_of_user
from migration.sqlite import building
from migration.sqlite.schema import read_schema
from support.migrations import settings_of
from support.places import ANNA, SCHEMA, SUITE, Place
from support.servers import Database
from support.sqlite_files import make_old_database

MEGABYTES = 30
OWN = 70  # megabytes that a run takes with small values, at most
CODE = """
import resource, subprocess, sys
code = subprocess.call(sys.argv[1:], stdout=sys.stderr)
print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)
"""


def peak(script: str, *options: object) -> int:
    """Megabytes of memory that a run took."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, sys.executable, str(SUITE / script), "--quiet", *map(str, options)],
        capture_output=True,
        env={**os.environ, "MALLOC_ARENA_MAX": "2"},
        timeout=120,
    )
    code, megabytes = done.stdout.split()
    assert code == b"0", done.stderr
    return int(megabytes)


def fill(database: Database, kind: str) -> None:
    note = "repeat('0123456789', %d)" % (MEGABYTES * 100000)
    if kind == "text":
        database.execute(
            "UPDATE session_notes SET note_content = %s WHERE id = (SELECT n.id FROM session_notes n JOIN users u"
            " ON u.id = n.user_id WHERE u.email = %%s ORDER BY 1 LIMIT 1)" % note,
            ANNA,
        )
    else:
        database.execute(
            "UPDATE charts SET chart_data = pg_catalog.jsonb_build_object('large', %s) WHERE id ="
            " (SELECT c.id FROM charts c JOIN users u ON u.id = c.user_id WHERE u.email = %%s ORDER BY 1 LIMIT 1)"
            % note,
            ANNA,
        )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is counted in kilobytes on Linux")
@pytest.mark.parametrize("kind", ["text", pytest.param("jsonb", marks=pytest.mark.slow)])
def test_memory_for_a_large_value_is_what_the_readme_says(
    kind: str, database: Database, place: Place
) -> None:
    fill(database, kind)
    live = (
        "--user-email",
        ANNA,
        "--postgres-url",
        database.url,
        "--data-dir",
        place.data,
        "--schema-path",
        SCHEMA,
    )
    local = ("--data-dir", place.data, "--sqlite-path", place.app, "--schema-path", SCHEMA)
    took = {
        "export": peak("export_from_postgres.py", *live),
        "import": peak("import_to_sqlite.py", *local, "--no-backup"),
        "validate": peak("validate_migration.py", *live, "--sqlite-path", place.app),
        "against": peak("validate_migration.py", *live, "--sqlite-path", place.app, "--against", "source"),
    }
    assert max(took["export"], took["import"], took["validate"]) < OWN + 5 * MEGABYTES, took
    assert took["against"] < OWN + 6 * MEGABYTES, took


def with_room_for(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    create = building.create

    def created(*arguments: Any) -> sqlite3.Connection:
        made = create(*arguments)
        made.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, size)
        return made

    monkeypatch.setattr(building, "create", created)


@pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "setlimit"), reason="before Python 3.11 there is no lower limit"
)
def test_value_that_sqlite_has_no_room_for_is_named(
    database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute(
        "UPDATE session_notes SET note_content = repeat('é', 60000) WHERE id = (SELECT max(id::text)::uuid FROM session_notes)"
    )
    settings = settings_of(database.url, place, user_email=_owner(database, "session_notes", "max(id::text)"))
    export(settings)
    old = make_old_database(place.app)
    with_room_for(100000, monkeypatch)
    with pytest.raises(MigrationError) as caught:
        import_(settings)
    key = database.rows("SELECT max(id::text) FROM session_notes")[0][0]
    assert caught.value.message == (
        "session_notes %s, column note_content: SQLite has no room for this value of 120000 bytes: "
        "string or blob too big" % key
    )
    assert caught.value.exit_code == ExitCode.SOURCE
    assert place.app.read_bytes() == old


@pytest.mark.skipif(
    not hasattr(sqlite3.Connection, "setlimit"), reason="before Python 3.11 there is no lower limit"
)
def test_preferences_that_sqlite_has_no_room_for_are_named(
    database: Database, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.execute("UPDATE user_preferences SET aspect_orbs = to_jsonb(repeat('x', 120000))")
    settings = settings_of(database.url, place)
    export(settings)
    with_room_for(100000, monkeypatch)
    with pytest.raises(
        MigrationError, match="user_preferences of the user, column aspect_orbs: SQLite has no room"
    ) as caught:
        import_(settings)
    assert caught.value.exit_code == ExitCode.SOURCE


def _owner(database: Database, table: str, key: str) -> str:
    return str(
        database.rows(
            "SELECT u.email FROM {0} t JOIN users u ON u.id = t.user_id WHERE t.id::text = (SELECT {1} FROM {0})".format(
                table, key
            )
        )[0][0]
    )


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("session_notes", "note_content", "repeat('x', 50000)"),
        ("charts", "chart_data", "to_jsonb(array(SELECT random() FROM generate_series(1, 20000)))"),
        ("clients", "photo", "decode(repeat('00', 70000), 'hex')"),
    ],
)
def test_largest_value_of_a_record_that_postgresql_cannot_write_is_named(
    table: str, column: str, value: str, database: Database, place: Place
) -> None:
    database.execute("ALTER TABLE clients ADD photo bytea, ADD unread text")
    (key,) = database.rows(
        "SELECT min(t.id::text) FROM {} t JOIN users u ON u.id = t.user_id WHERE u.email = %s".format(table),
        ANNA,
    )[0]
    database.execute("UPDATE {} SET {} = {} WHERE id = %s".format(table, column, value), key)
    # another user's is larger still
    database.execute(
        "UPDATE {0} t SET {1} = {1} WHERE false; UPDATE session_notes SET note_content = repeat('y', 90000)"
        " WHERE user_id <> (SELECT id FROM users WHERE email = %s)".format(table, column),
        ANNA,
    )
    settings = settings_of(database.url, place)
    columns = next(listed for listed in settings.tables if listed.name == table)
    settings = settings_of(
        database.url,
        place,
        tables=tuple(
            type(listed)(listed.name, listed.ownership, dropped=("photo", "unread"))
            if listed.name == "clients"
            else listed
            for listed in settings.tables
        ),
    )
    with connecting.snapshot(settings) as db:
        rows = rows_of_user(db, settings, read_schema(settings.schema_path), ANNA, False)
        query = rows.as_json(columns)
        for db.reading, db.asked in ((query, query), (None, "SELECT count(*) FROM (%s) j (line)" % query)):
            message, _ = explanations._too_large("the limit", settings, db)
            assert message.startswith(
                "table %s, row %s, column %s: PostgreSQL cannot write a record" % (table, key, column)
            )
            assert message.endswith(" bytes before that: the limit")


@pytest.mark.slow
def test_record_larger_than_a_gigabyte_is_named(database: Database, place: Place) -> None:
    """Each quote takes two bytes of JSON."""
    (key,) = database.rows(
        "UPDATE session_notes SET note_content = 'x' WHERE id = (SELECT min(t.id::text)::uuid FROM session_notes t"
        " JOIN users u ON u.id = t.user_id WHERE u.email = %s) RETURNING id::text",
        ANNA,
    )[0]
    database.execute("UPDATE session_notes SET note_content = repeat('\"', 540000000) WHERE id = %s", key)
    with pytest.raises(
        MigrationError, match="table session_notes, row %s, column note_content: PostgreSQL" % key
    ) as caught:
        export(settings_of(database.url, place))
    assert caught.value.exit_code == ExitCode.SOURCE
    assert not list(place.data.glob("*.json"))
