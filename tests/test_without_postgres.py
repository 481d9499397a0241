"""Runs from a bundle while PostgreSQL is away, and what they say that they did."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import List

import pytest

from support.places import ANNA, Place, contents
from support.runs import Run
from support.servers import NOWHERE, Database
from support.sqlite_files import make_old_database, rows_of

SERVER_AWAY = ("--postgres-url", NOWHERE)


@pytest.mark.parametrize("reason", ["server away", "user gone"])
def test_database_is_not_replaced_where_it_could_not_be_validated(
    bundle: Path, place: Place, database: Database, run: Run, reason: str
) -> None:
    url = NOWHERE
    if reason == "user gone":
        database.execute("DELETE FROM users WHERE email = %s", ANNA)
        url = database.url
    old = make_old_database(place.app)
    before = contents(place.data)
    done = run("migrate.py", "--skip-export", "--postgres-url", url, code=3)
    assert "--offline" in done.err.partition("try:")[2]
    assert place.app.read_bytes() == old
    assert not place.backups.exists()
    assert contents(place.data) == before


def test_import_and_validation_go_without_postgres_where_that_is_wanted(
    bundle: Path, place: Place, run: Run
) -> None:
    assert run("migrate.py", "--skip-export", "--offline", *SERVER_AWAY).code == 0
    assert run("migrate.py", "--skip-export", "--skip-validation", *SERVER_AWAY).code == 0
    assert len(rows_of(place.app, "SELECT id FROM clients")) == 12


@pytest.mark.parametrize(
    "command", [("validate_migration.py",), ("migrate.py", "--skip-export", "--skip-import")]
)
def test_validation_names_the_option_that_it_needs_without_postgres(
    migrated: Place, run: Run, command: List[str]
) -> None:
    done = run(*command, *SERVER_AWAY, code=3)
    assert "--offline" in done.err
    assert run(*command, "--offline", *SERVER_AWAY).code == 0


def test_missing_bundle_is_said_before_a_server_that_is_away(place: Place, run: Run) -> None:
    done = run("migrate.py", "--skip-export", *SERVER_AWAY)
    assert (done.code, "no export bundle" in done.err) == (4, True)


def columns_of(out: str) -> List[List[str]]:
    rows = [re.split("[│┃]", line)[1:-1] for line in out.splitlines() if re.match("[│┃]", line)]
    return [[cell.strip() for cell in row] for row in rows]


def test_column_of_postgres_is_empty_where_nobody_asked_it(migrated: Place, run: Run) -> None:
    done = run("validate_migration.py", "--offline")
    (head, *rows) = columns_of(done.out)
    assert head[:4] == ["table", "PostgreSQL", "bundle", "SQLite"]
    assert len(rows) == 10
    assert {row[1] for row in rows} == {""}
    assert all(row[2] == row[3] != "" for row in rows)


def test_column_of_postgres_is_filled_where_it_was_asked(
    migrated: Place, sample_database: Database, run: Run
) -> None:
    done = run("validate_migration.py", "--postgres-url", sample_database.url)
    assert all(row[1] == row[2] == row[3] != "" for row in columns_of(done.out)[1:])
    shutil.rmtree(str(migrated.data))
    done = run("validate_migration.py", "--postgres-url", sample_database.url, "--user-email", ANNA)
    assert all(row[1] == row[3] and not row[2] for row in columns_of(done.out)[1:])


def test_summary_says_what_was_done(sample_database: Database, place: Place, run: Run) -> None:
    source = ("--postgres-url", sample_database.url, "--user-email", ANNA, "--skip-validation")
    assert run("migrate.py", *source).out.startswith("Migrated to %s\n" % place.app)
    assert run("migrate.py", *source, "--skip-import").out.startswith("Exported to %s\n" % place.data)
    assert run("migrate.py", *source, "--skip-export").out.startswith("Imported to %s\n" % place.app)
