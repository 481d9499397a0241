"""What the environment and ``.env`` say, and what of it counts: only what a run uses is judged."""

from __future__ import annotations

from pathlib import Path
from typing import Iterator

import pytest

from support.places import ANNA, Place, copy_suite
from support.runs import Run
from support.servers import NOWHERE, Database, Guarded

OF_KUBERNETES = {
    "POSTGRES_PORT": "tcp://10.96.0.10:5432",
    "POSTGRES_SERVICE_HOST": "10.96.0.10",
    "POSTGRES_PORT_5432_TCP": "tcp://10.96.0.10:5432",
}
BROKEN = {"POSTGRES_HOST": "http://x", "POSTGRES_PORT": "http://y", "POSTGRES_URL": "postgresql://a:b@c@d/e"}
EXPORT = ("export_from_postgres.py", "--user-email", ANNA)


@pytest.fixture()
def suite(place: Place) -> Iterator[Path]:
    """A copy of the suite, whose .env the test may write."""
    return copy_suite(place.folder / "suite" / "migration_suite")


# Kubernetes


def test_a_url_needs_no_parts(sample_database: Database, run: Run) -> None:
    for given in (OF_KUBERNETES, {"POSTGRES_HOST": "http://x", "POSTGRES_PORT": "http://y"}):
        assert run(*EXPORT, "--postgres-url", sample_database.url, env=given).code == 0
        assert run(*EXPORT, env={**given, "POSTGRES_URL": sample_database.url}).code == 0


@pytest.mark.parametrize("env", [OF_KUBERNETES, BROKEN], ids=["kubernetes", "broken"])
def test_what_asks_no_postgresql_looks_at_none_of_its_settings(
    env: dict, bundle: Path, place: Place, run: Run
) -> None:
    assert run("import_to_sqlite.py", env=env).code == 0
    assert run("validate_migration.py", "--offline", env=env).code == 0
    assert run("migrate.py", "--skip-export", "--offline", env=env).code == 0
    assert run("migrate.py", "--skip-export", "--skip-validation", env=env).code == 0
    assert run("migrate.py", "--restore", env=env).code == 0


def test_port_of_a_kubernetes_service_is_not_taken_for_ours(guarded: Guarded, suite: Path, run: Run) -> None:
    env = {**OF_KUBERNETES, "POSTGRES_HOST": "127.0.0.1", "POSTGRES_USER": "me"}
    done = run(*EXPORT, env={**env, "POSTGRES_DB": "mine"}, suite=suite)
    assert " at me@127.0.0.1:5432/mine: " in done.err
    assert (
        "POSTGRES_PORT is what Kubernetes makes it for a service called postgres: it is not used" in done.err
    )
    (suite / ".env").write_text("POSTGRES_PORT=2\n", encoding="utf-8")
    assert " at me@127.0.0.1:2/theprogram_db: " in run(*EXPORT, env=env, suite=suite).err


@pytest.mark.parametrize(
    ("script", "env"),
    [
        (
            "export_from_postgres.py",
            {"SQLITE_PATH": "~nobody-of-that-name/x", "BACKUP_DIR": "~nobody-of-that-name"},
        ),
        ("import_to_sqlite.py", {"LOG_LEVEL": "LOUD"}),
    ],
)
def test_variables_that_are_not_used_may_hold_anything(
    script: str, env: dict, sample_database: Database, bundle: Path, run: Run
) -> None:
    options = (
        ("--postgres-url", sample_database.url, "--user-email", ANNA) if script.startswith("export") else ()
    )
    assert run(script, *options, "--quiet", env=env).code == 0


# A URL in .env


@pytest.mark.parametrize(
    ("env", "where"),
    [
        ({}, "nobody@127.0.0.1:1/nowhere"),
        ({"POSTGRES_USER": "me"}, "me@127.0.0.1:1/nowhere"),
        ({"POSTGRES_HOST": "127.0.0.2"}, "nobody@127.0.0.2:1/nowhere"),
        ({"POSTGRES_PORT": "2"}, "nobody@127.0.0.1:2/nowhere"),
        ({"POSTGRES_DB": "mine"}, "nobody@127.0.0.1:1/mine"),
        (OF_KUBERNETES, "nobody@127.0.0.1:1/nowhere"),
    ],
)
def test_a_part_in_the_environment_wins_over_that_part_of_a_url_in_dotenv(
    env: dict, where: str, suite: Path, run: Run
) -> None:
    (suite / ".env").write_text("POSTGRES_URL=%s\n" % NOWHERE, encoding="utf-8")
    done = run(*EXPORT, env=env, suite=suite)
    assert " at %s: " % where in done.err
    named = [name for name in ("USER", "HOST", "DB") if "POSTGRES_" + name in env]
    for name in named:
        assert (
            "POSTGRES_%s in the environment takes the place of that part of POSTGRES_URL in .env" % name
            in done.err
        )


def test_a_url_in_the_environment_wins_over_parts_beside_it(suite: Path, run: Run) -> None:
    (suite / ".env").write_text("POSTGRES_USER=other\nPOSTGRES_DB=other\n", encoding="utf-8")
    env = {"POSTGRES_URL": NOWHERE, "POSTGRES_HOST": "127.0.0.2"}
    assert " at nobody@127.0.0.1:1/nowhere: " in run(*EXPORT, env=env, suite=suite).err


# The form of .env


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfPOSTGRES_URL=%s\r\nLOG_LEVEL=INFO\r\n",
        b"export POSTGRES_URL=%s\n",
        b"POSTGRES_URL='%s'\n",
        b'POSTGRES_URL = "%s"\n',
        b"# a comment\n\nPOSTGRES_URL=%s # another\nEMPTY=\nNOTHING\n",
    ],
)
def test_dotenv_as_people_write_it(content: bytes, suite: Path, run: Run) -> None:
    (suite / ".env").write_bytes(content % NOWHERE.encode("ascii"))
    assert " at nobody@127.0.0.1:1/nowhere: " in run(*EXPORT, suite=suite).err


@pytest.mark.parametrize("line", ["POSTGRES_PASSWORD='half", "not a setting", '="x"'])
def test_line_that_cannot_be_read_is_named_and_not_skipped(line: str, suite: Path, run: Run) -> None:
    (suite / ".env").write_text("LOG_LEVEL=INFO\n%s\n" % line, encoding="utf-8")
    done = run(*EXPORT, suite=suite, code=2)
    assert "error: %s, line 2 is no NAME=value" % (suite / ".env") in done.err
    assert "half" not in done.err
